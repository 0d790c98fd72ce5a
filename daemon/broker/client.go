package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/linkname"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// finishDeadline bounds the wait for files to be removed.
const finishDeadline = 10 * time.Second

// Client is the worker's end. The process behind it is started when it is first
// needed, so that a Client that only exists has opened no descriptor.
type Client struct {
	path string   // of the program
	args []string // its name, and its arguments
	log  *slog.Logger

	mu      sync.Mutex // one request at a time
	process *process   // nil until it is started
}

// process is a broker that runs.
type process struct {
	conn *os.File
	keys *os.File
	in   *json.Decoder
	out  *json.Encoder
	done chan struct{}
}

var _ keymgr.KMS = (*Client)(nil)

// New makes the client of a broker that will be started as path with args, the first
// of which is the name of the program.
func New(path string, args []string, log *slog.Logger) *Client {
	return &Client{path: path, args: args, log: log}
}

// start runs the broker unless it runs.
func (c *Client) start() (*process, error) {
	if c.process != nil {
		return c.process, nil
	}
	ours, theirs, err := sockets()
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	defer theirs.Close()
	read, write, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start broker: %w", err)
	}
	defer write.Close()
	cmd := exec.Cmd{Path: c.path, Args: c.args, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs, write}}
	if err := cmd.Start(); err != nil {
		ours.Close()
		read.Close()
		return nil, fmt.Errorf("start broker: %w", err)
	}
	p := &process{ours, read, json.NewDecoder(ours), json.NewEncoder(ours), make(chan struct{})}
	go func() {
		defer close(p.done)
		if err := cmd.Wait(); err != nil {
			c.log.Warn("the broker process has ended: socket files will stay behind", "err", err)
		}
	}()
	c.process = p
	return p, nil
}

// sockets is a connected pair. Files of descriptors that do not block are served by
// the runtime's poller, so that deadlines hold.
func sockets() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "broker"), os.NewFile(uintptr(fds[1]), "worker"), nil
}

// call sends a request and waits for its reply.
func (c *Client) call(ctx context.Context, r request) (*process, reply, error) {
	p, err := c.start()
	if err != nil {
		return nil, reply{}, err
	}
	answer, err := p.call(ctx, r)
	return p, answer, err
}

// call fails at once when ctx ends; the broker is of no more use then.
func (p *process) call(ctx context.Context, r request) (reply, error) {
	defer context.AfterFunc(ctx, func() { p.conn.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it is a socket
	var answer reply
	err := p.out.Encode(r)
	if err == nil {
		err = p.in.Decode(&answer)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return answer, ctx.Err()
	case err != nil:
		return answer, fmt.Errorf("ask broker to %s: %w", r.Op, ErrGone)
	case answer.Failure != nil:
		return answer, answer.Failure.unpack()
	}
	return answer, nil
}

// Decrypt implements keymgr.KMS: the broker's KMS unwraps the key.
func (c *Client) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, answer, err := c.call(ctx, request{Op: opDecrypt, Key: w, Context: ec})
	if err != nil {
		return nil, err
	}
	return secret.ReadPipe(p.keys, answer.KeySize)
}

// Seal tells the broker that the worker goes into its sandbox, which files to remove
// at Finish, and which names are the worker's: for Show and Finish. The broker refuses
// everything but those from now on.
func (c *Client) Seal(ctx context.Context, files []string, names []linkname.Name) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil && len(files) == 0 && len(names) == 0 {
		return nil // there is nothing to do for it
	}
	_, _, err := c.call(ctx, request{Op: opSeal, Files: files, Names: names})
	return err
}

// Show has the names of Seal made public: the worker has taken its disk.
func (c *Client) Show() error {
	ctx, cancel := context.WithTimeout(context.Background(), finishDeadline)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return ErrGone
	}
	_, err := c.process.call(ctx, request{Op: opShow})
	return err
}

// Finish has the files and names of Seal removed.
func (c *Client) Finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), finishDeadline)
	defer cancel()
	_, err := c.process.call(ctx, request{Op: opFinish})
	return err
}

// Close ends the broker and waits for it, unless it hangs in its KMS.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.process
	if p == nil {
		return nil
	}
	c.process = nil
	err := errors.Join(p.conn.Close(), p.keys.Close())
	select {
	case <-p.done:
		return err
	case <-time.After(finishDeadline):
		return errors.Join(err, errHangs)
	}
}
