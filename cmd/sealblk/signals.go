package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// again is how long after a first signal a second one means the same. Supervisors
// such as timeout(1) signal the process and then its group.
const again = time.Second

// interruptible makes a context that SIGINT, SIGTERM and SIGHUP cancel. A signal that
// comes later ends the process at once, for a shutdown that does not end. What the
// parent had ignored stays ignored: nohup, and shells with jobs in the background.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
	if len(signals) == 0 {
		return ctx, cancel
	}
	caught, stopped := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(caught, signals...)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer signal.Stop(caught) // from now on a signal has its default effect
		select {
		case <-caught:
			cancel()
		case <-stopped:
			return
		}
		select {
		case <-time.After(again):
		case <-stopped:
		}
	})
	return ctx, func() { close(stopped); waiting.Wait(); cancel() }
}
