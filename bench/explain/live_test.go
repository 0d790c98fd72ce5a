package explain

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
)

// watched is a report of a child's work, with what the child says about it.
type watched struct {
	*Report
	tid  int // the thread it works on
	took time.Duration
	late bool          // it went on after the window
	cpu  time.Duration // that the kernel's own clock says it used meanwhile
	// missed is how often a program for block devices was not run, since it ran already
	// on that CPU.
	missed uint64
}

// watch runs a child from its first line to its second: on a machine that is so busy that
// the child takes too long, once more and for longer.
func watch(t *testing.T, name string, env ...string) watched {
	t.Helper()
	return watchUntil(t, func(*watched) bool { return true }, name, env...)
}

// watchUntil does so too if the report is not good; the last is returned as it is.
func watchUntil(t *testing.T, good func(*watched) bool, name string, env ...string) watched {
	t.Helper()
	if err := Supported(); err != nil {
		leaktest.Missing(t, err.Error())
	}
	const last = 9 * time.Second
	for _, window := range []time.Duration{time.Second, 3 * time.Second, last} {
		w := watchFor(t, window, name, env)
		if w.late || window < last && !good(&w) {
			continue
		}
		if w.Lost != 0 || w.IntervalMs != float64(window.Milliseconds()) {
			t.Errorf("%d lost in %v ms", w.Lost, w.IntervalMs)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("in %v: %+v", w.took, w.Report)
			}
		})
		return w
	}
	t.Fatalf("this machine is too busy for child %s", name)
	return watched{}
}

func watchFor(t *testing.T, window time.Duration, name string, env []string) watched {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+name)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	lines := bufio.NewReader(out)
	w := watched{tid: int(number(t, lines))}
	c, err := Watch([]int{cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before, begun := cpuTime(t, cmd.Process.Pid), time.Now()
	if err := c.Between(begun, begun.Add(window)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	w.took = time.Duration(number(t, lines))
	w.late = time.Since(begun) > window // it may have begun late, too
	time.Sleep(time.Until(begun.Add(window)))
	w.cpu = cpuTime(t, cmd.Process.Pid) - before
	if w.Report, err = c.Report(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*ebpf.Program{c.objects.BlockBioQueue, c.objects.BlockSplit, c.objects.BlockRqIssue, c.objects.BlockRqComplete} {
		s, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		w.missed += s.RecursionMisses
	}
	return w
}

func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	const scheduled = 2 // CPUCLOCK_SCHED: see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// agrees tells whether the collector says what the kernel's clock does, which may leave
// out interrupts and what other guests took.
func (w *watched) agrees() bool {
	low, high := w.cpuBounds()
	return w.Total.OnCPU() >= low && w.Total.OnCPU() <= high
}

func (w *watched) cpuBounds() (low, high float64) {
	want := float64(w.cpu) / 1e6
	return 0.8*want - 5, 1.25*want + 5
}

func (w *watched) checkCPU(t *testing.T) {
	t.Helper()
	low, high := w.cpuBounds()
	between(t, "time on a CPU", w.Total.OnCPU(), low, high)
}

// worker is the thread that a child works on.
func (w *watched) worker(t *testing.T) *Thread {
	t.Helper()
	for i := range w.Threads {
		if w.Threads[i].TID == w.tid {
			return &w.Threads[i]
		}
	}
	t.Fatalf("no thread %d in %+v", w.tid, w.Threads)
	return nil
}

func number(t *testing.T, lines *bufio.Reader) int64 {
	t.Helper()
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *watched) call(name string) Call {
	for _, c := range w.Calls {
		if c.Name == name {
			return c
		}
	}
	return Call{}
}

func (w *watched) code(name string) float64 {
	for _, c := range w.Code {
		if c.Name == name {
			return c.Share
		}
	}
	return 0
}

// between asserts that a value is within bounds that a busy machine keeps too.
func between(t *testing.T, what string, v, low, high float64) {
	t.Helper()
	if v < low || v > high {
		t.Errorf("%s: %.3f, not within %.3f and %.3f", what, v, low, high)
	}
}

// Whatever a thread does, its four times are the interval.
func TestTimesAddUp(t *testing.T) {
	w := watch(t, "sleeps")
	whole := 0
	for _, th := range w.Threads {
		sum := th.OnCPU() + th.WaitingMs + th.AsleepMs
		least := 0.0 // of a thread that was made meanwhile
		if sum > 0.999*w.IntervalMs {
			whole++
		}
		if th.TID == w.tid {
			least = 0.999 * w.IntervalMs
		}
		between(t, fmt.Sprintf("times of %s %d", th.Name, th.TID), sum, least, 1.001*w.IntervalMs)
	}
	if whole < 3 { // a Go program has a few from the start
		t.Errorf("%d threads lived throughout", whole)
	}
}

func TestCallsAreCounted(t *testing.T) {
	w := watch(t, "reads")
	c := w.call("preadv")
	if c.Ran.Count != reads {
		t.Errorf("%d calls, not %d", c.Ran.Count, reads)
	}
	if c.Ran.P50 <= 0 || c.Ran.P50 > c.Ran.P99 || c.Ran.P99 > c.Ran.Max || c.Ran.Mean > c.Ran.Max {
		t.Errorf("latency %+v", c.Ran)
	}
	between(t, "preadv's time", c.OnCPUMs, 0.99*c.Ran.Mean*reads/1e3, 1.01*c.Ran.Mean*reads/1e3)
	between(t, "preadv's time", c.OnCPUMs, 0, float64(w.took)/1e6)
}

func TestSleepIsInItsCall(t *testing.T) {
	w := watchUntil(t, (*watched).agrees, "sleeps")
	w.checkCPU(t)
	c := w.call("ppoll")
	if c.Ran.Count != naps {
		t.Errorf("%d calls of ppoll, not %d", c.Ran.Count, naps)
	}
	const total = naps * float64(nap) / 1e6
	between(t, "asleep in ppoll", c.AsleepMs, 0.9*total, 1.5*total)
	between(t, "in ppoll", c.AsleepMs+c.OnCPUMs+c.WaitingMs, 0.999*total, float64(w.took)/1e6)
	// A spin that is interrupted by others has less of the CPU, never more.
	between(t, "in its own code", w.worker(t).UserMs, 1, 1.1*total)
	between(t, "not asleep", w.worker(t).OnCPU()+w.worker(t).WaitingMs, 0.9*total, float64(w.took)/1e6-0.99*total+100)
	if w.worker(t).Wakeups < naps || w.worker(t).Voluntary < naps {
		t.Errorf("%+v sleeps %d times", w.worker(t), naps)
	}
	if l := w.Wakeup; l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
		t.Errorf("wake-up %+v", l)
	}
}

func TestOwnCodeIsTimed(t *testing.T) {
	sampleBounds := func(w *watched) (low, high float64) {
		want := w.worker(t).UserMs * SampleHz / 1e3
		return 0.8 * want, 1.2*want + 2
	}
	w := watchUntil(t, func(w *watched) bool {
		low, high := sampleBounds(w)
		n := float64(w.worker(t).Samples)
		return w.agrees() && n >= low && n <= high
	}, "burns")
	w.checkCPU(t)
	want := float64(busy) / 1e6
	between(t, "on a CPU and waiting for it", w.worker(t).OnCPU()+w.worker(t).WaitingMs, 0.95*want, 1.05*float64(w.took)/1e6+200)
	low, high := sampleBounds(&w)
	between(t, "samples", float64(w.worker(t).Samples), low, high)
	between(t, "crypto", w.code(CodeCrypto), 0, 0.01)
}

func TestCodeIsNamed(t *testing.T) {
	w := watch(t, "burns")
	// Time is read in the vdso, for package time and the runtime.
	clock := w.code("[vdso]") + w.code("runtime") + w.code("time") + w.code("bench/explain")
	between(t, "clock", clock, 0.7, 1)
	between(t, "clock, faults and interrupts", clock+w.code(CodeKernel), 0.95, 1)
}

func TestCryptoIsFound(t *testing.T) {
	w := watch(t, "crypto")
	// The race detector has a share; without it this is above 0.9.
	between(t, "crypto", w.code(CodeCrypto), 0.4, 1)
	between(t, "crypto of the thread", w.worker(t).CryptoMs, 0.4*w.worker(t).UserMs, w.worker(t).UserMs)
	if f := w.Functions[0]; !strings.HasPrefix(f.Name, "crypto/") || f.Code != CodeCrypto {
		t.Errorf("the longest function is %+v", f)
	}
}

func TestFaultsAreCounted(t *testing.T) {
	w := watch(t, "touches")
	between(t, "page faults", float64(w.worker(t).Faults), pages, pages+100)
}

func TestThreadsMadeLater(t *testing.T) {
	w := watchUntil(t, (*watched).agrees, "workers")
	if n := w.call("getpriority").Ran.Count; n != extra*perEach {
		t.Errorf("%d calls on new threads, not %d", n, extra*perEach)
	}
	w.checkCPU(t)
	between(t, "not sampled", w.code(CodeUnseen), 0, 0.2)
}

func TestDeviceRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, writes*4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		leaktest.Missing(t, "direct I/O in the temporary directory")
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if unix.Major(st.Dev) == 0 {
		leaktest.Missing(t, "a block device under the temporary directory")
	}
	// The kernel may refuse the collector an event, which then says so; not each time.
	w := watchUntil(t, func(w *watched) bool { return w.Lost == 0 && w.missed == 0 }, "writes", "EXPLAIN_TEST_FILE="+path)
	// The file system may add some of its own.
	between(t, "requests", float64(w.Device.Count), writes, writes+4)
	between(t, "bytes", float64(w.DeviceBytes), writes*4096, (writes+8)*4096)
	if l := w.Device; l.P50 <= 1 || l.P50 > l.P99 || l.P99 > l.Max {
		t.Errorf("latency %+v", l)
	}
}

// Others' work is not counted.
func TestOthersDoNotCount(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open("/proc/self/exe")
		if err != nil {
			return
		}
		defer f.Close()
		b := make([]byte, 64)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Preadv(int(f.Fd()), [][]byte{b}, 0)
			}
		}
	}()
	w := watch(t, "burns")
	close(stop)
	<-done
	if n := w.call("preadv").Ran.Count; n != 0 {
		t.Errorf("%d calls of another process", n)
	}
}

// A user without rights is told so.
func TestForbidden(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := Supported(); !errors.Is(err, ErrForbidden) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("got %v", err)
		}
		return
	}
	if err := Supported(); err != nil {
		leaktest.Missing(t, err.Error())
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=asks")
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != ErrForbidden.Error() {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWatchRefuses(t *testing.T) {
	for _, pids := range [][]int{nil, make([]int, maxProcesses+1)} {
		if _, err := Watch(pids); !errors.Is(err, ErrProcesses) {
			t.Errorf("%d processes: %v", len(pids), err)
		}
	}
}

// Go's view of the maps is the compiler's.
func TestLayouts(t *testing.T) {
	spec, err := loadCollector()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uintptr{
		"threads": unsafe.Sizeof(rawThread{}), "calls": unsafe.Sizeof(rawCall{}), "devices": unsafe.Sizeof(rawDevice{}), "samples": 8,
	} {
		if got := spec.Maps[name].ValueSize; uintptr(got) != size {
			t.Errorf("%s: values of %d bytes in the program, %d here", name, got, size)
		}
	}
	for name, size := range map[string]uintptr{"calls": unsafe.Sizeof(callKey{}), "samples": unsafe.Sizeof(sampleKey{})} {
		if got := spec.Maps[name].KeySize; uintptr(got) != size {
			t.Errorf("%s: keys of %d bytes in the program, %d here", name, got, size)
		}
	}
}
