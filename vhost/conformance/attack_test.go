package conformance_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
)

// memoryPerAttack bounds what a back-end may allocate for 200 operations, each of
// which can start a ring of 16 descriptors, and for the sessions around them.
const memoryPerAttack = 64 << 20

// resources are what a back-end could leave behind.
type resources struct {
	files, goroutines int
	allocated         uint64
}

func measure(t testing.TB) resources {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return resources{len(fds), runtime.NumGoroutine(), ms.TotalAlloc}
}

// attack runs a program and checks what it left behind. A hang is a failure of the
// session after it, which has a deadline.
func attack(t *testing.T, target conformance.Target, program []byte) {
	before := measure(t)
	conformance.Attack(t, target, program)
	t.Run("after", func(t *testing.T) { conformance.Healthy(t, target) })
	after := measure(t)
	// The last session is over for the front-end; the back-end closes in its time.
	for end := time.Now().Add(5 * time.Second); (after.files > before.files || after.goroutines > before.goroutines) && time.Now().Before(end); after = measure(t) {
		runtime.Gosched()
	}
	if after.files > before.files || after.goroutines > before.goroutines {
		t.Errorf("from %d files and %d goroutines to %d and %d", before.files, before.goroutines, after.files, after.goroutines)
	}
	if n := after.allocated - before.allocated; n > memoryPerAttack {
		t.Errorf("%d MiB were allocated", n>>20)
	}
}

func victim(t testing.TB, stack string) conformance.Target {
	return conformance.Target{Socket: serve(t, stacks[stack](t), blk.Options{NumQueues: 2})}
}

func TestAttack(t *testing.T) {
	programs := 60
	if testing.Short() {
		programs = 30
	}
	// A file's requests are in flight for a while, those of memory never.
	for _, stack := range []string{"memory", "encrypted file"} {
		target := victim(t, stack)
		for seed := range programs {
			t.Run(fmt.Sprintf("%s, seed %d", stack, seed), func(t *testing.T) { attack(t, target, randomProgram(seed)) })
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
	target := victim(f, "file")
	f.Fuzz(func(t *testing.T, program []byte) { attack(t, target, program) })
}
