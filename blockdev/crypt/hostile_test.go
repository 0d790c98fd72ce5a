package crypt

import (
	"bytes"
	"sync/atomic"
	"testing"
	"unsafe"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// cuts are layouts of a guest's memory: whole units, units across buffers, both.
var cuts = map[string][]int{
	"whole":         {1 << 20},
	"one unit":      {4096},
	"off by one":    {1, 4096},
	"small":         {100, 33},
	"mixed":         {10000, 3},
	"half and half": {2048},
}

// outside fails the test when memory of the guest is handed to the lower device.
func outside(t *testing.T, guest []byte) func(r *blockdev.Request) {
	from := uintptr(unsafe.Pointer(unsafe.SliceData(guest)))
	return func(r *blockdev.Request) {
		for _, b := range r.Buffers {
			at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
			if at < from+uintptr(len(guest)) && from < at+uintptr(len(b)) {
				t.Errorf("the lower device was given memory of the guest")
			}
		}
	}
}

// TestLowerSeesCiphertextOnly: neither the requests to the lower device nor its
// content hold anything of the plaintext, and none of them points into the memory
// of the guest.
func TestLowerSeesCiphertextOnly(t *testing.T) {
	marker := []byte("plaintext marker") // one cipher block
	for name, cut := range cuts {
		r := newRig(t, 4096, Options{}, tiny, blockdevtest.FaultOptions{}, 4)
		guest := guestMemory(t, 256<<10)
		copy(guest, bytes.Repeat(marker, len(guest)/len(marker)))
		check := outside(t, guest)
		r.fault.OnSubmit(func(r *blockdev.Request) error {
			check(r)
			for _, b := range r.Buffers {
				if r.Op == blockdev.Write && bytes.Contains(b, marker[4:12]) {
					t.Errorf("%s: plaintext in a write to the lower device", name)
				}
			}
			return nil
		})
		r.Must(request(blockdev.Write, 8192, pieces(guest, cut...)...))
		if bytes.Contains(r.mem.Bytes(), marker[4:12]) {
			t.Errorf("%s: plaintext on the lower device", name)
		}
		r.Must(request(blockdev.Read, 8192, pieces(guest, cut...)...))
	}
}

// TestGuestSeesPlaintextOnly looks at the guest's memory at each completion below
// and all the time from another thread: every byte is what it was before or what
// it becomes.
func TestGuestSeesPlaintextOnly(t *testing.T) {
	const size, before, after = 128 << 10, 0xB0, 0x0A
	for name, cut := range cuts {
		r := newRig(t, 512, Options{}, tiny, blockdevtest.FaultOptions{Order: blockdevtest.Reversed}, 4)
		guest := guestMemory(t, size)
		plain := bytes.Repeat([]byte{after}, size)
		r.Write(0, plain)
		look := func() {
			for i, b := range guest {
				if b != before && b != after {
					t.Errorf("%s: byte %d of the guest's memory is %#02x", name, i, b)
					return
				}
			}
		}
		check := outside(t, guest)
		r.fault.OnDone(func(r *blockdev.Request) { check(r); look() })
		copy(guest, bytes.Repeat([]byte{before}, size))
		stop := concurrently(look)
		for range 4 {
			copy(guest, bytes.Repeat([]byte{before}, size))
			r.Must(request(blockdev.Read, 0, pieces(guest, cut...)...))
			if !bytes.Equal(guest, plain) {
				t.Errorf("%s: wrong bytes are read", name)
			}
		}
		stop()
	}
}

// TestGuestChangesWhatItWrites: a guest flips its buffer between two contents all
// the time. What is stored decrypts to bytes of one or the other: had a byte been
// read twice, whole cipher blocks would be noise.
func TestGuestChangesWhatItWrites(t *testing.T) {
	const size, one, two = 128 << 10, 0x11, 0x22
	contents := [2][]byte{bytes.Repeat([]byte{one}, size), bytes.Repeat([]byte{two}, size)}
	for name, cut := range cuts {
		r := newRig(t, 4096, Options{}, tiny, blockdevtest.FaultOptions{}, 4)
		o := newOracle(t, 4096)
		guest := guestMemory(t, size)
		copy(guest, contents[0])
		i := 0
		stop := concurrently(func() { i++; copy(guest, contents[i%2]) })
		for range 4 {
			r.Must(request(blockdev.Write, 0, pieces(guest, cut...)...))
			for at, b := range o.plain(r.mem.Bytes()[:size], 0) {
				if b != one && b != two {
					t.Fatalf("%s: byte %d was stored as %#02x", name, at, b)
				}
			}
		}
		stop()
	}
}

// TestGuestChangesWhatItReads: what a guest writes into the buffer of a read in
// flight goes nowhere.
func TestGuestChangesWhatItReads(t *testing.T) {
	const size = 128 << 10
	for name, cut := range cuts {
		r := newRig(t, 4096, Options{}, tiny, blockdevtest.FaultOptions{}, 4)
		guest := guestMemory(t, size)
		plain := blockdevtest.Noise(1, size)
		r.Write(0, plain)
		stored := bytes.Clone(r.mem.Bytes())
		stop := concurrently(func() { clear(guest) })
		for range 4 {
			r.Must(request(blockdev.Read, 0, pieces(guest, cut...)...))
		}
		stop()
		if !bytes.Equal(stored, r.mem.Bytes()) || !bytes.Equal(r.Read(0, size), plain) {
			t.Errorf("%s: a read changed the device", name)
		}
	}
}

// concurrently runs f again and again in a goroutine until the function that it
// returns is called. f has run at least once then.
func concurrently(f func()) (stop func()) {
	var stopped atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f()
			if stopped.Load() {
				return
			}
		}
	}()
	return func() { stopped.Store(true); <-done }
}
