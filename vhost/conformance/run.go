package conformance

import (
	"context"
	"fmt"
	"time"
)

// Options bound a run. The zero Options are good.
type Options struct {
	// Patience is how long the back-end may take over one answer; 0 is 3 s.
	Patience time.Duration
	// CaseTime is how long a case may take; 0 is 8 s.
	CaseTime time.Duration
	// Budget is how long the run may take, a few seconds more or less; 0 is 75 s.
	// Cases whose turn comes later are not run.
	Budget time.Duration
	// Select leaves out the cases for which it is false. May be nil.
	Select func(*Case) bool
	// Progress is told each result as it comes. May be nil.
	Progress func(Result)
}

func (o *Options) complete() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.Patience, 3 * time.Second}, {&o.CaseTime, 8 * time.Second}, {&o.Budget, 75 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.Select == nil {
		o.Select = func(*Case) bool { return true }
	}
	if o.Progress == nil {
		o.Progress = func(Result) {}
	}
}

// Run runs all cases against one back-end, one after the other. It ends within the
// budget whatever the back-end does: when it is gone or does not serve a plain
// session any more, it is restarted if the target can be, and if not, the cases
// that are left are reported as not run.
func Run(ctx context.Context, t Target, o Options) Report {
	o.complete()
	r := &runner{ctx: ctx, target: t, options: o, end: time.Now().Add(o.Budget)}
	for _, c := range Cases() {
		if !o.Select(&c) {
			continue
		}
		res := r.next(&c)
		r.report = append(r.report, res)
		o.Progress(res)
	}
	return r.report
}

// runner is a run under way.
type runner struct {
	ctx     context.Context
	target  Target
	options Options
	end     time.Time
	peer    *peer
	// lost says why the back-end cannot be tested any further.
	lost   string
	report Report
}

// next is the result of a case, run or not.
func (r *runner) next(c *Case) Result {
	if r.peer == nil && r.lost == "" {
		r.identify()
	}
	switch {
	case r.ctx.Err() != nil:
		return r.notRun(c, "interrupted")
	case r.lost != "":
		return r.notRun(c, r.lost)
	case !time.Now().Before(r.end):
		return r.notRun(c, fmt.Sprintf("the run's %v were used up", r.options.Budget))
	}
	start := time.Now()
	x := r.perform(c.run)
	outcome, detail := x.verdict()
	if reason := r.aftermath(c); reason != "" {
		outcome, detail = Fail, join(detail, reason)
	}
	return c.result(outcome, detail, time.Since(start))
}

func (r *runner) notRun(c *Case, why string) Result {
	res := c.result(Fail, "not run: "+why, 0)
	res.NotRun = true
	return res
}

// identify learns what the back-end is. One that does not answer is lost.
func (r *runner) identify() {
	p := &peer{}
	x := r.perform(func(x *rig) {
		x.peer = p
		p.identify(x)
	})
	if outcome, detail := x.verdict(); outcome != Pass {
		r.lost = "the back-end does not answer: " + detail
		return
	}
	r.peer = p
}

// aftermath checks that the back-end still serves, whatever a case did to it. It
// returns what to say about the case if it does not.
func (r *runner) aftermath(c *Case) string {
	gone := false
	x := r.perform(func(x *rig) {
		gone = x.awaitListener()
		healthy(x)
	})
	outcome, detail := x.verdict()
	switch {
	case outcome != Fail && gone && !c.mayDie:
		return "the back-end was gone after this case, and came back"
	case outcome != Fail:
		return ""
	}
	reason := "the next session is not served: " + detail
	if gone {
		reason = "the back-end is gone: " + detail
	}
	r.lost = fmt.Sprintf("since %s %s", c.Name(), reason)
	if r.target.Restart != nil {
		r.restart()
	}
	if c.mayDie && gone {
		return ""
	}
	return reason
}

// restart brings a lost back-end back, if it can be.
func (r *runner) restart() {
	x := r.perform(func(x *rig) {
		x.restart()
		healthy(x)
	})
	if outcome, detail := x.verdict(); outcome == Fail {
		r.lost += "; the restart failed: " + detail
		return
	}
	r.lost = ""
}

// abandonment is how long a case may take to notice that its time is up.
const abandonment = 2 * time.Second

// perform runs f on a rig of its own until it is done or its time is up.
func (r *runner) perform(f func(*rig)) *rig {
	deadline := time.Now().Add(r.options.CaseTime)
	if r.end.Before(deadline) {
		deadline = r.end
	}
	ctx, cancel := context.WithDeadline(r.ctx, deadline)
	defer cancel()
	x := &rig{ctx: ctx, target: r.target, peer: r.peer, patience: r.options.Patience, done: make(chan struct{})}
	go x.perform(f)
	select {
	case <-x.done:
		return x
	case <-ctx.Done():
	}
	x.errorf("not done after %v", r.options.CaseTime)
	x.interrupt()
	select {
	case <-x.done:
	case <-time.After(abandonment):
		x.errorf("the case does not end")
	}
	return x
}
