// Package adit makes a service of this machine reachable through an Adit relay. It is written from protocol.md alone
// and speaks both of its levels.
//
// [Listen] gives a [net.Listener] whose connections come from the tunnel's viewers, so there is no port at all:
//
//	l, err := adit.Listen(ctx, adit.Options{Relay: "https://relay.example", Key: key, Name: "web"})
//	if err != nil { … }
//	fmt.Println(l.URL())
//	http.Serve(l, handler)
//
// [Forward] takes viewers to something that listens already. Both keep the tunnel: after a lost network or a restart of the
// relay they come back under the same name and URL, until the tunnel is closed or the relay says that it is over.
package adit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Version of this client, which the relay sees in User-Agent.
const Version = "0.1.0"

const (
	startPatience = 10 * time.Second // Listen and Forward try this long while the relay does not answer
	callTimeout   = 15 * time.Second // one call of REST, or one handshake of a control socket
	steadyAfter   = 30 * time.Second // a session that lived so long begins the pauses anew
	grace         = 30 * time.Second // what runs may take so long after the end of a tunnel
)

// Options of a tunnel. Relay and Key are needed; where they are empty, ADIT_RELAY and ADIT_KEY of the environment count.
type Options struct {
	// Relay is the relay's URL, such as https://relay.example.
	Relay string
	// Key is what the relay knows its user by: a key, or a token.
	Key string
	// Token, if it is set, is asked in the place of Key: before each attempt, and when the token in force is about to end.
	Token func(context.Context) (string, error)
	// Name is the wanted name in the URL. Without one the relay makes one up, which then stays.
	Name string
	// Create has further fields of protocol.md, 2.1, such as "auth_user", "policy", or "proto": "tcp".
	Create map[string]any
	// TLS says how an https relay is verified; nil is by the system's authorities.
	TLS *tls.Config
	// Logger is told what happens; nil is slog.Default().
	Logger *slog.Logger
}

// Tunnel is a way from the relay to this machine, kept until Close, or until the relay ends it.
type Tunnel struct {
	opts  Options
	relay *url.URL
	http  *http.Client
	log   *slog.Logger
	dial  func(context.Context, *Tunnel, announcement) (stream, error)

	live     context.Context // ends when no viewer is taken any more
	leave    context.CancelFunc
	ctx      context.Context // its end cuts what still runs
	cut      context.CancelFunc
	done     chan struct{} // closed when nothing runs any more
	sessions sync.WaitGroup
	running  sync.WaitGroup // claims and data sockets in use

	mu      sync.Mutex
	stopped bool
	err     error
	key     string
	info    info
}

// Listen opens a tunnel whose viewers are accepted from the Listener. It returns when the tunnel is online, or with an error
// that says what to do; a relay that does not answer is tried for 10 seconds. ctx is for this start alone.
func Listen(ctx context.Context, opts Options) (*Listener, error) {
	l := &Listener{conns: make(chan net.Conn)}
	t, err := start(ctx, opts, l.offer)
	l.Tunnel = t
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Forward opens a tunnel whose viewers are taken to target: "3000", "host:3000" or "unix:/path". Nothing need listen
// there yet: until then viewers get 502. For the rest it is like Listen.
func Forward(ctx context.Context, target string, opts Options) (*Tunnel, error) {
	network, address, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	return start(ctx, opts, func(ctx context.Context, _ *Tunnel, _ announcement) (stream, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("cannot reach %s: %w", address, err)
		}
		return c.(stream), nil // of TCP or a Unix socket, which both can shut one side
	})
}

func parseTarget(target string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		return "unix", path, nil
	}
	address = strings.TrimSuffix(strings.TrimPrefix(target, "http://"), "/")
	if !strings.Contains(address, ":") {
		address = "localhost:" + address
	}
	if _, _, err = net.SplitHostPort(address); err == nil {
		_, err = net.ResolveTCPAddr("tcp", ":"+address[strings.LastIndexByte(address, ':')+1:])
	}
	if err != nil {
		return "", "", fmt.Errorf("adit: target %q is no port, host:port or unix:/path: %w", target, err)
	}
	return "tcp", address, nil
}

// URL is where viewers go. It stays the same as long as the tunnel does.
func (t *Tunnel) URL() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info.URL
}

// Done is closed when the tunnel is over and nothing runs through it any more; Err then says why.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// Err is nil while the tunnel is kept and after Close, else what ended it: mostly ErrEnded or an *Error.
func (t *Tunnel) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Close takes no more viewers and returns at once. What runs may finish, for 30 seconds, then the tunnel is deleted (its name
// stays the key's). Wait for that with Done or Shutdown before the program ends. The error is always nil.
func (t *Tunnel) Close() error {
	t.stop(nil)
	return nil
}

// Shutdown is Close, and waits until all is finished. When ctx ends before, what runs is cut, and its error returned.
func (t *Tunnel) Shutdown(ctx context.Context) error {
	t.stop(nil)
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		t.cut()
		<-t.done // soon: only the goodbye is left
		return ctx.Err()
	}
}

