package adit

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// What holds until a relay of level two says otherwise (protocol.md, 3, 4 and 7), and how far it may go.
const (
	pingEvery    = 25 * time.Second
	pongWait     = 60 * time.Second
	claimWait    = 10 * time.Second
	sendWait     = 10 * time.Second
	messageBytes = 64 << 10
	mostMessage  = 1 << 20
	mostWaiting  = 1024 // claims under way at the same time
	mostStandby  = 64
)

// announcement is a viewer's connection, as the relay tells of it.
type announcement struct {
	ID         string `json:"id"`
	Proto      string `json:"proto"`
	RemoteAddr string `json:"remote_addr"`
}

// session is one control socket, from its handshake to its end.
type session struct {
	t        *Tunnel
	ws       *websocket.Conn
	tunnel   string // its id, which may be another in the next session
	two      bool   // level two
	began    time.Time
	ctx      context.Context // ends with the control socket
	cancel   context.CancelFunc
	ended    chan struct{}      // closed when the socket is gone; err says why
	draining chan time.Duration // tells once, after how long to open a successor
	err      error

	// Only the reader of the socket has these.
	reason, farewell string // of `closed`
	drained          bool
	endPings         context.CancelFunc

	refreshing atomic.Bool
	sending    sync.Mutex // one message at a time

	mu      sync.Mutex
	id      string // by `welcome`
	claim   time.Duration
	pending map[string]context.CancelFunc // claims under way
	want    int                           // standby sockets
	held    int
	asked   chan struct{} // closed with the next `standby`
	offered string        // token that `auth` has sent and no answer confirmed
}

// control opens a control socket for the tunnel; old is the session before it, if there was one.
func (t *Tunnel) control(ctx context.Context, old *session) (*session, error) {
	now, _ := t.snapshot()
	query := url.Values{"tunnel_id": {now.ID}}
	if old != nil && old.name() != "" {
		query.Set("successor_of", old.name())
	}
	ws, err := t.open(ctx, "ws/control", query, t.header(), "adit.1")
	if err != nil {
		return nil, err
	}
	s := &session{t: t, ws: ws, tunnel: now.ID, two: ws.Subprotocol() == "adit.1", began: time.Now(), claim: claimWait,
		ended: make(chan struct{}), draining: make(chan time.Duration, 1), asked: make(chan struct{}), pending: map[string]context.CancelFunc{}}
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	context.AfterFunc(s.ctx, func() { _ = ws.Close() })
	ws.SetReadLimit(messageBytes)
	s.keepPinging(pingEvery, pongWait)
	t.sessions.Go(s.read)
	return s, nil
}

// read handles messages until the control socket ends, and never waits for anything else.
func (s *session) read() {
	defer close(s.ended)
	defer s.cancel()
	defer context.AfterFunc(s.t.live, func() { goodbye(s.ws, websocket.CloseNormalClosure, "the client stops") })()
	for {
		kind, text, err := s.ws.ReadMessage()
		if err != nil {
			s.judge(err)
			return
		}
		if kind == websocket.TextMessage {
			s.handle(text)
		}
	}
}

// judge stops the tunnel if the end of the socket means that (protocol.md, 3.1 and 8.1).
func (s *session) judge(err error) {
	s.err = err
	over := websocket.IsCloseError(err, websocket.CloseNormalClosure)
	switch s.reason {
	case "expired", "deleted", "replaced":
		over = true
	case "succeeded": // by the session that we have opened, or are just opening
		over = !s.drained
	case "revoked", "token_expired", "stale", "protocol_error", "message_too_big", "restart":
		over = false
	}
	if s.farewell != "" {
		s.err = fmt.Errorf("%s (%s)", s.farewell, s.reason)
	}
	if over && s.t.live.Err() == nil {
		s.t.stop(fmt.Errorf("adit: %w: %w", ErrEnded, s.err))
	}
}

