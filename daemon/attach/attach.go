// Package attach plugs a disk of the catalogue into a running VM and out of it.
//
// # Steps
//
// Attach connects to the VM's monitor, uses the export of the disk that runs or starts
// one in the background, which it notes in run/NAME.attach at once, notes there what it is
// about to do, and hot-plugs the disk. A failure, or the end of its context, takes back in reverse what
// was done. Detach, called by another process, reads the note: it unplugs the disk,
// stops the export if an attach started it, and removes the note. A detach that was
// interrupted is finished by another, and so is an attach that was killed, also while its
// export waits for a KMS.
//
// A VM that has gone needs no unplugging. A VM that does not let go of the disk keeps
// its note and its export: detach again when the guest has released it.
//
// A VM that has migrated took the disk along, to an export that nobody attached. Detach
// leaves that alone, clears away what the attach made here, and says so: the note, and
// the export if an attach started it, which has given the disk away.
//
// # Concurrency
//
// One attach or detach of a disk at a time, across processes; others are refused.
package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/internal/filelock"
	"sealblk/qmp"
)

// Options say where a disk goes.
type Options struct {
	Disk string
	// QMP is the path of the VM's monitor socket.
	QMP string
	// ID of the device in the VM; empty is one made of the disk's name.
	ID        string
	Bus       string
	BootIndex *int
	// UseEscrow has an export that is started open the disk by its key in escrow.
	UseEscrow bool
	// KeyDeadline is how long an export that is started waits for a KMS that does not
	// answer; 0 leaves that to the export.
	KeyDeadline time.Duration
	// Program is the sealblk program that serves the disk when nobody does yet, with
	// the global arguments it needs.
	Program []string
}

// Attachment is a disk in a VM.
type Attachment struct {
	Disk       string `json:"disk"`
	ID         string `json:"id"`
	QMP        string `json:"qmp"`
	SocketPath string `json:"socket_path"`
	// Started: Attach started the export, and Detach stops it. PID is the export's.
	Started bool `json:"started_export"`
	PID     int  `json:"pid"`
	// Began is when that process began, in clock ticks since the host did.
	Began uint64    `json:"pid_began,omitempty"`
	Since time.Time `json:"since"`
	// Migrated: the VM has moved away with the disk. Detach alone tells.
	Migrated bool `json:"migrated,omitempty"`
	// ServedBy is the export that serves it now, if that is one of this state directory.
	ServedBy *disk.Runtime `json:"served_by,omitempty"`
}

// Attach plugs a disk into a VM.
func Attach(ctx context.Context, c *disk.Catalogue, o Options) (Attachment, error) {
	r, err := c.Get(o.Disk)
	if err != nil {
		return Attachment{}, err
	}
	lock, err := begin(c, o.Disk)
	if err != nil {
		return Attachment{}, err
	}
	defer lock.Close()
	a, err := attach(ctx, c, r, o)
	if err != nil {
		return Attachment{}, fmt.Errorf("attach disk %s: %w", o.Disk, err)
	}
	return a, nil
}

func attach(ctx context.Context, c *disk.Catalogue, r disk.Record, o Options) (Attachment, error) {
	old, err := load(c, r.Name)
	if err == nil {
		err = old.refuseTwice(ctx)
	}
	if err != nil && !errors.Is(err, ErrNotAttached) {
		return Attachment{}, err
	}
	if o.QMP, err = filepath.Abs(o.QMP); err != nil {
		return Attachment{}, err
	}
	mon, err := dial(ctx, o.QMP) // before an export is started for nothing
	if err != nil {
		return Attachment{}, err
	}
	defer mon.Close()
	if err := old.stopUnready(c); err != nil {
		return Attachment{}, err
	}
	a := Attachment{Disk: r.Name, ID: deviceID(r, o), QMP: o.QMP, Since: time.Now().UTC().Truncate(time.Second)}
	export, started, err := running(ctx, c, o, a.starting(c))
	if err != nil {
		return Attachment{}, errors.Join(err, a.restore(c, old))
	}
	a.SocketPath, a.PID, a.Began = export.SocketPath, export.PID, began(export.PID)
	// An export that an earlier attach started, for a VM that has gone, is ours too.
	a.Started = started || old.Started && old.PID == export.PID
	if err := a.plug(ctx, c, mon, o, export); err != nil {
		return Attachment{}, a.undo(c, old, started, err)
	}
	return a, nil
}

// starting notes an export as soon as it runs: it may wait long for its key, and if this
// process is killed meanwhile, who comes next is to know whose it is.
func (a Attachment) starting(c *disk.Catalogue) func(pid int) error {
	return func(pid int) error {
		a.Started, a.PID, a.Began, a.SocketPath = true, pid, began(pid), c.SocketPath(a.Disk)
		return a.save(c)
	}
}

// refuseTwice keeps a disk out of a second VM, and out of the same one.
func (a Attachment) refuseTwice(ctx context.Context) error {
	mon, err := dial(ctx, a.QMP)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask the VM it was attached to: %w", err)
	}
	defer mon.Close()
	if migrated, err := mon.Migrated(ctx); err != nil || migrated {
		return err
	}
	there, err := mon.Attached(ctx, a.ID)
	if err == nil && there {
		err = fmt.Errorf("%w to the VM at %s, as %s", ErrAttached, a.QMP, a.ID)
	}
	return err
}

