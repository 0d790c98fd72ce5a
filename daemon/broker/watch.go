package broker

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"sealblk/keymgr"
)

const (
	// tick is how often the disk's record is looked at, and a KMS that tells of changes by
	// a stamp.
	tick = 500 * time.Millisecond
	// relaxed is how many intervals are between two looks from which nothing follows.
	relaxed = 40
	// slowest is how many intervals are between two looks, at most, for a KMS that is
	// throttling.
	slowest = 16
)

// watched is a KMS, as far as a watch goes.
type watched interface {
	DescribeKey(ctx context.Context, uri string) (keymgr.KeyInfo, error)
}

// state is what a worker is told of its disk's key: no failure if it is usable.
type state struct {
	Failure *failure `json:"failure,omitempty"`
}

// watch tells a worker of each change of the state of its disk's key.
type watch struct {
	kms      watched
	disk     func() Disk // it changes when the disk is wrapped anew, or set
	version  func(uri string) string
	interval time.Duration
	out      *json.Encoder
	done     chan struct{}

	// What was found last. seen: the KMS has told the state of this key before.
	was   Disk
	stamp string
	seen  bool
	told  bool
	last  error
	slow  int // intervals between looks, more than one while the KMS throttles
}

// startWatch watches the key of what was unwrapped.
func (s *server) startWatch(ctx context.Context) error {
	if s.disk.uri == "" {
		return errNoKey
	}
	if s.watch != nil {
		return nil
	}
	bound := s.disk
	s.watch = &watch{
		kms: s.kms, interval: s.opts.Interval, out: json.NewEncoder(s.states), done: make(chan struct{}),
		disk: func() Disk { return s.current(bound) }, version: s.version(bound),
	}
	go s.watch.run(ctx)
	return nil
}

// current is what the disk depends on: the CMK of its header, until its record names
// another one than it did at the start. What cannot be read is urgent.
func (s *server) current(b binding) Disk {
	now, known := s.readDisk()
	if now.KeyURI == "" || now.KeyURI == b.recorded {
		now.KeyURI = b.uri
	}
	now.Urgent = now.Urgent || !known
	return now
}

// version tells the version of a CMK that wraps the disk's data key.
func (s *server) version(b binding) func(uri string) string {
	if s.opts.Version != nil {
		return s.opts.Version
	}
	return func(uri string) string {
		if uri != b.uri {
			return ""
		}
		return b.version
	}
}

func (w *watch) run(ctx context.Context) {
	defer close(w.done)
	for ctx.Err() == nil {
		if err := w.look(ctx); err != nil {
			return // the worker has gone
		}
		w.wait(ctx)
	}
}

// look asks the KMS once, and tells what is new.
func (w *watch) look(ctx context.Context) error {
	now := w.disk()
	if now.KeyURI != w.was.KeyURI {
		w.seen = false
	}
	w.was = now
	w.stamp = w.stampNow() // before the look: what changes after it is seen next time
	ctx, cancel := context.WithTimeout(ctx, max(w.interval, tick))
	err := w.ask(ctx)
	cancel()
	w.seen = w.seen || err == nil
	w.slow = w.slower(err)
	if w.told && same(err, w.last) {
		return nil
	}
	w.told, w.last = true, err
	var s state
	if err != nil {
		s.Failure = pack(err)
	}
	return w.out.Encode(s)
}

// ask is nil for a key that can be used. A caller that may not see the state of its key
// knows nothing of it; one that may no longer has lost it, as far as can be told.
func (w *watch) ask(ctx context.Context) error {
	err := keymgr.CheckUsable(ctx, w.kms, w.was.KeyURI, w.version(w.was.KeyURI))
	if errors.Is(err, keymgr.ErrNotWatchable) && !w.seen {
		return unknown{err}
	}
	return err
}

// unknown hides what an error says of a key.
type unknown struct{ err error }

func (u unknown) Error() string { return u.err.Error() }

// same tells whether a worker would learn nothing new.
func same(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	lost := keymgr.IsLoss(a)
	return lost == keymgr.IsLoss(b) && (!lost || a.Error() == b.Error())
}

func (w *watch) stampNow() string {
	if k, ok := w.kms.(keymgr.Watchable); ok {
		return k.Stamp(w.was.KeyURI)
	}
	return ""
}

// slower has a KMS that throttles asked less and less often.
func (w *watch) slower(err error) int {
	if errors.Is(err, keymgr.ErrThrottled) {
		return min(max(2*w.slow, 2), slowest)
	}
	return 1
}

// wait waits for the next look: until the disk's record has changed, or the KMS if it can
// tell, and for about the interval; longer if it throttles, or if nothing would follow.
func (w *watch) wait(ctx context.Context) {
	for n := 1; ; n++ {
		changed := w.sleep(ctx, w.interval/2+rand.N(w.interval))
		awaited := w.was.Urgent || keymgr.IsLoss(w.last) // or it may be awaited that it comes back
		if changed || n >= w.slow && (w.stamp != "" || n >= relaxed || awaited) {
			return
		}
	}
}

// sleep tells whether it ended before its time.
func (w *watch) sleep(ctx context.Context, left time.Duration) (changed bool) {
	for left > 0 {
		pause := min(left, tick)
		select {
		case <-ctx.Done():
			return true
		case <-time.After(pause):
		}
		if left -= pause; w.stampNow() != w.stamp || w.disk() != w.was {
			return true
		}
	}
	return false
}
