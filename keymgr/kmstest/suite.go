package kmstest

import "testing"

// testCase is one rule that a KMS keeps.
type testCase struct {
	name  string
	needs []Capability
	run   func(*probe)
}

// cases are the suite, in the order in which they run.
var cases = []testCase{
	{"generate", nil, generate},
	{"generate without plaintext", nil, generateWithoutPlaintext},
	{"unwrap", nil, unwrap},
	{"context mismatch", nil, contextMismatch},
	{"context entries do not run together", nil, contextBoundaries},
	{"damaged blob", nil, damagedBlob},
	{"blob of another key", nil, blobOfAnotherKey},
	{"unknown key", nil, unknownKey},
	{"describe", nil, describe},
	{"disabled key", []Capability{Disabling}, disabledKey},
	{"enabled again", []Capability{Disabling, Enabling}, enabledAgain},
	{"rotation", []Capability{Rotating}, rotation},
	{"re-wrap under the same key", []Capability{ReWrapping}, reWrap},
	{"re-wrap under a new version", []Capability{Rotating, ReWrapping}, reWrapAfterRotation},
	{"re-wrap under another key", []Capability{Moving}, reWrapUnderAnotherKey},
	{"re-wrap binds the context", []Capability{ReWrapping}, reWrapBindsContext},
	{"wrap a key from elsewhere", nil, wrapFromElsewhere},
	{"access denied", []Capability{Denying}, accessDenied},
	{"throttled", []Capability{Throttling}, throttled},
	{"throttled, then not", []Capability{Throttling}, throttledThenNot},
	{"connection lost", []Capability{Breaking}, connectionLost},
	{"connection lost, then back", []Capability{Breaking}, connectionLostThenBack},
	{"time-out", []Capability{Hanging}, timeOut},
	{"cancelled before the call", nil, cancelledBefore},
	{"cancelled during the call", []Capability{Hanging}, cancelledDuring},
	{"concurrent use", nil, concurrentUse},
}

// Run runs the suite. newSubject is called for each case, with that case's test; what
// it makes is closed by the test's Cleanup.
func Run(t *testing.T, newSubject func(t testing.TB) *Subject) {
	lacking := map[string]string{}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newSubject(t)
			if why := c.try(t, s); why != "" {
				lacking[c.name] = why
				t.Skip("this KMS lacks it: " + why)
			}
		})
	}
	for _, c := range cases {
		if why := lacking[c.name]; why != "" {
			t.Logf("not tried: %s (%s)", c.name, why)
		}
	}
	t.Logf("%d of %d cases tried", len(cases)-len(lacking), len(cases))
}

// try runs a case, or returns why it cannot be run.
func (c *testCase) try(t testing.TB, s *Subject) (lacking string) {
	t.Helper()
	s.check(t)
	if why := s.lacking(c.needs); why != "" {
		return why
	}
	p := newProbe(t, s)
	c.run(p)
	return ""
}
