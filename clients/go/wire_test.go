package adit_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	adit "github.com/adit-relay/adit/clients/go"
	"github.com/gorilla/websocket"
)

// listen opens a tunnel at a scripted relay, whose control socket it returns.
func listen(t *testing.T, s *scripted, opts adit.Options) (*adit.Listener, *wire) {
	t.Helper()
	l, err := adit.Listen(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cut(l.Tunnel) })
	receive(t, s.creates, "a creation")
	return l, s.welcomed()
}

// toward is the same for a tunnel that leads to a target.
func toward(t *testing.T, s *scripted, target net.Addr) *wire {
	t.Helper()
	tunnel, err := adit.Forward(t.Context(), target.String(), s.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cut(tunnel) })
	receive(t, s.creates, "a creation")
	return s.welcomed()
}

// cut ends a tunnel without the goodbye that a scripted relay does not answer.
func cut(tunnel *adit.Tunnel) {
	ctx, now := context.WithCancel(context.Background())
	now()
	_ = tunnel.Shutdown(ctx)
}

func accept(t *testing.T, l *adit.Listener) net.Conn {
	t.Helper()
	conns := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			conns <- c
		}
	}()
	c := receive(t, conns, "a connection")
	_ = c.SetDeadline(time.Now().Add(deadline))
	return c
}

func TestIdsAreEscapedAndUnknownMessagesIgnored(t *testing.T) {
	for _, base := range []bool{false, true} {
		s := script(t, base)
		l, control := listen(t, s, s.options())
		if control.query.Get("tunnel_id") != "tunnel/1?" || control.head.Get("Authorization") != "Bearer "+key {
			t.Fatal(control.query, control.head)
		}
		for _, nonsense := range []string{`{"type":"weather","id":7}`, `{`, `[]`, `7`, `{"type":"connection"}`, `{"type":"connection","id":{}}`} {
			control.say(nonsense)
		}
		control.bytes("bytes")
		control.say(`{"type":"connection","id":"a b&c=é/+%","want":"x","new":[1]}`)
		data := receive(t, s.data, "a data socket")
		if data.query.Get("id") != "a b&c=é/+%" || (data.head.Get("Authorization") == "") != base {
			t.Fatal(data.query, data.head)
		}
		data.bytes("ping")
		c := accept(t, l)
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
			t.Fatal(string(b), err)
		}
		_, _ = io.WriteString(c, "pong")
		data.expect("pong")
		_ = c.Close()
		if base {
			data.expectEnd(1000)
		} else if _, b, err := data.ReadMessage(); len(b) != 0 || err != nil {
			t.Fatal("no empty message", b, err)
		}
	}
}

func TestEachEndOfADataSocketIsToldToTheService(t *testing.T) {
	text := func(n string) func(*wire) { return func(w *wire) { w.bytes(n) } }
	closeWith := func(code int) func(*wire) {
		return func(w *wire) {
			_ = w.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(deadline))
		}
	}
	drop := func(w *wire) { _ = w.NetConn().(*net.TCPConn).CloseWrite() }
	half := func(w *wire) { // a header of a frame of 5 bytes, and 2 of them
		_, _ = w.NetConn().Write([]byte{0x82, 5, 'a', 'b'})
		drop(w)
	}
	begun := func(w *wire) { // the header alone, of a message that is cut where it begins
		_, _ = w.NetConn().Write([]byte{0x82, 5})
		drop(w)
	}
	fragment := func(w *wire) { // "ab" of a message that has not ended
		_, _ = w.NetConn().Write([]byte{0x02, 2, 'a', 'b'})
		drop(w)
	}
	lastEmpty := func(w *wire) { // "ab" and an empty last fragment, which says nothing; then what says it all
		_, _ = w.NetConn().Write([]byte{0x02, 2, 'a', 'b', 0x80, 0})
		w.bytes("cd")
		closeWith(1000)(w)
	}
	cases := []struct {
		name   string
		base   bool
		script []func(*wire)
		want   string
		whole  bool
	}{
		{"two: empty message", false, []func(*wire){text("abc"), text("")}, "abc", true},
		{"two: 1000", false, []func(*wire){text("abc"), closeWith(1000)}, "abc", true},
		{"two: no code", false, []func(*wire){text("abc"), closeWith(1005)}, "abc", true},
		{"two: 1001", false, []func(*wire){text("abc"), closeWith(1001)}, "abc", false},
		{"two: 1011", false, []func(*wire){text("abc"), closeWith(1011)}, "abc", false},
		{"two: dropped", false, []func(*wire){text("abc"), drop}, "abc", false},
		{"two: within a message", false, []func(*wire){half}, "ab", false},
		{"two: empty last fragment", false, []func(*wire){lastEmpty}, "abcd", true},
		{"base: empty messages mean nothing", true, []func(*wire){text("abc"), text(""), text("d"), closeWith(1000)}, "abcd", true},
		{"base: 1001", true, []func(*wire){text("abc"), closeWith(1001)}, "abc", true},
		{"base: 1011", true, []func(*wire){text("abc"), closeWith(1011)}, "abc", false},
		{"base: dropped between messages", true, []func(*wire){text("abc"), drop}, "abc", true},
		{"base: within a message", true, []func(*wire){half}, "ab", false},
		{"base: where a message begins", true, []func(*wire){begun}, "", false},
		{"base: between fragments", true, []func(*wire){fragment}, "ab", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := script(t, c.base)
			l, control := listen(t, s, s.options())
			control.say(`{"type":"connection","id":"1"}`)
			data := receive(t, s.data, "a data socket")
			for _, step := range c.script {
				step(data)
			}
			got, err := io.ReadAll(accept(t, l))
			if string(got) != c.want || (err == nil) != c.whole {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
}

// reached is a data socket at base level, and the connection to the target behind it.
func reached(t *testing.T) (*wire, net.Conn) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	s := script(t, false)
	toward(t, s, target.Addr()).say(`{"type":"connection","id":"1"}`)
	data := receive(t, s.data, "a data socket")
	c, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return data, c
}

func TestATargetIsResetWhereTheRelayBrokeOff(t *testing.T) {
	data, c := reached(t)
	_ = data.NetConn().Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatal("not a reset:", err)
	}
}

func TestATargetThatFailsIs1011(t *testing.T) {
	data, c := reached(t)
	_, _ = io.WriteString(c, "part")
	data.expect("part")
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	data.expectEnd(1011)
}

func TestBothDirectionsEndByThemselves(t *testing.T) {
	s := script(t, false)
	l, control := listen(t, s, s.options())
	control.say(`{"type":"connection","id":"1"}`)
	data := receive(t, s.data, "a data socket")
	c := accept(t, l)
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	if _, b, err := data.ReadMessage(); len(b) != 0 || err != nil {
		t.Fatal("no empty message", b, err)
	}
	data.bytes("still")
	data.bytes("")
	if got, err := io.ReadAll(c); string(got) != "still" || err != nil {
		t.Fatal(string(got), err)
	}
	data.expectEnd(1000)
}

func TestAServiceThatDoesNotReadHoldsUpTheRelay(t *testing.T) {
	s := script(t, false)
	l, control := listen(t, s, s.options())
	control.say(`{"type":"connection","id":"1"}`)
	data := receive(t, s.data, "a data socket")
	c := accept(t, l)
	var sent atomic.Int64
	stuck, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		block := make([]byte, 64<<10)
		for range 1000 { // 64 MB, which no buffer of a loopback socket holds
			if data.WriteMessage(websocket.BinaryMessage, block) != nil {
				return
			}
			sent.Add(int64(len(block)))
		}
		data.bytes("")
	}()
	go func() { // until nothing has gone out any more between two looks
		defer close(stuck)
		for before := int64(-1); before != sent.Load(); <-time.After(200 * time.Millisecond) {
			before = sent.Load()
		}
	}()
	receive(t, stuck, "the standstill")
	if sent.Load() >= 1000*64<<10 {
		t.Fatal("all of it was taken")
	}
	n, err := io.Copy(io.Discard, c)
	if n != sent.Load() || err != nil {
		t.Fatal(n, sent.Load(), err)
	}
	receive(t, over, "the sender's end")
}

func TestShutdownCutsWhatIsHeldUpWhenItsTimeIsOver(t *testing.T) {
	s := script(t, false)
	l, control := listen(t, s, s.options())
	control.say(`{"type":"connection","id":"1"}`)
	data := receive(t, s.data, "a data socket")
	c := accept(t, l)
	data.bytes("nobody reads all of this")
	_, _ = io.ReadFull(c, make([]byte, 1)) // now the rest is being written to the service
	over := make(chan struct{})
	go func() {
		cut(l.Tunnel)
		close(over)
	}()
	receive(t, over, "the end")
	if _, err := io.ReadAll(c); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
}