// handle acts on one message. What cannot be read, or is not known, is ignored.
func (s *session) handle(text []byte) {
	var m struct{ Type string }
	if json.Unmarshal(text, &m) != nil || (!s.two && m.Type != "connection") {
		return
	}
	switch m.Type {
	case "welcome":
		var m struct {
			Session string
			Ping    int64 `json:"ping_interval_ms"`
			Pong    int64 `json:"pong_timeout_ms"`
			Claim   int64 `json:"claim_ms"`
			Limits  struct {
				Message int64 `json:"control_message_bytes"`
			}
		}
		if json.Unmarshal(text, &m) != nil {
			return
		}
		s.mu.Lock()
		s.id, s.claim = m.Session, millis(m.Claim, claimWait)
		s.mu.Unlock()
		s.ws.SetReadLimit(min(max(m.Limits.Message, messageBytes), mostMessage))
		patience := min(pongWait, millis(m.Pong, pongWait))
		s.keepPinging(min(pingEvery, millis(m.Ping, pingEvery), patience/2), patience)
	case "connection":
		var m announcement
		if json.Unmarshal(text, &m) == nil && m.ID != "" {
			s.takeUp(m)
		}
	case "cancel":
		var m announcement
		if json.Unmarshal(text, &m) == nil {
			s.settle(m.ID)
		}
	case "standby":
		var m struct{ Want int }
		if json.Unmarshal(text, &m) == nil {
			s.mu.Lock()
			s.want = min(m.Want, mostStandby)
			close(s.asked)
			s.asked = make(chan struct{})
			s.mu.Unlock()
			s.fill()
		}
	case "drain":
		var m struct {
			Reconnect int64 `json:"reconnect_ms"`
		}
		if json.Unmarshal(text, &m) == nil && !s.drained {
			s.drained = true
			s.draining <- min(millis(m.Reconnect, time.Millisecond), longestPause)
		}
	case "expiring":
		var m struct{ What, At string }
		_ = json.Unmarshal(text, &m)
		s.t.log.Warn("adit: ends soon", "what", m.What, "at", m.At)
		if m.What == "token" && s.t.opts.Token != nil && s.refreshing.CompareAndSwap(false, true) {
			go s.refresh()
		}
	case "auth":
		var m struct {
			Accepted bool
			Error    string
		}
		_ = json.Unmarshal(text, &m)
		s.mu.Lock()
		token := s.offered
		s.offered = ""
		s.mu.Unlock()
		if !m.Accepted {
			s.t.log.Error("adit: the relay does not take the fresh token", "error", m.Error)
		} else if token != "" {
			s.t.setKey(token)
		}
	case "error":
		var m struct{ Message string }
		_ = json.Unmarshal(text, &m)
		s.t.log.Warn("adit: the relay could not read a message of this client", "message", m.Message)
	case "closed":
		var m struct{ Reason, Message string }
		_ = json.Unmarshal(text, &m)
		s.reason, s.farewell = m.Reason, m.Message
	}
}

func millis(n int64, otherwise time.Duration) time.Duration {
	if n <= 0 || n > time.Hour.Milliseconds() {
		return otherwise
	}
	return time.Duration(n) * time.Millisecond
}

// keepPinging takes the relay as gone when no pong comes for so long: the reader then fails by its deadline.
func (s *session) keepPinging(every, patience time.Duration) {
	if s.endPings != nil {
		s.endPings()
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.endPings = cancel
	alive := func(string) error {
		if s.t.live.Err() != nil {
			return nil // the goodbye has set its own
		}
		return s.ws.SetReadDeadline(time.Now().Add(patience))
	}
	_ = alive("")
	s.ws.SetPongHandler(alive)
	go func() {
		for sleep(ctx, every) && s.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(sendWait)) == nil {
		}
	}()
}

// send is false if the message did not go out; then the session is about to end.
func (s *session) send(message map[string]string) bool {
	s.sending.Lock()
	defer s.sending.Unlock()
	_ = s.ws.SetWriteDeadline(time.Now().Add(sendWait))
	return s.ws.WriteJSON(message) == nil
}

