package conformance_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/vhost/conformance"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

// scissors stand between a front-end and a back-end, and cut the connection in the
// message that is number at from 0, after so many of its bytes.
type scissors struct {
	t       *testing.T
	ln      *net.UnixListener
	socket  string
	at      int
	keep    func(h *protocol.Header) int
	seen    int // messages; belongs to the goroutine that relays until done
	done    sync.WaitGroup
	backend string
}

// Where a message is cut.
var cuts = map[string]func(h *protocol.Header) int{
	"before":         func(*protocol.Header) int { return 0 },
	"in the header":  func(*protocol.Header) int { return protocol.HeaderSize / 2 },
	"in the payload": func(h *protocol.Header) int { return protocol.HeaderSize + int(h.Size)/2 },
	"after":          func(h *protocol.Header) int { return protocol.HeaderSize + int(h.Size) },
}

func newScissors(t *testing.T, backend string) *scissors {
	t.Helper()
	s := &scissors{t: t, socket: filepath.Join(t.TempDir(), "s"), backend: backend}
	var err error
	s.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	must(t, err)
	t.Cleanup(func() { must(t, s.ln.Close()) })
	return s
}

// run has a session, and tells how many messages it had.
func (s *scissors) run(at int, keep func(*protocol.Header) int) int {
	s.at, s.keep, s.seen = at, keep, 0
	s.stand()
	live(s.socket)
	s.done.Wait()
	conformance.Settle(s.t, conformance.Target{Socket: s.backend})
	return s.seen
}

// stand waits for one connection and relays it.
func (s *scissors) stand() {
	s.done.Go(func() {
		c, err := s.ln.AcceptUnix()
		if err != nil {
			s.t.Error(err)
			return
		}
		front, err := protocol.NewConn(c)
		must(s.t, err)
		back, err := frontend.Dial(s.t.Context(), s.backend)
		if err != nil {
			s.t.Error(err)
			_ = front.Close()
			return
		}
		var answers sync.WaitGroup
		answers.Go(func() { pass(back.Conn(), front, func(*protocol.Message) int { return -1 }) })
		pass(front, back.Conn(), s.cut)
		back.Interrupt()
		_ = front.Close()
		answers.Wait()
		_ = back.Close()
	})
}

// cut tells how many bytes of a message to pass on; negative for all of it.
func (s *scissors) cut(m *protocol.Message) int {
	s.seen++
	if s.seen-1 == s.at {
		return s.keep(&m.Header)
	}
	return -1
}

func pass(from, to *protocol.Conn, cut func(*protocol.Message) int) {
	var m protocol.Message
	for from.ReadMessage(&m) == nil {
		var fds []int
		for i := range m.Files.Len() {
			fds = append(fds, m.Files.Take(i))
		}
		b := append(m.Append(nil), m.Payload...)
		n := cut(&m)
		if n >= 0 {
			b = b[:n]
		}
		err := to.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err == nil {
			err = to.WriteRaw(b, fds...)
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if n >= 0 || err != nil {
			return
		}
	}
}

// TestDisconnectAtEachStep ends a session before, in and after each message of its
// life, those included that come while requests are in flight. The next one is served,
// nothing is left of the one before, and nothing on the disk changes that nobody wrote
// to.
func TestDisconnectAtEachStep(t *testing.T) {
	for _, stack := range []string{"memory", "encrypted io_uring", "threads"} {
		t.Run(stack, func(t *testing.T) {
			v := newVictim(t, engines[stack](t))
			s := newScissors(t, v.Socket)
			conformance.Settle(t, v.Target)
			before := holdings(t)
			steps := s.run(-1, nil)
			for name, keep := range cuts {
				for at := range steps {
					s.run(at, keep)
				}
				eventually(t, fmt.Sprintf("sessions that ended %s a message left something behind", name), func() bool {
					after := holdings(t)
					return after.files <= before.files && after.maps <= before.maps
				})
			}
			if steps < 25 {
				t.Errorf("a session has %d messages", steps)
			}
			conformance.Healthy(t, v.Target)
			v.check(t)
		})
	}
}

// live is the life of a session: it starts, has requests in flight, and stops. It takes
// what comes.
func live(socket string) {
	s, err := frontend.Dial(context.Background(), socket)
	if err != nil {
		return
	}
	d, err := frontend.OpenSession(s, frontend.Options{Queues: 2, QueueSize: 64, Timeout: 10 * time.Second})
	if err != nil {
		return
	}
	defer d.Close()
	for i := range 40 {
		q := d.Queue(i % 2)
		r, err := q.NewRequest(16 << 10)
		if err != nil {
			return
		}
		r.Type, r.Sector = uint32(i/2%2), uint64(i)*32
		if q.Submit(r) != nil || q.Notify() != nil {
			return
		}
	}
	_ = d.Stop()
}
