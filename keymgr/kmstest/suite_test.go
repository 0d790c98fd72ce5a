package kmstest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest/simulated"
)

// simulatedSubject is a KMS that has everything.
func simulatedSubject(testing.TB) *Subject {
	const timeout = 400 * time.Millisecond
	k := simulated.New(simulated.Options{Timeout: timeout})
	var made atomic.Int32
	return &Subject{
		KMS: k, Scheme: simulated.Scheme, UnknownKey: "nobody", Timeout: timeout,
		NewKey: func(t testing.TB) string {
			name := fmt.Sprint("key-", made.Add(1))
			if err := k.CreateKey(name); err != nil {
				t.Fatal(err)
			}
			return name
		},
		Disable: func(_ testing.TB, key string) { k.Disable(key) },
		Enable:  func(_ testing.TB, key string) { k.Enable(key) },
		Rotate: func(t testing.TB, key string) {
			if err := k.Rotate(key); err != nil {
				t.Fatal(err)
			}
		},
		Deny:     func(_ testing.TB, key string) { k.Deny(key) },
		Throttle: func(_ testing.TB, n int) { k.Throttle(n) },
		Break:    func(testing.TB) { k.Break() },
		Hang:     func(testing.TB) { k.Hang() },
		Mend:     func(testing.TB) { k.Mend() },
	}
}

func TestSimulatedKMS(t *testing.T) { Run(t, simulatedSubject) }

func TestSubjectMustBeComplete(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Subject)
		want  string
	}{
		"no keys":          {func(s *Subject) { s.NewKey = nil }, "needs KMS, Scheme, NewKey and UnknownKey"},
		"no reason":        {func(s *Subject) { s.Rotate = nil }, "rotating a key: neither"},
		"needless reason":  {func(s *Subject) { s.Lacks = map[Capability]string{Rotating: "why not"} }, "it is there"},
		"empty reason":     {func(s *Subject) { s.Rotate, s.Lacks = nil, map[Capability]string{Rotating: ""} }, "neither"},
		"unknown":          {func(s *Subject) { s.Lacks = map[Capability]string{"flying": "no wings"} }, "no capability"},
		"hang, no timeout": {func(s *Subject) { s.Timeout = 0 }, "holding the connection up: neither"},
	} {
		got := record(func(t testing.TB) {
			s := simulatedSubject(t)
			c.spoil(s)
			s.check(t)
		})
		if len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestWhatIsLackingIsNotRun(t *testing.T) {
	for _, c := range cases {
		s := simulatedSubject(t)
		s.Disable, s.Enable, s.Rotate, s.Deny, s.Throttle, s.Break, s.Hang, s.Mend = nil, nil, nil, nil, nil, nil, nil, nil
		s.Lacks = map[Capability]string{}
		for capability := range s.offers() {
			s.Lacks[capability] = "for the sake of the test"
		}
		why := c.try(t, s)
		if (why != "") != (len(c.needs) > 0) {
			t.Errorf("%s: needs %v, lacking %q", c.name, c.needs, why)
		}
		if why != "" && !strings.Contains(why, "for the sake of the test") {
			t.Errorf("%s: the reason is lost: %q", c.name, why)
		}
	}
}

// complaintsOf runs one case on a spoilt KMS.
func complaintsOf(name string, spoil func(*Subject, *simulated.KMS)) []string {
	for _, c := range cases {
		if c.name == name {
			return record(func(t testing.TB) {
				s := simulatedSubject(t)
				spoil(s, s.KMS.(*simulated.KMS))
				c.try(t, s)
			})
		}
	}
	return nil
}

func TestNoComplaintsAboutAGoodKMS(t *testing.T) {
	for _, c := range cases {
		if got := complaintsOf(c.name, func(*Subject, *simulated.KMS) {}); len(got) != 0 {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// TestEachCaseHasAMutant: a case that no mutant fails in proves nothing.
func TestEachCaseHasAMutant(t *testing.T) {
	caught := map[string]bool{}
	for _, m := range mutants {
		caught[m.want] = true
	}
	for _, c := range cases {
		if !caught[c.name] {
			t.Errorf("no mutant is for the case %q", c.name)
		}
	}
}

func TestReveals(t *testing.T) {
	key := make([]byte, keymgr.DataKeySize)
	for i := range key {
		key[i] = byte(100 + 2*i)
	}
	half := key[32:]
	for _, text := range []string{
		"raw " + string(key), "second half " + string(half), fmt.Sprintf("%x", key), fmt.Sprintf("%X", half),
		fmt.Sprintf("%d", key), fmt.Sprintf("%#v", key[:20]), "eyJ" + b64(key), `"` + b64(key) + `"`,
		strings.ReplaceAll(fmt.Sprintf("%d", key), " ", ", "),
	} {
		if !reveals(text, key) {
			t.Errorf("not found in %q", text)
		}
	}
	for _, text := range []string{"", "key is disabled", fmt.Sprintf("%x", key[:4]), b64(make([]byte, 64))} {
		if reveals(text, key) {
			t.Errorf("found in %q", text)
		}
	}
}
