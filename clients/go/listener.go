package adit

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// errBusy says that nobody has called Accept in time.
var errBusy = errors.New("the service accepts no connections now")

// Listener is a tunnel whose viewers are accepted from it, as from a listening socket. What it accepts are ordinary
// connections: with deadlines, with CloseWrite, and with io.ErrUnexpectedEOF where one broke off.
//
// Of a tunnel for HTTP, a connection carries requests of many viewers: who asks is in X-Forwarded-For, and RemoteAddr is
// the relay. Of "proto": "tcp" or "tls" it is the viewer.
type Listener struct {
	*Tunnel
	conns chan net.Conn
}

// Accept waits for the next connection. After the end of the tunnel its error is Err, or net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.live.Done():
		err := l.Err()
		if err == nil {
			err = net.ErrClosed
		}
		return nil, &net.OpError{Op: "accept", Net: "adit", Addr: l.Addr(), Err: err}
	}
}

// Addr is the tunnel's URL.
func (l *Listener) Addr() net.Addr { return address(l.URL()) }

type address string

func (address) Network() string  { return "adit" }
func (a address) String() string { return string(a) }

// offer gives Accept one end of a new connection, and returns the other.
func (l *Listener) offer(ctx context.Context, t *Tunnel, a announcement) (stream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var viewer net.Addr = address(t.relay.Host)
	if at, err := netip.ParseAddrPort(a.RemoteAddr); err == nil && (a.Proto == "tcp" || a.Proto == "tls") {
		viewer = net.TCPAddrFromAddrPort(at)
	}
	ours, theirs := pair(address(t.URL()), viewer)
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
	case <-t.live.Done():
	}
	return nil, errBusy
}

// conn is one end of a connection within this process. Nothing is held between its ends: a write waits for the reader.
type conn struct {
	in, out       net.Conn // a pipe for each direction, so that each can end by itself
	peer          *conn
	broken        atomic.Bool // what was to come is not complete
	local, remote net.Addr
}

// pair gives both ends: ours, and the one that Accept returns.
func pair(local, viewer net.Addr) (ours, theirs *conn) {
	a, b := net.Pipe()
	c, d := net.Pipe()
	ours = &conn{in: a, out: c, local: local, remote: viewer}
	theirs = &conn{in: d, out: b, local: local, remote: viewer, peer: ours}
	ours.peer = theirs
	return ours, theirs
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	if err == io.EOF && c.broken.Load() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *conn) CloseWrite() error           { return c.out.Close() }

func (c *conn) Close() error {
	_ = c.in.Close()
	return c.out.Close()
}

func (c *conn) LocalAddr() net.Addr                { return c.local }
func (c *conn) RemoteAddr() net.Addr               { return c.remote }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.in.SetDeadline(t)
	return c.out.SetDeadline(t)
}
