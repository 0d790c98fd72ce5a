package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// session is one connection, from the handshake to its end.
//
//	open ── commands, events ──> ended (peer closed, bad message, Disconnect)
//
// Its reader goroutine starts with the session and is the only one that ends it:
// others close the connection and wait for done.
type session struct {
	conn    net.Conn
	in      *messageReader
	version goqemu.Version
	onDrop  func()
	writing chan struct{} // holds one token: whoever has it may write
	done    chan struct{} // closed when the session has ended; err is set then

	mu      sync.Mutex
	seq     uint64
	pending map[string]chan *message
	subs    map[*subscriber]struct{}
	err     error // the first reason to end
	ended   bool
}

// open does the handshake on a fresh connection and owns the connection from
// there on. The context bounds the handshake alone.
func open(ctx context.Context, conn net.Conn, limit int64, onDrop func()) (*session, error) {
	s := &session{
		conn:    conn,
		in:      newMessageReader(conn, limit),
		onDrop:  onDrop,
		writing: make(chan struct{}, 1),
		done:    make(chan struct{}),
		pending: make(map[string]chan *message),
		subs:    make(map[*subscriber]struct{}),
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err := s.handshake()
	if !stop() && err == nil {
		err = cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, handshakeError(ctx, err)
	}
	go s.read()
	return s, nil
}

// handshakeError explains the usual reason for a silent monitor.
func handshakeError(ctx context.Context, err error) error {
	if errors.Is(err, ErrProtocol) || errors.Is(err, ErrTooLarge) || ctx.Err() == nil {
		return fmt.Errorf("greet QEMU: %w", err)
	}
	return fail(fmt.Errorf("greet QEMU: %w", cause(ctx)),
		"close the other client or give QEMU a second -qmp socket",
		"no greeting; QEMU serves one client at a time on a QMP socket")
}

func (s *session) handshake() error {
	m, err := s.in.next()
	if err != nil {
		return err
	}
	if m.QMP == nil {
		return fmt.Errorf("%w: no greeting", ErrProtocol)
	}
	s.version = m.QMP.Version
	line, err := json.Marshal(command{Execute: "qmp_capabilities", ID: "hello"})
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(append(line, '\n')); err != nil {
		return err
	}
	for {
		m, err := s.in.next()
		if err != nil {
			return err
		}
		if m.isReply() {
			_, err := m.result()
			return err
		}
	}
}

// read hands out what the server sends until the connection ends.
func (s *session) read() {
	for {
		m, err := s.in.next()
		if err == nil {
			err = s.dispatch(m)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

func (s *session) dispatch(m *message) error {
	switch {
	case m.isReply() && m.ID == nil:
		// QEMU could not even read the command: nobody can tell whose it was.
		if m.Failed != nil {
			return fmt.Errorf("%w: reply without id: %w", ErrProtocol, m.Failed)
		}
		return fmt.Errorf("%w: reply without id", ErrProtocol)
	case m.isReply():
		s.answer(m)
	case m.isEvent():
		s.publish(m.Event)
	}
	return nil
}

func (s *session) answer(m *message) {
	var id string
	if json.Unmarshal(m.ID, &id) != nil {
		return
	}
	s.mu.Lock()
	ch := s.pending[id]
	delete(s.pending, id)
	s.mu.Unlock()
	if ch != nil {
		ch <- m // has room for its one message
	}
}

// end is the last act of the reader.
func (s *session) end(err error) {
	s.abort(err)
	s.mu.Lock()
	s.ended = true
	s.closeSubscribersLocked()
	s.mu.Unlock()
	close(s.done)
}

// abort makes the session end, for the reason that came first.
func (s *session) abort(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	s.mu.Unlock()
	_ = s.conn.Close()
}

// close ends the session and waits for its reader.
func (s *session) close() {
	s.abort(errors.New("disconnected"))
	<-s.done
}

// run sends a command that build makes for the given id and waits for its reply.
func (s *session) run(ctx context.Context, build func(id string) ([]byte, error)) (json.RawMessage, error) {
	id, ch := s.expect()
	defer s.forget(id)
	line, err := build(id)
	if err != nil {
		return nil, err
	}
	if err := s.send(ctx, append(line, '\n')); err != nil {
		return nil, err
	}
	select {
	case m := <-ch:
		return m.result()
	case <-ctx.Done():
		return nil, cause(ctx)
	case <-s.done:
	}
	select {
	case m := <-ch: // it came just before the end
		return m.result()
	default:
		return nil, s.err
	}
}

// expect makes a new id and the place its reply will come to.
func (s *session) expect() (string, chan *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	id := "sealblk-" + strconv.FormatUint(s.seq, 10)
	ch := make(chan *message, 1)
	s.pending[id] = ch
	return id, ch
}

func (s *session) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, id)
}

// send writes one line whole. If the context ends after a part was written the
// session cannot go on.
func (s *session) send(ctx context.Context, line []byte) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return cause(ctx)
	case <-s.done:
		return s.err
	}
	n, err := s.write(ctx, line)
	switch {
	case err == nil:
		return nil
	case n == 0 && ctx.Err() != nil:
		return cause(ctx)
	}
	s.abort(fmt.Errorf("write command: %w", err))
	<-s.done
	return s.err
}

// write is Write with a context.
func (s *session) write(ctx context.Context, line []byte) (int, error) {
	if ctx.Err() != nil {
		return 0, cause(ctx)
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = s.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := s.conn.Write(line)
	if !stop() {
		<-fired
		_ = s.conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}
