package guest

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// maxOutput is how much output of one script is taken, in bytes.
const maxOutput = 64 << 20

// killTimeout is how long a guest may take to read that a script is to be killed.
const killTimeout = time.Second

// Result is what came of a script.
type Result struct {
	Output string // stdout and stderr as they came
	Status int    // exit status; 128 + n for signal n
}

// agent is the host's end of the command port. One goroutine reads the answers; it
// ends when QEMU closes the port or close is called.
type agent struct {
	conn  net.Conn
	in    *bufio.Reader
	ready chan struct{} // closed when the guest's agent has started
	done  chan struct{} // closed when there will be no more answers

	writing sync.Mutex // held while a request is written

	mu      sync.Mutex // guards what follows
	seq     int
	pending map[int]chan Result
}

func newAgent(conn net.Conn) *agent {
	a := makeAgent(conn)
	go a.read()
	return a
}

// movedSeq is where the requests to an agent that moved here begin: it has seen those
// of the machine that it comes from.
const movedSeq = 1 << 20

// movedAgent is the host's end for a guest that comes from another machine, where its
// agent has reported.
func movedAgent(conn net.Conn) *agent {
	a := makeAgent(conn)
	a.seq = movedSeq
	close(a.ready)
	go a.readAnswers()
	return a
}

func makeAgent(conn net.Conn) *agent {
	return &agent{
		conn:    conn,
		in:      bufio.NewReader(conn),
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
		pending: make(map[int]chan Result),
	}
}

func (a *agent) close() {
	_ = a.conn.Close()
	<-a.done
}

func (a *agent) read() {
	if line, err := a.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready ") {
		close(a.done)
		return
	}
	close(a.ready)
	a.readAnswers()
}

func (a *agent) readAnswers() {
	defer close(a.done)
	for a.answer() == nil {
	}
}

// answer hands one answer to the one who waits for it.
func (a *agent) answer() error {
	line, err := a.in.ReadString('\n')
	if err != nil {
		return err
	}
	var id, status, size int
	if _, err := fmt.Sscan(line, &id, &status, &size); err != nil || size < 0 || size > maxOutput {
		return fmt.Errorf("bad answer %q", line)
	}
	out := make([]byte, size)
	if _, err := io.ReadFull(a.in, out); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if ch := a.pending[id]; ch != nil {
		ch <- Result{string(out), status} // has room for its one answer
		delete(a.pending, id)
	}
	return nil
}

var errHungUp = errors.New("the agent hung up")

// run runs a script to its end, or kills it when the context ends.
func (a *agent) run(ctx context.Context, script string) (Result, error) {
	ch := make(chan Result, 1)
	id, err := a.start(ctx, script, ch)
	if err != nil {
		return Result{}, err
	}
	select {
	case r := <-ch:
		return r, nil
	case <-ctx.Done():
		a.kill(id)
		return Result{}, context.Cause(ctx)
	case <-a.done:
	}
	select {
	case r := <-ch:
		return r, nil
	default:
		return Result{}, errHungUp
	}
}

// start has the guest begin a script whose result goes to ch.
func (a *agent) start(ctx context.Context, script string, ch chan Result) (int, error) {
	a.mu.Lock()
	a.seq++
	id := a.seq
	a.pending[id] = ch
	a.mu.Unlock()
	return id, a.send(ctx, fmt.Sprintf("run %d %s\n", id, base64.StdEncoding.EncodeToString([]byte(script))))
}

// send writes one request. If the guest does not take all of it in time there can
// be no other.
func (a *agent) send(ctx context.Context, request string) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	deadline, _ := ctx.Deadline()
	_ = a.conn.SetWriteDeadline(deadline)
	if _, err := io.WriteString(a.conn, request); err != nil {
		_ = a.conn.Close()
		return errHungUp
	}
	return nil
}

// kill ends a script that nobody waits for any more.
func (a *agent) kill(id int) {
	a.mu.Lock()
	delete(a.pending, id)
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	_ = a.send(ctx, fmt.Sprintf("kill %d\n", id))
}
