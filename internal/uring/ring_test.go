package uring

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/eventfd"
	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func newRing(t *testing.T, entries int) *Ring {
	t.Helper()
	if err := Probe(); err != nil {
		leaktest.Missing(t, err.Error())
	}
	r, err := New(Config{Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func submit(t *testing.T, r *Ring) {
	t.Helper()
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
}

// sleep waits for the ring in poll(2), as its users do.
func sleep(t *testing.T, fd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("poll: %d, %v", n, err)
		}
		return
	}
}

// take waits for n completions and returns them by their data.
func take(t *testing.T, r *Ring, n int) map[uint64]int32 {
	t.Helper()
	got := make(map[uint64]int32)
	var cqes [7]CQE
	for len(got) < n {
		m, err := r.Peek(cqes[:])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cqes[:m] {
			if _, twice := got[c.UserData]; twice {
				t.Fatalf("completion %d came twice", c.UserData)
			}
			got[c.UserData] = c.Res
		}
		if m == 0 {
			sleep(t, r.FD())
		}
	}
	return got
}

func TestNopsOfManyRounds(t *testing.T) {
	r := newRing(t, 8)
	for round := range uint64(100) {
		for i := range uint64(8) {
			r.SQE().Nop(round*8 + i)
		}
		if r.SQE() != nil {
			t.Fatal("a full ring gave an entry")
		}
		submit(t, r)
		got := take(t, r, 8)
		for i := range uint64(8) {
			if res, ok := got[round*8+i]; !ok || res != 0 {
				t.Fatalf("nop %d: %d, %v", round*8+i, res, ok)
			}
		}
	}
}

func TestMoreCompletionsThanTheRingHolds(t *testing.T) {
	r := newRing(t, 4)
	const n = 200 // the completion ring has 8
	for i := range uint64(n) {
		s := r.SQE()
		if s == nil {
			submit(t, r)
			if s = r.SQE(); s == nil {
				t.Fatal("no entry after a submission")
			}
		}
		s.Nop(i)
	}
	submit(t, r)
	if got := take(t, r, n); len(got) != n {
		t.Fatalf("%d completions", len(got))
	}
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func vec(bufs ...[]byte) []unix.Iovec {
	var v []unix.Iovec
	for _, b := range bufs {
		v = append(v, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
	}
	return v
}

func one(t *testing.T, r *Ring, want int32, prep func(s *SQE)) {
	t.Helper()
	prep(r.SQE())
	submit(t, r)
	if res := take(t, r, 1)[42]; res != want {
		t.Fatalf("result %d, want %d", res, want)
	}
}

func TestFileOperations(t *testing.T) {
	r := newRing(t, 8)
	f := tempFile(t)
	buf := make([]byte, 4096)
	if err := r.RegisterFiles(int32(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterBuffers(vec(buf)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []File{Fixed(0), FD(int(f.Fd()))} {
		fileOperations(t, r, f, file, buf)
	}
}

func fileOperations(t *testing.T, r *Ring, f *os.File, file File, fixed []byte) {
	t.Helper()
	w := vec([]byte("one, "), []byte("two"))
	one(t, r, 8, func(s *SQE) { s.Writev(file, w, 100, 0, 42) })
	w1 := vec([]byte("!!!"))
	one(t, r, 3, func(s *SQE) { s.Writev(file, w1, 108, unix.RWF_DSYNC, 42) })
	a, b := make([]byte, 3), make([]byte, 20)
	v := vec(a, b)
	if err := f.Truncate(111); err != nil {
		t.Fatal(err)
	}
	one(t, r, 11, func(s *SQE) { s.Readv(file, v, 100, 0, 42) })
	if got := string(a) + string(b[:8]); got != "one, two!!!" {
		t.Fatalf("read %q", got)
	}
	one(t, r, 4, func(s *SQE) { s.Readv(file, v[1:], 107, 0, 42) })
	if got := string(b[:4]); got != "o!!!" {
		t.Fatalf("read %q", got)
	}

	copy(fixed, "fixed buffer")
	fv := vec(fixed[:12])
	one(t, r, 12, func(s *SQE) { s.WriteFixed(file, &fv[0], 0, 8192, 0, 42) })
	clear(fixed)
	one(t, r, 12, func(s *SQE) { s.ReadFixed(file, &fv[0], 0, 8192, 0, 42) })
	if !bytes.HasPrefix(fixed, []byte("fixed buffer")) {
		t.Fatalf("read %q", fixed[:12])
	}

	one(t, r, 0, func(s *SQE) { s.Fdatasync(file, 42) })
	one(t, r, 0, func(s *SQE) {
		s.Fallocate(file, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 4096, 42)
	})
	if n, err := f.ReadAt(a, 8192); n != 3 || err != nil || !bytes.Equal(a, make([]byte, 3)) {
		t.Fatalf("hole reads %q, %v", a, err)
	}
	one(t, r, -int32(unix.EINVAL), func(s *SQE) { s.Fallocate(file, 0, 0, 0, 42) })
}

func TestPollAdd(t *testing.T) {
	r := newRing(t, 8)
	e, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	r.SQE().PollAdd(FD(e.FD()), unix.POLLIN, 42)
	r.SQE().Nop(1)
	submit(t, r)
	if got := take(t, r, 1); len(got) != 1 || got[1] != 0 {
		t.Fatalf("before the signal: %v", got)
	}
	signalled := make(chan error)
	go func() { signalled <- e.Signal() }()
	if err := <-signalled; err != nil {
		t.Fatal(err)
	}
	if got := take(t, r, 1); got[42] != unix.POLLIN {
		t.Fatalf("after the signal: %v", got)
	}
}

func TestTimeout(t *testing.T) {
	r := newRing(t, 8)
	const pause = 20 * time.Millisecond
	after, start := unix.NsecToTimespec(int64(pause)), time.Now()
	r.SQE().Timeout(&after, 42)
	r.SQE().Nop(1)
	submit(t, r)
	if got := take(t, r, 1); len(got) != 1 || got[1] != 0 {
		t.Fatalf("before the time has passed: %v", got)
	}
	if got := take(t, r, 1); got[42] != -int32(unix.ETIME) || time.Since(start) < pause {
		t.Fatalf("after %v: %v", time.Since(start), got)
	}
}

func TestAsync(t *testing.T) {
	r, f := newRing(t, 8), tempFile(t)
	one(t, r, 4, func(s *SQE) { s.Writev(FD(int(f.Fd())), vec([]byte("data")), 0, 0, 42); s.Async() })
	b := make([]byte, 4)
	one(t, r, 4, func(s *SQE) { s.Readv(FD(int(f.Fd())), vec(b), 0, 0, 42); s.Async() })
	if string(b) != "data" {
		t.Errorf("read %q", b)
	}
}

func TestNoAllocation(t *testing.T) {
	r := newRing(t, 8)
	cqes := make([]CQE, 8)
	n := testing.AllocsPerRun(100, func() {
		r.SQE().Nop(1)
		r.Submit()
		for got := 0; got == 0; got, _ = r.Peek(cqes) {
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestCloseReleasesRegisteredFile(t *testing.T) {
	if err := Probe(); err != nil {
		leaktest.Missing(t, err.Error())
	}
	r, err := New(Config{Entries: 1})
	if err != nil {
		t.Fatal(err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	if err := r.RegisterFiles(int32(p[1])); err != nil {
		t.Fatal(err)
	}
	unix.Close(p[1])
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
		t.Fatalf("read: %d, %v", n, err)
	}
}
