package adit_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	adit "github.com/adit-relay/adit/clients/go"
	"github.com/gorilla/websocket"
)

// app is what the tests expose.
func app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/hash", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		fmt.Fprintf(w, "%x", h.Sum(nil))
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) { // answers and hangs up, the body unread
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too much")
	})
	mux.HandleFunc("/trickle", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 5 {
			fmt.Fprintf(w, "line %d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for {
			kind, b, err := ws.ReadMessage()
			if err != nil || ws.WriteMessage(kind, b) != nil {
				return
			}
		}
	})
	mux.HandleFunc("/raw", func(w http.ResponseWriter, _ *http.Request) { // answers when it has seen the end of what it was sent
		c, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
		b, err := io.ReadAll(buffered)
		fmt.Fprintf(c, "%d bytes, %v", len(b), err)
	})
	return mux
}

// each runs a test with both ways to serve, and on both levels.
func each(t *testing.T, test func(t *testing.T, url string)) {
	r := startRelay(t)
	base := baseOnly(t, r)
	for level, at := range map[string]string{"two": r.url, "base": base} {
		opts := r.options("")
		opts.Relay = at
		t.Run("listen/"+level, func(t *testing.T) {
			opts := opts
			opts.Logger = logger(t)
			test(t, serve(t, opts, app()).URL())
		})
		t.Run("forward/"+level, func(t *testing.T) {
			opts := opts
			opts.Logger = logger(t)
			test(t, forward(t, opts, app()).URL())
		})
	}
}

func TestRequestsAreServed(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		for range 5 {
			if status, body := get(t, url+"/hello"); status != 200 || body != "hello" {
				t.Fatal(status, body)
			}
		}
		if _, body := get(t, url+"/trickle"); strings.Count(body, "\n") != 5 {
			t.Fatal(body)
		}
	})
}

func TestTwentyMegabytesArriveWholeBothWays(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		big := make([]byte, 20<<20)
		_, _ = rand.Read(big)
		bodies := map[string]io.Reader{"sized": bytes.NewReader(big), "chunked": io.MultiReader(bytes.NewReader(big))}
		for kind, body := range bodies {
			response, err := viewer.Post(url+"/hash", "application/octet-stream", body)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if want := fmt.Sprintf("%x", sha256.Sum256(big)); string(got) != want {
				t.Fatal(kind, "up", response.StatusCode, string(got))
			}
		}
		response, err := viewer.Post(url+"/echo", "application/octet-stream", bytes.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err != nil || sha256.Sum256(got) != sha256.Sum256(big) {
			t.Fatal("down", len(got), err)
		}
	})
}

func TestAnAnswerBeforeTheBodyIsRead(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		response, err := viewer.Post(url+"/early", "application/octet-stream", io.LimitReader(zeros{}, 8<<20))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); response.StatusCode != 413 || string(body) != "too much" {
			t.Fatal(response.Status, string(body), err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAWebSocketPassesThrough(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(url, "http")+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		for _, text := range []string{"one", strings.Repeat("two", 100_000), ""} {
			if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := ws.ReadMessage(); err != nil || string(got) != text {
				t.Fatal(len(got), err)
			}
		}
	})
}

func TestFiftyViewersAtOnce(t *testing.T) {
	r := startRelay(t)
	var together sync.WaitGroup // nobody is answered before all are there
	together.Add(50)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		together.Done()
		together.Wait()
		_, _ = io.WriteString(w, "all")
	})
	url := serve(t, r.options(""), handler).URL()
	var viewers sync.WaitGroup
	for range 50 {
		viewers.Go(func() {
			response, err := (&http.Client{Timeout: deadline, Transport: &http.Transport{}}).Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if body, _ := io.ReadAll(response.Body); string(body) != "all" {
				t.Error(response.Status, string(body))
			}
		})
	}
	viewers.Wait()
}

