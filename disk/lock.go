package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealblk/internal/atomicfile"
)

// Runtime says who exports a disk.
type Runtime struct {
	PID        int    `json:"pid"`
	SocketPath string `json:"socket_path"`
}

// lease is the exclusive right to a disk, as long as the process lives or until it
// is released.
type lease struct {
	f       *os.File
	runtime string
}

// acquire takes the lock of a disk, or ErrInUse.
func (c *Catalogue) acquire(name string) (*lease, error) {
	f, err := os.OpenFile(c.lockPath(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile()); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, c.inUse(name)
		}
		return nil, fmt.Errorf("lock disk %s: %w", name, err)
	}
	l := &lease{f: f, runtime: c.runtimePath(name)}
	_ = os.Remove(l.runtime) // an export that was killed left it
	return l, nil
}

// lockCatalogue serialises the moment in which disks are added, so that no two get one
// backend. It waits for its turn, which takes no longer than writing a record.
func (c *Catalogue) lockCatalogue(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, "disks", ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock catalogue: %w", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- lockWait(f) }()
	select {
	case err = <-locked:
	case <-ctx.Done(): // the system call cannot be called off
		go func() { <-locked; f.Close() }() //nolint:errcheck // nobody waits for it
		return nil, fmt.Errorf("lock catalogue: %w", ctx.Err())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock catalogue: %w", err)
	}
	return func() { f.Close() }, nil
}

func lockWait(f *os.File) error {
	for {
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, wholeFile()); err != unix.EINTR {
			return err
		}
	}
}

func (c *Catalogue) inUse(name string) error {
	rt, ok := c.Runtime(name)
	if !ok {
		return withHint(fmt.Errorf("disk %s: %w by another command", name, ErrInUse), "try again when that has ended")
	}
	return withHint(fmt.Errorf("disk %s: %w by the export with pid %d", name, ErrInUse, rt.PID),
		"stop it first: sealblk disk detach "+name+", or SIGTERM to the export")
}

// publish tells others who exports the disk.
func (l *lease) publish(rt Runtime) error {
	data, err := json.Marshal(rt)
	if err != nil {
		return err
	}
	return atomicfile.Write(l.runtime, data, 0o600)
}

func (l *lease) release() {
	_ = os.Remove(l.runtime)
	l.f.Close()
}

// Runtime tells who exports a disk now, if anybody does.
func (c *Catalogue) Runtime(name string) (Runtime, bool) {
	if !c.locked(name) {
		return Runtime{}, false
	}
	data, err := os.ReadFile(c.runtimePath(name))
	if err != nil {
		return Runtime{}, false
	}
	var rt Runtime
	if json.Unmarshal(data, &rt) != nil {
		return Runtime{}, false
	}
	return rt, true
}

// locked tells whether a process has the disk. It asks without taking the lock, so
// that looking never makes an acquire fail.
func (c *Catalogue) locked(name string) bool {
	f, err := os.Open(c.lockPath(name))
	if err != nil {
		return false
	}
	defer f.Close()
	l := wholeFile()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l) == nil && l.Type != unix.F_UNLCK
}

// wholeFile describes an exclusive lock that belongs to the open file, not to the
// process.
func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }
