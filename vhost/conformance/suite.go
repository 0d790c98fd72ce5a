package conformance

import (
	"strings"
	"testing"
)

// Target is a back-end under test: a disk of at least MinCapacity that may be
// written to, with 2 queues or more.
type Target struct {
	// Socket is where it listens.
	Socket string
	// Grow makes the disk larger, by any amount; nil if it cannot be done.
	Grow func() error
}

// MinCapacity of a Target, in bytes.
const MinCapacity = 16 << 20

// Case is one rule.
type Case struct {
	// Name says what must hold.
	Name string
	// Source is where that is written.
	Source string
	run    func(*rig)
}

// Cases are all rules.
func Cases() []Case {
	var all []Case
	for _, group := range [][]Case{sessionCases, messageCases, memoryCases, notifierCases, ringCases, malformedCases, blockCases} {
		all = append(all, group...)
	}
	return all
}

// Run runs all cases, each against a back-end that start makes for it.
func Run(t *testing.T, start func(*testing.T) Target) {
	for _, c := range Cases() {
		t.Run(strings.ReplaceAll(c.Name, " ", "_"), func(t *testing.T) {
			x := &rig{T: t, target: start(t)}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("rule: %s (%s)", c.Name, c.Source)
				}
			})
			// As a subtest, so that its sessions are closed before the last one opens.
			t.Run("rule", func(t *testing.T) { c.run(&rig{T: t, target: x.target}) })
			t.Run("next_session", func(t *testing.T) { healthy(&rig{T: t, target: x.target}) })
		})
	}
}
