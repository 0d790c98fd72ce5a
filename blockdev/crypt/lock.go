package crypt

import (
	"fmt"

	"sealblk/blockdev"
	"sealblk/blockdev/internal/ready"
	"sealblk/cipher"
)

// Lock takes the cipher away: nothing here uses it any more. No queue may be open.
func (d *Device) Lock() {
	d.locked.Store(true)
	d.transform.cipher = nil
}

// Unlock gives a locked device a cipher, with data units of the same size. No queue may
// be open.
func (d *Device) Unlock(x *cipher.XTS) error {
	if x == nil {
		return fmt.Errorf("unlock encrypted device: %w", ErrNoCipher)
	}
	if x.UnitSize() != d.transform.unit {
		return fmt.Errorf("unlock encrypted device: units of %d, not %d: %w", x.UnitSize(), d.transform.unit, ErrNotUnits)
	}
	d.transform.cipher = x
	d.locked.Store(false)
	return nil
}

// lockedQueue fails all it is given.
type lockedQueue struct{ done ready.List }

func newLockedQueue(cfg blockdev.QueueConfig) blockdev.Queue {
	return &lockedQueue{ready.New(max(1, cfg.Depth))}
}

func (q *lockedQueue) Submit(reqs ...*blockdev.Request) {
	for _, r := range reqs {
		q.done.Push(r, ErrLocked)
	}
}

func (q *lockedQueue) Push()                             {}
func (q *lockedQueue) Poll(done []*blockdev.Request) int { return q.done.Pop(done) }
func (q *lockedQueue) WaitFD() int                       { return -1 }
func (q *lockedQueue) Close() error                      { return nil }
