package adit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	longestPause = 30 * time.Second // between two attempts (protocol.md, 5)
	longestAsked = 5 * time.Minute  // that a relay is believed to want us away
	goodbyeWait  = 5 * time.Second  // for the relay's close frame after ours
	answerBytes  = 1 << 20          // of an answer of REST at most
)

// ErrEnded says that the relay has ended the tunnel for good: it was deleted or expired, or another client took it over.
var ErrEnded = errors.New("the relay has ended the tunnel")

// ErrUnreachable says that the relay does not answer, or is no relay's URL.
var ErrUnreachable = errors.New("cannot reach the relay")

// Error is a refusal of the relay (protocol.md, 2.3).
type Error struct {
	Status     int           // of HTTP
	Code       string        // for programs; empty if the answer was none of a relay
	Message    string        // for people
	RequestID  string        // finds the call in the relay's log
	RetryAfter time.Duration // zero if the relay named none
}

// Error says what the relay refused, and what to do.
func (e *Error) Error() string {
	text := fmt.Sprintf("the relay refuses: %s (%d %s)", e.Message, e.Status, e.Code)
	switch {
	case e.Status == http.StatusUnauthorized:
		text += "; it is from Options.Key or ADIT_KEY, and `adit key create NAME` makes one"
	case e.Code == "name_taken":
		text += "; it is another key's: choose another Options.Name"
	case e.Code == "https_only" || e.Status/100 == 3:
		text += "; Options.Relay must be the https URL of the relay itself"
	case e.Code == "" && e.Status == http.StatusNotFound:
		text += "; is Options.Relay the URL of an Adit relay?"
	}
	return text
}

// final tells refusals that stay from those that pass. What no relay has written may be a proxy's while the relay is away.
func final(err error, first bool) bool {
	var e *Error
	if !errors.As(err, &e) {
		return errors.Is(err, errUnfit)
	}
	switch {
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return true
	case e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests || e.Status >= 500:
		return e.Status == http.StatusNotImplemented
	case e.Code == "tunnel_not_found": // between its creation and the control socket: create it again
		return false
	case e.Code == "port_in_use" || e.Code == "no_free_port": // it was free before
		return first
	}
	return first || e.Code != ""
}

// errUnfit marks answers with which the tunnel must not, or cannot, be served.
var errUnfit = errors.New("this relay cannot serve the tunnel")

// pause is random and grows: under a second first, up to longestPause; never less than the relay has asked for.
func pause(attempt int, err error) time.Duration {
	most := min(time.Second<<min(attempt, 10), longestPause)
	wait := rand.N(most)
	if attempt > 0 {
		wait = most/2 + wait/2
	}
	var e *Error
	// A relay that drains names the time for viewers; its successor may be there sooner.
	if errors.As(err, &e) && e.Code != "draining" {
		wait = max(wait, min(e.RetryAfter, longestAsked))
	}
	return wait
}

// info is what the relay tells of a tunnel (protocol.md, 2.2), as far as it is needed here.
type info struct {
	ID         string          `json:"id"`
	Slug       string          `json:"slug"`
	URL        string          `json:"public_url"`
	Proto      string          `json:"proto"`
	RemotePort int             `json:"remote_port"`
	Policy     json.RawMessage `json:"policy"`
}

func (t *Tunnel) create(ctx context.Context) error {
	before, _ := t.snapshot()
	body := map[string]any{"source": "adit-go", "local_port": 80} // relays want a port, if only for display
	maps.Copy(body, t.opts.Create)
	name := t.opts.Name
	if name == "" {
		name = before.Slug
	}
	if name != "" {
		body["name"] = name
	}
	if before.Slug != "" {
		body["resume"] = true // its end stays as it is
	}
	if before.RemotePort != 0 {
		body["remote_port"] = before.RemotePort
	}
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%w: Options.Create: %w", errUnfit, err)
	}
	var now info
	if err := t.call(ctx, http.MethodPost, "v1/tunnels", string(text), &now); err != nil {
		return err
	}
	_, policy := t.opts.Create["policy"]
	proto, _ := t.opts.Create["proto"].(string)
	unfit := ""
	switch {
	case now.ID == "" || now.URL == "":
		return fmt.Errorf("%w: %s answers, but not like an Adit relay", errUnfit, t.relay)
	case name != "" && !strings.EqualFold(name, now.Slug):
		unfit = fmt.Sprintf("it gave the name %q in the place of %q", now.Slug, name)
	case policy && now.Policy == nil:
		unfit = "it knows no policies, and would let everybody in"
	case (proto == "tcp" || proto == "tls") && proto != now.Proto:
		unfit = "it knows no tunnels of " + proto
	}
	if unfit != "" {
		t.delete(now.ID, "")
		return fmt.Errorf("%w: %s", errUnfit, unfit)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info = now
	return nil
}

// delete is best effort: what is left over costs nobody anything.
func (t *Tunnel) delete(id, query string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := t.call(ctx, http.MethodDelete, "v1/tunnels/"+url.PathEscape(id)+query, "", nil); err != nil {
		t.log.Info("adit: the tunnel was not deleted", "error", err)
	}
}

func (t *Tunnel) call(ctx context.Context, method, path, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(t.relay.String(), "/")+"/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header = t.header()
	request.Header.Set("Content-Type", "application/json")
	response, err := t.http.Do(request)
	if err != nil {
		return t.unreachable(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytes))
	if err != nil {
		return t.unreachable(err)
	}
	if response.StatusCode/100 != 2 {
		return refusal(response, text)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%w: %s answers, but not like an Adit relay: %w", errUnfit, t.relay, err)
	}
	return nil
}

func (t *Tunnel) header() http.Header {
	_, key := t.snapshot()
	return http.Header{"Authorization": {"Bearer " + key}, "User-Agent": {"adit-go/" + Version}}
}

func (t *Tunnel) unreachable(err error) error {
	return fmt.Errorf("%w at %s; is the address right, and does it run? %w", ErrUnreachable, t.relay.Redacted(), err)
}

func refusal(response *http.Response, text []byte) error {
	var told struct {
		Error, Code string
		RequestID   string `json:"request_id"`
	}
	_ = json.Unmarshal(text, &told)
	if told.Error == "" {
		told.Error = http.StatusText(response.StatusCode)
	}
	seconds, _ := time.ParseDuration(response.Header.Get("Retry-After") + "s")
	return &Error{response.StatusCode, told.Code, told.Error, told.RequestID, max(0, seconds)}
}

// writeBuffers are shared: a socket has one only while it sends.
var writeBuffers sync.Pool

// open makes a WebSocket to a path below the relay's URL. ctx is for the handshake.
func (t *Tunnel) open(ctx context.Context, path string, query url.Values, header http.Header, levels ...string) (*websocket.Conn, error) {
	at := t.relay.JoinPath(path)
	at.Scheme = map[string]string{"http": "ws", "https": "wss"}[at.Scheme]
	at.RawQuery = query.Encode()
	dialer := websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: t.opts.TLS, Subprotocols: levels,
		WriteBufferSize: chunk, WriteBufferPool: &writeBuffers,
	}
	ws, response, err := dialer.DialContext(ctx, at.String(), header)
	if err == nil {
		return ws, nil
	}
	if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(response.Body) // the package has kept its first KiB
		return nil, refusal(response, text)
	}
	return nil, t.unreachable(err)
}

// goodbye sends a close frame, and gives the relay a moment for its own: the reader of the socket sees it, or the deadline.
func goodbye(ws *websocket.Conn, code int, text string) {
	soon := time.Now().Add(goodbyeWait)
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), soon)
	_ = ws.SetReadDeadline(soon)
}
