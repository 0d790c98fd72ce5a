package guest

import (
	"context"
	"fmt"
	"strings"
)

// WaitFor waits until a shell condition holds in the guest.
func (vm *VM) WaitFor(ctx context.Context, condition string) error {
	_, err := vm.Run(ctx, "until "+condition+"; do usleep 50000; done")
	if err != nil {
		return fmt.Errorf("wait for %q: %w", condition, err)
	}
	return nil
}

// WaitDisk waits until a disk is there and ready, by its kernel name: vda, vdb, ...
func (vm *VM) WaitDisk(ctx context.Context, name string) error {
	return vm.WaitFor(ctx, fmt.Sprintf("[ -b /dev/%s ]", name))
}

// WaitNoDisk waits until a disk has gone.
func (vm *VM) WaitNoDisk(ctx context.Context, name string) error {
	return vm.WaitFor(ctx, fmt.Sprintf("! [ -e /sys/block/%s ] && ! [ -e /dev/%s ]", name, name))
}

// DiskBySerial waits until a disk with a serial number is there, and returns its
// kernel name.
func (vm *VM) DiskBySerial(ctx context.Context, serial string) (string, error) {
	find := fmt.Sprintf(`name=$(grep -lxF '%s' /sys/block/vd*/serial 2>/dev/null)`, serial)
	if err := vm.WaitFor(ctx, find); err != nil {
		return "", err
	}
	r, err := vm.Run(ctx, find+`; basename "${name%/serial}"`)
	return strings.TrimSpace(r.Output), err
}
