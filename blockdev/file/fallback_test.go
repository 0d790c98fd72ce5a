package file

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// TestQueueWithoutRing: the host has no memory for another ring. Who did not ask for
// one is served by threads.
func TestQueueWithoutRing(t *testing.T) {
	needEngine(t, EngineUring)
	d := open(t, image(t, 1<<20), Options{})
	d.ringEntries = 0 // the kernel makes no such ring
	q := drive(t, d, 4)
	data, back := blockdevtest.Noise(1, 4096), make([]byte, 4096)
	q.Must(rw(blockdev.Write, 8192, data))
	q.Must(rw(blockdev.Read, 8192, back))
	if !bytes.Equal(back, data) {
		t.Error("other data than was written")
	}
	asked := open(t, image(t, 1<<20), Options{Engine: EngineUring})
	asked.ringEntries = 0
	if q, err := asked.OpenQueue(blockdev.QueueConfig{Depth: 4}); err == nil {
		q.Close()
		t.Error("who asked for io_uring gets something else")
	}
}

func TestLockLimit(t *testing.T) {
	var want unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &want); err != nil {
		t.Fatal(err)
	}
	if got, err := lockLimit(); err != nil || got != want.Cur {
		t.Errorf("%d, %v; package unix says %d", got, err, want.Cur)
	}
}
