package conformance

import (
	"context"
	"strings"
)

// Target is a back-end under test: a disk of at least MinCapacity whose content may
// be overwritten. Where it has one queue only, or is read-only, the cases that need
// more are skipped.
type Target struct {
	// Socket is where it listens.
	Socket string
	// Restart ends the back-end, without warning, and starts another on the same
	// socket and disk. Nil if it cannot be done.
	Restart func(context.Context) error
	// Grow makes the disk larger, by any amount. Nil if it cannot be done.
	Grow func(context.Context) error
}

// MinCapacity of a Target, in bytes.
const MinCapacity = 16 << 20

// Kind tells how much a failed case weighs.
type Kind string

const (
	// Must: the specification demands it, or has no other reading.
	Must Kind = "must"
	// House: the specification leaves it open, recommends it, or does not say what
	// becomes of a front-end's mistake; this project demands it, mostly because
	// servers were seen to break there.
	House Kind = "house"
)

// Case is one rule.
type Case struct {
	// Group is the part of the device that the rule is about.
	Group string
	Kind  Kind
	// Rule says what must hold, in words.
	Rule string
	// Spec is the clause that it comes from.
	Spec string

	run func(*rig)
	// mayDie: the back-end may exit, if it comes back and has lost nothing.
	mayDie bool
}

// Name is the group and the rule, in one word.
func (c *Case) Name() string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == ' ', r == '-', r == '_':
			return '-'
		}
		return -1
	}, c.Rule)
	return c.Group + "/" + slug
}

// Cases are all rules, in the order in which they run: those after which a back-end
// may be gone come last.
func Cases() []Case {
	var all []Case
	for _, g := range []struct {
		name  string
		cases []Case
	}{
		{"feature", featureCases}, {"session", sessionCases}, {"memory", memoryCases}, {"notifier", notifierCases},
		{"ring", ringCases}, {"blk", blockCases}, {"discard", discardCases}, {"regression", regressionCases},
		{"log", logCases}, {"inflight", inflightCases}, {"message", messageCases}, {"chain", malformedCases},
		{"leak", leakCases}, {"ending", endingCases}, {"recovery", recoveryCases},
	} {
		for _, c := range g.cases {
			c.Group = g.name
			all = append(all, c)
		}
	}
	return all
}
