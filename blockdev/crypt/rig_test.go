package crypt

import (
	"crypto/aes"
	"errors"
	"testing"

	"golang.org/x/crypto/xts"
	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/bounce"
	"sealblk/blockdev/memory"
	"sealblk/cipher"
)

var testKey = blockdevtest.Noise(1, cipher.KeySize)

func newCipher(t testing.TB, unit int) *cipher.XTS {
	t.Helper()
	x, err := cipher.NewXTS(testKey, unit)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func newMemory(t testing.TB, size int64, opts memory.Options) *memory.Device {
	t.Helper()
	d, err := memory.New(size, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newLayer(t testing.TB, lower blockdev.Device, unit int, opts Options, cfg bounce.Config) *Device {
	t.Helper()
	d, err := newDevice(lower, newCipher(t, unit), opts, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// rig is a queue of a layer over a fault over memory.
type rig struct {
	mem   *memory.Device
	fault *blockdevtest.Fault
	layer *Device
	*blockdevtest.Driver
}

func newRig(t testing.TB, unit int, opts Options, cfg bounce.Config, fault blockdevtest.FaultOptions, depth int) *rig {
	t.Helper()
	r := &rig{mem: newMemory(t, 4<<20, memory.Options{})}
	r.fault = blockdevtest.NewFault(r.mem, fault)
	r.layer = newLayer(t, r.fault, unit, opts, cfg)
	q, err := r.layer.OpenQueue(blockdev.QueueConfig{Depth: depth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(q.Close(), r.layer.Close()); err != nil {
			t.Error(err)
		}
	})
	r.Driver = blockdevtest.NewDriver(t, q, depth)
	return r
}

func request(op blockdev.Op, offset int64, data ...[]byte) *blockdev.Request {
	r := &blockdev.Request{Op: op, Offset: offset, Buffers: data}
	r.Length = r.Buffered()
	return r
}

// oracle is an independent implementation of the format.
type oracle struct {
	xts  *xts.Cipher
	unit int
}

func newOracle(t testing.TB, unit int) oracle {
	t.Helper()
	c, err := xts.NewCipher(aes.NewCipher, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return oracle{c, unit}
}

// stored is the ciphertext of plain at a device offset.
func (o oracle) stored(plain []byte, offset int64) []byte {
	out := make([]byte, len(plain))
	for i := 0; i < len(plain); i += o.unit {
		o.xts.Encrypt(out[i:i+o.unit], plain[i:i+o.unit], uint64(offset+int64(i))/512)
	}
	return out
}

// plain is the plaintext of stored bytes.
func (o oracle) plain(stored []byte, offset int64) []byte {
	out := make([]byte, len(stored))
	for i := 0; i < len(stored); i += o.unit {
		o.xts.Decrypt(out[i:i+o.unit], stored[i:i+o.unit], uint64(offset+int64(i))/512)
	}
	return out
}

// guestMemory is memory outside the Go heap, where the race detector does not look:
// a guest races with us by right.
func guestMemory(t testing.TB, size int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return mem
}

// pieces cuts mem at the given lengths, over and over.
func pieces(mem []byte, lengths ...int) [][]byte {
	var out [][]byte
	for i := 0; len(mem) > 0; i++ {
		n := min(lengths[i%len(lengths)], len(mem))
		out = append(out, mem[:n])
		mem = mem[n:]
	}
	return out
}
