package storm

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/kmstest/simulated"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

func run(t *testing.T, s Scenario) *Result {
	t.Helper()
	r, err := Run(s)
	if err != nil {
		t.Fatal(err)
	}
	if r.Unwrapped+r.GaveUp != r.Disks || len(r.Offered) != len(r.Taken) {
		t.Errorf("%d disks, %d unwrapped, %d gave up", r.Disks, r.Unwrapped, r.GaveUp)
	}
	return r
}

func TestHostOfAThousandDisks(t *testing.T) {
	r := run(t, Host())
	if r.GaveUp != 0 || r.AllSeconds > 90 {
		t.Errorf("%d gave up, all after %.1f s", r.GaveUp, r.AllSeconds)
	}
	if r.PeakPerSecond > 2*r.LimitPerSecond {
		t.Errorf("%d calls in a second, the limit is %d", r.PeakPerSecond, r.LimitPerSecond)
	}
}

// part is a tenth of a site at a tenth of its KMS's limit; less when time is short.
func part() Scenario {
	s := Site()
	if s.Hosts, s.KMS.Limit = 10, 75; testing.Short() {
		s.Hosts, s.KMS.Limit = 4, 30
	}
	return s
}

func TestSite(t *testing.T) {
	r := run(t, part())
	if r.GaveUp != 0 || r.AllSeconds > 1.3*r.IdealSeconds+30 {
		t.Errorf("%d gave up (%s), all after %.1f s, the least is %.1f s", r.GaveUp, r.SomeError, r.AllSeconds, r.IdealSeconds)
	}
	if r.PeakPerSecond > 4*r.LimitPerSecond || r.CallsPerDisk > 4 {
		t.Errorf("%d calls in a second, %.1f for a disk", r.PeakPerSecond, r.CallsPerDisk)
	}
}

// TestStormWithoutGate: what the gate is for.
func TestStormWithoutGate(t *testing.T) {
	s := part()
	s.Places = 0
	if r := run(t, s); r.PeakPerSecond < 10*r.LimitPerSecond {
		t.Errorf("only %d calls in a second: there is no need for a gate", r.PeakPerSecond)
	}
}

func TestRunsRepeat(t *testing.T) {
	s := Host()
	s.Hosts, s.Disks = 3, 100
	first := run(t, s)
	if again := run(t, s); !reflect.DeepEqual(first, again) {
		t.Errorf("two runs of one seed differ:\n%+v\n%+v", first, again)
	}
	s.KMS.Seed = 2
	if other := run(t, s); slices.Equal(first.Offered, other.Offered) && first.AllSeconds == other.AllSeconds {
		t.Error("another seed makes no difference")
	}
}

func TestKMSThatStaysDownIsGivenUp(t *testing.T) {
	s := Host()
	s.Disks = 50
	s.KMS.Outages = []simulated.Outage{{From: 0, To: 24 * time.Hour}}
	r := run(t, s)
	if r.Unwrapped != 0 || r.GaveUp != 50 || r.SomeError == "" {
		t.Errorf("%d unwrapped, %d gave up (%s)", r.Unwrapped, r.GaveUp, r.SomeError)
	}
	if seconds := len(r.Offered); seconds > int((s.Spread + keymgr.PatientRetry.Silence + 10*time.Second).Seconds()) {
		t.Errorf("still asking after %d s", seconds)
	}
}

func TestScenariosThatAreRefused(t *testing.T) {
	for _, spoil := range []func(*Scenario){
		func(s *Scenario) { s.Hosts = 0 }, func(s *Scenario) { s.Disks = 0 }, func(s *Scenario) { s.Hosts, s.Disks = 1001, 1000 },
		func(s *Scenario) { s.KMS.Loss = 1 }, func(s *Scenario) { s.KMS.Limit = -1 },
	} {
		s := Host()
		spoil(&s)
		if _, err := Run(s); err == nil {
			t.Errorf("%+v was run", s)
		}
	}
}