func (t *Tunnel) stop(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.stopped, t.err = true, err
		t.leave()
	}
}

// begin counts something that runs; false when the tunnel takes nothing more.
func (t *Tunnel) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.running.Add(1)
	}
	return !t.stopped
}

func start(ctx context.Context, opts Options, dial func(context.Context, *Tunnel, announcement) (stream, error)) (*Tunnel, error) {
	if opts.Relay == "" {
		opts.Relay = os.Getenv("ADIT_RELAY")
	}
	if opts.Key == "" {
		opts.Key = os.Getenv("ADIT_KEY")
	}
	relay, err := url.Parse(opts.Relay)
	if err != nil || relay.Host == "" || (relay.Scheme != "http" && relay.Scheme != "https") {
		return nil, fmt.Errorf("adit: Options.Relay, or ADIT_RELAY, must be a URL such as https://relay.example, not %q", opts.Relay)
	}
	if opts.Key == "" && opts.Token == nil {
		return nil, errors.New("adit: set Options.Key or Options.Token, or ADIT_KEY: the relay's `adit key create NAME` makes a key")
	}
	t := &Tunnel{opts: opts, relay: relay, log: opts.Logger, dial: dial, done: make(chan struct{})}
	if t.log == nil {
		t.log = slog.Default()
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = opts.TLS.Clone() // the transport adds h2 to it, which WebSockets must not offer
	t.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the key goes to the relay and nowhere else
	}}
	t.ctx, t.cut = context.WithCancel(context.Background())
	t.live, t.leave = context.WithCancel(t.ctx)

	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for attempt := 0; ; attempt++ {
		s, err := t.connect(ctx, nil)
		if err == nil {
			go t.keep(s)
			return t, nil
		}
		wait := pause(attempt, err)
		deadline, _ := ctx.Deadline()
		if final(err, true) || time.Now().Add(wait).After(deadline) || !sleep(ctx, wait) {
			t.cut()
			return nil, fmt.Errorf("adit: %w", err)
		}
	}
}

// keep replaces the session whenever it ends, or is about to, until the tunnel stops.
func (t *Tunnel) keep(s *session) {
	attempt := 0
	for s != nil {
		var wait time.Duration
		select {
		case <-t.live.Done():
		case wait = <-s.draining:
			t.log.Info("adit: the relay asks to come back", "in", wait)
		case <-s.ended:
			if time.Since(s.began) > steadyAfter {
				attempt = 0
			}
			wait = pause(attempt, nil)
			if t.live.Err() == nil {
				t.log.Warn("adit: connection to the relay lost", "error", s.err, "retry_in", wait)
			}
		}
		s = t.again(s, wait, &attempt)
	}
	t.sessions.Wait()
	timer := time.AfterFunc(grace, t.cut)
	t.running.Wait()
	timer.Stop()
	t.cut()
	if t.Err() == nil {
		now, _ := t.snapshot()
		t.delete(now.ID, "?unless_connected=true")
	}
	t.http.CloseIdleConnections()
	close(t.done)
}

// again connects after wait, as often as it takes; nil when the tunnel stops meanwhile.
func (t *Tunnel) again(old *session, wait time.Duration, attempt *int) *session {
	for sleep(t.live, wait) {
		s, err := t.connect(t.live, old)
		if err == nil {
			t.log.Info("adit: online again", "url", t.URL())
			*attempt++ // until it has proved steady
			return s
		}
		if final(err, false) {
			t.stop(fmt.Errorf("adit: %w", err))
			return nil
		}
		*attempt++
		wait = pause(*attempt, err)
		t.log.Warn("adit: the relay cannot be reached", "error", err, "retry_in", wait)
	}
	return nil
}

// sleep is false when ctx ended before.
func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// connect creates the tunnel, again under the name that it has, and opens a control socket.
func (t *Tunnel) connect(ctx context.Context, old *session) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if t.opts.Token != nil {
		token, err := t.opts.Token(ctx)
		if err != nil {
			return nil, fmt.Errorf("Options.Token gave no token: %w", err)
		}
		t.setKey(token)
	} else {
		t.setKey(t.opts.Key)
	}
	if err := t.create(ctx); err != nil {
		return nil, err
	}
	return t.control(ctx, old)
}

func (t *Tunnel) setKey(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key = key
}

func (t *Tunnel) snapshot() (info, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info, t.key
}
