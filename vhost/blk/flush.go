package blk

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// flush makes durable what was written, over a queue of its own, and waits for it.
func (d *Device) flush() (err error) {
	if err := d.gate.enter(); err != nil {
		return err
	}
	defer d.gate.leave()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q, err := d.dev.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	r := blockdev.Request{Op: blockdev.Flush}
	q.Submit(&r)
	q.Push()
	for done := make([]*blockdev.Request, 1); q.Poll(done) == 0; {
		if err := sleep(q.WaitFD()); err != nil {
			return err
		}
	}
	return r.Err
}

// sleep waits for a queue.
func sleep(fd int) error {
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
	if err == unix.EINTR {
		return nil
	}
	return err
}
