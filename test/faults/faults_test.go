package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sealblk/blockdev"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/file"
	"sealblk/blockdev/memory"
	"sealblk/internal/leaktest"
	"sealblk/internal/uring"
	"sealblk/vhost/frontend"
)

const capacity = 2 << 20

// media are what the faults lie over.
var media = map[string]func(t failer, unit int, path string) blockdev.Device{
	"memory": func(t failer, unit int, _ string) blockdev.Device {
		d, err := memory.New(capacity, memory.Options{LogicalBlockSize: unit})
		must(t, err)
		return d
	},
	"io_uring": onFile(file.EngineUring),
	"threads":  onFile(file.EngineThreads),
}

func onFile(e file.Engine) func(failer, int, string) blockdev.Device {
	return func(t failer, unit int, path string) blockdev.Device {
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, capacity))
		d, err := file.Open(path, file.Options{Engine: e, LogicalBlockSize: unit, AlignedMemory: true})
		must(t, err)
		return d
	}
}

// TestGuestOverFaults: whatever fails below, a guest sees of each request that failed
// the old data, the new, or whole blocks of both; of others what it wrote; and an
// error and its count for each failure. Nothing hangs, and nothing is used up.
func TestGuestOverFaults(t *testing.T) {
	for name, medium := range media {
		for _, unit := range []int{512, 4096} {
			t.Run(fmt.Sprintf("%s %d", name, unit), func(t *testing.T) {
				if err := uring.Probe(); name == "io_uring" && err != nil {
					leaktest.Missing(t, err.Error())
				}
				path := filepath.Join(t.TempDir(), "disk.img")
				rapid.Check(t, func(rt *rapid.T) { guestOverFaults(rt, medium(rt, unit, path), unit) })
			})
		}
	}
}

func guestOverFaults(rt *rapid.T, medium blockdev.Device, unit int) {
	order := rapid.SampledFrom([]fault.Order{fault.InOrder, fault.Reversed, fault.Shuffled}).Draw(rt, "order")
	dev := fault.New(medium, fault.Options{Async: true, Order: order, Seed: rapid.Uint64().Draw(rt, "seed")})
	s := newStack(rt, dev, unit)
	defer s.close()
	defer dev.Unstick() // also when the test fails: the session ends after its requests
	defer dev.Clear()
	g := newGuest(s, capacity, int64(unit))
	for range rapid.IntRange(1, 3).Draw(rt, "rules") {
		dev.Add(rule(rt))
	}
	for range rapid.IntRange(20, 120).Draw(rt, "steps") {
		g.step(rt)
	}
	dev.Clear()
	for len(g.onDone) > 0 {
		dev.Unstick() // what was queued behind chunks that were stuck comes only now
		g.wait()
	}
	if got := s.stats(); got.Failed+got.NoSpace != g.failed || got.Invalid+got.Unsupported != 0 {
		rt.Fatalf("the guest saw %d failures, counted were %+v", g.failed, got)
	}
	g.readAll()
	g.fullLoad(1)
	g.readAll()
}

// rule draws what goes wrong.
func rule(rt *rapid.T) fault.Rule {
	r := fault.Rule{
		Ops:         rapid.SliceOfNDistinct(rapid.SampledFrom([]blockdev.Op{blockdev.Read, blockdev.Write, blockdev.Flush, blockdev.Discard}), 0, 3, rapid.ID).Draw(rt, "ops"),
		From:        rapid.Int64Range(0, capacity/2).Draw(rt, "from"),
		After:       rapid.IntRange(0, 20).Draw(rt, "after"),
		Count:       rapid.IntRange(0, 5).Draw(rt, "count"),
		Probability: rapid.SampledFrom([]float64{0, .5, .1}).Draw(rt, "probability"),
	}
	switch rapid.IntRange(0, 5).Draw(rt, "fault") {
	case 0:
		r.Stuck, r.Count = true, max(1, r.Count)
	case 1:
		r.Delay = time.Millisecond
	default:
		r.Err = rapid.SampledFrom([]error{unix.EIO, unix.ENOSPC, blockdev.ErrShort}).Draw(rt, "error")
		r.Effect = rapid.SampledFrom([]fault.Effect{fault.None, fault.Half, fault.Torn, fault.All}).Draw(rt, "effect")
	}
	return r
}

func (g *guest) step(rt *rapid.T) {
	if len(g.free) == 0 { // all may be stuck
		g.poll()
		return
	}
	kind := rapid.IntRange(0, 9).Draw(rt, "step")
	if kind == 9 {
		g.poll()
		return
	}
	if kind == 8 {
		g.flush()
		return
	}
	first, n := g.claim(rt)
	switch {
	case n == 0:
		g.poll()
	case kind < 4:
		g.write(first, n, rapid.Uint64().Draw(rt, "data"))
	case kind < 6:
		g.read(first, n)
	case kind == 6:
		g.erase(frontend.TypeDiscard, first, n)
	default:
		g.erase(frontend.TypeWriteZeroes, first, n)
	}
}

// TestFlushAfterLostSync: once a sync has failed, no flush of the guest succeeds
// until the disk is opened again.
func TestFlushAfterLostSync(t *testing.T) {
	for _, e := range []file.Engine{file.EngineUring, file.EngineThreads} {
		t.Run(e.String(), func(t *testing.T) {
			if err := uring.Probe(); e == file.EngineUring && err != nil {
				leaktest.Missing(t, err.Error())
			}
			path := filepath.Join(t.TempDir(), "disk.img")
			dev := onFile(e)(t, 512, path)
			restore := unsyncable(t, path) // before a ring takes its own hold of the file
			s := newStack(t, dev, 512)
			if err := s.queue.Flush(); err == nil {
				t.Error("the flush of a file that cannot be synced succeeded")
			}
			restore()
			for range 3 {
				if err := s.queue.Flush(); err == nil {
					t.Error("a flush succeeded after data may have been lost")
				}
			}
			s.close()
			s = newStack(t, onFile(e)(t, 512, path), 512)
			must(t, s.queue.Flush())
			s.close()
		})
	}
}

// unsyncable puts an eventfd in the place of each descriptor of a file.
func unsyncable(t *testing.T, path string) (restore func()) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, err)
	defer unix.Close(event)
	was := map[int]int{}
	for _, entry := range list {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err != nil {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + entry.Name()); err != nil || to != path {
			continue
		}
		was[fd], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Dup3(event, fd, unix.O_CLOEXEC))
	}
	if len(was) == 0 {
		t.Fatal("the file is not open")
	}
	return func() {
		for fd, old := range was {
			must(t, unix.Dup3(old, fd, unix.O_CLOEXEC))
			must(t, unix.Close(old))
		}
	}
}
