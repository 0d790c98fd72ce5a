package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"sealblk/vhost/frontend"

	"golang.org/x/sys/unix"
)

// silence is how long nothing has to happen before we believe that nothing will.
const silence = 20 * time.Millisecond

// rig is one case under way and the back-end that it is for. Its goroutine ends
// with the first fatalf or skipf, as a test's does.
type rig struct {
	ctx      context.Context
	target   Target
	peer     *peer
	patience time.Duration
	done     chan struct{}

	mu       sync.Mutex // guards what follows
	failures []string
	skipped  string
	cleanups []func()
	last     *frontend.Session
}

// perform runs a case and what it left to clean up.
func (x *rig) perform(f func(*rig)) {
	defer close(x.done)
	defer x.cleanUp()
	debug.SetPanicOnFault(true) // a bug of a case is not to take the report with it
	defer func() {
		if p := recover(); p != nil {
			x.errorf("the suite panicked: %v at %s", p, firstFrame(debug.Stack()))
		}
	}()
	f(x)
}

// firstFrame is the place in the suite where a panic began.
func firstFrame(stack []byte) string {
	for _, l := range strings.Split(string(stack), "\n") {
		if i := strings.Index(l, "conformance/cases_"); i >= 0 {
			return l[i:]
		}
	}
	return "an unknown place"
}

func (x *rig) cleanUp() {
	for {
		x.mu.Lock()
		n := len(x.cleanups) - 1
		if n < 0 {
			x.mu.Unlock()
			return
		}
		f := x.cleanups[n]
		x.cleanups = x.cleanups[:n]
		x.mu.Unlock()
		f()
	}
}

// cleanup has f called when the case ends, the last one first.
func (x *rig) cleanup(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cleanups = append(x.cleanups, f)
}

// interrupt ends all waiting for the back-end.
func (x *rig) interrupt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.last != nil {
		x.last.Interrupt()
	}
}

// errorf says that the rule does not hold; the case goes on.
func (x *rig) errorf(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failures = append(x.failures, fmt.Sprintf(format, args...))
}

func (x *rig) fatalf(format string, args ...any) {
	x.errorf(format, args...)
	runtime.Goexit()
}

// skipf ends a case that has nothing to say about this back-end.
func (x *rig) skipf(format string, args ...any) {
	x.mu.Lock()
	x.skipped = fmt.Sprintf(format, args...)
	x.mu.Unlock()
	runtime.Goexit()
}

func (x *rig) must(err error) {
	if err != nil {
		x.fatalf("%v", err)
	}
}

// verdict is what became of the case.
func (x *rig) verdict() (Outcome, string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case len(x.failures) > 0:
		return Fail, summary(x.failures)
	case x.skipped != "":
		return Skip, x.skipped
	}
	return Pass, ""
}

// summary is a few failures on one line.
func summary(failures []string) string {
	const most = 4
	var shown []string
	for _, f := range failures[:min(most, len(failures))] {
		shown = append(shown, strings.Join(strings.Fields(f), " "))
	}
	s := strings.Join(shown, "; ")
	if n := len(failures) - most; n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// wantErr checks for one of the errors.
func (x *rig) wantErr(what string, err error, want ...error) {
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	if err == nil {
		x.errorf("%s: accepted", what)
		return
	}
	x.errorf("%s: got %v", what, err)
}

// refused is what a back-end may do with a message that it does not like: answer
// with a failure, or end the session.
var refused = []error{frontend.ErrRefused, frontend.ErrDisconnected}

// await waits for a condition that the back-end brings about.
func (x *rig) await(what string, holds func() bool) {
	for end := time.Now().Add(x.patience); !holds(); {
		if time.Now().After(end) || x.ctx.Err() != nil {
			x.fatalf("%s: not within %v", what, x.patience)
		}
		runtime.Gosched()
	}
}

// pollIn waits until one of the descriptors is readable, or the time is over.
func pollIn(d time.Duration, fds ...int) (readable bool, err error) {
	polls := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		polls[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	deadline := time.Now().Add(d)
	for {
		n, err := unix.Poll(polls, int(max(0, time.Until(deadline).Milliseconds())))
		switch err {
		case nil:
			return n > 0 && polls[0].Revents&unix.POLLIN != 0, nil
		case unix.EINTR:
		default:
			return false, fmt.Errorf("poll: %w", err)
		}
	}
}

// readable waits for a descriptor.
func readable(fd int, d time.Duration) bool {
	r, err := pollIn(d, fd)
	return err == nil && r
}
