package qmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// spoilt runs an attach on a machine that has a fault at its nth command and
// returns the error and the machine.
func spoilt(t *testing.T, at int, f fault, attempt func(context.Context, *Monitor) error) (*fakeQEMU, error) {
	q := newFake(t)
	m := dial(t, q.path)
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	q.cancel = cancel
	q.spoil = func(n int, r request) fault {
		if n == at {
			return f
		}
		return none
	}
	return q, attempt(ctx, m)
}

// Whatever goes wrong at whichever command, the machine is as it was.
func TestAttachRollsBackFromEveryStep(t *testing.T) {
	attempt := func(ctx context.Context, m *Monitor) error {
		_, err := Attach(ctx, m, AttachOptions{ID: "disk0", SocketPath: "/nowhere/s", NoProbe: true})
		return err
	}
	clean := newFake(t)
	before := clean.state()
	if err := attempt(patient(t), dial(t, clean.path)); err != nil {
		t.Fatal(err)
	}
	steps := clean.commands
	if last := steps[len(steps)-1]; last != "device_add" {
		t.Fatalf("the last command is %s: this test has to know of it", last)
	}
	for n, command := range steps {
		for name, f := range map[string]fault{"lost first": lostFirst, "lost after": lostAfter, "cancelled": cancelled, "refused": refuse} {
			t.Run(fmt.Sprint(n, " ", command, " ", name), func(t *testing.T) {
				q, err := spoilt(t, n, f, attempt)
				if err == nil && f == refuse && command == "qom-get" {
					return // a property that this machine lacks
				}
				kind := map[fault]error{lostFirst: ErrConnectionLost, lostAfter: ErrConnectionLost, cancelled: context.Canceled}[f]
				if err == nil || kind != nil && !errors.Is(err, kind) {
					t.Errorf("got %v", err)
				}
				if after := q.state(); after != before {
					t.Errorf("error %v\nbefore %s\nafter  %s", err, before, after)
				}
			})
		}
	}
}

func TestRollBackSparesWhatOthersAdded(t *testing.T) {
	q := newFake(t)
	q.spoil = func(n int, r request) fault {
		if r.Execute == "chardev-add" { // somebody is faster
			q.chardevs["disk0-chardev"] = "theirs"
			q.devices["disk0"] = &fakeDevice{typ: driver, bus: "rp1", chardev: "disk0-chardev"}
		}
		return none
	}
	_, err := attachTo(t, dial(t, q.path), nil)
	if err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Fatalf("got %v", err)
	}
	if q.devices["disk0"] == nil || q.chardevs["disk0-chardev"] != "theirs" {
		t.Errorf("their disk is gone: %s", q.state())
	}
}

func TestRollBackSaysWhenTheGuestHoldsTheDisk(t *testing.T) {
	q := newFake(t)
	q.unplug = holds
	p := &plug{mon: dial(t, q.path), o: AttachOptions{ID: "disk0"}, at: Attachment{"disk0", "disk0-chardev", "rp0"},
		chardev: present, device: unknown}
	q.chardevs["disk0-chardev"] = "s"
	q.devices["disk0"] = &fakeDevice{typ: driver, bus: "rp0", chardev: "disk0-chardev"}
	ctx, cancel := context.WithTimeout(patient(t), 3*time.Second)
	defer cancel()
	if err := p.remove(ctx); !errors.Is(err, ErrGuestHolds) {
		t.Fatalf("got %v", err)
	}
	if q.chardevs["disk0-chardev"] == "" {
		t.Error("the chardev of a plugged disk was removed")
	}
}

// TestRollBackThatFailsIsTold: the caller can tell that something may be left, and what
// to do.
func TestRollBackThatFailsIsTold(t *testing.T) {
	q := newFake(t)
	p := &plug{mon: dial(t, q.path), o: AttachOptions{ID: "disk0"}, at: Attachment{"disk0", "disk0-chardev", "rp0"}, chardev: unknown}
	q.spoil = func(int, request) fault { return refuse }
	err := p.undo(patient(t), errors.New("no answer"))
	if !errors.Is(err, ErrNotRolledBack) || !strings.Contains(err.Error(), "detach disk0 when") {
		t.Errorf("got %v", err)
	}
}

// TestRollBackAsQEMUEnds: a connection that was waiting when QEMU ended is reset; then
// there is nothing to roll back.
func TestRollBackAsQEMUEnds(t *testing.T) {
	path := shortDir(t) + "/s"
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	m := New("unix", path)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := ln.Accept()
		ln.Close()
		if err == nil {
			c.Close()
		}
	}()
	if err := reconnect(patient(t), m); !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestRollBackKnowsThatQEMUHasEnded(t *testing.T) {
	path := shortDir(t) + "/s"
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	q := newFake(t)
	served := make(chan struct{})
	defer func() { <-served }()
	q.spoil = func(_ int, r request) fault {
		if r.Execute == "device_add" {
			ln.Close()
			return lostFirst
		}
		return none
	}
	go func() {
		defer close(served)
		if c, err := ln.Accept(); err == nil {
			defer c.Close()
			q.connection(c)
		}
	}()
	_, err = attachTo(t, dial(t, path), nil)
	if !errors.Is(err, ErrConnectionLost) || !strings.Contains(err.Error(), "(QEMU has ended)") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there: this test proves nothing")
	}
}