// refresh replaces the token of the session without touching a stream.
func (s *session) refresh() {
	defer s.refreshing.Store(false)
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	token, err := s.t.opts.Token(ctx)
	if err != nil {
		s.t.log.Error("adit: Options.Token gave no token", "error", err)
		return
	}
	s.mu.Lock()
	s.offered = token
	s.mu.Unlock()
	s.send(map[string]string{"type": "auth", "token": token})
}

// takeUp opens the data socket of a viewer, beside all others. A relay announces no more than its limit `waiting`.
func (s *session) takeUp(a announcement) {
	s.mu.Lock()
	ctx, cancel := context.WithTimeout(s.t.ctx, s.claim)
	_, twice := s.pending[a.ID]
	if twice || len(s.pending) >= mostWaiting || !s.t.begin() {
		s.mu.Unlock()
		cancel()
		return
	}
	s.pending[a.ID] = cancel
	s.mu.Unlock()
	go func() {
		defer s.t.running.Done()
		d, err := s.openData(ctx, url.Values{"id": {a.ID}})
		left := ctx.Err() == context.Canceled
		s.settle(a.ID)
		if err == nil {
			d.serve(s.t.ctx, a)
		} else if !left {
			s.t.log.Warn("adit: a viewer was not taken up", "error", err)
		}
	}()
}

// settle forgets a claim, and ends it if it is under way.
func (s *session) settle(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, ok := s.pending[id]; ok {
		cancel()
		delete(s.pending, id)
	}
}

// openData tries as long as ctx lets it: only a successful handshake uses up an id.
func (s *session) openData(ctx context.Context, query url.Values) (*data, error) {
	for {
		var header http.Header
		if s.two {
			header = s.t.header()
		}
		ws, err := s.t.open(ctx, "ws/data", query, header)
		if err == nil {
			return &data{s: s, ws: ws}, nil
		}
		var e *Error
		if errors.As(err, &e) && e.Status < 500 && e.Status != http.StatusTooManyRequests {
			return nil, err
		}
		if !sleep(ctx, 50*time.Millisecond+mathrand.N(200*time.Millisecond)) {
			return nil, err
		}
	}
}

// fill opens standby sockets until there are as many as wanted.
func (s *session) fill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.held < s.want && s.ctx.Err() == nil; s.held++ {
		go s.standBy()
	}
}

// standBy holds one unassigned data socket, and serves it when the relay assigns it (protocol.md, 8.4).
func (s *session) standBy() {
	a, d, err := s.await()
	if err != nil { // the place stays taken for a while, so that nothing is tried in haste
		s.rest(err)
	}
	s.mu.Lock()
	s.held--
	s.mu.Unlock()
	s.fill()
	if err == nil {
		defer s.t.running.Done()
		d.serve(s.t.ctx, a)
	}
}

// rest waits after a standby socket that was none: a second, or, if the relay has refused it, until it asks again or half a
// minute is over.
func (s *session) rest(err error) {
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	var e *Error
	if !errors.As(err, &e) {
		sleep(s.ctx, time.Second)
		return
	}
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-asked:
	case <-s.ctx.Done():
	}
}

func (s *session) await() (a announcement, d *data, err error) {
	id := uuid()
	ctx, cancel := context.WithTimeout(s.ctx, claimWait)
	defer cancel()
	d, err = s.openData(ctx, url.Values{"tunnel_id": {s.tunnel}, "id": {id}, "session": {s.name()}})
	if err != nil {
		return a, nil, err
	}
	defer context.AfterFunc(s.ctx, func() { _ = d.ws.Close() })() // what is not assigned ends with the session
	d.ws.SetReadLimit(messageBytes)
	kind, text, err := d.ws.ReadMessage()
	if err == nil && (kind != websocket.TextMessage || json.Unmarshal(text, &a) != nil || a.ID != id) {
		err = errors.New("the first message on a standby socket does not assign it")
	}
	if err == nil && !s.t.begin() {
		err = errors.New("the tunnel stops")
	}
	if err != nil {
		_ = d.ws.Close()
	}
	return a, d, err
}

func (s *session) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// uuid is a random one (RFC 9562, version 4).
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
