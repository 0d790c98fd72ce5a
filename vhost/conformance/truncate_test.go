package conformance_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
	"sealblk/vhost/frontend"
)

const (
	cutUnit  = 4096 // what the test writes at a time
	cutBytes = 4 << 20
	// cutFiles are the files of guest memory: rings and headers in the first, data in
	// the second.
	cutRings, cutData = 0, 1
)

// truncations say what becomes of which file.
var truncations = []struct {
	name string
	file int
	keep int64
}{
	{"data, all", cutData, 0}, {"data, half", cutData, 2 << 20}, {"rings, all", cutRings, 0}, {"data, a page", cutData, cutBytes - 4096},
}

// TestTruncatedMemoryEndsTheSessionOnly: a front-end that takes its memory away while
// requests are in flight loses its session at most. The process goes on, what it had
// for that session it gives back, flushed data is intact, each unit that was being
// written holds the old data or the new, and the next session gets all it wants.
func TestTruncatedMemoryEndsTheSessionOnly(t *testing.T) {
	for _, stack := range []string{"memory", "io_uring", "threads", "encrypted memory", "encrypted io_uring", "encrypted threads"} {
		for _, through := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, write-through %v", stack, through), func(t *testing.T) {
				dev := engines[stack](t)
				m := &cutModel{t: t, dev: dev, socket: serve(t, dev, blk.Options{NumQueues: 2}), through: through}
				m.session(m.writeAll)
				m.check("the first session")
				before := holdings(t)
				for i, c := range truncations {
					m.rng = rand.New(rand.NewPCG(uint64(i), 7))
					m.session(func(d *frontend.Disk) { m.cut(d, c.file, c.keep) })
					m.check(c.name)
				}
				m.session(m.writeAll)
				m.check("the last session")
				eventually(t, "the sessions left something behind", func() bool {
					after := holdings(t)
					return after.files <= before.files && after.maps <= before.maps
				})
			})
		}
	}
}

// cutModel knows what each unit of the disk's first part may hold.
type cutModel struct {
	t       *testing.T
	dev     blockdev.Device
	socket  string
	through bool
	rng     *rand.Rand
	stamp   uint64
	units   [cutBytes / cutUnit]struct{ was, new []byte } // new is nil unless it is open
}

func (m *cutModel) session(f func(d *frontend.Disk)) {
	m.t.Helper()
	d, err := frontend.Open(m.t.Context(), m.socket, frontend.Options{
		Queues: 2, Layout: []frontend.RegionLayout{{Size: 8 << 20}, {GuestAddr: 1 << 40, Size: cutBytes, File: cutData}},
	})
	must(m.t, err)
	if m.through {
		must(m.t, d.SetWriteCache(false))
	}
	f(d)
	_ = d.Close() // the back-end may have been first
}

// writeAll writes every unit through both queues, and flushes.
func (m *cutModel) writeAll(d *frontend.Disk) {
	const step = 64
	for i := 0; i < len(m.units); i += step {
		m.stamp++
		data := blockdevtest.Noise(m.stamp, step*cutUnit)
		_, err := d.Queue(i/step%2).WriteAt(data, int64(i)*cutUnit)
		must(m.t, err)
		for u := range step {
			m.units[i+u].was = data[u*cutUnit : (u+1)*cutUnit]
		}
	}
	for _, q := range d.Queues() {
		must(m.t, q.Flush())
	}
}

// cut has reads and writes in flight whose data, or whose rings, vanish.
func (m *cutModel) cut(d *frontend.Disk, file int, keep int64) {
	unit := m.rng.IntN(len(m.units) / 2) // of the disk; each is written once
	place := 0                           // in guest memory
	for i := range 40 {
		q, n := d.Queue(i%2), 1+m.rng.IntN(24)
		r, err := q.NewRequest(0)
		must(m.t, err)
		r.Type, r.Sector = uint32(i/2%2), uint64(unit)*(cutUnit/frontend.SectorSize)
		r.Segments = []frontend.Segment{{Addr: 1<<40 + uint64(place), Len: uint32(n) * cutUnit}}
		if r.Type == frontend.TypeOut {
			for u := range n {
				m.stamp++
				m.units[unit+u].new = blockdevtest.Noise(m.stamp, cutUnit)
				copy(d.Memory.Regions[cutData].Bytes[place+u*cutUnit:], m.units[unit+u].new)
			}
			unit += n
		}
		place += n * cutUnit
		must(m.t, q.Submit(r))
	}
	for _, q := range d.Queues() {
		must(m.t, q.Kick.Signal())
	}
	must(m.t, unix.Ftruncate(d.Memory.Regions[file].FD, keep)) // nothing here touches it any more
	for _, q := range d.Queues() {
		must(m.t, q.Kick.Signal())
	}
	if _, err := d.Session.GetFeatures(); err != nil && !errors.Is(err, frontend.ErrDisconnected) {
		m.t.Errorf("neither an answer nor an end: %v", err)
	}
}

// check reads the disk below the server, and settles what was open.
func (m *cutModel) check(after string) {
	m.t.Helper()
	conformance.Settle(m.t, conformance.Target{Socket: m.socket}) // the session before is over
	q, err := m.dev.OpenQueue(blockdev.QueueConfig{Depth: 1})
	must(m.t, err)
	defer q.Close()
	got := blockdevtest.NewDriver(m.t, q, 1).Read(0, cutBytes)
	for i := range m.units {
		u, is := &m.units[i], got[i*cutUnit:(i+1)*cutUnit]
		if !mixed(is, u.was, u.new) {
			m.t.Fatalf("after %s: unit %d is not what was flushed (open: %v)", after, i, u.new != nil)
		}
		u.was, u.new = bytes.Clone(is), nil
	}
}

// mixed tells whether each byte is that of one or, if there is one, the other.
func mixed(got, one, other []byte) bool {
	for i, b := range got {
		if b != one[i] && (other == nil || b != other[i]) {
			return false
		}
	}
	return true
}

// held is what sessions take from the process.
type held struct{ files, maps int }

// holdings count descriptors and mappings of the files that front-ends pass.
func holdings(t testing.TB) held {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return held{len(fds), strings.Count(string(maps), "/memfd:")}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, otherwise string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s", otherwise)
			return
		}
	}
}
