package qmp

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
)

// rescue frees a QEMU that device_add has halted, and its guest with it. A
// character device that may reconnect is waited for without end when its back-end
// is gone: QEMU connects, sleeps and connects again. So somebody has to be there to
// hang up; device_add then fails. Where a back-end listens, rescue does nothing.
// The function it returns ends it.
func rescue(path string) (end func()) {
	if !deserted(path) {
		return func() {}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return func() {} // a back-end came back, or this is not our folder
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	return func() {
		_ = ln.Close() // removes the socket as well
		wg.Wait()
	}
}

// deserted tells whether nobody listens at a path, and clears away the socket that
// a dead back-end left there.
func deserted(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return false
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path) == nil
	}
	return errors.Is(err, fs.ErrNotExist)
}
