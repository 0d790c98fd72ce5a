package fault

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Clock orders the events of the logs that share it.
type Clock struct{ now atomic.Int64 }

// Now is the moment of the last event; 0 before the first.
func (c *Clock) Now() int64 { return c.now.Load() }

func (c *Clock) tick() int64 { return c.now.Add(1) }

// never is later than all events.
const never = int64(1)<<62 - 1

// Write is a write in a Log.
type Write struct {
	offset, length int64
	data           []byte // nil for zeros
	fua            bool
	submitted      int64
	done           int64 // never, if it failed
}

// Sync is a flush in a Log.
type Sync struct{ submitted, done int64 }

// Log is what was asked of a medium, and when. All that can be in flight is one of its
// writes or syncs.
type Log struct {
	clock  *Clock
	sector int64

	mu     sync.Mutex
	writes []*Write
	syncs  []*Sync
}

// NewLog makes a log of a medium that stores sectors of so many bytes as a whole.
func NewLog(c *Clock, sector int64) *Log { return &Log{clock: c, sector: sector} }

// Write notes that data goes to a byte offset, both whole sectors; data is copied. fua
// asks that it is durable when it succeeds.
func (l *Log) Write(offset int64, data []byte, fua bool) *Write {
	return l.add(&Write{offset: offset, length: int64(len(data)), data: slices.Clone(data), fua: fua})
}

// Zero notes that a range becomes zeros.
func (l *Log) Zero(offset, length int64, fua bool) *Write {
	return l.add(&Write{offset: offset, length: length, fua: fua})
}

func (l *Log) add(w *Write) *Write {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.submitted, w.done = l.clock.tick(), never
	l.writes = append(l.writes, w)
	return w
}

// Wrote notes the end of a write.
func (l *Log) Wrote(w *Write, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.clock.tick(); err == nil {
		w.done = now
	}
}

// Sync notes a flush that begins.
func (l *Log) Sync() *Sync {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &Sync{l.clock.tick(), never}
	l.syncs = append(l.syncs, s)
	return s
}

// Synced notes the end of a flush.
func (l *Log) Synced(s *Sync, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.clock.tick(); err == nil {
		s.done = now
	}
}

// Version is what a sector may hold.
type Version struct {
	// Data is nil for zeros.
	Data []byte
	// Base: what was there when the log began; Data means nothing then.
	Base bool
	// Submitted is when it was; 0 for the base.
	Submitted int64
}

// Versions tells what each sector that was written may hold, oldest first, when the
// power fails right after the event at a moment. The key is the sector's byte offset.
func (l *Log) Versions(at int64) map[int64][]Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := l.coveredLocked(at)
	all := make(map[int64][]Version)
	for _, w := range l.writes {
		if w.submitted > at {
			break
		}
		durable := w.done <= covered || w.fua && w.done <= at
		for i := int64(0); i < w.length; i += l.sector {
			v := Version{Submitted: w.submitted}
			if w.data != nil {
				v.Data = w.data[i : i+l.sector]
			}
			was := all[w.offset+i]
			switch {
			case durable:
				was = was[:0]
			case was == nil:
				was = []Version{{Base: true}}
			}
			all[w.offset+i] = append(was, v)
		}
	}
	return all
}

// coveredLocked is the moment up to which a completed write is durable: when the last
// of the flushes that are complete began.
func (l *Log) coveredLocked(at int64) (moment int64) {
	for _, s := range l.syncs {
		if s.done <= at {
			moment = max(moment, s.submitted)
		}
	}
	return moment
}

// Cut puts what choose picks of the versions of each sector on medium, whose bytes are
// those when the log began. The function takes them off again.
func (l *Log) Cut(medium []byte, at int64, choose func(offset int64, versions []Version) int) (undo func()) {
	type patch struct {
		at  int64
		was []byte
	}
	var undos []patch
	for offset, versions := range l.Versions(at) {
		v := versions[choose(offset, versions)]
		if v.Base {
			continue
		}
		place := medium[offset : offset+l.sector]
		undos = append(undos, patch{offset, slices.Clone(place)})
		clear(place[copy(place, v.Data):])
	}
	return func() {
		for _, p := range undos {
			copy(medium[p.at:], p.was)
		}
	}
}
