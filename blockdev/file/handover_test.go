package file

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// write uses a device for a moment.
func write(t *testing.T, d *Device, off int64, p []byte) {
	t.Helper()
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	blockdevtest.NewDriver(t, q, 1).Write(off, p)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, d *Device, off, n int64) []byte {
	t.Helper()
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	return bytes.Clone(blockdevtest.NewDriver(t, q, 1).Read(off, n))
}

// TestHandover: at any time at most one of two devices has the right, nobody without
// a claim gets in between, and each sees what the other wrote.
func TestHandover(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		path := image(t, 1<<20)
		o.Lock, o.LogicalBlockSize = true, 4096
		source := open(t, path, o)
		standby := o
		standby.Standby = true
		destination := open(t, path, standby)
		busy := func(when string, d *Device) {
			t.Helper()
			if err := d.Take(); !errors.Is(err, blockdev.ErrBusy) {
				t.Errorf("%s: take: %v, want ErrBusy", when, err)
			}
			if d, err := Open(path, o); !errors.Is(err, blockdev.ErrBusy) {
				d.Close()
				t.Errorf("%s: open afresh: %v, want ErrBusy", when, err)
			}
		}
		busy("while the source runs", destination)
		for round := range 3 {
			from, to := source, destination
			if round%2 == 1 {
				from, to = to, from
			}
			want := blockdevtest.Noise(uint64(round), 64<<10)
			write(t, from, 0, want)
			if err := from.Release(); err != nil {
				t.Fatal(err)
			}
			if d, err := Open(path, o); !errors.Is(err, blockdev.ErrBusy) {
				d.Close()
				t.Fatalf("between two owners anybody can open: %v", err)
			}
			if err := to.Take(); err != nil {
				t.Fatal(err)
			}
			busy("after the handover", from)
			if got := read(t, to, 0, int64(len(want))); !bytes.Equal(got, want) {
				t.Fatal("what was written before the handover is not there")
			}
		}
		if err := errors.Join(destination.Release(), source.Take()); err != nil {
			t.Fatal(err)
		}
		write(t, source, 4096, make([]byte, 4096))
	})
}

func TestHandoverNeedsAnEndOfIO(t *testing.T) {
	path := image(t, 1<<20)
	d := open(t, path, Options{Lock: true})
	other := open(t, path, Options{Lock: true, Standby: true})
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Release(); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("released under an open queue: %v", err)
	}
	q.Close()
	d.lost.Store(true) // as a failed flush leaves it
	if err := d.Release(); !errors.Is(err, unix.EIO) {
		t.Errorf("released with data lost: %v", err)
	}
	if err := other.Take(); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("taken although it was not released: %v", err)
	}
}

// TestTakeLooksAgain: a file that was cut short meanwhile is not taken, and is free
// for who put it right.
func TestTakeLooksAgain(t *testing.T) {
	path := image(t, 1<<20)
	d := open(t, path, Options{Lock: true, Standby: true})
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if err := d.Take(); !errors.Is(err, blockdev.ErrShort) {
		t.Fatalf("take: %v", err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	other := open(t, path, Options{Lock: true, Standby: true})
	if err := other.Take(); err != nil {
		t.Fatalf("after a take that failed: %v", err)
	}
}

func TestReadersShare(t *testing.T) {
	path := image(t, 1<<20)
	a := open(t, path, Options{Lock: true, ReadOnly: true})
	b := open(t, path, Options{Lock: true, ReadOnly: true, Standby: true})
	w := open(t, path, Options{Lock: true, Standby: true})
	if err := b.Take(); err != nil {
		t.Fatal(err)
	}
	if err := w.Take(); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("a writer beside readers: %v", err)
	}
	if err := errors.Join(a.Release(), b.Release(), w.Take()); err != nil {
		t.Error(err)
	}
	if err := a.Take(); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("a reader beside a writer: %v", err)
	}
}
