package conformance_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sealblk/blockdev"
	"sealblk/blockdev/crypt"
	"sealblk/blockdev/file"
	"sealblk/blockdev/memory"
	"sealblk/cipher"
	"sealblk/internal/leaktest"
	"sealblk/internal/uring"
	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
	"sealblk/vhost/frontend"

	"golang.org/x/crypto/xts"
)

var key = func() []byte {
	k := make([]byte, 64)
	_, _ = rand.NewChaCha8([32]byte{42}).Read(k)
	return k
}()

// encrypted puts the encryption layer over a device.
func encrypted(t testing.TB, lower blockdev.Device) blockdev.Device {
	t.Helper()
	x, err := cipher.NewXTS(key, 512)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Destroy)
	dev, err := crypt.New(lower, x, crypt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// onFile is a device over a new file.
func onFile(t testing.TB) blockdev.Device { return onFileBy(t, file.EngineAuto) }

func onFileBy(t testing.TB, e file.Engine) blockdev.Device {
	t.Helper()
	if err := uring.Probe(); e == file.EngineUring && err != nil {
		leaktest.Missing(t, err.Error())
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, capacity); err != nil {
		t.Fatal(err)
	}
	dev, err := file.Open(path, file.Options{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// closing closes a stack when the test ends.
func closing(t testing.TB, dev blockdev.Device) blockdev.Device {
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close device: %v", err)
		}
	})
	return dev
}

// stacks are what a disk can be made of.
var stacks = map[string]func(t testing.TB) blockdev.Device{
	"memory":           func(t testing.TB) blockdev.Device { return ram(t, memory.Options{}) },
	"encrypted memory": func(t testing.TB) blockdev.Device { return closing(t, encrypted(t, newRAM(t))) },
	"file":             func(t testing.TB) blockdev.Device { return closing(t, onFile(t)) },
	"encrypted file":   func(t testing.TB) blockdev.Device { return closing(t, encrypted(t, onFile(t))) },
}

// engines are those over both ways to reach a file.
var engines = map[string]func(t testing.TB) blockdev.Device{
	"memory":           stacks["memory"],
	"encrypted memory": stacks["encrypted memory"],
	"threads":          func(t testing.TB) blockdev.Device { return closing(t, onFileBy(t, file.EngineThreads)) },
	"io_uring":         func(t testing.TB) blockdev.Device { return closing(t, onFileBy(t, file.EngineUring)) },
	"encrypted threads": func(t testing.TB) blockdev.Device {
		return closing(t, encrypted(t, onFileBy(t, file.EngineThreads)))
	},
	"encrypted io_uring": func(t testing.TB) blockdev.Device {
		return closing(t, encrypted(t, onFileBy(t, file.EngineUring)))
	},
}

func newRAM(t testing.TB) *memory.Device {
	t.Helper()
	dev, err := memory.New(capacity, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func openDisk(t testing.TB, socket string, o frontend.Options) *frontend.Disk {
	t.Helper()
	o.Timeout = 30 * time.Second
	d, err := frontend.Open(context.Background(), socket, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func TestConformanceOfEncryptedFile(t *testing.T) {
	if testing.Short() {
		t.Skip("the layers below have suites of their own")
	}
	conform(t, conformance.Target{Socket: serve(t, stacks["encrypted file"](t), blk.Options{NumQueues: 4})})
}

// What arrives below is what other software would write with the same key; what was
// never written reads as zeros.
func TestDiskIsEncrypted(t *testing.T) {
	lower := newRAM(t)
	dev := closing(t, encrypted(t, lower))
	d := openDisk(t, serve(t, dev, blk.Options{}), frontend.Options{})
	q := d.Queue(0)
	const sectors, first = 64, 1000
	plain := bytes.Repeat([]byte("plaintext marker"), sectors*512/16)
	if _, err := q.WriteAt(plain, first*512); err != nil {
		t.Fatal(err)
	}
	oracle, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(plain))
	for i := range sectors {
		oracle.Encrypt(want[i*512:][:512], plain[i*512:][:512], uint64(first+i))
	}
	if got := lower.Bytes()[first*512:][:len(want)]; !bytes.Equal(got, want) {
		t.Error("the bytes below are not AES-256-XTS under plain64")
	}
	if bytes.Contains(lower.Bytes(), []byte("marker")) {
		t.Error("there is plaintext below")
	}
	got := bytes.Repeat([]byte{1}, 8192)
	if _, err := q.ReadAt(got, 8<<20); err != nil || !bytes.Equal(got, make([]byte, 8192)) {
		t.Errorf("an area that was never written does not read as zeros (%v)", err)
	}
}

// pump sends total requests with every slot in flight.
func pump(t testing.TB, q *frontend.Queue, slots, done []*frontend.Request, total int) {
	for finished := 0; finished < total; {
		for _, r := range slots {
			if err := q.Submit(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Notify(); err != nil {
			t.Fatal(err)
		}
		for left := len(slots); left > 0; {
			n, err := q.Wait(done)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range done[:n] {
				if err := r.Err(); err != nil {
					t.Fatal(err)
				}
			}
			left -= n
		}
		finished += len(slots)
	}
}

func newSlots(t testing.TB, q *frontend.Queue, depth, size int) []*frontend.Request {
	t.Helper()
	slots := make([]*frontend.Request, depth)
	for i := range slots {
		r, err := q.NewRequest(size)
		if err != nil {
			t.Fatal(err)
		}
		r.Type, r.Sector = uint32(i%2), uint64(i*size/frontend.SectorSize)
		slots[i] = r
	}
	return slots
}

// Neither side allocates for a request, from the driver's ring to the device below
// the encryption. All the process's allocations are counted, so a few of the
// runtime's own are forgiven, and more if they are not made again, as for new threads.
func TestDataPathDoesNotAllocate(t *testing.T) {
	const requests, forgiven = 10000, 20
	for name, stack := range stacks {
		for _, polling := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, polling %v", name, polling), func(t *testing.T) {
				d := openDisk(t, serve(t, stack(t), blk.Options{}), frontend.Options{Polling: polling, QueueSize: 64, Framing: frontend.FrameAtMost(300)})
				q := d.Queue(0)
				slots, done := newSlots(t, q, 16, 1024), make([]*frontend.Request, 16)
				pump(t, q, slots, done, 1000) // until everything is warm
				n := uint64(forgiven + 1)
				for try := 0; try < 5 && n > forgiven; try++ {
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					pump(t, q, slots, done, requests)
					runtime.ReadMemStats(&after)
					n = after.Mallocs - before.Mallocs
				}
				if n > forgiven {
					t.Errorf("%d allocations in %d requests", n, requests)
				}
			})
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, name := range []string{"memory", "encrypted memory"} {
		for _, size := range []int{4 << 10, 128 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				d := openDisk(b, serve(b, stacks[name](b), blk.Options{}), frontend.Options{Polling: true})
				q := d.Queue(0)
				slots, done := newSlots(b, q, 32, size), make([]*frontend.Request, 32)
				b.SetBytes(int64(size))
				b.ResetTimer()
				pump(b, q, slots, done, b.N)
			})
		}
	}
}
