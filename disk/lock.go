package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sealblk/internal/atomicfile"
	"sealblk/internal/filelock"
	"sealblk/internal/linkname"
)

// Runtime says who exports a disk.
type Runtime struct {
	PID        int    `json:"pid"`
	SocketPath string `json:"socket_path"`
}

// lease is the exclusive right to a disk, as long as the process lives or until it
// is released.
type lease struct {
	f                *os.File
	runtime, control linkname.Name
}

// acquire takes the lock of a disk, or ErrInUse.
func (c *Catalogue) acquire(name string) (*lease, error) {
	f, err := filelock.Try(c.lockPath(name))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, c.inUse(name)
	}
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	c.sweep(name)
	return c.newLease(name, f), nil
}

func (c *Catalogue) lockFailed(name string, err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return c.inUse(name)
	}
	return fmt.Errorf("lock disk %s: %w", name, err)
}

// lockCatalogue serialises the moment in which disks are added, so that no two get one
// backend. It waits for its turn, which takes no longer than writing a record.
func (c *Catalogue) lockCatalogue(ctx context.Context) (*os.File, error) {
	return filelock.Wait(ctx, filepath.Join(c.dir, "disks", ".lock"))
}

func (c *Catalogue) inUse(name string) error {
	rt, ok := c.Runtime(name)
	if !ok {
		return withHint(fmt.Errorf("disk %s: %w by another command", name, ErrInUse), "try again when that has ended")
	}
	return withHint(fmt.Errorf("disk %s: %w by the export with pid %d", name, ErrInUse, rt.PID),
		"stop it first: sealblk disk detach "+name+", or SIGTERM to the export")
}

// publish writes down who has the claim, and puts the disk's name on it if it holds
// the disk.
func (l *lease) publish(rt Runtime, holds bool) error {
	data, err := json.Marshal(rt)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(l.runtime.Own, data, 0o600); err != nil || !holds {
		return err
	}
	return l.runtime.Put()
}

func (l *lease) release() {
	_ = l.runtime.Remove() // what is left is not believed once the lock is free
	l.f.Close()
}

// Runtime tells who exports a disk now, if anybody does; failing that, who stands by
// for it.
func (c *Catalogue) Runtime(name string) (rt Runtime, ok bool) {
	if !filelock.Held(c.lockPath(name)) {
		return Runtime{}, false
	}
	for _, path := range append([]string{c.runtimePath(name)}, c.ownFiles(name, "json")...) {
		if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &rt) == nil {
			return rt, true
		}
	}
	return Runtime{}, false
}

// ownFiles are the files of all exports of a disk under their own names.
func (c *Catalogue) ownFiles(name, kind string) []string {
	entries, err := os.ReadDir(filepath.Join(c.dir, "run"))
	if err != nil {
		return nil
	}
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+"~") && strings.HasSuffix(e.Name(), "."+kind) {
			paths = append(paths, filepath.Join(c.dir, "run", e.Name()))
		}
	}
	return paths
}

// sweep removes what exports left that were killed. None lives.
func (c *Catalogue) sweep(name string) {
	_ = os.Remove(c.runtimePath(name))
	for _, path := range slices.Concat(c.ownFiles(name, "json"), c.ownFiles(name, "ctl")) {
		_ = os.Remove(path)
	}
	_ = atomicfile.Sweep(filepath.Join(c.dir, "run"), func(file string) bool { return strings.HasPrefix(file, name+"~") })
}

// sweepRecords removes what was left of records that were being written when that was
// killed. Who writes one has the lock of the catalogue, as the caller has now, or that of
// the disk, as the caller has that of mine.
func (c *Catalogue) sweepRecords(mine string) {
	_ = atomicfile.Sweep(filepath.Join(c.dir, "disks"), func(file string) bool {
		name, isRecord := strings.CutSuffix(file, ".json")
		if !isRecord {
			name, isRecord = strings.CutSuffix(file, pendingSuffix)
		}
		if !isRecord {
			name, isRecord = strings.CutSuffix(file, importSuffix)
		}
		return isRecord && CheckName(name) == nil && (name == mine || !filelock.Held(c.lockPath(name)))
	})
}

var leases atomic.Uint64

// newLease names the files of an export so that no other has the same.
func (c *Catalogue) newLease(name string, f *os.File) *lease {
	own := fmt.Sprintf("%d-%d", os.Getpid(), leases.Add(1))
	return &lease{f: f, runtime: c.publicName(name, own, "json"), control: c.publicName(name, own, "ctl")}
}