func TestTheEndOfAControlSocketMeansWhatTheProtocolSays(t *testing.T) {
	closeWith := func(code int) func(*wire) {
		return func(w *wire) {
			_ = w.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "told so"), time.Now().Add(deadline))
		}
	}
	say := func(text string) func(*wire) { return func(w *wire) { w.say(text) } }
	cases := []struct {
		name   string
		base   bool
		script []func(*wire)
		stops  bool
	}{
		{"1000", true, []func(*wire){closeWith(1000)}, true},
		{"1001", true, []func(*wire){closeWith(1001)}, false},
		{"1008", true, []func(*wire){closeWith(1008)}, false},
		{"1012", true, []func(*wire){closeWith(1012)}, false},
		{"dropped", true, []func(*wire){func(w *wire) { _ = w.NetConn().Close() }}, false},
		{"a huge message", true, []func(*wire){func(w *wire) { _ = w.WriteMessage(websocket.TextMessage, make([]byte, 2<<20)) }}, false},
		{"a broken frame", true, []func(*wire){func(w *wire) { _, _ = w.NetConn().Write([]byte{0xff, 0xff}) }}, false},
		{"deleted", false, []func(*wire){say(`{"type":"closed","reason":"deleted","message":"gone"}`), closeWith(1000)}, true},
		{"replaced", false, []func(*wire){say(`{"type":"closed","reason":"replaced"}`), closeWith(1000)}, true},
		{"restart", false, []func(*wire){say(`{"type":"closed","reason":"restart"}`), closeWith(1012)}, false},
		{"token_expired", false, []func(*wire){say(`{"type":"closed","reason":"token_expired"}`), closeWith(1008)}, false},
		{"unknown reason, 1000", false, []func(*wire){say(`{"type":"closed","reason":"sold"}`), closeWith(1000)}, true},
		{"unknown reason, 1013", false, []func(*wire){say(`{"type":"closed","reason":"sold"}`), closeWith(1013)}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := script(t, c.base)
			l, control := listen(t, s, s.options())
			for _, step := range c.script {
				step(control)
			}
			if c.stops {
				receive(t, l.Done(), "the tunnel's end")
				if l.Err() == nil {
					t.Fatal("no reason")
				}
				return
			}
			if body := receive(t, s.creates, "another creation"); body["name"] != "web" {
				t.Fatal(body)
			}
			s.welcomed()
			if l.Err() != nil {
				t.Fatal(l.Err())
			}
		})
	}
}

func TestASilentRelayIsLeft(t *testing.T) {
	s := script(t, false)
	_, control := listen(t, s, s.options())
	control.say(`{"type":"welcome","session":"short","ping_interval_ms":20,"pong_timeout_ms":200}`) // and no pong ever
	receive(t, s.controls, "another control socket")
}

func TestACancelledConnectionIsNotOpened(t *testing.T) {
	var asked atomic.Int32
	s := script(t, false)
	gate := make(chan struct{})
	front := front(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/ws/data" && r.URL.Query().Get("id") == "1" {
			asked.Add(1)
			<-gate
			w.WriteHeader(http.StatusServiceUnavailable) // one that is not cancelled would try again
			return true
		}
		return false
	})
	opts := s.options()
	opts.Relay = front
	l, control := listen(t, s, opts)
	control.say(`{"type":"connection","id":"1"}`)
	control.say(`{"type":"cancel","id":"1"}`)
	control.say(`{"type":"connection","id":"2"}`)
	other := receive(t, s.data, "the data socket of the other")
	accept(t, l)
	_ = other.NetConn().Close()
	close(gate)
	go control.ReadMessage() // answers the goodbye
	shutdown(t, l.Tunnel)    // waits for the claim, which has tried once at most
	if asked.Load() > 1 {
		t.Fatal(asked.Load())
	}
}

