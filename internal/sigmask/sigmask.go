// Package sigmask keeps signals away from a thread while its registers hold keys.
//
// When a signal interrupts a thread, the kernel saves all registers on the thread's
// signal stack, where they stay until the next signal: round keys or the words of a
// data key would lie in memory that is not locked, and in a core dump. Go sends such
// signals by itself, to preempt goroutines that run for long.
package sigmask

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Synchronous signals are the thread's own doing; blocking one of them while it is
// raised would kill the process.
var synchronous = []unix.Signal{unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGSYS, unix.SIGTRAP}

// Block locks the goroutine to its thread and keeps all signals from that thread but
// those that it raises itself. restore, called on the same goroutine, takes both back.
// A goroutine on such a thread is preempted at function calls only.
func Block() (restore func(), err error) {
	runtime.LockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	for _, s := range synchronous {
		clear(&all, s)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("block signals: %w", err)
	}
	return func() {
		// The kernel accepts the set that it gave.
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
			panic(err)
		}
		runtime.UnlockOSThread()
	}, nil
}

// Do runs f with signals blocked.
func Do(f func() error) error {
	restore, err := Block()
	if err != nil {
		return err
	}
	defer restore()
	return f()
}

// Scrub overwrites what the last signal left on this thread's signal stack, which is
// the registers as they were then, with those of now: after a fault in code that had
// keys in them, on the goroutine that Block locked to the thread.
func Scrub() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var harmless, before unix.Sigset_t // Go's own, to preempt
	harmless.Val[(unix.SIGURG-1)/64] |= 1 << ((unix.SIGURG - 1) % 64)
	err := unix.PthreadSigmask(unix.SIG_UNBLOCK, &harmless, &before)
	if err == nil {
		err = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGURG)
		err = errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
	}
	if err != nil {
		return fmt.Errorf("scrub signal stack: %w", err)
	}
	return nil
}

func clear(set *unix.Sigset_t, s unix.Signal) {
	n := uint(s) - 1
	set.Val[n/64] &^= 1 << (n % 64)
}
