package file

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/internal/uring"
)

// shortage is how long the kernel has nothing for a call: longer than a thousand calls
// take, shorter than a thousand pauses.
const shortage = 100 * time.Millisecond

// scarce says EAGAIN to calls of one operation.
type scarce struct {
	kernelRing
	over   bool
	victim uint64
	tries  int
}

func (s *scarce) Peek(dst []uring.CQE) (int, error) {
	n, err := s.kernelRing.Peek(dst)
	for i, c := range dst[:n] {
		if c.UserData == s.victim && c.Res != -int32(unix.ETIME) && !s.over {
			dst[i].Res = -int32(unix.EAGAIN)
			s.tries++
		}
	}
	return n, err
}

// wait polls until the queue has completed a request, asleep in between.
func wait(t *testing.T, q blockdev.Queue) *blockdev.Request {
	t.Helper()
	done := make([]*blockdev.Request, 1)
	for q.Poll(done) == 0 {
		if n := sleep(t, q); n == 0 {
			t.Fatal("nothing wakes the queue")
		}
	}
	return done[0]
}

func sleep(t *testing.T, q blockdev.Queue) int {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(q.WaitFD()), Events: unix.POLLIN}}, 10_000)
	if err != nil && err != unix.EINTR {
		t.Fatal(err)
	}
	return n
}

// TestScarceRing: a call that the kernel has nothing for is made again until it has, at
// leisure, and holds up no other.
func TestScarceRing(t *testing.T) {
	q := openQueue(t, uringDevice(t, 1<<20), 2)
	eng := q.(*queue).eng.(*ring)
	first, second := rw(blockdev.Read, 0, make([]byte, 512)), rw(blockdev.Read, 512, make([]byte, 512))
	start := time.Now()
	q.Submit(first)
	for i := range eng.ops {
		if eng.ops[i].req == first {
			eng.ring = &scarce{kernelRing: eng.ring, victim: eng.ops[i].index}
		}
	}
	s := eng.ring.(*scarce)
	q.Push()
	done := make([]*blockdev.Request, 1)
	for time.Since(start) < shortage {
		sleep(t, q)
		if q.Poll(done) != 0 {
			t.Fatalf("given up after %d tries in %v: %v", s.tries, time.Since(start), first.Err)
		}
	}
	if most := int(time.Since(start)/againPause) + 2; s.tries < 3 || s.tries > most {
		t.Errorf("%d tries, at most %d fit", s.tries, most)
	}
	q.Submit(second)
	q.Push()
	if r := wait(t, q); r != second || r.Err != nil {
		t.Errorf("the other request: %v", r.Err)
	}
	if n := testing.AllocsPerRun(10, func() { sleep(t, q); q.Poll(done) }); n != 0 {
		t.Errorf("%v allocations in a round", n)
	}
	s.over = true
	if r := wait(t, q); r != first || r.Err != nil {
		t.Errorf("after the shortage: %v", r.Err)
	}
}

// TestScarceThreads is the same for threads, which may sleep.
func TestScarceThreads(t *testing.T) {
	q := openQueue(t, open(t, image(t, 1<<20), Options{Engine: EngineThreads, AlignedMemory: true}), 2)
	eng := q.(*queue).eng.(*pool)
	start, do, tries := time.Now(), eng.do, 0
	eng.do = func(c *call) int32 {
		if c.kind != callRead || time.Since(start) > shortage {
			return do(c)
		}
		tries++
		return -int32(unix.EAGAIN)
	}
	read, flush := rw(blockdev.Read, 0, make([]byte, 4096)), &blockdev.Request{Op: blockdev.Flush}
	q.Submit(read, flush)
	q.Push()
	if r := wait(t, q); r != flush || r.Err != nil {
		t.Errorf("the other request: %v", r.Err)
	}
	if r := wait(t, q); r != read || r.Err != nil {
		t.Errorf("after the shortage: %v", r.Err)
	}
	if most := int(time.Since(start)/againPause) + 1; tries < 2 || tries > most {
		t.Errorf("%d tries, at most %d fit", tries, most)
	}
}
