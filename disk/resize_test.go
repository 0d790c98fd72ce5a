package disk

import (
	"errors"
	"os"
	"strings"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/luks"
)

// kinds of disks that can be resized.
var kinds = map[string]CreateOptions{
	"encrypted": {Name: "db", Encrypted: true}, "encrypted 4096": {Name: "db", Encrypted: true, SectorSize: 4096}, "plain": {Name: "db"},
}

// check opens a disk, which must have that size, and writes or compares noise over all of it.
func check(t *testing.T, c *Catalogue, size int64, use func(*blockdevtest.Driver)) {
	t.Helper()
	d, err := c.Open(t.Context(), "db", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Device.Info().Capacity; got != size || d.Record.SizeBytes != size {
		t.Errorf("the disk has %d bytes, its record %d, want %d", got, d.Record.SizeBytes, size)
	}
	q, err := d.Device.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	use(blockdevtest.NewDriver(t, q, 4))
	if err := errors.Join(q.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestResize(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			c := newCatalogue(t)
			mustCreate(t, c, o)
			data := blockdevtest.Noise(1, 3*diskSize)
			check(t, c, diskSize, func(d *blockdevtest.Driver) { d.Write(0, data[:diskSize]) })
			r, running, err := c.Resize(t.Context(), "db", 3*diskSize)
			if err != nil || running || r.SizeBytes != 3*diskSize {
				t.Fatalf("%+v, running %v, %v", r, running, err)
			}
			wantWhole(t, c, "db")
			check(t, c, 3*diskSize, func(d *blockdevtest.Driver) {
				if string(d.Read(0, diskSize)) != string(data[:diskSize]) {
					t.Error("old data is gone")
				}
				if string(d.Read(diskSize, 2*diskSize)) != string(make([]byte, 2*diskSize)) {
					t.Error("new space is not zeros")
				}
				d.Write(diskSize, data[diskSize:])
			})
			if _, _, err := c.Resize(t.Context(), "db", 3*diskSize); err != nil {
				t.Errorf("the same again: %v", err)
			}
		})
	}
}

