package fault

import (
	"slices"
	"time"

	"sealblk/blockdev"
)

// Effect is how much of a request happens below before it fails.
type Effect uint8

const (
	// None of it: the device below does not see it.
	None Effect = iota
	// Half of it: the first half of its blocks. A request of one block has none.
	Half
	// Torn: a random run of its blocks, which may be empty or the whole.
	Torn
	// All of it.
	All
)

// Rule says which requests misbehave, and how. The zero Rule changes nothing.
type Rule struct {
	// Ops are the operations that it is for; none means all.
	Ops []blockdev.Op
	// From and To bound the bytes of the device that it is for; a request that
	// touches one of them matches. To 0 is the end. A Flush has no range: it matches
	// whatever the range.
	From, To int64
	// After so many requests that match, the rule begins to act.
	After int
	// Count is how often it acts; 0 is without end.
	Count int
	// Probability of acting on a match; 0 is always.
	Probability float64

	// Err is the error of the request; nil leaves its outcome alone. Effect is what
	// happens below nevertheless.
	Err    error
	Effect Effect
	// Delay holds the completion back. Stuck holds it until Unstick. Both need an
	// Async device.
	Delay time.Duration
	Stuck bool
}

// armed is a rule and what it has met.
type armed struct {
	Rule
	seen, hits int
}

func (a *armed) matches(r *blockdev.Request) bool {
	if len(a.Ops) > 0 && !slices.Contains(a.Ops, r.Op) {
		return false
	}
	return r.Op == blockdev.Flush || (a.To == 0 || r.Offset < a.To) && r.Offset+r.Length > a.From
}

// meet counts a request that matches and tells whether the rule would act on it.
func (a *armed) meet(r *blockdev.Request, chance float64) bool {
	if !a.matches(r) {
		return false
	}
	a.seen++
	return a.seen > a.After && (a.Count == 0 || a.hits < a.Count) && (a.Probability == 0 || chance < a.Probability)
}

// Add makes the device follow a rule, behind those that it has: the first rule that
// acts on a request decides. The function tells how often it has acted.
func (d *Device) Add(rule Rule) (hits func() int) {
	if (rule.Stuck || rule.Delay > 0) && !d.opts.Async {
		panic("fault: a rule that holds completions back needs an Async device")
	}
	a := &armed{Rule: rule}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, a)
	return func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return a.hits
	}
}

// Clear takes all rules away. What is stuck stays so.
func (d *Device) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
}

// Unstick lets everything complete that rules have stuck so far.
func (d *Device) Unstick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freed = d.stuck
	d.wakeLocked()
}

// FailNth makes the nth request from now fail with err, before it has any effect;
// the next one is the first.
func (d *Device) FailNth(n int, err error) { d.Add(Rule{After: n - 1, Count: 1, Err: err}) }

// ShortNth makes the nth request from now, a read or write, stop after half of its
// blocks and fail with ErrShort.
func (d *Device) ShortNth(n int) {
	d.Add(Rule{After: n - 1, Count: 1, Err: blockdev.ErrShort, Effect: Half})
}

// verdict is what is to become of a request.
type verdict struct {
	err    error
	effect Effect
	delay  time.Duration
	stuck  int // number among the stuck ones, from 1
}

// judgeLocked asks the rules.
func (d *Device) judgeLocked(r *blockdev.Request) (v verdict) {
	decided := false
	for _, a := range d.rules {
		if !a.meet(r, d.rng.Float64()) || decided {
			continue
		}
		decided = true
		a.hits++
		v = verdict{err: a.Err, effect: a.Effect, delay: a.Delay}
		if a.Stuck {
			d.stuck++
			v.stuck = d.stuck
		}
	}
	return v
}