func TestAViewerThatEndsItsSideIsAnswered(t *testing.T) {
	r := startRelay(t)
	test := func(t *testing.T, url string) {
		c, in := upgraded(t, url+"/raw")
		_, _ = c.Write(make([]byte, 100_000))
		_ = c.CloseWrite()
		if got, err := io.ReadAll(in); string(got) != "100000 bytes, <nil>" {
			t.Fatal(string(got), err)
		}
	}
	t.Run("listen", func(t *testing.T) { test(t, serve(t, r.options(""), app()).URL()) })
	t.Run("forward", func(t *testing.T) { test(t, forward(t, r.options(""), app()).URL()) })
}

func TestATargetThatRefusesIs502WithItsAddress(t *testing.T) {
	r := startRelay(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for level, at := range map[string]string{"two": r.url, "base": baseOnly(t, r)} {
		t.Run(level, func(t *testing.T) {
			opts := r.options("")
			opts.Relay, opts.Logger = at, logger(t)
			url := forwardTo(t, opts, closed.Addr().String()).URL()
			for range 3 {
				if status, body := get(t, url); status != 502 || !strings.Contains(body, closed.Addr().String()) {
					t.Fatal(status, body)
				}
			}
		})
	}
}

func TestAViewerThatLeavesEndsTheRequest(t *testing.T) {
	each := func(t *testing.T, expose func(*testing.T, adit.Options, http.Handler) string) {
		r := startRelay(t)
		begun, over := make(chan struct{}), make(chan struct{})
		url := expose(t, r.options(""), http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
			close(begun)
			<-q.Context().Done()
			close(over)
		}))
		at := strings.TrimPrefix(url, "http://")
		host, path, _ := strings.Cut(at, "/")
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "PUT /%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", path, host)
		receive(t, begun, "the request")
		_ = c.(*net.TCPConn).SetLinger(0) // by a reset: one that only ends its side still waits for its answer
		c.Close()
		receive(t, over, "its end")
	}
	t.Run("listen", func(t *testing.T) {
		each(t, func(t *testing.T, o adit.Options, h http.Handler) string { return serve(t, o, h).URL() })
	})
	t.Run("forward", func(t *testing.T) {
		each(t, func(t *testing.T, o adit.Options, h http.Handler) string { return forward(t, o, h).URL() })
	})
}

func TestTheUrlOutlivesARelayThatIsKilled(t *testing.T) {
	for _, name := range []string{"chosen", ""} {
		t.Run("name "+name, func(t *testing.T) {
			r := startRelay(t)
			l := serve(t, r.options(name), app())
			before := l.URL()
			get(t, before+"/hello")
			r.kill()
			r.start()
			comeBack(t, before+"/hello")
			if l.URL() != before {
				t.Fatal(before, "became", l.URL())
			}
		})
	}
}

// comeBack asks until the tunnel answers again.
func comeBack(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for ctx.Err() == nil {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		response, err := viewer.Do(request)
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == 200 && string(body) == "hello" {
			return
		}
	}
	t.Fatal("the tunnel did not come back")
}

func TestADrainedRelayLetsRequestsFinishAndIsCameBackTo(t *testing.T) {
	r := startRelay(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/", app())
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "finished")
	})
	l := serve(t, r.options("drained"), mux)
	before := l.URL()
	answer := make(chan string, 1)
	go func() {
		response, err := viewer.Get(before + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answer <- string(body)
	}()
	receive(t, begun, "the request")
	r.terminate()
	close(finish)
	if got := receive(t, answer, "the answer"); got != "finished" {
		t.Fatal(got)
	}
	receive(t, r.exited, "the relay's end")
	r.start()
	comeBack(t, before+"/hello")
	if l.URL() != before {
		t.Fatal(before, "became", l.URL())
	}
}

func TestAWrongKeyIsSaidAtOnce(t *testing.T) {
	r := startRelay(t)
	opts := r.options("")
	opts.Key = "wrong"
	_, err := adit.Listen(t.Context(), opts)
	var told *adit.Error
	if !errors.As(err, &told) || told.Status != 401 || !strings.Contains(err.Error(), "ADIT_KEY") {
		t.Fatal(err)
	}
}

