// Package control is how other processes talk to a running export: HTTP with JSON
// over a unix socket of mode 0600, which each export listens on under a name of its
// own. The export that has the disk is found as run/NAME.ctl in the state directory.
//
//	GET  /v1/status   [Status]
//	POST /v1/stop     drain and exit; answers when the export has begun to stop
//	POST /v1/resize   [Resize]: take over a size that the disk has got, and tell the guest
//	POST /v1/on-key-loss   [OnKeyLoss]: what to do when the disk's key is lost, from now on
//
// A request that fails is answered with a status of 400 or above and the error as text.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/sandbox"
	"sealblk/internal/unixsocket"
)

// Status describes a running export.
type Status struct {
	PID        int    `json:"pid"`
	Disk       string `json:"disk"`
	SocketPath string `json:"socket_path"`
	Encrypted  bool   `json:"encrypted"`
	Connected  bool   `json:"connected"`
	// Owner: the export has the right to use the disk. One that stands by for a
	// migration has not.
	Owner     bool     `json:"owner"`
	Queues    int      `json:"num_queues"`
	SizeBytes int64    `json:"size_bytes"`
	Warnings  []string `json:"warnings"`
	Stats     Stats    `json:"stats"`
	// KeyState is what is known of the disk's CMK (disk.KeyState), empty if nobody looks.
	KeyState string `json:"key_state,omitempty"`
	// OnKeyLoss is the policy that the export goes by, empty for a disk without a key.
	OnKeyLoss string `json:"on_key_loss,omitempty"`
	// IOState is one of IORunning, IOPaused, IOFailed.
	IOState string `json:"io_state"`
	// Sandbox says what of the sandbox is on.
	Sandbox sandbox.Report `json:"sandbox"`
}

// Stats are sums over all queues since the export started.
type Stats struct {
	Reads       uint64 `json:"reads"`
	Writes      uint64 `json:"writes"`
	Flushes     uint64 `json:"flushes"`
	Discards    uint64 `json:"discards"`
	WriteZeroes uint64 `json:"write_zeroes"`
	ReadBytes   uint64 `json:"read_bytes"`
	WriteBytes  uint64 `json:"write_bytes"`
	Errors      uint64 `json:"errors"`
}

// What an export does with requests.
const (
	IORunning = "running"
	// IOPaused: it leaves them where they are, and has no data key.
	IOPaused = "paused"
	// IOFailed: it fails them, and has no data key any more.
	IOFailed = "failed"
)

// OnKeyLoss is the body of a change of that policy.
type OnKeyLoss struct {
	Policy string `json:"policy"`
}

// Resize is the body of a resize.
type Resize struct {
	SizeBytes int64 `json:"size_bytes"`
}

// ErrNotRunning: nobody listens on the control socket.
var ErrNotRunning = errors.New("no export is running")

// Export is what a control server speaks for. Its methods are called from any
// goroutine.
type Export interface {
	Status() Status
	Stop()
	// Resize takes over a size that the backing store has already.
	Resize(size int64) error
	// SetOnKeyLoss takes another policy, or refuses one that is none.
	SetOnKeyLoss(policy string) error
}

// Server answers requests on a control socket until it is closed.
type Server struct {
	socket *unixsocket.Listener
	http   http.Server
	done   chan struct{}
}

// Serve listens on path and answers for e.
func Serve(path string, e Export) (*Server, error) {
	ln, err := unixsocket.Listen(path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, e.Status()) })
	mux.HandleFunc("POST /v1/stop", func(w http.ResponseWriter, _ *http.Request) { e.Stop(); reply(w, e.Status()) })
	mux.HandleFunc("POST /v1/resize", change(e, func(b Resize) error { return e.Resize(b.SizeBytes) }))
	mux.HandleFunc("POST /v1/on-key-loss", change(e, func(b OnKeyLoss) error { return e.SetOnKeyLoss(b.Policy) }))
	s := &Server{socket: ln, http: http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.http.Serve(ln) //nolint:errcheck // it ends with ErrServerClosed, by Close
	}()
	return s, nil
}

// Close answers what is being asked, and removes the socket.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.done
	return errors.Join(err, s.socket.Remove())
}

// change handles a request that has a body and changes something.
func change[Body any](e Export, do func(Body) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body Body
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := do(body); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		reply(w, e.Status())
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the peer has gone: nobody to tell
}

// Client asks one running export.
type Client struct{ http http.Client }

// Dial makes a client for the control socket at path. It connects with each call.
func Dial(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return unixsocket.Dial(ctx, path)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status asks what the export is doing. ErrNotRunning if there is none.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.call(ctx, http.MethodGet, "/v1/status", nil)
}

// Stop tells the export to drain and exit.
func (c *Client) Stop(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/v1/stop", nil)
	return err
}

// Resize tells the export that its disk has a new size, in bytes.
func (c *Client) Resize(ctx context.Context, size int64) (Status, error) {
	return c.change(ctx, "/v1/resize", Resize{SizeBytes: size})
}

// SetOnKeyLoss tells the export what to do when the disk's key is lost.
func (c *Client) SetOnKeyLoss(ctx context.Context, policy string) (Status, error) {
	return c.change(ctx, "/v1/on-key-loss", OnKeyLoss{Policy: policy})
}

func (c *Client) change(ctx context.Context, path string, v any) (Status, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return Status{}, err
	}
	return c.call(ctx, http.MethodPost, path, body)
}

// callTimeout is how long an export may take to answer. Of what it is asked only a
// resize looks at its storage.
var callTimeout = 10 * time.Second

func (c *Client) call(ctx context.Context, method, path string, body []byte) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no answer within %v", callTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://export"+path, bytes.NewReader(body))
	if err != nil {
		return Status{}, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return Status{}, ErrNotRunning
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask export: %w", plain(ctx, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return Status{}, fmt.Errorf("ask export: %s: %s", resp.Status, bytes.TrimSpace(why))
	}
	var s Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&s); err != nil {
		return Status{}, fmt.Errorf("ask export: read answer: %w", plain(ctx, err))
	}
	return s, nil
}

// plain leaves out of an error the request, which the user did not make.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}
