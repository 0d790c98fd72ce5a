package frontend

import (
	"errors"
	"io"
	"testing"
	"time"

	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// sessionPair is a session and the connection at its other end.
func sessionPair(t *testing.T) (*Session, *protocol.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*protocol.Conn
	for i, fd := range fds {
		if conns[i], err = protocol.NewConnFD(fd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	s := NewSession(conns[0])
	s.SetTimeout(10 * time.Second)
	t.Cleanup(func() { _ = s.Close() })
	return s, conns[1]
}

// answer reads one message and answers with what it is given.
func answer(t *testing.T, c *protocol.Conn, h protocol.Header, payload []byte, fds ...int) <-chan protocol.Message {
	t.Helper()
	got := make(chan protocol.Message, 1)
	go func() {
		var m protocol.Message
		if err := c.ReadMessage(&m); err != nil {
			t.Error(err)
		}
		m.Files.CloseAll()
		if err := c.WriteMessage(h, payload, fds...); err != nil {
			t.Error(err)
		}
		got <- m
	}()
	return got
}

func reply(r protocol.Request) protocol.Header { return protocol.NewHeader(r, protocol.FlagReply) }

func TestRepliesAreChecked(t *testing.T) {
	u64 := protocol.AppendU64(nil, 1)
	config := func(off uint32, n int) []byte {
		c := protocol.Config{Offset: off, Data: make([]byte, n)}
		return c.Append(nil)
	}
	features := func(s *Session) error { _, err := s.GetFeatures(); return err }
	base := func(s *Session) error { _, err := s.GetVringBase(1); return err }
	getConfig := func(s *Session) error { return s.GetConfig(0, make([]byte, 60)) }
	inflight := func(s *Session) error { _, _, err := s.GetInflightFD(1, 1); return err }
	for _, tt := range []struct {
		name    string
		do      func(*Session) error
		h       protocol.Header
		payload []byte
		want    error
	}{
		{"good", features, reply(protocol.GetFeatures), u64, nil},
		{"another request's", features, reply(protocol.GetQueueNum), u64, ErrBackend},
		{"no reply flag", features, protocol.NewHeader(protocol.GetFeatures, 0), u64, ErrBackend},
		{"short", features, reply(protocol.GetFeatures), u64[:4], ErrBackend},
		{"another ring's base", base, reply(protocol.GetVringBase), protocol.VringState{Index: 2}.Append(nil), ErrBackend},
		{"config", getConfig, reply(protocol.GetConfig), config(0, 60), nil},
		{"empty config is a failure", getConfig, reply(protocol.GetConfig), nil, ErrBackend},
		{"shorter config", getConfig, reply(protocol.GetConfig), config(0, 59), ErrBackend},
		{"config of another place", getConfig, reply(protocol.GetConfig), config(1, 60), ErrBackend},
		{"in-flight region without a file", inflight, reply(protocol.GetInflightFD), (&protocol.Inflight{}).Append(nil), ErrBackend},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := sessionPair(t)
			got := answer(t, c, tt.h, tt.payload)
			if err := tt.do(s); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if m := <-got; m.NeedReply() {
				t.Error("a message with a reply of its own asked for another")
			}
		})
	}
}

func TestReplyAck(t *testing.T) {
	s, c := sessionPair(t)
	if err := s.SetProtocolFeatures(1 << protocol.ProtocolReplyAck); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadMessage(new(protocol.Message)); err != nil {
		t.Fatal(err)
	}
	for code, want := range map[uint64]error{0: nil, 1: ErrRefused, 1 << 40: ErrRefused} {
		got := answer(t, c, reply(protocol.SetOwner), protocol.AppendU64(nil, code))
		if err := s.SetOwner(); !errors.Is(err, want) {
			t.Errorf("code %d: %v", code, err)
		}
		if m := <-got; !m.NeedReply() {
			t.Error("the message did not ask for a reply")
		}
	}
}

func TestSilentBackendIsATimeout(t *testing.T) {
	s, _ := sessionPair(t)
	s.SetTimeout(time.Millisecond)
	if _, err := s.GetFeatures(); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestGoneBackend(t *testing.T) {
	s, c := sessionPair(t)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetFeatures(); !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v", err)
	}
}

// The back-end channel answers with success or failure, and its handler may use
// the session.
func TestBackendChannel(t *testing.T) {
	s, c := sessionPair(t)
	handled := make(chan protocol.BackendRequest, 2)
	err := s.ServeBackendChannel(func(r protocol.BackendRequest, _ []byte) error {
		handled <- r
		if r == protocol.BackendConfigChangeMsg {
			return s.GetConfig(0, make([]byte, 8))
		}
		return ErrUnsupported
	})
	if err != nil {
		t.Fatal(err)
	}
	var m protocol.Message
	if err := c.ReadMessage(&m); err != nil || protocol.Request(m.Request) != protocol.SetBackendReqFD || m.Files.Len() != 1 {
		t.Fatal(m.Header, err)
	}
	channel, err := protocol.NewConnFD(m.Files.Take(0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = channel.Close() }()
	served := answer(t, c, reply(protocol.GetConfig), (&protocol.Config{Data: make([]byte, 8)}).Append(nil))
	for r, want := range map[protocol.BackendRequest]uint64{protocol.BackendConfigChangeMsg: 0, protocol.BackendVringCall: 1} {
		if err := channel.WriteMessage(protocol.NewHeader(r, protocol.FlagNeedReply), nil); err != nil {
			t.Fatal(err)
		}
		if err := channel.ReadMessage(&m); err != nil || !m.IsReply() || protocol.BackendRequest(m.Request) != r {
			t.Fatalf("%v: %+v, %v", r, m.Header, err)
		}
		if code, err := protocol.DecodeU64(m.Payload); err != nil || code != want {
			t.Errorf("%v: answer %d, %v", r, code, err)
		}
		if got := <-handled; got != r {
			t.Errorf("handled %v, want %v", got, r)
		}
	}
	<-served
}

// TestLeave: the back-end's end is waited for, and not for longer than it is said.
func TestLeave(t *testing.T) {
	t.Run("closes", func(t *testing.T) {
		s, c := sessionPair(t)
		told := make(chan error)
		go func() {
			var m protocol.Message
			err := c.ReadMessage(&m)
			told <- errors.Join(ignore(err, io.EOF), c.Close())
		}()
		if err := errors.Join(s.Leave(time.Minute), <-told); err != nil {
			t.Error(err)
		}
	})
	t.Run("is silent", func(t *testing.T) {
		s, _ := sessionPair(t)
		if err := s.Leave(10 * time.Millisecond); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	})
	t.Run("goes on sending", func(t *testing.T) {
		s, c := sessionPair(t)
		if err := c.WriteMessage(reply(protocol.GetFeatures), protocol.AppendU64(nil, 0)); err != nil {
			t.Fatal(err)
		}
		if err := s.Leave(10 * time.Millisecond); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	})
	t.Run("is gone", func(t *testing.T) {
		s, c := sessionPair(t)
		if err := errors.Join(c.Close(), s.Leave(time.Minute)); err != nil {
			t.Error(err)
		}
	})
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}
