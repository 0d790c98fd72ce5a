package fault_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/memory"
)

// may is what the first sector may hold at a moment: the first byte of each version,
// 'b' for the base.
func may(l *fault.Log, at int64) string {
	var s []byte
	for _, v := range l.Versions(at)[0] {
		if v.Base {
			s = append(s, 'b')
		} else {
			s = append(s, v.Data[0])
		}
	}
	return string(s)
}

func filled(c byte) []byte { return bytes.Repeat([]byte{c}, 512) }

func TestVersions(t *testing.T) {
	var c fault.Clock
	l := fault.NewLog(&c, 512)
	var got []string
	step := func() { got = append(got, may(l, c.Now())) }
	write := func(b byte, fua bool, err error) {
		w := l.Write(0, filled(b), fua)
		step()
		l.Wrote(w, err)
		step()
	}
	write('1', false, nil)
	early := l.Sync()
	write('2', false, nil)
	l.Synced(early, nil) // covers 1 only
	step()
	s := l.Sync()
	l.Synced(s, errors.New("lost"))
	step()
	write('3', true, nil)
	write('4', true, errors.New("torn"))
	s = l.Sync()
	l.Synced(s, nil) // does not cover what failed
	step()
	want := []string{"b1", "b1", "b12", "b12", "12", "12", "123", "3", "34", "34", "34"}
	if !slices.Equal(got, want) {
		t.Errorf("versions over time %q, want %q", got, want)
	}
	if got := may(l, 2); got != "b1" {
		t.Errorf("versions at an earlier moment %q", got)
	}
}

// TestRecordedCut: what the layer records is what a cut leaves.
func TestRecordedCut(t *testing.T) {
	var c fault.Clock
	l := fault.NewLog(&c, 512)
	dev := fault.Record(open(t, 1<<20, memory.Options{}), l, 4096)
	defer dev.Close()
	q, err := dev.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	drv := blockdevtest.NewDriver(t, q, 4)
	drv.Write(0, filled('a'))
	drv.Must(&blockdev.Request{Op: blockdev.Flush})
	drv.Write(0, slices.Concat(filled('b'), filled('c')))
	drv.Must(&blockdev.Request{Op: blockdev.Discard, FUA: true, Offset: 1024, Length: 512})

	medium := bytes.Repeat([]byte{'z'}, 8192)
	oldest := func(int64, []fault.Version) int { return 0 }
	newest := func(_ int64, v []fault.Version) int { return len(v) - 1 }
	for _, cut := range []struct {
		choose func(int64, []fault.Version) int
		want   string
	}{{oldest, "az\x00z"}, {newest, "bc\x00z"}} {
		undo := l.Cut(medium, c.Now(), cut.choose)
		got := string([]byte{medium[4096], medium[4608], medium[5120], medium[5632]})
		if undo(); got != cut.want || !bytes.Equal(medium, bytes.Repeat([]byte{'z'}, 8192)) {
			t.Errorf("sectors begin with %q, want %q", got, cut.want)
		}
	}
}

func TestRecordContract(t *testing.T) {
	blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
		return fault.Record(open(t, 4<<20, memory.Options{}), fault.NewLog(new(fault.Clock), 512), 0)
	}, blockdevtest.Options{DiscardZeroes: true, Allocates: true, Largest: 1 << 20})
}
