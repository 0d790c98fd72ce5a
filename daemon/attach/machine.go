package attach

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/qmp"
)

// machine is a VM, as far as disks go in and out of it.
type machine interface {
	Attach(ctx context.Context, o qmp.AttachOptions) error
	Detach(ctx context.Context, id string) error
	Attached(ctx context.Context, id string) (bool, error)
	Migrated(ctx context.Context) (bool, error)
	Close()
}

// dial connects to a VM's monitor. Tests have machines of their own.
var dial = func(ctx context.Context, socket string) (machine, error) {
	mon, err := qmp.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return monitor{mon}, nil
}

// monitor is a QEMU.
type monitor struct{ mon *qmp.Monitor }

func (m monitor) Attach(ctx context.Context, o qmp.AttachOptions) error {
	_, err := qmp.Attach(ctx, m.mon, o)
	return err
}

func (m monitor) Detach(ctx context.Context, id string) error {
	_, err := qmp.Detach(ctx, m.mon, id)
	return err
}

func (m monitor) Attached(ctx context.Context, id string) (bool, error) {
	return qmp.Attached(ctx, m.mon, id)
}

func (m monitor) Migrated(ctx context.Context) (bool, error) { return qmp.Migrated(ctx, m.mon) }

// Close ends the connection. What matters has been answered by then.
func (m monitor) Close() { _ = m.mon.Disconnect() }

// gone tells whether a dial failed because the VM is no more.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}
