package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// handshakeTimeout bounds a connect whose context has no deadline: a QMP socket
// that serves another client accepts and stays silent.
const handshakeTimeout = 10 * time.Second

// questionTimeout bounds a single question whose context has no deadline. A QEMU that
// waits for a back-end answers nothing.
var questionTimeout = 10 * time.Second

// Executor is what Attach and Detach need of a QMP connection. Monitor is one.
type Executor interface {
	// Execute runs a command. args is marshalled to its arguments (nil: none), the
	// result is unmarshalled into out (nil: ignored). QEMU's refusal is an *Error.
	Execute(ctx context.Context, command string, args, out any) error
	// Events is a channel of the events from now on, closed when ctx ends.
	Events(ctx context.Context) (<-chan goqemu.Event, error)
}

// Monitor is a client of one QMP socket. Any number of goroutines may use it.
type Monitor struct {
	network, address string
	limit            int64
	dropped          atomic.Uint64

	// connecting is held while a connection is made or taken down.
	connecting sync.Mutex
	// mu guards s.
	mu sync.Mutex
	s  *session
}

var (
	_ goqemu.Monitor = (*Monitor)(nil)
	_ Executor       = (*Monitor)(nil)
)

// New makes a monitor for a socket, "unix" with a path or "tcp" with host:port. It
// does not connect.
func New(network, address string) *Monitor {
	return &Monitor{network: network, address: address, limit: MaxMessage}
}

// Dial connects to the QMP socket at a path.
func Dial(ctx context.Context, path string) (*Monitor, error) {
	m := New("unix", path)
	if err := m.ConnectContext(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// Connect is ConnectContext without a context.
func (m *Monitor) Connect() error { return m.ConnectContext(context.Background()) }

// ConnectContext connects and negotiates capabilities. It does nothing when there
// is a connection, and makes a new one when the last was lost.
func (m *Monitor) ConnectContext(ctx context.Context) error {
	m.connecting.Lock()
	defer m.connecting.Unlock()
	if s, _ := m.session(); s != nil && !s.isDone() {
		return nil
	}
	ctx, cancel := withDefaultTimeout(ctx, handshakeTimeout)
	defer cancel()
	s, err := m.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to QMP socket %s: %w", m.address, err)
	}
	m.mu.Lock()
	m.s = s
	m.mu.Unlock()
	return nil
}

func (m *Monitor) dial(ctx context.Context) (*session, error) {
	conn, err := new(net.Dialer).DialContext(ctx, m.network, m.address)
	if err != nil {
		return nil, err
	}
	return open(ctx, conn, m.limit, func() { m.dropped.Add(1) })
}

// Disconnect ends the connection, if there is one, and waits until all of it is
// gone. Commands that wait fail with ErrConnectionLost.
func (m *Monitor) Disconnect() error {
	m.connecting.Lock()
	defer m.connecting.Unlock()
	m.mu.Lock()
	s := m.s
	m.s = nil
	m.mu.Unlock()
	if s != nil {
		s.close()
	}
	return nil
}

func (m *Monitor) session() (*session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.s == nil {
		return nil, ErrNotConnected
	}
	return m.s, nil
}

func (s *session) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Version is the version in the server's greeting.
func (m *Monitor) Version() (goqemu.Version, error) {
	s, err := m.session()
	if err != nil {
		return goqemu.Version{}, err
	}
	return s.version, nil
}

// Dropped counts the events that subscribers were too slow for.
func (m *Monitor) Dropped() uint64 { return m.dropped.Load() }

// Execute implements Executor.
func (m *Monitor) Execute(ctx context.Context, name string, args, out any) error {
	s, err := m.session()
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	ret, err := s.run(ctx, func(id string) ([]byte, error) {
		return json.Marshal(command{Execute: name, Arguments: args, ID: id})
	})
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(ret, out); err != nil {
		return fmt.Errorf("read result of %s: %w", name, err)
	}
	return nil
}

// Run implements go-qemu's Monitor: it sends a command given as JSON and returns
// the whole reply. An id in the command comes back in the reply.
func (m *Monitor) Run(cmd []byte) ([]byte, error) {
	s, err := m.session()
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(cmd, &fields); err != nil {
		return nil, fmt.Errorf("read command: %w", err)
	}
	if fields == nil {
		return nil, fmt.Errorf("read command: %w: not an object", ErrProtocol)
	}
	reply := make(map[string]json.RawMessage, 2)
	if id, ok := fields["id"]; ok {
		reply["id"] = id
	}
	ret, err := s.run(context.Background(), func(id string) ([]byte, error) {
		fields["id"] = json.RawMessage(`"` + id + `"`)
		return json.Marshal(fields)
	})
	if err != nil {
		return nil, err
	}
	reply["return"] = ret
	return json.Marshal(reply)
}

// Events implements go-qemu's Monitor and Executor. The channel is also closed when
// the connection ends; a subscriber that is slower than the events loses the oldest.
func (m *Monitor) Events(ctx context.Context) (<-chan goqemu.Event, error) {
	s, err := m.session()
	if err != nil {
		return nil, err
	}
	return s.subscribe(ctx)
}

// withDefaultTimeout gives a context a deadline if it has none.
func withDefaultTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return withTimeout(ctx, d)
}

// withTimeout makes a context that says of its end how long nobody answered.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, silence{d})
}
