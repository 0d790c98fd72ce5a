package disk

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sealblk/keymgr/secret"
)

// model is what a catalogue must be after any sequence of calls.
type model struct {
	c     *Catalogue
	disks map[string]Record
	// lost are encrypted disks whose record is gone, by their backend.
	lost map[string]Record
	open map[string]*Disk
}

var (
	modelNames    = rapid.SampledFrom([]string{"a", "b", "a.b"})
	modelBackends = rapid.SampledFrom([]string{"", "file:one.img", "file:two.img", "memory:", "null:"})
)

// uri is the backend that a disk called name gets.
func (m *model) uri(name, backend string) string {
	switch backend {
	case "":
		return "file:" + filepath.Join(m.c.dir, "volumes", name+".img")
	case "memory:", "null:":
		return backend
	}
	return "file:" + filepath.Join(m.c.dir, backend[len("file:"):])
}

// busy tells whether a disk, there or lost, has a backend.
func (m *model) busy(uri string) bool {
	if uri == "memory:" || uri == "null:" {
		return false
	}
	for _, r := range m.disks {
		if r.Backend == uri {
			return true
		}
	}
	_, lost := m.lost[uri]
	return lost
}

func (m *model) Create(t *rapid.T) {
	name, uri := modelNames.Draw(t, "name"), ""
	uri = m.uri(name, modelBackends.Draw(t, "backend"))
	o := CreateOptions{
		Name: name, Backend: uri, SizeBytes: rapid.Int64Range(1, 64).Draw(t, "blocks") * 4096,
		Encrypted: rapid.Bool().Draw(t, "encrypted"), SectorSize: rapid.SampledFrom([]int{0, 512, 4096}).Draw(t, "sector size"),
	}
	r, err := m.c.Create(t.Context(), o)
	_, there := m.disks[name]
	switch {
	case m.open[name] != nil:
		want(t, err, ErrInUse)
	case there || m.busy(uri):
		want(t, err, ErrExists)
	default:
		want(t, err, nil)
		m.disks[name] = r
	}
}

func (m *model) Get(t *rapid.T) {
	name := modelNames.Draw(t, "name")
	r, err := m.c.Get(name)
	known, there := m.disks[name]
	if !there {
		want(t, err, ErrNotFound)
		return
	}
	want(t, err, nil)
	if d := cmp.Diff(known, r); d != "" {
		t.Fatal(d)
	}
}

func (m *model) Delete(t *rapid.T) {
	name := modelNames.Draw(t, "name")
	err := m.c.Delete(name)
	r, there := m.disks[name]
	switch {
	case !there:
		want(t, err, ErrNotFound)
	case m.open[name] != nil:
		want(t, err, ErrInUse)
	default:
		want(t, err, nil)
		delete(m.disks, name)
		if path, _ := m.c.storeFile(r); path != "" {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("%s is left", path)
			}
		}
	}
}

// Lose loses a record, as a state directory that was not backed up.
func (m *model) Lose(t *rapid.T) {
	name := modelNames.Draw(t, "name")
	r, there := m.disks[name]
	if !there || m.open[name] != nil || !r.Encrypted || r.Backend == "memory:" || r.Backend == "null:" {
		t.Skip("not a disk that describes itself")
	}
	if err := os.Remove(m.c.recordPath(name)); err != nil {
		t.Fatal(err)
	}
	delete(m.disks, name)
	m.lost[r.Backend] = r
}

func (m *model) Import(t *rapid.T) {
	name := modelNames.Draw(t, "name")
	uri := m.uri(name, modelBackends.Draw(t, "backend"))
	r, err := m.c.Import(t.Context(), name, uri)
	_, there := m.disks[name]
	known, lost := m.lost[uri]
	switch {
	case m.open[name] != nil:
		want(t, err, ErrInUse)
	case there || m.busy(uri) && !lost:
		want(t, err, ErrExists)
	case !lost:
		if err == nil {
			t.Fatalf("imported nothing: %+v", r)
		}
	default:
		want(t, err, nil)
		known.Name = name
		if d := cmp.Diff(known, r); d != "" {
			t.Fatal(d)
		}
		m.disks[name] = r
		delete(m.lost, uri)
	}
}

func (m *model) Open(t *rapid.T) {
	name := modelNames.Draw(t, "name")
	d, err := m.c.Open(t.Context(), name, OpenOptions{})
	r, there := m.disks[name]
	switch {
	case !there:
		want(t, err, ErrNotFound)
	case m.open[name] != nil:
		want(t, err, ErrInUse)
	default:
		want(t, err, nil)
		if got := d.Device.Info(); got.Capacity != r.SizeBytes || got.LogicalBlockSize != r.SectorSize {
			t.Fatalf("%+v, want %+v", got, r)
		}
		m.open[name] = d
	}
}

func (m *model) Close(t *rapid.T) {
	name := modelNames.Draw(t, "name")
	if m.open[name] == nil {
		t.Skip("not open")
	}
	want(t, m.open[name].Close(), nil)
	delete(m.open, name)
}

// Check (the invariant): the list is the model's, and only open disks have a key in
// memory.
func (m *model) Check(t *rapid.T) {
	records, damaged := m.c.List()
	if len(damaged) > 0 || len(records) != len(m.disks) {
		t.Fatalf("%d disks, %v; want %d", len(records), damaged, len(m.disks))
	}
	keys := int64(0)
	for _, r := range records {
		if d := cmp.Diff(m.disks[r.Name], r); d != "" {
			t.Fatal(d)
		}
		if m.open[r.Name] != nil && r.Encrypted {
			keys++
		}
	}
	if left := m.c.pending(); len(left) > 0 {
		t.Fatalf("half made: %v", left)
	}
	if live, _ := secret.Live(); live-m.kms() != keys {
		t.Fatalf("%d secrets besides the KMS's, %d encrypted disks open", live-m.kms(), keys)
	}
}

// kms is how many secrets the KMS holds: its root key, once it is in use.
func (m *model) kms() int64 {
	if _, err := os.Stat(filepath.Join(m.c.dir, "kms")); err != nil {
		return 0
	}
	return 1
}

func want(t *rapid.T, err, kind error) {
	t.Helper()
	if kind == nil && err != nil || kind != nil && !errors.Is(err, kind) {
		t.Fatalf("got %v; want %v", err, kind)
	}
}

func TestCatalogueModel(t *testing.T) {
	if testing.Short() {
		flag.Set("rapid.checks", "10") // it is one of rapid's
	}
	base := newDir(t)
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "state")
		if err != nil {
			t.Fatal(err)
		}
		c, stop, err := openCatalogue(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		m := &model{c, map[string]Record{}, map[string]Record{}, map[string]*Disk{}}
		defer func() {
			for _, d := range m.open {
				d.Close()
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"create": m.Create, "get": m.Get, "delete": m.Delete, "lose": m.Lose,
			"import": m.Import, "open": m.Open, "close": m.Close, "": m.Check,
		})
	})
}
