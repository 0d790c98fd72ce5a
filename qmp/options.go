package qmp

import (
	"fmt"
	"path/filepath"
	"time"
)

const (
	// DefaultTimeout bounds Attach and Detach whose context has no deadline.
	DefaultTimeout = 30 * time.Second
	// DefaultReconnect is how long QEMU waits before it connects again to a
	// back-end that went away.
	DefaultReconnect = time.Second

	// rollbackTimeout bounds the undoing of a failed Attach, whatever is left of
	// its caller's time.
	rollbackTimeout = 15 * time.Second

	// plugTimeout bounds device_add, which takes milliseconds. While it waits for a
	// back-end QEMU runs neither its guest nor other commands.
	plugTimeout = 5 * time.Second

	maxQueues     = 1024 // QEMU's VIRTIO_QUEUE_MAX
	maxQueueSize  = 1024 // QEMU's VIRTQUEUE_MAX_SIZE
	maxID         = 64
	maxSocketPath = 107 // sun_path less its final zero byte
)

// AttachOptions says which disk goes where. ID and SocketPath are needed.
type AttachOptions struct {
	// ID names the device in QEMU: a letter, then letters, digits, '-', '.', '_'.
	ID string
	// SocketPath is where the back-end listens: absolute, as QEMU sees it.
	SocketPath string
	// NumQueues is the number of virtqueues, 0 for QEMU's choice (one per vCPU). The
	// back-end must offer as many.
	NumQueues int
	// QueueSize is the number of descriptors in a virtqueue, a power of two from 4
	// to 1024, 0 for QEMU's choice.
	QueueSize int
	// Bus is the id of the PCI bus to plug into, for example of a pcie-root-port;
	// empty for the first that is free.
	Bus string
	// BootIndex is the place in the firmware's boot order, nil for none.
	BootIndex *int
	// Reconnect is how long QEMU waits before it connects again to a back-end that
	// went away; 0 for DefaultReconnect. QEMU before 9.2 knows whole seconds only:
	// it is rounded up.
	Reconnect time.Duration
	// NoProbe leaves out the connection that Attach makes to see that the back-end
	// answers. Set it for a back-end that serves one connection in its life, or that
	// this process cannot reach. QEMU halts the guest while it waits for a back-end
	// that is gone or silent: without the probe, for some seconds at least.
	NoProbe bool
}

// check tells what is wrong with the options and fills in what was left out.
func (o *AttachOptions) check() error {
	if err := checkID(o.ID); err != nil {
		return err
	}
	switch n := len(o.SocketPath); {
	case !filepath.IsAbs(o.SocketPath):
		return fmt.Errorf("%w: socket path %q is not absolute", ErrBadOptions, o.SocketPath)
	case n > maxSocketPath:
		return fmt.Errorf("%w: socket path has %d bytes, a unix socket has room for %d", ErrBadOptions, n, maxSocketPath)
	}
	if o.NumQueues < 0 || o.NumQueues > maxQueues {
		return fmt.Errorf("%w: %d queues, must be 1 to %d", ErrBadOptions, o.NumQueues, maxQueues)
	}
	if q := o.QueueSize; q != 0 && (q < 4 || q > maxQueueSize || q&(q-1) != 0) {
		return fmt.Errorf("%w: queue size %d, must be a power of two from 4 to %d", ErrBadOptions, q, maxQueueSize)
	}
	if o.BootIndex != nil && *o.BootIndex < 0 {
		return fmt.Errorf("%w: boot index %d is negative", ErrBadOptions, *o.BootIndex)
	}
	if o.Reconnect < 0 {
		return fmt.Errorf("%w: reconnect after %s is negative", ErrBadOptions, o.Reconnect)
	}
	if o.Reconnect == 0 {
		o.Reconnect = DefaultReconnect
	}
	return nil
}

// checkID accepts what QEMU accepts as an id.
func checkID(id string) error {
	ok := id != "" && len(id) <= maxID && isLetter(id[0])
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = isLetter(c) || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_'
	}
	if !ok {
		return fmt.Errorf("%w: id %q, must be a letter and up to %d letters, digits, '-', '.', '_'", ErrBadOptions, id, maxID-1)
	}
	return nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// chardevID names the character device that connects a disk to its back-end.
func chardevID(id string) string { return id + "-chardev" }
