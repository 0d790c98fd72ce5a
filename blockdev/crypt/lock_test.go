package crypt

import (
	"bytes"
	"errors"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
)

// TestLock: a device whose cipher was taken away fails everything without touching what
// is stored, a wiped cipher is not used, and another one of the same key goes on.
func TestLock(t *testing.T) {
	mem := newMemory(t, 1<<20, memory.Options{})
	x := newCipher(t, 512)
	d, err := New(mem, x, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	want := blockdevtest.Noise(7, 64<<10)
	with(t, d, func(q *blockdevtest.Driver) { q.Write(4096, want) })
	stored := bytes.Clone(mem.Bytes())

	d.Lock()
	x.Destroy()
	info := d.Info()
	with(t, d, func(q *blockdevtest.Driver) {
		for _, r := range []*blockdev.Request{
			request(blockdev.Read, 4096, make([]byte, 512)), request(blockdev.Write, 4096, make([]byte, 512)),
			{Op: blockdev.Flush}, {Op: blockdev.Discard, Offset: 4096, Length: 512}, {Op: blockdev.WriteZeroes, Offset: 4096, Length: 512},
		} {
			if err := q.Do(r); !errors.Is(err, ErrLocked) {
				t.Errorf("op %d on a locked device: %v", r.Op, err)
			}
		}
	})
	if !bytes.Equal(mem.Bytes(), stored) {
		t.Error("a locked device changed what is stored")
	}
	if d.Info() != info {
		t.Error("a locked device is another one to look at")
	}

	if err := d.Unlock(newCipher(t, 4096)); !errors.Is(err, ErrNotUnits) {
		t.Errorf("unlocked with other units: %v", err)
	}
	if err := d.Unlock(nil); !errors.Is(err, ErrNoCipher) {
		t.Errorf("unlocked without a cipher: %v", err)
	}
	with(t, d, func(q *blockdevtest.Driver) {
		if err := q.Do(&blockdev.Request{Op: blockdev.Flush}); !errors.Is(err, ErrLocked) {
			t.Errorf("after a failed unlock: %v", err)
		}
	})
	if err := d.Unlock(newCipher(t, 512)); err != nil {
		t.Fatal(err)
	}
	with(t, d, func(q *blockdevtest.Driver) {
		if got := q.Read(4096, int64(len(want))); !bytes.Equal(got, want) {
			t.Error("reads something else after lock and unlock")
		}
	})
}

// with runs f on a queue of its own.
func with(t *testing.T, d *Device, f func(*blockdevtest.Driver)) {
	t.Helper()
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	f(blockdevtest.NewDriver(t, q, 4))
}
