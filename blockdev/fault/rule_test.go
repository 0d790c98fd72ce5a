package fault_test

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/memory"
)

func open(t *testing.T, size int64, opts memory.Options) *memory.Device {
	t.Helper()
	d, err := memory.New(size, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRuleChooses: which of eight writes of 4096 bytes a rule fails.
func TestRuleChooses(t *testing.T) {
	for name, c := range map[string]struct {
		rule fault.Rule
		want string
	}{
		"all":               {fault.Rule{}, "xxxxxxxx"},
		"reads":             {fault.Rule{Ops: []blockdev.Op{blockdev.Read}}, "........"},
		"a range":           {fault.Rule{From: 4095, To: 12289}, "xxxx...."},
		"from":              {fault.Rule{From: 4096 * 6}, "......xx"},
		"after, count":      {fault.Rule{After: 2, Count: 3}, "..xxx..."},
		"count in a range":  {fault.Rule{From: 4096 * 5, Count: 1}, ".....x.."},
		"hardly ever":       {fault.Rule{Probability: 1e-9}, "........"},
		"next to certainly": {fault.Rule{Probability: 1 - 1e-9}, "xxxxxxxx"},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := faulty(t, fault.Options{Seed: 1})
			c.rule.Err = unix.ENOSPC
			hits := f.Add(c.rule)
			got, failed := "", 0
			for _, r := range writes(8) {
				if d.Do(r) == unix.ENOSPC {
					got += "x"
					failed++
				} else {
					got += "."
				}
			}
			if got != c.want || hits() != failed {
				t.Errorf("failed %s, want %s, %d hits", got, c.want, hits())
			}
			f.Clear()
			d.Must(writes(8)...)
		})
	}
}

// TestEffects: how much of a failed write of eight blocks is there afterwards.
func TestEffects(t *testing.T) {
	for effect, want := range map[fault.Effect]int{fault.None: 0, fault.Half: 4, fault.All: 8} {
		f, d := faulty(t, fault.Options{})
		f.Add(fault.Rule{Err: unix.EIO, Effect: effect, Count: 1})
		if err := d.Do(writes(1)[0]); err != unix.EIO {
			t.Fatalf("effect %d: %v", effect, err)
		}
		if got := bytes.Count(d.Read(0, 4096), []byte{1}); got != want*512 {
			t.Errorf("effect %d: %d bytes were written", effect, got)
		}
	}
}

// TestTorn: whole blocks of the request, not the same ones each time, nothing else.
func TestTorn(t *testing.T) {
	f, d := faulty(t, fault.Options{Seed: 3})
	f.Add(fault.Rule{Ops: []blockdev.Op{blockdev.Write}, Err: unix.EIO, Effect: fault.Torn})
	seen := map[int]bool{}
	for i := range 20 {
		data := blockdevtest.Noise(uint64(i), 8<<10)
		s := blockdevtest.NewScatter(3, 1000, 5000, 2192).Fill(data)
		at := int64(i) * 16384
		if err := d.Do(s.Request(blockdev.Write, at+4096)); err != unix.EIO {
			t.Fatal(err)
		}
		got := d.Read(at, 16384)
		written := 0
		for b := 0; b < len(got); b += 512 {
			inside := b >= 4096 && b < 4096+8192
			switch block := got[b : b+512]; {
			case inside && bytes.Equal(block, data[b-4096:b-4096+512]):
				written++
			case !bytes.Equal(block, make([]byte, 512)):
				t.Fatalf("block %d is neither old nor new", b/512)
			}
		}
		seen[written] = true
	}
	if len(seen) < 5 {
		t.Errorf("the writes were torn into %v blocks", seen)
	}
}

func TestStuckAndDelayed(t *testing.T) {
	f, d := faulty(t, fault.Options{Async: true})
	f.Add(fault.Rule{Count: 1, Stuck: true})
	f.Add(fault.Rule{Count: 1, Err: unix.EIO, Delay: 20 * time.Millisecond})
	reqs := writes(4)
	began := time.Now()
	d.Submit(reqs...)
	d.Push()
	for d.InFlight() > 1 {
		d.Reap()
	}
	if reqs[1].Err != unix.EIO || time.Since(began) < 20*time.Millisecond {
		t.Errorf("delayed: %v after %v", reqs[1].Err, time.Since(began))
	}
	if d.Reap() != 0 || f.InFlight() != 1 {
		t.Errorf("%d in flight, want the stuck one", f.InFlight())
	}
	f.Unstick()
	d.Finish()
	if reqs[0].Err != nil {
		t.Errorf("stuck: %v", reqs[0].Err)
	}
}

func TestContractWithRules(t *testing.T) {
	blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
		f := fault.New(open(t, 4<<20, memory.Options{}), fault.Options{Async: true, Order: fault.Shuffled, Seed: 1})
		f.Add(fault.Rule{Probability: .01, Delay: time.Millisecond})
		return f
	}, blockdevtest.Options{DiscardZeroes: true, Allocates: true, Largest: 1 << 20})
}
