package qmp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

const (
	// pollInterval is how often is looked whether something has gone, for the case
	// that its event was missed.
	pollInterval = 200 * time.Millisecond
	// unplugAgain is how often the guest is asked again. A guest that had not booted
	// far enough when it was asked missed the request. It is longer than the five
	// seconds in which a second press of a PCIe attention button means no.
	unplugAgain = 7 * time.Second
)

// Detachment tells what Detach found and removed.
type Detachment struct {
	DeviceRemoved  bool
	ChardevRemoved bool
	// Note says in words what was gone already; empty if all was there.
	Note string
}

// Detach asks the guest to release a disk, waits until it has, and removes the
// connection to its back-end. The back-end must run until Detach returns.
func Detach(ctx context.Context, mon Executor, id string) (*Detachment, error) {
	ctx, cancel := withDefaultTimeout(ctx, DefaultTimeout)
	defer cancel()
	d, err := detach(ctx, mon, id)
	if errors.Is(err, ErrConnectionLost) {
		err = &hinted{err, "detach again if QEMU still runs"}
	}
	if err != nil {
		return nil, fmt.Errorf("detach %s: %w", id, err)
	}
	return d, nil
}

func detach(ctx context.Context, mon Executor, id string) (*Detachment, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	typ, err := qom{mon}.deviceType(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("look for device: %w", err)
	}
	d := &Detachment{DeviceRemoved: typ != ""}
	chardev := chardevID(id)
	if d.DeviceRemoved {
		if chardev, err = deviceChardev(ctx, mon, id, typ); err != nil {
			return nil, err
		}
		if err := unplug(ctx, mon, id); err != nil {
			return nil, err
		}
	}
	if d.ChardevRemoved, err = removeChardev(ctx, mon, chardev); err != nil {
		return nil, &hinted{fmt.Errorf("remove chardev %s: %w", chardev, err), "the guest has released the disk; detach again to remove the rest"}
	}
	d.note(id)
	return d, nil
}

func (d *Detachment) note(id string) {
	switch {
	case !d.DeviceRemoved && !d.ChardevRemoved:
		d.Note = id + " was not attached"
	case !d.DeviceRemoved:
		d.Note = "the device was gone already; its chardev was removed"
	case !d.ChardevRemoved:
		d.Note = "the chardev was gone already"
	}
}

// deviceChardev is the chardev of a disk, which may have been plugged by others
// and under other names.
func deviceChardev(ctx context.Context, mon Executor, id, typ string) (string, error) {
	if typ != driver {
		return "", fail(ErrNotDisk, "check the id", "the device with this id is a %s", typ)
	}
	chardev, err := qom{mon}.optional(ctx, pathNamed+"/"+id, "chardev")
	if err != nil {
		return "", fmt.Errorf("look for chardev: %w", err)
	}
	if chardev == "" {
		chardev = chardevID(id)
	}
	return chardev, nil
}

// unplug has a device removed and waits until it is gone.
func unplug(ctx context.Context, mon Executor, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes events
	events, err := mon.Events(ctx)
	if err != nil && !errors.Is(err, goqemu.ErrEventsNotSupported) {
		return err
	}
	if err := requestUnplug(ctx, mon, id); err != nil {
		return err
	}
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	again := time.NewTicker(unplugAgain)
	defer again.Stop()
	for {
		gone := false
		select {
		case e, ok := <-events:
			if gone, err = unplugged(e, id); !ok {
				events = nil // the next poll says why
			}
		case <-poll.C:
			gone, err = isGone(ctx, mon, id)
		case <-again.C:
			err = requestUnplug(ctx, mon, id)
		case <-ctx.Done():
		}
		switch {
		case gone:
			return nil
		case ctx.Err() != nil:
			return stillHeld(ctx)
		case err != nil:
			return err
		}
	}
}

func isGone(ctx context.Context, mon Executor, id string) (bool, error) {
	typ, err := qom{mon}.deviceType(ctx, id)
	return err == nil && typ == "", err
}

// unplugged reads an event: the device has gone, or the guest keeps it.
func unplugged(e goqemu.Event, id string) (bool, error) {
	if e.Data["device"] != id && e.Data["path"] != pathNamed+"/"+id {
		return false, nil
	}
	switch e.Event {
	case "DEVICE_DELETED":
		return true, nil
	case "DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR":
		return false, fail(ErrGuestRefused, "unmount the disk in the guest, then detach again", "QEMU says %s", e.Event)
	}
	return false, nil
}

// requestUnplug sends device_del. A request that is under way already, or a device
// that has gone, is as good.
func requestUnplug(ctx context.Context, mon Executor, id string) error {
	err := mon.Execute(ctx, "device_del", map[string]string{"id": id}, nil)
	switch {
	case err == nil, hasClass(err, "DeviceNotFound"):
		return nil
	case !refused(err):
		return err
	case isPending(err):
		return nil
	case strings.Contains(err.Error(), "does not support hot"):
		return &hinted{err, "the disk was there when the machine was started: power the machine off to remove it"}
	}
	return err
}

// isPending knows QEMU's words for an unplug that has begun; they have no class.
func isPending(err error) bool {
	s := err.Error()
	return strings.Contains(s, "already in the process of unplug") || strings.Contains(s, "guest is busy")
}

func stillHeld(ctx context.Context) error {
	return fail(fmt.Errorf("%w: %w", ErrGuestHolds, cause(ctx)),
		"the request stays pending: unmount the disk in the guest or let the guest boot, then detach again; keep the back-end running until then",
		"the device is still plugged")
}

// Attached tells whether the machine has the disk with this id.
func Attached(ctx context.Context, mon Executor, id string) (bool, error) {
	ctx, cancel := withDefaultTimeout(ctx, questionTimeout)
	defer cancel()
	typ, err := qom{mon}.deviceType(ctx, id)
	if err != nil {
		return false, fmt.Errorf("look for device %s: %w", id, err)
	}
	return typ == driver, nil
}
