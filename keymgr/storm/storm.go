package storm

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest/simulated"
)

// Second is the load of one second, see [simulated.Second].
type Second = simulated.Second

// Result is how a storm went. Times are since the power came back.
type Result struct {
	Scenario  string `json:"scenario"`
	Hosts     int    `json:"hosts"`
	Disks     int    `json:"disks"`
	Unwrapped int    `json:"unwrapped"`
	GaveUp    int    `json:"gave_up"`
	// LimitPerSecond and OutageSeconds of the KMS.
	LimitPerSecond int     `json:"limit_per_s"`
	OutageSeconds  float64 `json:"outage_s"`
	// IdealSeconds is the least time that the limit allows, the outage added.
	IdealSeconds float64 `json:"ideal_s"`
	// AllSeconds is when the last disk had its key; P50 and P99 of the disks.
	AllSeconds float64 `json:"all_s"`
	P50Seconds float64 `json:"p50_s"`
	P99Seconds float64 `json:"p99_s"`
	// Calls that were made, and of them refused and lost.
	Calls     int `json:"calls"`
	Throttled int `json:"throttled"`
	Lost      int `json:"lost"`
	// CallsPerDisk is Calls by Disks.
	CallsPerDisk float64 `json:"calls_per_disk"`
	// PeakPerSecond is the most calls that were made in one second. Offered are the
	// calls of each second.
	PeakPerSecond int   `json:"peak_per_s"`
	Offered       []int `json:"offered_per_s"`
	Taken         []int `json:"taken_per_s"`
	// SomeError is one of those that gave up.
	SomeError string `json:"some_error,omitempty"`
}

// storm is a scenario under way.
type storm struct {
	Scenario
	clock *simulated.Clock
	kms   *simulated.KMS
	rand  *rand.Rand // of those who wait; one at a time wakes, so in order

	mu      sync.Mutex
	done    []time.Duration // when each disk had its key
	failed  int
	example string
}

// epoch is the virtual time zero.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const cmk = "disks"

// Run simulates a storm.
func Run(s Scenario) (*Result, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	st := &storm{Scenario: s, clock: simulated.NewClock(), rand: rand.New(rand.NewPCG(s.KMS.Seed, 2))}
	s.KMS.Time = st.clock
	st.kms = simulated.New(s.KMS)
	if err := st.kms.CreateKey(cmk); err != nil {
		return nil, err
	}
	for range s.Hosts {
		if err := st.addHost(); err != nil {
			return nil, err
		}
	}
	st.clock.Run()
	return st.result(), nil
}

// policy is the scenario's, on virtual time.
func (s *storm) policy() keymgr.Retry {
	r := s.Retry
	r.Sleep = s.clock.Sleep
	r.Now = func() time.Time { return epoch.Add(s.clock.Now()) }
	r.Jitter = func(least, most time.Duration) time.Duration {
		return least + time.Duration(s.rand.Int64N(int64(max(most-least, 0))+1))
	}
	return r
}

// addHost has a host start its disks.
func (s *storm) addHost() error {
	set := keymgr.NewSet(s.policy(), map[string]keymgr.Opener{
		simulated.Scheme: func(context.Context) (keymgr.KMS, error) { return s.kms, nil },
	})
	set.SetSimulated()
	if s.Places > 0 {
		set.SetGate(s.clock.NewGate(s.Places))
	}
	begin := time.Duration(s.rand.Int64N(int64(s.Spread) + 1))
	for i := range s.Disks {
		w, ec, err := s.newDisk()
		if err != nil {
			return err
		}
		s.clock.GoAt(begin+time.Duration(i)*s.Stagger, func() { s.start(set, w, ec) })
	}
	return nil
}

// newDisk makes a data key, before the power goes.
func (s *storm) newDisk() (keymgr.WrappedKey, keymgr.Context, error) {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], s.rand.Uint64())
	ec := keymgr.Context{keymgr.ContextDisk: fmt.Sprintf("%x", id)}
	w, err := s.kms.Seed(cmk, ec)
	return w, ec, err
}

// start is the start of a disk, as far as its key goes.
func (s *storm) start(set *keymgr.Set, w keymgr.WrappedKey, ec keymgr.Context) {
	dk, err := set.Decrypt(context.Background(), w, ec)
	dk.Destroy()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
		s.example = err.Error()
		return
	}
	s.done = append(s.done, s.clock.Now())
}

func (s *storm) result() *Result {
	n := s.Hosts * s.Disks
	r := &Result{
		Scenario: s.Name, Hosts: s.Hosts, Disks: n, Unwrapped: len(s.done), GaveUp: s.failed,
		LimitPerSecond: s.KMS.Limit, SomeError: s.example,
	}
	for _, o := range s.KMS.Outages {
		r.OutageSeconds += (o.To - o.From).Seconds()
	}
	if s.KMS.Limit > 0 {
		r.IdealSeconds = float64(n)/float64(s.KMS.Limit) + r.OutageSeconds
	}
	r.count(s.kms.Load())
	r.CallsPerDisk = float64(r.Calls) / float64(n)
	slices.Sort(s.done)
	r.AllSeconds, r.P50Seconds, r.P99Seconds = quantile(s.done, 1), quantile(s.done, 0.5), quantile(s.done, 0.99)
	return r
}

func (r *Result) count(load []Second) {
	for _, l := range load {
		r.Calls += l.Offered
		r.Throttled += l.Throttled
		r.Lost += l.Lost
		r.PeakPerSecond = max(r.PeakPerSecond, l.Offered)
		r.Offered = append(r.Offered, l.Offered)
		r.Taken = append(r.Taken, l.Taken)
	}
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Seconds()
}
