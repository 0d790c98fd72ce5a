package speed

import (
	"errors"
	"math"
	"testing"
)

func TestSpreadOf(t *testing.T) {
	got := SpreadOf([]float64{9, 1, 5, 3, 7, 2, 8, 4, 6, 10, 0})
	if got != (Spread{Median: 5, Low: 1, High: 9}) {
		t.Errorf("got %+v", got)
	}
	if got := SpreadOf([]float64{3}); got != (Spread{3, 3, 3}) {
		t.Errorf("one sample: %+v", got)
	}
	if !math.IsNaN(SpreadOf(nil).Median) {
		t.Error("no samples have a median")
	}
}

// A disturbance that slows both sides of a pair does not show in the ratio.
func TestRatioPairsSamples(t *testing.T) {
	got := Ratio([]float64{2, 20, 2, 200, 2}, []float64{1, 10, 1, 100, 1})
	if got != (Spread{2, 2, 2}) {
		t.Errorf("got %+v", got)
	}
}

func TestRun(t *testing.T) {
	var calls, between int
	c := &Case{Bytes: 1, Do: func() { calls++ }}
	err := Plan{Blocks: 3, Rounds: 4, Between: func() error { between++; return nil }}.Run([]*Case{c})
	if err != nil || len(c.Rates) != 12 || len(c.Blocks) != 3 || between != 3 {
		t.Errorf("%v: %d samples, %d blocks, %d times between", err, len(c.Rates), len(c.Blocks), between)
	}
	if calls < 24 {
		t.Errorf("%d calls for 12 samples, each of which has a warm-up", calls)
	}
	stop := errors.New("stop")
	err = Plan{Blocks: 3, Rounds: 1, Between: func() error { return stop }}.Run(nil)
	if !errors.Is(err, stop) {
		t.Errorf("an error between blocks gives %v", err)
	}
}

func TestParseSpeed(t *testing.T) {
	out := "+DT:AES-256-XTS:1:512\n+R:9049878:AES-256-XTS:0.940000\n+H:512\n+F:25:AES-256-XTS:4929295251.06\n"
	if got, err := parseSpeed(out); err != nil || got != 4929295251.06 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "+F:25:AES-256-XTS:fast\n", "+F:1:2\n"} {
		if got, err := parseSpeed(bad); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}
