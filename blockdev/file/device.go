package file

import (
	"fmt"

	"sealblk/blockdev"
	"sealblk/blockdev/bounce"
)

// Device is an open file or block device.
type Device struct {
	*backing
	// top is the backing, or a layer over it that aligns memory, or that copies out of
	// the stored bytes.
	top blockdev.Device
}

func wrap(b *backing, aligned bool) (*Device, error) {
	d := &Device{backing: b, top: b}
	if b.align.mem == 0 && b.stored == nil || aligned && int64(b.align.mem) <= b.unit {
		return d, nil
	}
	var err error
	if d.top, err = bounce.New(b, bounce.Config{Aligned: max(1, b.align.mem)}); err != nil {
		return nil, fmt.Errorf("align memory: %w", err)
	}
	return d, nil
}

// OpenQueue makes a queue for one goroutine.
func (d *Device) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	return d.top.OpenQueue(cfg)
}

// MemoryAlignment is what the start and the length of each buffer should be a
// multiple of, in bytes, for it to go to the kernel without a copy; 1 if any do.
func (d *Device) MemoryAlignment() int { return max(1, d.align.mem) }

// Describe says in one line how the device does its work, and why.
func (d *Device) Describe() string {
	return fmt.Sprintf("%s: %d bytes at offset %d, %s, %s", d.file.Name(), d.capacity.Load(), d.offset, d.directText, d.engineText)
}
