package adit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

const (
	dialTimeout = 10 * time.Second // to the target, or until Accept takes the viewer
	rejectWait  = 10 * time.Second // until the relay has closed a data socket whose viewer was rejected
	chunk       = 32 << 10         // of bytes held at the same time, in each direction of a data socket
)

// stream is a connection to the target.
type stream interface {
	net.Conn
	CloseWrite() error
}

// data is one data socket: raw bytes of one connection to the target, in both directions.
type data struct {
	s      *session
	ws     *websocket.Conn
	target stream

	mu        sync.Mutex
	targetEnd bool // the target has said that it sends no more
	relayEnd  bool // and the relay
	deaf      bool // the target takes no more; what comes for it is dropped
	closed    bool // by us
}

// serve takes a claimed socket to the target, and returns when both are closed.
func (d *data) serve(ctx context.Context, a announcement) {
	d.ws.SetReadLimit(0) // no message is held whole
	defer d.ws.Close()
	defer context.AfterFunc(ctx, func() { _ = d.ws.Close() })()
	var err error
	if d.target, err = d.s.t.dial(ctx, d.s.t, a); err != nil {
		d.s.t.log.Warn("adit: a viewer was turned away", "error", err)
		d.refuse(a, err)
		return
	}
	defer context.AfterFunc(ctx, func() { reset(d.target) })() // it may be what holds us up
	up := make(chan struct{})
	go func() {
		defer close(up)
		d.toRelay()
	}()
	d.toTarget()
	_ = d.target.Close()
	<-up
}

// toTarget ends with the socket. What was cut short is not ended at the target as if it were complete.
func (d *data) toTarget() {
	buffer := make([]byte, chunk)
	for {
		_, message, err := d.ws.NextReader()
		if err != nil {
			if !d.complete(err) {
				reset(d.target)
			}
			return
		}
		length, deaf := 0, false
		for err == nil {
			var n int
			n, err = message.Read(buffer)
			length += n
			if n > 0 && !deaf {
				if _, failed := d.target.Write(buffer[:n]); failed != nil {
					deaf = true
					d.note(&d.deaf)
				}
			}
		}
		if err != io.EOF {
			reset(d.target)
			return
		}
		if length == 0 && d.s.two {
			_ = d.target.CloseWrite()
			d.note(&d.relayEnd)
		}
	}
}

// toRelay ends with the target's bytes.
func (d *data) toRelay() {
	buffer := make([]byte, chunk)
	for {
		n, err := d.target.Read(buffer)
		if n > 0 && d.ws.WriteMessage(websocket.BinaryMessage, buffer[:n]) != nil {
			return // the other direction sees why
		}
		if err == io.EOF {
			if d.s.two {
				_ = d.ws.WriteMessage(websocket.BinaryMessage, nil)
			}
			d.note(&d.targetEnd)
			return
		}
		if err != nil {
			d.close(websocket.CloseInternalServerErr, "the target failed")
			return
		}
	}
}

// note sets one of the flags, and closes the socket when all is said (protocol.md, 4 and 8.3).
func (d *data) note(flag *bool) {
	d.mu.Lock()
	*flag = true
	both, cut := d.targetEnd && (d.relayEnd || !d.s.two), d.targetEnd && d.deaf
	d.mu.Unlock()
	if both {
		d.close(websocket.CloseNormalClosure, "")
	} else if cut {
		d.close(websocket.CloseInternalServerErr, "the target takes no more")
	}
}

// close ends both ways; the reader goes on until the relay's close frame.
func (d *data) close(code int, text string) {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	goodbye(d.ws, code, text)
	_ = d.target.Close() // a write to it must not hold up the reader
}

// complete tells the ends after which nothing is missing of what the relay sent.
func (d *data) complete(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseNoStatusReceived) {
		return true
	}
	// CloseAbnormalClosure is how the package calls the end of TCP between two messages.
	return !d.s.two && websocket.IsCloseError(err, websocket.CloseGoingAway, websocket.CloseAbnormalClosure)
}

// refuse tells the viewer that the target cannot be reached.
func (d *data) refuse(a announcement, cause error) {
	text := cause.Error()
	switch {
	case d.s.two:
		if d.s.send(map[string]string{"type": "reject", "id": a.ID, "reason": reason(cause), "message": text[:min(len(text), 1000)]}) {
			_ = d.ws.SetReadDeadline(time.Now().Add(rejectWait)) // the relay closes the socket
		} else {
			goodbye(d.ws, websocket.CloseInternalServerErr, "the target cannot be reached")
		}
	case d.s.t.opts.Create["proto"] == nil || d.s.t.opts.Create["proto"] == "http":
		text += "\n"
		_ = d.ws.WriteMessage(websocket.BinaryMessage, fmt.Appendf(nil, "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
		goodbye(d.ws, websocket.CloseNormalClosure, "")
	default:
		goodbye(d.ws, websocket.CloseInternalServerErr, "the target cannot be reached")
	}
	for { // until the relay has closed it, so that nothing under way is lost to a reset
		if _, message, err := d.ws.NextReader(); err != nil {
			return
		} else if _, err = io.Copy(io.Discard, message); err != nil {
			return
		}
	}
}

// reason is the word of a rejection for programs (protocol.md, 8.2).
func reason(err error) string {
	var unknown *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errBusy):
		return "busy"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed_out"
	case errors.As(err, &unknown):
		return "host_not_found"
	}
	return "unreachable"
}

// reset ends a connection so that its other end sees that something is missing.
func reset(c net.Conn) {
	switch c := c.(type) {
	case *conn:
		c.peer.broken.Store(true)
	case interface{ SetLinger(int) error }:
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}
