package kmstest

import (
	"testing"
	"time"

	"sealblk/keymgr"
)

// Capability is what a KMS, or the administration of it in a test, may lack.
type Capability string

const (
	Disabling  Capability = "disabling a key"
	Enabling   Capability = "enabling a disabled key"
	Rotating   Capability = "rotating a key"
	ReWrapping Capability = "re-wrapping under the same key"
	Moving     Capability = "re-wrapping under another key"
	Denying    Capability = "denying access to a key"
	Throttling Capability = "throttling calls"
	Breaking   Capability = "breaking the connection"
	Hanging    Capability = "holding the connection up"
)

// Subject is a KMS under test and what the test may do to it. The functions do their
// work before they return, or end the test.
type Subject struct {
	// KMS as the disk service uses it.
	KMS keymgr.KMS
	// Scheme of its URIs.
	Scheme string
	// NewKey makes an enabled key on which the disk service may do everything, and
	// returns its name: what stands behind the scheme in the URIs of what it wraps.
	NewKey func(t testing.TB) string
	// UnknownKey is a well-formed name of a key that is not there.
	UnknownKey string
	// Timeout is the KMS's own time-out for a call, as it is configured for the test:
	// below a second, so that nobody waits. It goes with Hang.
	Timeout time.Duration

	Disable, Enable, Rotate, Deny func(t testing.TB, key string)
	// DisabledIs is what calls fail with under a disabled key; nil: keymgr.ErrDisabled.
	DisabledIs error
	// Throttle has the next n calls refused because there are too many.
	Throttle func(t testing.TB, n int)
	// Break cuts the connections and lets none be made; Hang keeps them and lets
	// nothing through; Mend ends both.
	Break, Hang, Mend func(t testing.TB)

	// Lacks says why a capability is missing.
	Lacks map[Capability]string
}

// offers tells which capabilities have what they need.
func (s *Subject) offers() map[Capability]bool {
	return map[Capability]bool{
		Disabling: s.Disable != nil, Enabling: s.Enable != nil,
		Rotating: s.Rotate != nil, Denying: s.Deny != nil, Throttling: s.Throttle != nil,
		Breaking: s.Break != nil && s.Mend != nil, Hanging: s.Hang != nil && s.Mend != nil && s.Timeout > 0,
		// These are calls of the KMS itself: there unless it is said that they are not.
		ReWrapping: s.Lacks[ReWrapping] == "", Moving: s.Lacks[Moving] == "",
	}
}

// check ends the test if the subject is not fully described.
func (s *Subject) check(t testing.TB) {
	t.Helper()
	if s.KMS == nil || s.Scheme == "" || s.NewKey == nil || s.UnknownKey == "" {
		t.Fatal("kmstest: a subject needs KMS, Scheme, NewKey and UnknownKey")
	}
	offers := s.offers()
	for c, there := range offers {
		why, lacking := s.Lacks[c]
		switch {
		case !there && why == "":
			t.Fatalf("kmstest: %s: neither can the test do it nor does Lacks say why", c)
		case there && lacking:
			t.Fatalf("kmstest: %s: it is there, and Lacks says it is not: %s", c, why)
		}
	}
	for c := range s.Lacks {
		if _, known := offers[c]; !known {
			t.Fatalf("kmstest: Lacks has %q, which is no capability", c)
		}
	}
}

// lacking is why a case that needs these capabilities cannot run, "" if it can.
func (s *Subject) lacking(needs []Capability) string {
	for _, c := range needs {
		if why := s.Lacks[c]; why != "" {
			return string(c) + ": " + why
		}
	}
	return ""
}

func (s *Subject) disabledIs() error {
	if s.DisabledIs != nil {
		return s.DisabledIs
	}
	return keymgr.ErrDisabled
}
