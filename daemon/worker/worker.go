// Package worker is the process that serves one disk to one VM: sealblk export.
//
// It opens the disk (which locks it, unwraps and proves its key), listens on the
// vhost-user socket, answers on the control socket, and serves one front-end after
// the other until its context is cancelled; then it drains what is in flight, wipes
// the key, removes its sockets and returns.
//
// To migrate a VM, a second worker stands by for the disk (Options.Incoming): it
// answers its front-end from the start, and takes the right to use the disk when the
// first ring starts. The other gives it up when its front-end has stopped all rings,
// and takes it back when they start again, if it is still free. So there are never two
// that write. A front-end that goes without stopping its rings changes nothing.
//
// While it serves an encrypted disk, somebody watches its CMK for it, and what becomes of
// the disk when that is lost is its policy: see custody. The worker keeps no way to a data
// key: it asks for it again when the CMK is back.
//
// One worker holds one data key, one backing store and one VM's memory. The caller
// has made the process undumpable.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"sealblk/blockdev"
	"sealblk/blockdev/file"
	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/internal/linkname"
	"sealblk/internal/sandbox"
	"sealblk/vhost/blk"
)

// Options say what to serve and where.
type Options struct {
	// Disk is the name of a disk in the catalogue; empty to serve BlkFile instead.
	Disk string
	// BlkFile is a plain file or block device: no catalogue, no encryption.
	BlkFile string
	// SocketPath is where to listen, unless FD is given.
	SocketPath string
	// FD is an inherited socket, listening or connected, or -1.
	FD        int
	NumQueues int
	QueueSize int
	// HugePages is that of disk.OpenOptions.
	HugePages bool
	// PollMax is that of vhost.Options.
	PollMax  time.Duration
	ReadOnly bool
	// Incoming stands by for a disk that another export may be using: it is taken when
	// a ring starts for the first time, which that of a VM does that migrates here.
	Incoming bool
	// UseEscrow is that of disk.OpenOptions.
	UseEscrow bool
	Engine    file.Engine
	Log       *slog.Logger
	// Confine, unless it is nil, takes from the process what it does not need any
	// more. It is called once everything is open.
	Confine Confine
	// WatchKey, unless it is nil, has report called with the state of the key of an
	// encrypted disk, and with each change of it: nil if the key can be
	// used, else why not (disk.KeyStateOf). It is called once the worker is confined, and
	// report is of no effect when the worker has ended.
	WatchKey func(ctx context.Context, report func(error)) error
	// LossGrace is how long a disk with the policy detach is served without its key.
	LossGrace time.Duration
	// Ready is called once, when a front-end can connect.
	Ready func(control.Status)
}

// Confine puts the worker into its sandbox. From then on it has the descriptors that
// are open, and no files by their path: Release, called in the end, removes those that
// are named here.
type Confine func(ctx context.Context, files []string, names []linkname.Name) (Confined, error)

// Confined is what became of a worker's privileges.
type Confined struct {
	Sandbox  sandbox.Report
	Warnings []string
	Release  func() error
	// Show gives the files of names their public names.
	Show func() error
}

// export is a worker while it runs.
type export struct {
	opts      Options
	catalogue *disk.Catalogue
	disk      *disk.Disk // nil for a plain file
	device    blockdev.Device
	blk       *blk.Device
	ctl       *control.Server // nil for a plain file
	right     right
	owner     atomic.Bool // the right is ours
	active    atomic.Bool // a front-end is connected
	cancel    context.CancelFunc

	confined atomic.Pointer[Confined] // asked for on the control socket, which is there before
	custody  atomic.Pointer[custody]  // nil: nobody watches a key
}