func TestResizeRefuses(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true, SectorSize: 4096})
	mustCreate(t, c, CreateOptions{Name: "ram", Backend: "memory:"})
	before := files(t, c.dir)
	for _, x := range []struct {
		name string
		size int64
		want error
		says string
	}{
		{"db", diskSize - 4096, ErrInvalid, "less than"},
		{"db", diskSize + 512, ErrInvalid, "size"},
		{"db", 0, ErrInvalid, "less than"},
		{"db", 1<<48 + 4096, ErrInvalid, "XTS"},
		{"ram", 2 * diskSize, ErrBackend, "fixed size"},
		{"none", diskSize, ErrNotFound, "none"},
	} {
		_, _, err := c.Resize(t.Context(), x.name, x.size)
		if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s to %d: %v", x.name, x.size, err)
		}
	}
	if changed := differ(before, files(t, c.dir)); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	d, err := c.Open(t.Context(), "db", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Resize(t.Context(), "db", 2*diskSize); !errors.Is(err, ErrInUse) {
		t.Errorf("opened by a command: %v", err)
	}
	if err := d.Publish(Runtime{PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if _, running, err := c.Resize(t.Context(), "db", 2*diskSize); err != nil || !running {
		t.Errorf("exported: running %v, %v", running, err)
	}
	if err := blockdev.Grow(d.Device, 2*diskSize); err != nil {
		t.Errorf("its device does not grow: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestInterruptedResize stops a resize after each of its changes to files. The disk has
// one size or the other, nothing is reported as failed, and either the next export or the
// same resize finishes it.
func TestInterruptedResize(t *testing.T) {
	const size = 2 * diskSize
	for name, o := range kinds {
		for _, finish := range []string{"by an export", "by the same resize"} {
			t.Run(name+" "+finish, func(t *testing.T) {
				for n := 1; ; n++ {
					c := newCatalogue(t)
					mustCreate(t, c, o)
					left, at := n, ""
					c.step = func(operation string) error {
						if left--; left == 0 {
							at = operation
							return errFault
						}
						return nil
					}
					_, _, err := c.Resize(t.Context(), "db", size)
					c.step = nil
					if err == nil {
						if n < 3 {
							t.Fatalf("only %d steps", n-1)
						}
						return
					}
					found, err := c.Check(t.Context(), "db")
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range found {
						if f.Result == Failed {
							t.Errorf("after %s: %s: %s", at, f.Check, f.Detail)
						}
					}
					if finish == "by the same resize" {
						if _, _, err := c.Resize(t.Context(), "db", size); err != nil {
							t.Fatalf("after %s: %v", at, err)
						}
					}
					wantWholeAfter(t, c, at, finish == "by the same resize", size)
				}
			})
		}
	}
}

// wantWholeAfter: an export makes an end of the resize, in favour of the size in the header.
func wantWholeAfter(t *testing.T, c *Catalogue, at string, finished bool, size int64) {
	t.Helper()
	want := int64(diskSize)
	if finished || strings.HasPrefix(at, "header") || strings.HasPrefix(at, "save") {
		want = size
	}
	check(t, c, want, func(d *blockdevtest.Driver) { d.Write(want-4096, make([]byte, 4096)) })
	wantWhole(t, c, "db")
	if r, err := c.Get("db"); err != nil || r.SizeBytes != want {
		t.Errorf("after %s: the record says %d, %v", at, r.SizeBytes, err)
	}
}

// TestHeaderBehindRecord: the other way round is not a resize of ours.
func TestHeaderBehindRecord(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	f, err := os.OpenFile(r.Where(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := luks.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := luks.Update(f, h, func(h *luks.Header) error { return h.Resize(diskSize / 2) }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Resize(t.Context(), "db", 2*diskSize); !errors.Is(err, ErrMismatch) {
		t.Errorf("resize: %v", err)
	}
	if _, err := c.Open(t.Context(), "db", OpenOptions{}); !errors.Is(err, ErrMismatch) {
		t.Errorf("open: %v", err)
	}
}

// TestSettings: what is set is what the next export does with a guest's requests.
func TestSettings(t *testing.T) {
	for name, o := range kinds {
		for _, x := range []struct {
			set            Settings
			discard, zeros string // what becomes of the range: data, hole, or stored
		}{
			{Settings{}, "hole", "stored"},
			{Settings{Discard: DiscardIgnore}, "data", "stored"},
			{Settings{Zeroes: ZeroesUnmap}, "hole", "hole"},
			{Settings{Discard: DiscardIgnore, Zeroes: ZeroesUnmap}, "data", "hole"},
		} {
			t.Run(name+" "+string(x.set.Discard+" ")+string(x.set.Zeroes), func(t *testing.T) {
				c := newCatalogue(t)
				r := mustCreate(t, c, o)
				got, _, err := c.Set(t.Context(), "db", x.set)
				if err != nil || got.Discard == "" || got.Zeroes == "" {
					t.Fatalf("%+v, %v", got, err)
				}
				const part = 64 << 10
				data := blockdevtest.Noise(1, 2*part)
				check(t, c, diskSize, func(d *blockdevtest.Driver) {
					d.Write(0, data)
					d.Must(&blockdev.Request{Op: blockdev.Discard, Length: part},
						&blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: true, Offset: part, Length: part})
					if (string(d.Read(0, part)) == string(data[:part])) != (x.discard == "data") || string(d.Read(part, part)) != string(make([]byte, part)) {
						t.Error("reads something else")
					}
				})
				img, err := os.ReadFile(r.Where())
				if err != nil {
					t.Fatal(err)
				}
				img = img[len(img)-diskSize:]
				zero := string(make([]byte, part))
				if (string(img[:part]) == zero) != (x.discard == "hole") {
					t.Error("the discarded range is not stored as it should be")
				}
				if o.Encrypted && (string(img[part:2*part]) == zero) != (x.zeros == "hole") {
					t.Error("the zeros are not stored as they should be")
				}
			})
		}
	}
}

func TestSetRefuses(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db"})
	for _, s := range []Settings{{Discard: "x"}, {Zeroes: "x"}, {OnKeyLoss: "x"}} {
		if _, _, err := c.Set(t.Context(), "db", s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// TestOldRecord: a record from before these settings has the defaults, and one from
// before the key scope covers the disk.
func TestOldRecord(t *testing.T) {
	r := goodRecord()
	text := strings.NewReplacer(",\n  \"discard\": \"unmap\"", "", ",\n  \"zeroes\": \"write\"", "", ",\n  \"on_key_loss\": \"keep\"", "").Replace(string(r.encode()))
	text = strings.Replace(text, ",\n  \"key_scope_blocks\": 65536", "", 1)
	if strings.Contains(text, "discard") || strings.Contains(text, "zeroes") || strings.Contains(text, "scope") || strings.Contains(text, "on_key_loss") {
		t.Fatal(text)
	}
	got, err := parseRecord([]byte(text))
	if err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestResizedElsewhere: a disk that two state directories know is resized through one.
// The other has its new size from the next look at it, in an export that stands by from
// when that takes the disk, and writes it down with the next export of its own.
func TestResizedElsewhere(t *testing.T) {
	a := newCatalogue(t)
	mustCreate(t, a, CreateOptions{Name: "db", Encrypted: true})
	b := secondHost(t, a, "db")
	standby := mustOpen(t, b, true, 1)
	if _, _, err := a.Resize(t.Context(), "db", 2*diskSize); err != nil {
		t.Fatal(err)
	}
	if err := standby.Take(); err != nil {
		t.Fatal(err)
	}
	if got := standby.Device.Info().Capacity; got != 2*diskSize || standby.Record.SizeBytes != 2*diskSize {
		t.Errorf("who stood by has %d bytes, its record %d", got, standby.Record.SizeBytes)
	}
	if err := standby.Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []OpenOptions{{Standby: true}, {ReadOnly: true}} {
		d, err := b.Open(t.Context(), "db", o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if got := d.Device.Info().Capacity; got != 2*diskSize {
			t.Errorf("%+v: %d bytes", o, got)
		}
		d.Close()
	}
	if r, err := b.Get("db"); err != nil || r.SizeBytes != diskSize {
		t.Errorf("to look at a disk changed its record: %d bytes, %v", r.SizeBytes, err)
	}
	wantWarning(t, b, "another state directory")
	check(t, b, 2*diskSize, func(d *blockdevtest.Driver) { d.Write(2*diskSize-4096, make([]byte, 4096)) })
	if r, err := b.Get("db"); err != nil || r.SizeBytes != 2*diskSize {
		t.Errorf("the record says %d bytes, %v", r.SizeBytes, err)
	}
	wantWhole(t, b, "db")
	if _, _, err := b.Resize(t.Context(), "db", 3*diskSize); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Resize(t.Context(), "db", 2*diskSize); !errors.Is(err, ErrInvalid) {
		t.Errorf("made smaller by who knows an old size: %v", err)
	}
	if _, _, err := a.Resize(t.Context(), "db", 4*diskSize); err != nil {
		t.Errorf("resized by who knows an old size: %v", err)
	}
	check(t, b, 4*diskSize, func(d *blockdevtest.Driver) { d.Write(4*diskSize-4096, make([]byte, 4096)) })
}

// wantWarning looks for a warning among the results of a check that finds nothing wrong.
func wantWarning(t *testing.T, c *Catalogue, text string) {
	t.Helper()
	found, err := c.Check(t.Context(), "db")
	if err != nil {
		t.Fatal(err)
	}
	warned := false
	for _, f := range found {
		if f.Result == Failed {
			t.Errorf("%s: %s", f.Check, f.Detail)
		}
		warned = warned || f.Result == Warning && strings.Contains(f.Detail, text)
	}
	if !warned {
		t.Errorf("no warning of %q in %+v", text, found)
	}
}
