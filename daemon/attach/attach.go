// Package attach plugs a disk of the catalogue into a running VM and out of it.
//
// Attach uses the export of the disk that runs, or starts one in the background,
// and hot-plugs it over QMP. What it did is noted in run/NAME.attach.json, so that
// Detach, called by another process, knows the VM and whether the export is its to
// stop. A failure on the way takes back what was done before it.
package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/disk"
	"sealblk/internal/atomicfile"
	"sealblk/qmp"
)

var (
	// ErrAttached: the disk is attached already.
	ErrAttached = errors.New("disk is attached already")
	// ErrNotAttached: the disk was not attached by us.
	ErrNotAttached = errors.New("disk is not attached")
)

// Options say where a disk goes.
type Options struct {
	Disk string
	// QMP is the path of the VM's monitor socket.
	QMP string
	// ID of the device in the VM; empty is "sealblk-" and the disk's name.
	ID        string
	Bus       string
	BootIndex *int
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
	Started bool      `json:"started_export"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
}

// Attach plugs a disk into a VM.
func Attach(ctx context.Context, c *disk.Catalogue, o Options) (Attachment, error) {
	if _, err := c.Get(o.Disk); err != nil {
		return Attachment{}, err
	}
	old, err := load(c, o.Disk)
	if err == nil && old.plugged(ctx) {
		return Attachment{}, fmt.Errorf("disk %s: %w to the VM at %s, as %s", o.Disk, ErrAttached, old.QMP, old.ID)
	}
	socket, err := filepath.Abs(o.QMP)
	if err != nil {
		return Attachment{}, err
	}
	status, started, err := running(ctx, c, o)
	if err != nil {
		return Attachment{}, err
	}
	a := Attachment{
		Disk: o.Disk, ID: o.ID, QMP: socket, SocketPath: status.SocketPath,
		// An export that an earlier attach started, for a VM that has gone, is ours too.
		Started: started || old.Started && old.PID == status.PID,
		PID:     status.PID, Since: time.Now().UTC().Truncate(time.Second),
	}
	if a.ID == "" {
		a.ID = "sealblk-" + o.Disk
	}
	if err := a.plug(ctx, c, o, status.Queues); err != nil {
		// A VM that could not be made to let go of the disk still needs the export.
		if started && !errors.Is(err, qmp.ErrGuestHolds) {
			err = errors.Join(err, stop(c, o.Disk))
		}
		return Attachment{}, fmt.Errorf("attach disk %s: %w", o.Disk, err)
	}
	return a, nil
}

// plug makes the device and notes it; a note that cannot be written unplugs it again.
func (a Attachment) plug(ctx context.Context, c *disk.Catalogue, o Options, queues int) error {
	mon, err := qmp.Dial(ctx, a.QMP)
	if err != nil {
		return err
	}
	defer mon.Disconnect() //nolint:errcheck // what matters has been answered by then
	_, err = qmp.Attach(ctx, mon, qmp.AttachOptions{
		ID: a.ID, SocketPath: a.SocketPath, NumQueues: queues, Bus: o.Bus, BootIndex: o.BootIndex,
	})
	if err != nil {
		return err
	}
	if err := a.save(c); err != nil {
		_, undo := qmp.Detach(context.WithoutCancel(ctx), mon, a.ID)
		return errors.Join(err, undo)
	}
	return nil
}

// Detach unplugs a disk from its VM, and stops the export that Attach started. A VM
// that has gone needs no unplugging.
func Detach(ctx context.Context, c *disk.Catalogue, name string) (Attachment, error) {
	if _, err := c.Get(name); err != nil {
		return Attachment{}, err
	}
	a, err := load(c, name)
	if err != nil {
		return Attachment{}, err
	}
	if err := a.unplug(ctx); err != nil {
		return Attachment{}, fmt.Errorf("detach disk %s: %w", name, err)
	}
	if a.Started {
		if err := stop(c, name); err != nil {
			return Attachment{}, fmt.Errorf("detach disk %s: %w", name, err)
		}
	}
	return a, atomicfile.Remove(notePath(c, name))
}

func (a Attachment) unplug(ctx context.Context) error {
	mon, err := qmp.Dial(ctx, a.QMP)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil // the VM has gone, and its device with it
	}
	if err != nil {
		return err
	}
	defer mon.Disconnect() //nolint:errcheck // what matters has been answered by then
	_, err = qmp.Detach(ctx, mon, a.ID)
	return err
}

// plugged tells whether the VM still runs and has the disk.
func (a Attachment) plugged(ctx context.Context) bool {
	mon, err := qmp.Dial(ctx, a.QMP)
	if err != nil {
		return false
	}
	defer mon.Disconnect() //nolint:errcheck // what matters has been answered by then
	there, err := qmp.Attached(ctx, mon, a.ID)
	return err == nil && there
}

func notePath(c *disk.Catalogue, name string) string {
	return filepath.Join(c.Dir(), "run", name+".attach.json")
}

func (a Attachment) save(c *disk.Catalogue) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(notePath(c, a.Disk), data, 0o600)
}

func load(c *disk.Catalogue, name string) (Attachment, error) {
	data, err := os.ReadFile(notePath(c, name))
	if errors.Is(err, os.ErrNotExist) {
		return Attachment{}, fmt.Errorf("disk %s: %w", name, ErrNotAttached)
	}
	if err != nil {
		return Attachment{}, err
	}
	var a Attachment
	if err := json.Unmarshal(data, &a); err != nil {
		return Attachment{}, fmt.Errorf("read %s: %w", notePath(c, name), err)
	}
	return a, nil
}