func TestADeletedTunnelEndsTheListener(t *testing.T) {
	r := startRelay(t)
	l, err := adit.Listen(t.Context(), r.options("gone"))
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	second, err := adit.Listen(t.Context(), r.options("gone")) // the newer of two live clients has the tunnel
	if err != nil {
		t.Fatal(err)
	}
	if err := receive(t, accepted, "the end of Accept"); !errors.Is(err, adit.ErrEnded) {
		t.Fatal(err)
	}
	receive(t, l.Done(), "the first tunnel's end")
	if !errors.Is(l.Err(), adit.ErrEnded) || second.Err() != nil {
		t.Fatal(l.Err(), second.Err())
	}
	shutdown(t, second.Tunnel)
}

func TestShutdownFinishesWhatRunsAndDeletesTheTunnel(t *testing.T) {
	r := startRelay(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	l, err := adit.Listen(t.Context(), r.options("last"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "finished")
	})}
	go server.Serve(l)
	answer := make(chan string, 1)
	go func() {
		response, err := viewer.Get(l.URL())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answer <- string(body)
	}()
	receive(t, begun, "the request")
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(t.Context()) }()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	close(finish)
	if got := receive(t, answer, "the answer"); got != "finished" {
		t.Fatal(got)
	}
	if err := receive(t, stopped, "the server's end"); err != nil {
		t.Fatal(err)
	}
	receive(t, l.Done(), "the tunnel's end")
	if status, _ := get(t, l.URL()); status != 404 {
		t.Fatal("the tunnel is still there:", status)
	}
}

func TestATunnelOfTCPTellsTheViewerAndKeepsItsPort(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	r := startRelay(t, "--tcp-ports", port+"-"+port)
	opts := r.options("")
	opts.Create = map[string]any{"proto": "tcp"}
	l, err := adit.Listen(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, l.Tunnel) })
	if !strings.HasPrefix(l.URL(), "tcp://") || !strings.HasSuffix(l.URL(), ":"+port) {
		t.Fatal(l.URL())
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	service := accept(t, l)
	if service.RemoteAddr().String() != c.LocalAddr().String() {
		t.Fatal(service.RemoteAddr(), c.LocalAddr())
	}
	_, _ = io.WriteString(service, "who speaks first")
	_ = service.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "who speaks first" || err != nil {
		t.Fatal(string(got), err)
	}
	_, _ = io.WriteString(c, "and last")
	c.Close()
	if got, err := io.ReadAll(service); string(got) != "and last" || err != nil {
		t.Fatal(string(got), err)
	}
	service.Close()
}

func TestARelayBehindTLSAndHTTP2(t *testing.T) {
	r := startRelay(t)
	front := httptest.NewUnstartedServer(nil)
	front.Config.Handler = proxyTo(r)
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	opts := r.options("")
	opts.Relay = front.URL
	opts.TLS = front.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	opts.TLS.NextProtos = nil
	l := serve(t, opts, app())
	if status, body := get(t, r.url+"/t/"+l.URL()[strings.LastIndexByte(l.URL(), '/')+1:]+"/hello"); status != 200 {
		t.Fatal(status, body)
	}
}

func TestTheExampleServesAndEndsInOrder(t *testing.T) {
	r := startRelay(t)
	bin := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", bin, "./examples/http").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	example := exec.Command(bin)
	example.Env = append(os.Environ(), "ADIT_RELAY="+r.url, "ADIT_KEY="+key)
	out, err := example.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := example.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = example.Process.Kill() })
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- strings.TrimSpace(line)
	}()
	url := receive(t, lines, "the URL of the example")
	answer, err := http.Get(url + "/")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if string(text) != "hello, 127.0.0.1\n" {
		t.Fatalf("%d %q", answer.StatusCode, text)
	}
	_ = example.Process.Signal(syscall.SIGTERM)
	if err := example.Wait(); err != nil {
		t.Fatal(err)
	}
}