// Run serves until ctx is cancelled, or Stop is asked for on the control socket, or,
// with a connected FD, until the front-end goes.
func Run(ctx context.Context, c *disk.Catalogue, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &export{opts: o, catalogue: c, cancel: cancel}
	e.confined.Store(&Confined{})
	s, err := inherit(o.FD)
	if err != nil {
		return err
	}
	defer e.close()
	defer s.close() //nolint:errcheck // it goes first: who finds the disk free finds the path free
	defer e.release()
	if err := e.open(ctx, c); err != nil {
		return err
	}
	if err := s.listen(o.SocketPath); err != nil {
		return err
	}
	if e.disk != nil {
		defer e.closeControl()
		if err := e.announce(); err != nil {
			return err
		}
	}
	if err := e.confine(ctx, c, s); err != nil {
		return err
	}
	stop, err := e.startCustody(ctx)
	if err != nil {
		return err
	}
	defer stop()
	o.Ready(e.Status())
	err = s.serve(ctx, e)
	stop()
	return errors.Join(err, e.verdict())
}

// open builds the device stack and the virtio device on it.
func (e *export) open(ctx context.Context, c *disk.Catalogue) (err error) {
	serial := ""
	if e.opts.Disk != "" {
		e.disk, err = c.Open(ctx, e.opts.Disk, disk.OpenOptions{
			ReadOnly: e.opts.ReadOnly, Engine: e.opts.Engine, Standby: e.opts.Incoming, HugePages: e.opts.HugePages,
			UseEscrow: e.opts.UseEscrow,
		})
		if err != nil {
			return err
		}
		e.device, e.right, serial = e.disk.Device, e.disk, e.disk.Record.Serial
	} else {
		plain, err := openPlain(e.opts)
		if err != nil {
			return err
		}
		e.device, e.right = plain, plain
	}
	e.owner.Store(!e.opts.Incoming)
	e.blk, err = blk.New(e.device, blk.Options{
		Serial: serial, NumQueues: e.opts.NumQueues, MaxQueueSize: e.opts.QueueSize,
		ReadOnly: e.opts.ReadOnly, Logger: e.opts.Log,
	})
	if err != nil {
		return err
	}
	return nil
}

// openPlain opens a file that is not in the catalogue. A container of ours is refused:
// it must never be served without its encryption.
func openPlain(o Options) (*file.Device, error) {
	if err := disk.RefuseOurs(o.BlkFile); err != nil {
		return nil, err
	}
	dev, err := file.Open(o.BlkFile, file.Options{
		ReadOnly: o.ReadOnly, Engine: o.Engine, Lock: true, LockWait: file.AfterKill, Standby: o.Incoming,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.BlkFile, err)
	}
	return dev, nil
}

func (e *export) close() {
	switch {
	case e.disk != nil:
		if err := e.disk.Close(); err != nil {
			e.opts.Log.Error("close disk", "err", err)
		}
	case e.device != nil:
		if err := e.device.Close(); err != nil {
			e.opts.Log.Error("close file", "err", err)
		}
	}
}

// Status implements control.Export.
func (e *export) Status() control.Status {
	confined := e.confined.Load()
	s := control.Status{
		Sandbox: confined.Sandbox,
		PID:     os.Getpid(), Disk: e.opts.Disk, SocketPath: e.opts.SocketPath,
		Connected: e.active.Load(), Owner: e.owner.Load(), Queues: e.opts.NumQueues, SizeBytes: e.device.Info().Capacity, Warnings: []string{},
		Stats: sum(e.blk.Stats()),
	}
	if e.disk != nil {
		s.Encrypted = e.disk.Record.Encrypted
		s.Warnings = append(s.Warnings, e.disk.Warnings...)
	}
	s.Warnings = append(s.Warnings, confined.Warnings...)
	e.custodyStatus(&s)
	return s
}

func sum(queues []blk.QueueStats) (s control.Stats) {
	for _, q := range queues {
		s.Reads += q.Reads
		s.Writes += q.Writes
		s.Flushes += q.Flushes
		s.Discards += q.Discards
		s.WriteZeroes += q.WriteZeroes
		s.ReadBytes += q.BytesRead
		s.WriteBytes += q.BytesWritten
		s.Errors += q.Failed + q.Invalid + q.Unsupported
	}
	return s
}

// Resize implements control.Export. The file was made longer by whoever asks, who has the
// right to: a worker in its sandbox has not. The guest is told.
func (e *export) Resize(size int64) error {
	if err := blockdev.Grow(e.device, size); err != nil {
		return err
	}
	e.blk.Resized()
	return nil
}

// Stop implements control.Export.
func (e *export) Stop() { e.cancel() }
