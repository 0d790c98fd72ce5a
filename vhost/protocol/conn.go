package protocol

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// transport is what *net.UnixConn and *os.File have in common: a descriptor that
// the Go scheduler waits on.
type transport interface {
	io.Closer
	syscall.Conn
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Message is a received message. Its Payload lies in the Conn that read it.
type Message struct {
	Header
	Payload []byte
	Files   Files
}

// Conn sends and receives messages over a stream of bytes, usually a unix socket.
type Conn struct {
	t   transport
	raw syscall.RawConn

	rbuf   [HeaderSize + MaxPayload]byte
	rctl   [controlSize]byte
	wbuf   []byte
	wctl   []byte
	stream bool // the transport is no socket: read(2) and write(2), no descriptors
}

// NewConn takes ownership of c.
func NewConn(c *net.UnixConn) (*Conn, error) { return newConn(c, false) }

// NewConnFD takes ownership of fd, also when it fails. It is a socket or, on a
// back-end channel, whatever the front-end chose to pass (a pipe, for one).
func NewConnFD(fd int) (*Conn, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("stat descriptor: %w", err)
	}
	// os.NewFile hands only non-blocking descriptors to the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("set descriptor non-blocking: %w", err)
	}
	return newConn(os.NewFile(uintptr(fd), "vhost-user"), st.Mode&unix.S_IFMT != unix.S_IFSOCK)
}

func newConn(t transport, stream bool) (*Conn, error) {
	raw, err := t.SyscallConn()
	if err != nil {
		_ = t.Close() // the first error is the one to report
		return nil, fmt.Errorf("open connection: %w", err)
	}
	return &Conn{t: t, raw: raw, stream: stream}, nil
}

// SetDeadline bounds reads and writes that are under way and those to come; the
// zero time takes the bound away. One that is too late ends with
// os.ErrDeadlineExceeded.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.t.SetReadDeadline(t); err != nil {
		return err
	}
	return c.t.SetWriteDeadline(t)
}

// SetReadDeadline is SetDeadline for reads alone.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.t.SetReadDeadline(t) }

// SetWriteDeadline is SetDeadline for writes alone.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.t.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor, to wait on it or to ask who is at
// the other end.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.t.SyscallConn() }

// Close closes the descriptor. Reads and writes under way end with an error.
func (c *Conn) Close() error { return c.t.Close() }

// ReadMessage reads the next message into m, closing what m's Files still hold. On
// an error m holds no descriptors.
func (c *Conn) ReadMessage(m *Message) error {
	m.Files.CloseAll()
	m.Header, m.Payload = Header{}, nil
	if err := c.readMessage(m); err != nil {
		m.Files.CloseAll()
		return err
	}
	return nil
}

func (c *Conn) readMessage(m *Message) error {
	n, err := c.readFull(c.rbuf[:HeaderSize], &m.Files)
	if errors.Is(err, io.EOF) && n == 0 {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("read header: %w", inside(err))
	}
	if err := m.Decode(c.rbuf[:HeaderSize]); err != nil {
		return err
	}
	payload := c.rbuf[HeaderSize : HeaderSize+m.Size]
	if _, err := c.readFull(payload, &m.Files); err != nil {
		return fmt.Errorf("read payload of %d bytes: %w", m.Size, inside(err))
	}
	m.Payload = payload
	return nil
}

// inside says what an end of the stream means within a message.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readFull fills p and adds the descriptors that come with its bytes to f. It
// never reads beyond p: what follows, and its descriptors, is another message's.
func (c *Conn) readFull(p []byte, f *Files) (int, error) {
	n := 0
	for n < len(p) {
		k, err := c.recv(p[n:], f)
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// WriteMessage sends h with its Size set to the payload's, the payload, and the
// descriptors, which stay the caller's.
func (c *Conn) WriteMessage(h Header, payload []byte, fds ...int) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("write %d bytes of payload: %w", len(payload), ErrPayloadTooLarge)
	}
	h.Size = uint32(len(payload))
	c.wbuf = append(h.Append(c.wbuf[:0]), payload...)
	return c.WriteRaw(c.wbuf, fds...)
}

// WriteRaw sends bytes as they are, for a peer that wants to break the rules. The
// descriptors go with the first byte.
func (c *Conn) WriteRaw(b []byte, fds ...int) error {
	c.wctl = appendRights(c.wctl[:0], fds)
	control := c.wctl
	for len(b) > 0 {
		n, err := c.send(b, control)
		if err != nil {
			return fmt.Errorf("write message: %w", err)
		}
		b, control = b[n:], nil
	}
	return nil
}
