package storm

import (
	"fmt"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest/simulated"
)

// Scenario is a storm.
type Scenario struct {
	Name string
	// Hosts that power on, and disks of each.
	Hosts, Disks int
	// Spread of the moments at which hosts begin; Stagger between disks of a host.
	Spread, Stagger time.Duration
	// Places are how many calls of a host may be on their way at once, 0 for any number.
	Places int
	Retry  keymgr.Retry
	KMS    simulated.Options
}

// Host is one host with 1,000 disks.
func Host() Scenario { return standard("host", 1, 1000, 0) }

// Site is 100 hosts with 1,000 disks each, which begin within half a minute.
func Site() Scenario { return standard("site", 100, 1000, 30*time.Second) }

// standard is a storm against a KMS with a limit of 750 calls a second, of whose
// connections 1 % are lost. Its outage comes in the middle of the storm.
func standard(name string, hosts, disks int, spread time.Duration) Scenario {
	const limit = 750
	s := Scenario{
		Name: name, Hosts: hosts, Disks: disks, Spread: spread, Stagger: 5 * time.Millisecond,
		Places: keymgr.GatePlaces, Retry: keymgr.PatientRetry,
		KMS: simulated.Options{
			Limit: limit, Loss: 0.01, Seed: 1, Timeout: 10 * time.Second,
			Latency: simulated.Latency{Min: 2 * time.Millisecond, Median: 8 * time.Millisecond, P99: 60 * time.Millisecond},
		},
	}
	s.KMS.Outages = []simulated.Outage{{From: s.Middle(), To: s.Middle() + 30*time.Second}}
	return s
}

// Middle is when about half of the disks could have their keys, if there were no outage.
func (s Scenario) Middle() time.Duration {
	starts := s.Spread + time.Duration(s.Disks)*s.Stagger
	if s.KMS.Limit == 0 {
		return starts / 2
	}
	return max(starts, time.Duration(s.Hosts*s.Disks)*time.Second/time.Duration(s.KMS.Limit)) / 2
}

// Check refuses what cannot be simulated.
func (s Scenario) Check() error {
	switch {
	case s.Hosts < 1 || s.Disks < 1 || s.Hosts > 10_000 || s.Disks > 1_000_000/s.Hosts:
		return fmt.Errorf("%d hosts with %d disks: use 1 to 1,000,000 disks in all on at most 10,000 hosts", s.Hosts, s.Disks)
	case s.KMS.Limit < 0 || s.KMS.Loss < 0 || s.KMS.Loss >= 1:
		return fmt.Errorf("limit %d, loss %v: use a limit of 0 or more and a loss of 0 up to 1", s.KMS.Limit, s.KMS.Loss)
	}
	return nil
}
