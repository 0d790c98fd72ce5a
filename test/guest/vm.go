package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// DefaultTimeout bounds what is done with a guest where the context has no
	// deadline.
	DefaultTimeout = 2 * time.Minute
)

// VM is a guest that was booted.
type VM struct {
	dir     string
	agent   *agent
	console console
	process *process
	closing sync.Once
}

// Boot starts a machine and returns when its guest takes commands. The context
// bounds the boot, not the guest's life: Close ends that.
func Boot(ctx context.Context, c Config) (*VM, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if c.Assets == nil {
		assets, err := Prepare(ctx, c.Options)
		if err != nil {
			return nil, fmt.Errorf("prepare guest: %w", err)
		}
		c.Assets = assets
	}
	vm := &VM{console: console{also: c.Console}}
	if err := vm.boot(ctx, c); err != nil {
		failure := vm.newBootError(err)
		vm.Close()
		return nil, failure
	}
	return vm, nil
}

func (vm *VM) boot(ctx context.Context, c Config) error {
	qemu, err := findProgram("qemu-system-x86_64")
	if err != nil {
		return err
	}
	// Not below TMPDIR, which may be too long for a socket's path.
	if vm.dir, err = os.MkdirTemp("/tmp", "guest"); err != nil {
		return err
	}
	port := filepath.Join(vm.dir, "port")
	ln, err := net.Listen("unix", port)
	if err != nil {
		return err
	}
	defer ln.Close()
	args := c.args(port, vm.QMP())
	if c.Incoming {
		args = append(args, "-incoming", "unix:"+vm.MigrationSocket())
	}
	if vm.process, err = start(qemu, args, &vm.console); err != nil {
		return err
	}
	return vm.waitReady(ctx, ln, c)
}

// waitReady waits until QEMU has connected and its guest's agent has reported.
func (vm *VM) waitReady(ctx context.Context, ln net.Listener, c Config) error {
	ctx, cancel := vm.whileRunning(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	conn, err := ln.Accept()
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if c.Incoming {
		vm.agent = movedAgent(conn)
		return vm.waitIncoming(ctx)
	}
	vm.agent = newAgent(conn)
	select {
	case <-vm.agent.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waitIncoming waits until another machine can connect.
func (vm *VM) waitIncoming(ctx context.Context) error {
	for {
		if _, err := os.Stat(vm.MigrationSocket()); err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// whileRunning is a context that also ends when QEMU does. Cancel waits for what
// watches it.
func (vm *VM) whileRunning(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-vm.process.exited:
			cancel(vm.process.gone())
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		watch.Wait()
	}
}

// Run runs a shell script in the guest and waits for its end. A status other than 0
// is an *ExitError; the result is there all the same.
func (vm *VM) Run(ctx context.Context, script string) (Result, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	r, err := vm.agent.run(ctx, script)
	switch {
	case errors.Is(err, errHungUp):
		return r, fmt.Errorf("guest: %q: %w; the console's last line: %q", script, ErrGone, vm.console.last())
	case err != nil:
		return r, fmt.Errorf("guest: %q: %w", script, err)
	case r.Status != 0:
		return r, &ExitError{Script: script, Result: r}
	}
	return r, nil
}

// QMP is the path of the machine's QMP socket. QEMU serves one client at a time
// there; the VM itself does not use it.
func (vm *VM) QMP() string { return filepath.Join(vm.dir, "qmp") }

// MigrationSocket is where a machine with Config.Incoming waits for its guest.
func (vm *VM) MigrationSocket() string { return filepath.Join(vm.dir, "incoming") }

// PID is QEMU's process id.
func (vm *VM) PID() int { return vm.process.pid }

// Console is what the guest's kernel and QEMU have said, the end of it if it is long.
func (vm *VM) Console() string { return vm.console.String() }

// Exited is closed when QEMU has ended, for whatever reason.
func (vm *VM) Exited() <-chan struct{} { return vm.process.exited }

// PowerOff unmounts all disks, has the guest power itself off and waits until QEMU
// has ended. It fails if QEMU ends with an error.
func (vm *VM) PowerOff(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	ch := make(chan Result, 1)
	if _, err := vm.agent.start(ctx, powerOff, ch); err != nil {
		return fmt.Errorf("power off guest: %w", ErrGone)
	}
	select {
	case <-vm.process.exited:
	case r := <-ch:
		return fmt.Errorf("power off guest: %w", &ExitError{Script: powerOff, Result: r})
	case <-ctx.Done():
		return fmt.Errorf("power off guest: %w; the console's last line: %q", context.Cause(ctx), vm.console.last())
	}
	if err := vm.process.err; err != nil {
		return fmt.Errorf("power off guest: QEMU: %w", err)
	}
	return nil
}

// A disk that cannot be unmounted keeps the guest on: a test wants to know.
const powerOff = `grep ^/dev/ /proc/mounts | while read -r _ dir _; do umount "$dir" || exit; done && sync && poweroff -f; sleep 60`

// Kill ends QEMU as kill -9 does, with no notice to guest or back-ends, and waits.
func (vm *VM) Kill() { vm.process.kill() }

// Close ends the guest if it still runs, and removes all that belongs to it. It may
// be repeated.
func (vm *VM) Close() {
	vm.closing.Do(func() {
		if vm.process != nil {
			vm.process.kill()
		}
		if vm.agent != nil {
			vm.agent.close()
		}
		if vm.dir != "" {
			_ = os.RemoveAll(vm.dir)
		}
	})
}

func withDefaultTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}
