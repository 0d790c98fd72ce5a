package frontend

import (
	"fmt"

	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// BackendHandler answers a message of the back-end channel. It runs on a goroutine
// of the session and may use the session, as QEMU does when it reads the
// configuration space anew. An error is answered as a failure. The payload is
// valid until it returns.
type BackendHandler func(r protocol.BackendRequest, payload []byte) error

type backendChannel struct {
	conn *protocol.Conn
	done chan struct{}
}

// ServeBackendChannel makes a socket pair, passes one end to the back-end
// (SET_BACKEND_REQ_FD) and serves the other until the session closes.
func (s *Session) ServeBackendChannel(h BackendHandler) error {
	if s.backend != nil {
		return fmt.Errorf("open a second back-end channel: %w", ErrConfig)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open back-end channel: %w", err)
	}
	err = s.Set(protocol.SetBackendReqFD, nil, fds[1])
	_ = unix.Close(fds[1]) // the back-end has its own by now, or never will
	if err != nil {
		_ = unix.Close(fds[0])
		return err
	}
	conn, err := protocol.NewConnFD(fds[0])
	if err != nil {
		return err
	}
	s.backend = &backendChannel{conn: conn, done: make(chan struct{})}
	go s.backend.serve(h)
	return nil
}

// serve ends with the first error of the channel: its other end is closed, or ours
// is.
func (b *backendChannel) serve(h BackendHandler) {
	defer close(b.done)
	var m protocol.Message
	for b.conn.ReadMessage(&m) == nil {
		err := h(protocol.BackendRequest(m.Request), m.Payload)
		m.Files.CloseAll()
		if m.NeedReply() && b.reply(m.Request, err) != nil {
			return
		}
	}
}

func (b *backendChannel) reply(request uint32, err error) error {
	var code uint64
	if err != nil {
		code = 1
	}
	h := protocol.NewHeader(protocol.BackendRequest(request), protocol.FlagReply)
	return b.conn.WriteMessage(h, protocol.AppendU64(nil, code))
}

func (b *backendChannel) close() error {
	err := b.conn.Close()
	<-b.done
	return err
}
