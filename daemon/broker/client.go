package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// finishDeadline bounds the wait for what the broker does without its KMS.
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
	conn   *os.File
	keys   *os.File
	states *os.File
	in     *json.Decoder
	out    *json.Encoder
	seq    uint64 // of the last request
	done   chan struct{}
	told   chan struct{} // closed when no state is reported any more; nil without a watch
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
	keys, keysIn, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start broker: %w", err)
	}
	defer keysIn.Close()
	states, statesIn, err := os.Pipe()
	if err != nil {
		ours.Close()
		keys.Close()
		return nil, fmt.Errorf("start broker: %w", err)
	}
	defer statesIn.Close()
	p := &process{
		conn: ours, keys: keys, states: states,
		in: json.NewDecoder(ours), out: json.NewEncoder(ours), done: make(chan struct{}),
	}
	cmd := exec.Cmd{Path: c.path, Args: c.args, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs, keysIn, statesIn}}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start broker: %w", err), p.closeFiles())
	}
	go func() {
		defer close(p.done)
		if err := cmd.Wait(); err != nil {
			c.log.Warn("the broker process has ended: socket files will stay behind", "err", err)
		}
	}()
	c.process = p
	return p, nil
}

func (p *process) closeFiles() error {
	return errors.Join(p.conn.Close(), p.keys.Close(), p.states.Close())
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

// call fails at once when ctx ends. What the broker says of that request later is for
// the next call to pass over.
func (p *process) call(ctx context.Context, r request) (reply, error) {
	p.seq++
	r.Seq = p.seq
	answer, err := p.exchange(ctx, r)
	switch {
	case err != nil && ctx.Err() != nil:
		// The old ones keep their errors.
		p.in, p.out = json.NewDecoder(io.MultiReader(p.in.Buffered(), p.conn)), json.NewEncoder(p.conn)
		return answer, ctx.Err()
	case err != nil:
		return answer, fmt.Errorf("ask broker to %s: %w", r.Op, ErrGone)
	case answer.Failure != nil:
		return answer, answer.Failure.unpack()
	}
	return answer, nil
}

func (p *process) exchange(ctx context.Context, r request) (answer reply, err error) {
	if err := p.conn.SetDeadline(time.Time{}); err != nil {
		return answer, err
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(expired)
		p.conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // it is a socket
	})
	defer func() {
		if !stop() {
			<-expired
		}
	}()
	for err = p.out.Encode(r); err == nil; {
		answer = reply{}
		if err = p.in.Decode(&answer); err != nil || answer.Seq == r.Seq {
			break
		}
		err = p.drop(answer)
	}
	return answer, err
}

// drop passes over the answer to a call that was given up.
func (p *process) drop(answer reply) error {
	if answer.KeySize == 0 {
		return nil
	}
	dk, err := secret.ReadPipe(p.keys, answer.KeySize)
	dk.Destroy()
	return err
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

// Watch has report called with the state of the key that was unwrapped last, from one
// goroutine, and again with each change: nil if it can be used, else an error that
// [keymgr.IsLoss] tells from one that says nothing of the key, such as a KMS that does not
// answer, or a broker that has gone. It ends with Close. Call it once, and not from report.
func (c *Client) Watch(ctx context.Context, report func(error)) error {
	ctx, cancel := context.WithTimeout(ctx, finishDeadline)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	p, _, err := c.call(ctx, request{Op: opWatch})
	if err != nil {
		return err
	}
	p.told = make(chan struct{})
	go p.tell(report)
	return nil
}

func (p *process) tell(report func(error)) {
	defer close(p.told)
	for in := json.NewDecoder(p.states); ; {
		var s state
		switch err := in.Decode(&s); {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			report(fmt.Errorf("watch key: %w", ErrGone))
			return
		case s.Failure != nil:
			report(s.Failure.unpack())
		default:
			report(nil)
		}
	}
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
	err := p.closeFiles()
	if p.told != nil {
		<-p.told
	}
	select {
	case <-p.done:
		return err
	case <-time.After(finishDeadline):
		return errors.Join(err, errHangs)
	}
}