func TestADataSocketIsTriedAgainWithinItsTime(t *testing.T) {
	var asked atomic.Int32
	s := script(t, false)
	opts := s.options()
	opts.Relay = front(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/ws/data" && asked.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	})
	_, control := listen(t, s, opts)
	control.say(`{"type":"connection","id":"1"}`)
	receive(t, s.data, "the data socket")
}

func TestStandbySocketsAreHeldAndServed(t *testing.T) {
	s := script(t, false)
	l, control := listen(t, s, s.options())
	control.say(`{"type":"standby","want":2}`)
	first, second := receive(t, s.data, "a standby socket"), receive(t, s.data, "another")
	id := first.query.Get("id")
	if first.query.Get("tunnel_id") != "tunnel/1?" || first.query.Get("session") != "s 1" || len(id) != 36 || id == second.query.Get("id") {
		t.Fatal(first.query, second.query)
	}
	first.say(`{"type":"connection","id":"` + id + `","proto":"tcp","remote_addr":"203.0.113.7:51234"}`)
	first.bytes("hi")
	c := accept(t, l)
	if c.RemoteAddr().String() != "203.0.113.7:51234" {
		t.Fatal(c.RemoteAddr())
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi" {
		t.Fatal(string(b), err)
	}
	receive(t, s.data, "the one in its place")
}

func TestARejectedStandbySocketIsLeftToTheRelay(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	s := script(t, false)
	control := toward(t, s, closed.Addr())
	control.say(`{"type":"standby","want":1}`)
	data := receive(t, s.data, "a standby socket")
	id := data.query.Get("id")
	data.say(`{"type":"connection","id":"` + id + `","proto":"http"}`)
	m := control.hear()
	if m["type"] != "reject" || m["id"] != id || m["reason"] != "refused" || !strings.Contains(m["message"], closed.Addr().String()) {
		t.Fatal(m)
	}
	_ = data.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(deadline))
	data.expectEnd(1000)
}

func TestDrainOpensASuccessorBesideTheOldSession(t *testing.T) {
	s := script(t, false)
	l, old := listen(t, s, s.options())
	old.say(`{"type":"drain","deadline_ms":30000,"reconnect_ms":1}`)
	receive(t, s.creates, "a creation")
	successor := s.welcomed()
	if successor.query.Get("successor_of") != "s 1" {
		t.Fatal(successor.query)
	}
	for id, control := range map[string]*wire{"old": old, "new": successor} {
		control.say(`{"type":"connection","id":"` + id + `"}`)
		if data := receive(t, s.data, "a data socket"); data.query.Get("id") != id {
			t.Fatal(data.query)
		}
		accept(t, l)
	}
	old.say(`{"type":"closed","reason":"succeeded"}`)
	_ = old.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(deadline))
	old.expectEnd(1000)
	successor.say(`{"type":"connection","id":"after"}`)
	receive(t, s.data, "a data socket")
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
}

func TestATokenIsReplacedBeforeItEnds(t *testing.T) {
	s := script(t, false)
	opts := s.options()
	var asked atomic.Int32
	opts.Token = func(context.Context) (string, error) { return "token-" + string('0'+asked.Add(1)), nil }
	_, control := listen(t, s, opts)
	if got := control.head.Get("Authorization"); got != "Bearer token-1" {
		t.Fatal(got)
	}
	control.say(`{"type":"expiring","what":"token","at":"2026-11-21T06:24:59Z","in_ms":60000}`)
	if m := control.hear(); m["type"] != "auth" || m["token"] != "token-2" {
		t.Fatal(m)
	}
	control.say(`{"type":"auth","accepted":true,"expires_in_ms":3600000}`)
	control.say(`{"type":"connection","id":"1"}`)
	if data := receive(t, s.data, "a data socket"); data.head.Get("Authorization") != "Bearer token-2" {
		t.Fatal(data.head)
	}
}

func TestARefusalThatStaysIsNotTriedAgain(t *testing.T) {
	for status, code := range map[int]string{401: "unauthorized", 409: "name_taken", 403: "too_many_tunnels"} {
		s := script(t, false)
		s.refuse = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":"no","code":"`+code+`"}`)
		}
		if _, err := adit.Listen(t.Context(), s.options()); err == nil || !strings.Contains(err.Error(), code) {
			t.Fatal(err)
		}
		if len(s.creates) != 1 {
			t.Fatal(len(s.creates), "attempts")
		}
	}
}

func TestARelayThatKnowsNoPoliciesIsNotServed(t *testing.T) {
	s := script(t, false)
	opts := s.options()
	opts.Create = map[string]any{"policy": map[string]any{"allow": []string{"10.0.0.0/8"}}}
	if _, err := adit.Listen(t.Context(), opts); err == nil || len(s.controls) != 0 {
		t.Fatal(err)
	}
}

func TestTheKeyIsNotTakenElsewhere(t *testing.T) {
	s := script(t, false)
	s.refuse = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
	}
	if _, err := adit.Listen(t.Context(), s.options()); err == nil || !strings.Contains(err.Error(), "https") {
		t.Fatal(err)
	}
}
