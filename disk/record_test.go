package disk

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func goodRecord() Record {
	return Record{
		Format: 1, Name: "db", ID: "d-0123456789abcdef01", Lineage: "d-0123456789abcdef01",
		SizeBytes: 1 << 20, Encrypted: true, KeyID: "k", KeyURI: "local:k", KeyVersion: "1", KeyScopeBlocks: 1 << 16, SectorSize: 512,
		Category: Cloud, Role: Data, Serial: "s", Backend: "file:/x/db.img",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Discard: DiscardUnmap, Zeroes: ZeroesWrite, OnKeyLoss: KeyLossKeep,
	}
}

// TestLongestName: a disk may be called as CheckName says, encrypted or not.
func TestLongestName(t *testing.T) {
	s := newSite(t)
	for first, o := range map[string]CreateOptions{"p": {}, "e": {Encrypted: true}, "n": {NoPlaintext: true}} {
		o.Name = first + strings.Repeat("x", 62)
		if err := CheckName(o.Name); err != nil || CheckName(o.Name+"x") == nil {
			t.Fatalf("not the longest name: %v", err)
		}
		mustCreate(t, s.Catalogue, o)
		d, err := s.Open(t.Context(), o.Name, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	want := goodRecord()
	got, err := parseRecord(want.encode())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestRecordRefuses(t *testing.T) {
	cases := map[string]func(*Record){
		"another format":             func(r *Record) { r.Format = 2 },
		"a name with a slash":        func(r *Record) { r.Name = "../db" },
		"an id of another form":      func(r *Record) { r.ID = "x" },
		"no lineage":                 func(r *Record) { r.Lineage = "" },
		"no key":                     func(r *Record) { r.KeyURI = "" },
		"a key without encryption":   func(r *Record) { r.Encrypted = false },
		"a sector size of 1024":      func(r *Record) { r.SectorSize = 1024 },
		"half a sector":              func(r *Record) { r.SizeBytes = 256 },
		"no size":                    func(r *Record) { r.SizeBytes = 0 },
		"a negative size":            func(r *Record) { r.SizeBytes = -512 },
		"more than one key may hold": func(r *Record) { r.SizeBytes = 1<<48 + 512 },
		"an encrypted local disk":    func(r *Record) { r.Category = Local },
		"an unknown discard":         func(r *Record) { r.Discard = "keep" },
		"an unknown zeroes":          func(r *Record) { r.Zeroes = "ignore" },
		"an unknown key loss policy": func(r *Record) { r.OnKeyLoss = "panic" },
		"an unknown role":            func(r *Record) { r.Role = "boot" },
		"a long serial":              func(r *Record) { r.Serial = strings.Repeat("s", 21) },
		"a serial with a newline":    func(r *Record) { r.Serial = "a\nb" },
		"a relative backend":         func(r *Record) { r.Backend = "file:db.img" },
		"a backend with a newline":   func(r *Record) { r.Backend = "file:/x\ny" },
		"an unknown backend":         func(r *Record) { r.Backend = "ftp://x" },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			r := goodRecord()
			spoil(&r)
			if _, err := parseRecord(r.encode()); !errors.Is(err, ErrRecord) {
				t.Fatalf("got %v; want ErrRecord", err)
			}
		})
	}
}

func TestRecordRefusesForeignText(t *testing.T) {
	good := goodRecord()
	for name, text := range map[string]string{
		"an unknown field": strings.Replace(string(good.encode()), `"name"`, `"nom": "x", "name"`, 1),
		"a second value":   string(good.encode()) + "{}",
		"half of it":       string(good.encode()[:100]),
		"nothing":          "",
	} {
		if _, err := parseRecord([]byte(text)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: got %v; want ErrRecord", name, err)
		}
	}
}

// FuzzRecord: whatever is in a record file, parsing it fails or gives a record that
// is valid and survives a round trip.
func FuzzRecord(f *testing.F) {
	good := goodRecord()
	f.Add(good.encode())
	f.Add([]byte(`{"format":1,"name":"a","size_bytes":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		if err := r.validate(); err != nil {
			t.Fatalf("accepted an invalid record: %v", err)
		}
		again, err := parseRecord(r.encode())
		if err != nil {
			t.Fatalf("cannot read its own text: %v", err)
		}
		if !bytes.Equal(again.encode(), r.encode()) {
			t.Fatalf("changed in a round trip:\n%s\n%s", r.encode(), again.encode())
		}
	})
}

func TestNewIDFitsASerial(t *testing.T) {
	if id := newID(); len(id) != serialSize || !idPattern.MatchString(id) || id == newID() {
		t.Fatalf("id %q", id)
	}
}

// TestBackendURIs: what a user writes, and what the record keeps of it.
func TestBackendURIs(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]string{
		"file:/a/b": "file:/a/b", "file:///a/b": "file:/a/b", "file:a/b": "file:" + here + "/a/b", "file:./a": "file:" + here + "/a",
		"file://host/a": "", "file://a": "", "file://": "", "file://./a": "", "file:": "",
	} {
		got, err := normalise(uri)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %q, %v, want %q", uri, got, err, want)
		}
		var hint interface{ Hint() string }
		if err != nil && (!errors.As(err, &hint) || !strings.Contains(hint.Hint(), "file:")) {
			t.Errorf("%s: no way out: %v", uri, err)
		}
	}
}
