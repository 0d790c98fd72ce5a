package conformance

import (
	"fmt"
	"time"
)

// Outcome of a case.
type Outcome string

const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	// Skip: the back-end does not offer what the rule is about, or the suite lacks
	// the means.
	Skip Outcome = "skip"
)

// Result is what became of a case.
type Result struct {
	Name   string  `json:"name"`
	Spec   string  `json:"spec"`
	Result Outcome `json:"result"`
	// Detail says why a case failed or was skipped.
	Detail string `json:"detail"`
	Rule   string `json:"rule"`
	Kind   Kind   `json:"kind"`
	// NotRun: the case counts as failed because the back-end was gone, or the time
	// was up, before its turn came.
	NotRun  bool    `json:"not_run,omitempty"`
	Seconds float64 `json:"seconds"`
}

func (c *Case) result(o Outcome, detail string, took time.Duration) Result {
	return Result{
		Name: c.Name(), Spec: c.Spec, Result: o, Detail: detail, Rule: c.Rule, Kind: c.Kind,
		Seconds: float64(took.Round(time.Millisecond)) / float64(time.Second),
	}
}

// Report is what became of all cases, in their order.
type Report []Result

// Tally counts results.
type Tally struct {
	Pass, Skip int
	// Violations and Expectations are failures, of rules of the specification and of
	// the house. NotRun are cases whose turn never came; they are in neither.
	Violations, Expectations, NotRun int
}

// Tally counts the results.
func (r Report) Tally() (t Tally) {
	for i := range r {
		switch c := &r[i]; {
		case c.Result == Pass:
			t.Pass++
		case c.Result == Skip:
			t.Skip++
		case c.NotRun:
			t.NotRun++
		case c.Kind == Must:
			t.Violations++
		default:
			t.Expectations++
		}
	}
	return t
}

// Failed is how many cases failed or were not run.
func (t Tally) Failed() int { return t.Violations + t.Expectations + t.NotRun }

func (t Tally) String() string {
	return fmt.Sprintf("%d passed, %d violations of the specification, %d unmet expectations, %d not run, %d skipped",
		t.Pass, t.Violations, t.Expectations, t.NotRun, t.Skip)
}
