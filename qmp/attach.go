package qmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
)

// driver is the device that Attach makes and that Detach accepts.
const driver = "vhost-user-blk-pci"

// Attachment is a disk that was plugged.
type Attachment struct {
	ID      string // of the device
	Chardev string // the id of its connection to the back-end
	Bus     string // where it is plugged
}

// Attach plugs the disk that a back-end serves into a machine, running or not.
// It returns when QEMU has plugged it; the guest may take a moment to see it.
func Attach(ctx context.Context, mon Executor, o AttachOptions) (*Attachment, error) {
	ctx, cancel := withDefaultTimeout(ctx, DefaultTimeout)
	defer cancel()
	a, err := attach(ctx, mon, o)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", o.ID, err)
	}
	return a, nil
}

func attach(ctx context.Context, mon Executor, o AttachOptions) (*Attachment, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p := &plug{mon: mon, o: o, at: Attachment{ID: o.ID, Chardev: chardevID(o.ID)}}
	if err := p.prepare(ctx); err != nil {
		return nil, err
	}
	err := p.add(ctx)
	if err == nil {
		return &p.at, nil
	}
	if p.chardev == absent {
		return nil, err
	}
	return nil, p.undo(ctx, err)
}

// presence is what an attach knows about a thing it adds. A command that failed
// with no answer from QEMU leaves it open.
type presence int

const (
	absent presence = iota
	unknown
	present
)

// after is the presence after a command that adds.
func after(err error) presence {
	switch {
	case err == nil:
		return present
	case refused(err):
		return absent
	}
	return unknown
}

// plug is one attach.
//
//	prepare (changes nothing) ─> chardev-add ─> device_add ─> plugged
//	                                  └──────────────┴── failure ─> undo
type plug struct {
	mon       Executor
	o         AttachOptions
	at        Attachment
	reconnect property
	chardev   presence
	device    presence
}

// prepare finds out whether the attach can work.
func (p *plug) prepare(ctx context.Context) (err error) {
	if err := p.checkID(ctx); err != nil {
		return err
	}
	if err := checkMemory(ctx, p.mon); err != nil {
		return err
	}
	if p.at.Bus, err = findSlot(ctx, p.mon, p.o.Bus); err != nil {
		return err
	}
	if p.reconnect, err = reconnectProperty(ctx, p.mon, p.o.Reconnect); err != nil {
		return err
	}
	if p.o.NoProbe {
		return nil
	}
	err = probeBackend(ctx, p.o.SocketPath)
	if errors.Is(ctx.Err(), context.Canceled) { // which says nothing of the back-end
		return fmt.Errorf("ask back-end: %w", cause(ctx))
	}
	return err
}

func (p *plug) checkID(ctx context.Context) error {
	typ, err := qom{p.mon}.deviceType(ctx, p.at.ID)
	if err != nil {
		return fmt.Errorf("look for device: %w", err)
	}
	if typ != "" {
		return fail(ErrInUse, "choose another id or detach it first", "the machine has a %s with this id", typ)
	}
	there, err := hasChardev(ctx, p.mon, p.at.Chardev)
	if err != nil {
		return fmt.Errorf("look for chardev: %w", err)
	}
	if there {
		return fail(ErrInUse, "detach it to remove what is left, then attach again",
			"chardev %s is left over from an earlier attach", p.at.Chardev)
	}
	return nil
}

// add changes the machine.
func (p *plug) add(ctx context.Context) error {
	err := addChardev(ctx, p.mon, p.at.Chardev, p.o.SocketPath, p.reconnect)
	if p.chardev = after(err); err != nil {
		return err
	}
	ctx, cancel := withTimeout(ctx, plugTimeout)
	defer cancel()
	err = p.mon.Execute(ctx, "device_add", p.deviceArgs(), nil)
	p.device = after(err)
	return err
}

func (p *plug) deviceArgs() map[string]any {
	args := map[string]any{
		"driver":  driver,
		"id":      p.at.ID,
		"chardev": p.at.Chardev,
		"bus":     p.at.Bus,
	}
	if p.o.NumQueues != 0 {
		args["num-queues"] = p.o.NumQueues
	}
	if p.o.QueueSize != 0 {
		args["queue-size"] = p.o.QueueSize
	}
	if p.o.BootIndex != nil {
		args["bootindex"] = *p.o.BootIndex
	}
	return args
}

// undo removes what add added and returns why it had to. It has time of its own:
// the caller's may have run out.
func (p *plug) undo(ctx context.Context, why error) error {
	ctx, cancel := withTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	err := p.remove(ctx)
	if err == nil {
		return fmt.Errorf("%w (rolled back)", why)
	}
	if errors.Is(err, errGone) {
		return fmt.Errorf("%w (QEMU has ended)", why)
	}
	hint := fmt.Sprintf("detach %s when QEMU and its guest answer again, and keep the back-end running until then", p.at.ID)
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrGuestHolds) {
		hint = fmt.Sprintf("QEMU may be waiting for the back-end: end the back-end at %s, then detach %s", p.o.SocketPath, p.at.ID)
	}
	return &hinted{fmt.Errorf("%w (%w: %w)", why, ErrNotRolledBack, err), hint}
}

func (p *plug) remove(ctx context.Context) error {
	if err := reconnect(ctx, p.mon); err != nil {
		return err
	}
	if p.device == unknown {
		defer rescue(p.o.SocketPath)()
		if err := p.removeDevice(ctx); err != nil {
			return err
		}
	}
	_, err := removeChardev(ctx, p.mon, p.at.Chardev)
	return err
}

// removeDevice unplugs a device that may have been added, and only the one that
// this attach added.
func (p *plug) removeDevice(ctx context.Context) error {
	chardev, err := qom{p.mon}.optional(ctx, pathNamed+"/"+p.at.ID, "chardev")
	if err != nil || chardev != p.at.Chardev {
		return err
	}
	return unplug(ctx, p.mon, p.at.ID)
}

// errGone says that nobody listens on the QMP socket any more.
var errGone = errors.New("QEMU has ended")

// reconnect mends a connection that was lost, where the Executor can.
func reconnect(ctx context.Context, mon Executor) error {
	c, ok := mon.(interface{ ConnectContext(context.Context) error })
	if !ok {
		return nil
	}
	err := c.ConnectContext(ctx)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) { // it is just ending
		err = c.ConnectContext(ctx)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errGone
	}
	return err
}
