package conformance

import (
	"errors"
	"time"

	"sealblk/vhost/frontend"

	"golang.org/x/sys/unix"
)

// endingCases come last: some back-ends do not live to see the next.
var endingCases = []Case{
	{Kind: House, Rule: "a second connection does not disturb the first", Spec: "vhost-user, Communication", run: secondConnection},
	{Kind: Must, Rule: "a session may end while requests are in flight", Spec: "vhost-user, Communication", run: endInFlight},
	{Kind: Must, Rule: "a session may end after any message", Spec: "vhost-user, Communication", run: endAnywhere},
	{Kind: Must, Rule: "sessions may follow each other quickly", Spec: "vhost-user, Communication", run: manySessions},
	{Kind: House, Rule: "data memory that is truncated costs no flushed data", Spec: "vhost-user, SET_MEM_TABLE", run: truncateData, mayDie: true},
	{Kind: House, Rule: "ring memory that is truncated costs no flushed data", Spec: "vhost-user, SET_MEM_TABLE", run: truncateRings, mayDie: true},
}

// secondConnection may be refused, or wait until the first has ended.
func secondConnection(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	x.verify(q, 0, random(1, 4096))
	for range 3 {
		other, err := frontend.Dial(x.ctx, x.target.Socket)
		if err != nil {
			break
		}
		x.cleanup(func() { _ = other.Close() })
		x.verify(q, 0, random(2, 4096))
		x.must(other.Close())
	}
	x.verify(q, 0, random(3, 4096))
	x.must(d.Stop())
}

func manySessions(x *rig) {
	for range 30 {
		x.alive(x.session())
	}
	for i := range 5 {
		d := x.open(frontend.Options{})
		x.verify(d.Queue(0), 0, random(i, 4096))
		x.must(d.Session.Close())
	}
}

func truncateData(x *rig) { truncate(x, 1) }

func truncateRings(x *rig) { truncate(x, 0) }

// truncate takes the memory of one file away while requests use it. What becomes of
// them and of the session is open; the process may end for a supervisor to start
// another. What was flushed before must be there after.
func truncate(x *rig, file int) {
	x.needsWritable()
	precious := random(77, 256<<10)
	d := x.open(frontend.Options{Layout: []frontend.RegionLayout{{Size: 32 * mib}, {GuestAddr: 1 << 40, Size: 8 * mib, File: 1}}})
	q := d.Queue(0)
	x.verify(q, 4*mib, precious)
	if d.Has(frontend.FeatureFlush) {
		x.must(q.Flush())
	}
	for i := range 32 {
		r := x.request(q, uint32(i%2), uint64(i)*256, 0)
		r.Segments = []frontend.Segment{{Addr: 1<<40 + uint64(i)*128<<10, Len: 128 << 10}}
		x.must(q.Submit(r))
	}
	fd := d.Memory.Regions[file].FD
	x.must(q.Kick.Signal())
	x.must(unix.Ftruncate(fd, 0)) // nothing here may touch it any more
	x.must(q.Kick.Signal())
	if _, err := d.Session.GetFeatures(); err != nil && !errors.Is(err, frontend.ErrDisconnected) {
		x.errorf("neither an answer nor an end: %v", err)
	}
	x.must(d.Session.Close())
	x.reopen()
	x.verifyRead(x.open(frontend.Options{}).Queue(0), 4*mib, precious)
}

// reopen waits until somebody serves again: the process itself, the one that a
// supervisor starts, or the one that we do.
func (x *rig) reopen() {
	gone := func() bool {
		s, err := frontend.Dial(x.ctx, x.target.Socket)
		if err == nil {
			_ = s.Close()
		}
		return err != nil
	}
	if x.target.Restart != nil {
		patience := x.patience
		x.patience = min(patience, time.Second)
		answers := x.awaitSession()
		x.patience = patience
		if answers {
			return
		}
		x.restart()
		return
	}
	if !x.awaitSession() {
		if !gone() {
			x.fatalf("the back-end neither serves nor ends")
		}
		x.skipf("the back-end ended, as it may, and nothing starts it again: its data cannot be looked at")
	}
}
