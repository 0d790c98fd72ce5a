package qmp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// attached is a machine with disk0 plugged, and what it was before.
func attached(t *testing.T) (q *fakeQEMU, m *Monitor, before string) {
	q = newFake(t)
	m = dial(t, q.path)
	before = q.state()
	if _, err := attachTo(t, m, nil); err != nil {
		t.Fatal(err)
	}
	q.mu.Lock()
	q.commands = nil
	q.mu.Unlock()
	return q, m, before
}

func TestDetachRemovesTheDisk(t *testing.T) {
	for name, g := range map[string]guest{"event": releases, "no event": releasesUnheard} {
		t.Run(name, func(t *testing.T) {
			q, m, before := attached(t)
			q.unplug = g
			d, err := Detach(patient(t), m, "disk0")
			if want := (Detachment{true, true, ""}); err != nil || *d != want {
				t.Fatalf("got %+v, %v, want %+v", d, err, want)
			}
			if after := q.state(); after != before {
				t.Errorf("before %s\nafter %s", before, after)
			}
		})
	}
}

func TestDetachOfWhatIsGoneIsANote(t *testing.T) {
	q, m, before := attached(t)
	q.mu.Lock()
	delete(q.devices, "disk0")
	q.mu.Unlock()
	d, err := Detach(patient(t), m, "disk0")
	if want := (Detachment{false, true, "the device was gone already; its chardev was removed"}); err != nil || *d != want {
		t.Fatalf("got %+v, %v, want %+v", d, err, want)
	}
	d, err = Detach(patient(t), m, "disk0")
	if want := (Detachment{false, false, "disk0 was not attached"}); err != nil || *d != want {
		t.Fatalf("got %+v, %v, want %+v", d, err, want)
	}
	if after := q.state(); after != before {
		t.Errorf("before %s\nafter %s", before, after)
	}
}

func TestDetachFindsTheChardevOfOthers(t *testing.T) {
	q := newFake(t)
	q.chardevs["c7"] = "s"
	q.devices["theirs"] = &fakeDevice{typ: driver, bus: "rp0", chardev: "c7"}
	if _, err := Detach(patient(t), dial(t, q.path), "theirs"); err != nil {
		t.Fatal(err)
	}
	if _, there := q.chardevs["c7"]; there {
		t.Error("the chardev is left")
	}
}

func TestDetachRefusesWhatIsNoDisk(t *testing.T) {
	q := newFake(t)
	before := q.state()
	_, err := Detach(patient(t), dial(t, q.path), "rp0")
	wantError(t, q, before, err, ErrNotDisk, "the device with this id is a pcie-root-port; check the id")
	if _, err := Detach(patient(t), New("unix", "/nowhere"), "a b"); !errors.Is(err, ErrBadOptions) {
		t.Errorf("bad id: got %v", err)
	}
}

func TestDetachSaysThatTheGuestHoldsTheDisk(t *testing.T) {
	q, m, _ := attached(t)
	q.unplug = holds
	before := q.state()
	for range 2 { // the second finds a request pending, which is no error of its own
		ctx, cancel := context.WithTimeout(patient(t), 3*time.Second)
		_, err := Detach(ctx, m, "disk0")
		cancel()
		wantError(t, q, before, err, ErrGuestHolds, "detach again")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
	q.mu.Lock()
	q.unplug = releasesAtSecond
	q.mu.Unlock()
	if _, err := Detach(patient(t), m, "disk0"); err != nil {
		t.Errorf("the guest released it: %v", err)
	}
}

func TestDetachSaysThatTheGuestRefused(t *testing.T) {
	q, m, _ := attached(t)
	q.unplug = refuses
	before := q.state()
	_, err := Detach(patient(t), m, "disk0")
	wantError(t, q, before, err, ErrGuestRefused, "unmount the disk in the guest")
}

// A detach that failed, at whichever command, can be repeated.
func TestDetachCanBeRepeatedAfterEveryFailure(t *testing.T) {
	clean, m, before := attached(t)
	if _, err := Detach(patient(t), m, "disk0"); err != nil {
		t.Fatal(err)
	}
	for n, command := range clean.commands {
		for name, f := range map[string]fault{"lost first": lostFirst, "lost after": lostAfter, "cancelled": cancelled, "refused": refuse} {
			t.Run(fmt.Sprint(n, " ", command, " ", name), func(t *testing.T) {
				q, m, _ := attached(t)
				ctx, cancel := context.WithCancel(patient(t))
				defer cancel()
				q.mu.Lock()
				q.cancel = cancel
				q.spoil = func(i int, r request) fault {
					if i == n {
						return f
					}
					return none
				}
				q.mu.Unlock()
				_, err := Detach(ctx, m, "disk0")
				harmless := f == refuse && command == "qom-get" || f == cancelled && command == "device_del"
				if err == nil && !harmless {
					t.Error("the fault went unseen")
				}
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("more than one line: %q", err)
				}
				if err := m.ConnectContext(patient(t)); err != nil {
					t.Fatal(err)
				}
				if _, err := Detach(patient(t), m, "disk0"); err != nil {
					t.Fatal(err)
				}
				if after := q.state(); after != before {
					t.Errorf("before %s\nafter %s", before, after)
				}
			})
		}
	}
}
