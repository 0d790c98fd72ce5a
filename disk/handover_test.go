package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// secondHost is another state directory with the same KMS, where the disk of the
// first is registered.
func secondHost(t *testing.T, c *Catalogue, name string) *Catalogue {
	t.Helper()
	r, err := c.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenCatalogue(t.TempDir(), c.keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Import(t.Context(), name, r.Backend); err != nil {
		t.Fatal(err)
	}
	return other
}

func mustOpen(t *testing.T, c *Catalogue, standby bool, pid int) *Disk {
	t.Helper()
	d, err := c.Open(t.Context(), "db", OpenOptions{Standby: standby})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(Runtime{PID: pid, SocketPath: "/s"}); err != nil {
		t.Fatal(err)
	}
	return d
}

func publish(t *testing.T, d *Disk, pid int) {
	t.Helper()
	if err := d.Publish(Runtime{PID: pid, SocketPath: "/s"}); err != nil {
		t.Fatal(err)
	}
}

// TestHandover: the disk goes from one process to another and back, in one state
// directory and in two; only one has it at a time, and nobody else gets it.
func TestHandover(t *testing.T) {
	for _, hosts := range []int{1, 2} {
		t.Run(map[int]string{1: "one state directory", 2: "two"}[hosts], func(t *testing.T) {
			a := newCatalogue(t)
			mustCreate(t, a, CreateOptions{Name: "db", Encrypted: true})
			b := a
			if hosts == 2 {
				b = secondHost(t, a, "db")
			}
			source := mustOpen(t, a, false, 1)
			defer source.Close()
			destination := mustOpen(t, b, true, 2)
			defer destination.Close()
			if source.Record.SizeBytes != destination.Device.Info().Capacity || destination.Holds() {
				t.Error("who stands by does not know the disk, or has it")
			}
			closed := func(when string) {
				t.Helper()
				for _, c := range []*Catalogue{a, b} {
					if d, err := c.Open(t.Context(), "db", OpenOptions{}); err == nil {
						d.Close()
						t.Errorf("%s: somebody else opened the disk", when)
					}
					if err := c.Delete("db"); !errors.Is(err, ErrInUse) {
						t.Errorf("%s: delete: %v", when, err)
					}
					if _, ok := c.Runtime("db"); !ok {
						t.Errorf("%s: the disk seems to be unused", when)
					}
				}
			}
			closed("before")
			from, to := source, destination
			for range 3 {
				if err := to.Take(); !errors.Is(err, ErrInUse) {
					t.Fatalf("taken from its owner: %v", err)
				}
				if err := from.Release(); err != nil {
					t.Fatal(err)
				}
				closed("between")
				if err := to.Take(); err != nil {
					t.Fatal(err)
				}
				closed("after")
				from, to = to, from
			}
		})
	}
}

// TestRuntimeFollowsTheDisk: in one state directory it names the owner, and the end of
// who gave the disk away does not take the new owner's name off.
func TestRuntimeFollowsTheDisk(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	is := func(when string, pid int) {
		t.Helper()
		if rt, ok := c.Runtime("db"); !ok || rt.PID != pid {
			t.Errorf("%s: %+v, %v, want pid %d", when, rt, ok, pid)
		}
	}
	source, destination := mustOpen(t, c, false, 1), mustOpen(t, c, true, 2)
	is("before", 1)
	if err := errors.Join(source.Release(), destination.Take()); err != nil {
		t.Fatal(err)
	}
	publish(t, destination, 2)
	is("after", 2)
	source.Close()
	is("when the source has ended", 2)
	third := mustOpen(t, c, true, 3)
	is("with the next one standing by", 2)
	destination.Close()
	is("with nobody but the one standing by", 3)
	third.Close()
	if rt, ok := c.Runtime("db"); ok {
		t.Errorf("at the end: %+v", rt)
	}
	entries, err := os.ReadDir(filepath.Join(c.dir, "run"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left in run: %v, %v", entries, err)
	}
}

func TestPlainDiskIsHandedOver(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db"})
	source, destination := mustOpen(t, c, false, 1), mustOpen(t, c, true, 2)
	defer source.Close()
	defer destination.Close()
	if err := destination.Take(); !errors.Is(err, ErrInUse) {
		t.Errorf("taken from its owner: %v", err)
	}
	if err := errors.Join(source.Release(), destination.Take()); err != nil {
		t.Fatal(err)
	}
	if err := source.Take(); !errors.Is(err, ErrInUse) {
		t.Errorf("taken back: %v", err)
	}
}

// TestTakeOfAnotherContainer: a backing file that was replaced while the export stood
// by is not served, and left to whoever it belongs to.
func TestTakeOfAnotherContainer(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	other := mustCreate(t, c, CreateOptions{Name: "other", Encrypted: true})
	d := mustOpen(t, c, true, 1)
	img, err := os.ReadFile(other.Where())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(r.Where(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(img); err != nil {
		t.Fatal(err)
	}
	if err := d.Take(); !errors.Is(err, ErrMismatch) || d.Holds() {
		t.Fatalf("take: %v", err)
	}
	d.Close()
	if l, err := c.acquire("db"); err != nil {
		t.Errorf("the lock is kept: %v", err)
	} else {
		l.release()
	}
}
