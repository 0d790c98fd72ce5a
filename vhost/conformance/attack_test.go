package conformance_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/fault"
	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
)

// memoryPerAttack bounds what a back-end may allocate for 200 operations, each of
// which can start a ring of 16 descriptors or open a dozen sessions, and what the test
// needs.
const memoryPerAttack = 160 << 20

// resources are what a back-end could leave behind.
type resources struct {
	held
	goroutines int
	allocated  uint64
}

func measure(t testing.TB) resources {
	t.Helper()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return resources{holdings(t), runtime.NumGoroutine(), ms.TotalAlloc}
}

func (r resources) more(than resources) bool {
	return r.files > than.files || r.maps > than.maps || r.goroutines > than.goroutines
}

// attack runs a program and checks what it left behind. A hang is a failure of the
// session after it, which has a deadline.
func (v *victim) attack(t *testing.T, program []byte) {
	before := measure(t)
	conformance.Attack(t, v.Target, program)
	t.Run("after", func(t *testing.T) { conformance.Healthy(t, v.Target) })
	after := measure(t)
	allocated := after.allocated - before.allocated // without what waiting takes
	// The last session is over for the front-end; the back-end closes in its time.
	for end := time.Now().Add(5 * time.Second); after.more(before) && time.Now().Before(end); after = measure(t) {
		time.Sleep(time.Millisecond)
	}
	if after.more(before) {
		t.Errorf("from %d files, %d mappings and %d goroutines to %d, %d and %d", before.files, before.maps, before.goroutines, after.files, after.maps, after.goroutines)
	}
	if allocated > memoryPerAttack {
		t.Errorf("%d MiB were allocated", allocated>>20)
	}
	v.check(t)
}

// victim is a back-end, and what is on its disk. What a front-end writes it writes by
// right; nothing else may change.
type victim struct {
	conformance.Target
	stack blockdev.Device // below what counts the writes
	want  []byte

	mu      sync.Mutex
	touched [capacity / 512]bool // mu
}

func newVictim(t testing.TB, stack blockdev.Device) *victim {
	v := &victim{stack: stack, want: blockdevtest.Noise(5, capacity)}
	q, err := stack.OpenQueue(blockdev.QueueConfig{Depth: 1})
	must(t, err)
	blockdevtest.NewDriver(t, q, 1).Write(0, v.want)
	must(t, q.Close())
	ledger := fault.New(stack, fault.Options{})
	ledger.OnSubmit(v.note)
	v.Socket = serve(t, ledger, blk.Options{NumQueues: 2})
	return v
}

// note is told of each request before it goes to the disk.
func (v *victim) note(r *blockdev.Request) error {
	if r.Op != blockdev.Read && r.Op != blockdev.Flush {
		v.mu.Lock()
		defer v.mu.Unlock()
		for s := max(0, r.Offset/512); s < (r.Offset+r.Length)/512 && s < int64(len(v.touched)); s++ {
			v.touched[s] = true
		}
	}
	return nil
}

// check reads the disk below the server. No session is open.
func (v *victim) check(t *testing.T) {
	t.Helper()
	q, err := v.stack.OpenQueue(blockdev.QueueConfig{Depth: 1})
	must(t, err)
	defer q.Close()
	got := blockdevtest.NewDriver(t, q, 1).Read(0, capacity)
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.touched {
		at := s * 512
		if !v.touched[s] && !bytes.Equal(got[at:at+512], v.want[at:at+512]) {
			t.Errorf("sector %d has changed, and nobody wrote to it", s)
			break
		}
	}
	v.want, v.touched = got, [capacity / 512]bool{}
}

func TestAttack(t *testing.T) {
	programs := 16
	if testing.Short() {
		programs = 8
	}
	// A file's requests are in flight for a while, those of memory never.
	for _, stack := range []string{"memory", "io_uring", "encrypted io_uring", "encrypted threads"} {
		v := newVictim(t, engines[stack](t))
		for seed := range programs {
			t.Run(fmt.Sprintf("%s, seed %d", stack, seed), func(t *testing.T) { v.attack(t, randomProgram(seed)) })
		}
	}
}

func randomProgram(seed int) []byte {
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	program := make([]byte, 20+rng.IntN(600))
	for i := range program {
		program[i] = byte(rng.Uint32())
	}
	return program
}

func FuzzAttack(f *testing.F) {
	for seed := range 8 {
		f.Add(randomProgram(seed))
	}
	v := newVictim(f, engines["encrypted io_uring"](f))
	f.Fuzz(func(t *testing.T, program []byte) { v.attack(t, program) })
}