// deviceID is what the device is called in the VM, where an id has at most 64 letters.
func deviceID(r disk.Record, o Options) string {
	if o.ID != "" {
		return o.ID
	}
	if id := "sealblk-" + r.Name; len(id) <= 64 {
		return id
	}
	return "sealblk-" + r.ID
}

// plug notes what it is about to do, and does it.
func (a Attachment) plug(ctx context.Context, c *disk.Catalogue, mon machine, o Options, export control.Status) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := a.save(c); err != nil {
		return err
	}
	return mon.Attach(ctx, qmp.AttachOptions{
		ID: a.ID, SocketPath: a.SocketPath, NumQueues: export.Queues, Bus: o.Bus, BootIndex: o.BootIndex,
	})
}

// undo takes back a failed attach: an export that was started is stopped, and then the note
// becomes what it was, for detach finds the export by it. A VM that could not be made to
// let go of the disk still needs both.
func (a Attachment) undo(c *disk.Catalogue, old Attachment, started bool, why error) error {
	if errors.Is(why, qmp.ErrNotRolledBack) {
		return why
	}
	if started {
		if err := a.stop(c); err != nil {
			return errors.Join(why, err)
		}
	}
	return errors.Join(why, a.restore(c, old))
}

// restore makes the note what it was.
func (a Attachment) restore(c *disk.Catalogue, old Attachment) error {
	if old.Disk == "" {
		return a.forget(c)
	}
	return old.save(c)
}

// Detach unplugs a disk from its VM, and stops the export that Attach started.
func Detach(ctx context.Context, c *disk.Catalogue, name string) (Attachment, error) {
	if err := disk.CheckName(name); err != nil {
		return Attachment{}, err
	}
	lock, err := begin(c, name)
	if err != nil {
		return Attachment{}, err
	}
	defer lock.Close()
	a, err := load(c, name)
	if errors.Is(err, ErrNotAttached) {
		return Attachment{}, notAttached(c, name, err)
	}
	if err == nil {
		err = whyHeld(ctx, c, name, a.end(ctx, c))
	}
	if err == nil && a.Started {
		err = a.stop(c)
	}
	if err == nil {
		err = a.forget(c)
	}
	if err != nil {
		return Attachment{}, fmt.Errorf("detach disk %s: %w", name, err)
	}
	return a, nil
}

// notAttached says more of a disk that has no note.
func notAttached(c *disk.Catalogue, name string, err error) error {
	if _, missing := c.Get(name); missing != nil {
		return missing
	}
	if rt, ok := c.Runtime(name); ok {
		return fmt.Errorf("%w by this command, its export (pid %d) was started otherwise: unplug it in the VM's own monitor (device_del), then end the export", err, rt.PID)
	}
	return err
}

// end ends what the VM does with the disk. If there is no guest at that place any more
// it has migrated, or is no more.
func (a *Attachment) end(ctx context.Context, c *disk.Catalogue) error {
	there, err := a.unplug(ctx)
	if err != nil || there {
		return err
	}
	a.follow(ctx, c)
	if a.Started {
		return a.unused(ctx, c)
	}
	return nil
}

func (a *Attachment) unplug(ctx context.Context) (there bool, err error) {
	mon, err := dial(ctx, a.QMP)
	if gone(err) {
		return false, nil // and its device with it
	}
	if err != nil {
		return false, err
	}
	defer mon.Close()
	if a.Migrated, err = mon.Migrated(ctx); err != nil || a.Migrated {
		return false, err
	}
	return true, mon.Detach(ctx, a.ID)
}

// follow looks where the disk is if the export that it was attached by lives and has
// given it away. It must be asked before that export is stopped.
func (a *Attachment) follow(ctx context.Context, c *disk.Catalogue) {
	path, ok := c.ControlPathOf(a.Disk, a.PID)
	if !ok {
		return
	}
	if own, err := control.Dial(path).Status(ctx); err != nil || own.Owner {
		return
	}
	now, err := control.Dial(c.ControlPath(a.Disk)).Status(ctx)
	if err == nil && now.Owner && now.PID != a.PID {
		a.Migrated, a.ServedBy = true, &disk.Runtime{PID: now.PID, SocketPath: now.SocketPath}
	}
}

// unused sees that an export that is to be stopped serves no other VM: one that has
// migrated to and fro, perhaps. It notices the end of a VM a moment later.
func (a *Attachment) unused(ctx context.Context, c *disk.Catalogue) error {
	path, ok := c.ControlPathOf(a.Disk, a.PID)
	if !ok {
		return nil
	}
	for end := time.Now().Add(goneDeadline); ; time.Sleep(10 * time.Millisecond) { // there is nothing to wait on
		s, err := control.Dial(path).Status(ctx)
		if err != nil || !s.Connected || !s.Owner {
			return nil // what else is wrong with it, stop finds out
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: the VM at %s has gone, and the one that the export with pid %d serves now is not known here; unplug the disk in its own monitor (device_del), or end it, and detach again",
				ErrOtherVM, a.QMP, a.PID)
		}
	}
}

// begin keeps others from attaching or detaching the disk.
func begin(c *disk.Catalogue, name string) (*os.File, error) {
	lock, err := filelock.Try(filepath.Join(c.Dir(), "disks", name+".attach-lock"))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, fmt.Errorf("disk %s: %w: try again when that has ended", name, ErrBusy)
	}
	return lock, err
}
