package adit_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	adit "github.com/adit-relay/adit/clients/go"
	"github.com/gorilla/websocket"
)

const (
	key      = "a-key-for-tests-of-the-go-client"
	deadline = 30 * time.Second // of everything that a test waits for
)

// relay is a process of the real one, which ADIT_BIN names.
type relay struct {
	t       *testing.T
	dir     string
	address string
	url     string
	more    []string // options
	command *exec.Cmd
	exited  chan struct{}
}

func startRelay(t *testing.T, more ...string) *relay {
	t.Helper()
	r := &relay{t: t, dir: t.TempDir(), address: "127.0.0.1:0", more: more}
	r.start()
	t.Cleanup(r.kill)
	return r
}

var ready = regexp.MustCompile(`relay ready url="http://([^"]+)"`)

func (r *relay) start() {
	r.t.Helper()
	bin := os.Getenv("ADIT_BIN")
	if bin == "" {
		r.t.Fatal("set ADIT_BIN to the adit program, the relay of these tests")
	}
	options := []string{"relay", "--listen", r.address, "--admin-listen", "127.0.0.1:0", "--data-dir", r.dir}
	r.command = exec.Command(bin, append(options, r.more...)...)
	r.command.Env = []string{"ADIT_KEYS=me:" + key, "HOME=" + r.dir}
	out, err := r.command.StderrPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.command.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.exited = make(chan struct{})
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := ready.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
		_ = r.command.Wait()
		close(r.exited)
	}()
	r.address = receive(r.t, address, "the relay's address")
	r.url = "http://" + r.address
}

func (r *relay) kill() {
	_ = r.command.Process.Kill()
	receive(r.t, r.exited, "the relay's end")
}

func (r *relay) terminate() { _ = r.command.Process.Signal(syscall.SIGTERM) }

func (r *relay) options(name string) adit.Options {
	return adit.Options{Relay: r.url, Key: key, Name: name, Logger: logger(r.t)}
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(deadline):
		t.Fatalf("%s did not come in time", what)
		panic("unreachable")
	}
}

// logger shows the client's records with the test that fails; after its end they go nowhere.
func logger(t *testing.T) *slog.Logger {
	var over atomic.Bool
	t.Cleanup(func() { over.Store(true) })
	return slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		if !over.Load() {
			t.Log(strings.TrimSpace(string(p)))
		}
		return len(p), nil
	}), nil))
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// baseOnly is a way to the relay on which it does not hear of level two.
func baseOnly(t *testing.T, r *relay) string {
	proxy := proxyTo(r)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q.Header.Del("Sec-WebSocket-Protocol")
		proxy.ServeHTTP(w, q)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func proxyTo(r *relay) http.Handler {
	to, _ := url.Parse(r.url)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	return proxy
}

// serve serves a handler on a tunnel of its own.
func serve(t *testing.T, opts adit.Options, handler http.Handler) *adit.Listener {
	t.Helper()
	l, err := adit.Listen(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(l)
	t.Cleanup(func() { server.Close(); shutdown(t, l.Tunnel) })
	return l
}

func shutdown(t *testing.T, tunnel *adit.Tunnel) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := tunnel.Shutdown(ctx); err != nil {
		t.Error("the tunnel did not end in order:", err)
	}
}

// forward does the same by way of a port.
func forward(t *testing.T, opts adit.Options, handler http.Handler) *adit.Tunnel {
	t.Helper()
	target := httptest.NewServer(handler)
	t.Cleanup(target.Close)
	return forwardTo(t, opts, target.Listener.Addr().String())
}

func forwardTo(t *testing.T, opts adit.Options, target string) *adit.Tunnel {
	t.Helper()
	tunnel, err := adit.Forward(t.Context(), target, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, tunnel) })
	return tunnel
}

var viewer = &http.Client{Timeout: deadline, Transport: &http.Transport{}}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := viewer.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// upgraded is a raw connection of a viewer, after the target's 101.
func upgraded(t *testing.T, at string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	u, _ := url.Parse(at)
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(deadline))
	_, _ = io.WriteString(c, "GET "+u.Path+" HTTP/1.1\r\nHost: "+u.Host+"\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal("no 101", response, err)
	}
	return c.(*net.TCPConn), r
}

// scripted is a relay that says what a test makes it say. Its tunnels are all named "web".
type scripted struct {
	t        *testing.T
	url      string
	refuse   http.HandlerFunc    // what creations get in the place of an answer
	creates  chan map[string]any // their bodies
	controls chan *wire
	data     chan *wire
	base     bool
}

type wire struct {
	*websocket.Conn
	t     *testing.T
	query url.Values
	head  http.Header
}

func script(t *testing.T, base bool) *scripted {
	s := &scripted{t: t, base: base, creates: make(chan map[string]any, 16), controls: make(chan *wire, 16), data: make(chan *wire, 64)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tunnels", func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.creates <- body
		if s.refuse != nil {
			s.refuse(w, r)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "tunnel/1?", "slug": "web", "public_url": s.url + "/t/web", "unknown": 1})
	})
	mux.HandleFunc("DELETE /v1/tunnels/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	socket := func(to chan *wire) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			upgrader := websocket.Upgrader{Subprotocols: []string{"adit.1"}}
			if s.base {
				upgrader.Subprotocols = nil
			}
			ws, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			_ = ws.SetReadDeadline(time.Now().Add(deadline))
			to <- &wire{ws, t, r.URL.Query(), r.Header}
		}
	}
	mux.HandleFunc("/ws/control", socket(s.controls))
	mux.HandleFunc("/ws/data", socket(s.data))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// front is a way to a scripted relay on which some requests are answered otherwise.
func front(t *testing.T, s *scripted, answered func(http.ResponseWriter, *http.Request) bool) string {
	to, _ := url.Parse(s.url)
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answered(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func (s *scripted) options() adit.Options {
	return adit.Options{Relay: s.url, Key: key, Logger: logger(s.t)}
}

// welcomed is the next control socket, with its first message sent.
func (s *scripted) welcomed() *wire {
	s.t.Helper()
	c := receive(s.t, s.controls, "a control socket")
	if !s.base {
		c.say(`{"type":"welcome","session":"s 1","ping_interval_ms":30000,"pong_timeout_ms":60000,"claim_ms":10000,"limits":{"standby":8}}`)
	}
	return c
}

func (w *wire) say(text string) {
	w.t.Helper()
	if err := w.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) bytes(text string) {
	w.t.Helper()
	if err := w.WriteMessage(websocket.BinaryMessage, []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) hear() map[string]string {
	w.t.Helper()
	var m map[string]string
	if err := w.ReadJSON(&m); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// expect reads messages until their bytes are these, and tells how the socket went on.
func (w *wire) expect(want string) {
	w.t.Helper()
	var got strings.Builder
	for got.Len() < len(want) {
		_, b, err := w.ReadMessage()
		if err != nil {
			w.t.Fatal(err)
		}
		got.Write(b)
	}
	if got.String() != want {
		w.t.Fatalf("got %q, not %q", got.String(), want)
	}
}

// expectEnd reads a close frame with this code; empty messages may come before it.
func (w *wire) expectEnd(code int) {
	w.t.Helper()
	for {
		_, b, err := w.ReadMessage()
		if err == nil && len(b) == 0 {
			continue
		}
		if !websocket.IsCloseError(err, code) {
			w.t.Fatalf("got %q, %v, not a close frame of %d", b, err, code)
		}
		return
	}
}
