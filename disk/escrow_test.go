package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/blockdev/blockdevtest"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// events are the lines of the state directory's log.
func events(t *testing.T, c *Catalogue) (all []event) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "events.log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// audited counts the records of an operation in the audit log of the embedded KMS.
func audited(t *testing.T, k *local.KMS, operation string) (n int) {
	t.Helper()
	if err := k.AuditLog(t.Context(), func(e local.Entry) {
		if e.Operation == operation && e.Result == local.ResultOK {
			n++
		}
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEscrow: a KMS is lost, and the data is not.
func TestEscrow(t *testing.T) {
	s := newSite(t)
	escrow := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "db", EscrowKey: escrow})
	r, dk := must(s.Get("db")), keyOf(t, s.Catalogue, "db")
	if !r.Encrypted || r.EscrowKeyURI != escrow {
		t.Fatalf("%+v", r)
	}
	wantUsers(t, s.Catalogue, escrow, "db")
	wantWhole(t, s.Catalogue, "db")
	data := blockdevtest.Noise(1, 4096)
	check(t, s.Catalogue, diskSize, func(d *blockdevtest.Driver) { d.Write(0, data) })

	for _, down := range []error{keymgr.ErrUnreachable, keymgr.ErrNotFound, keymgr.ErrDisabled} {
		s.down["local"] = down
		_, err := s.Open(t.Context(), "db", OpenOptions{})
		var hint interface{ Hint() string }
		told := errors.As(err, &hint) && strings.Contains(hint.Hint(), "--use-escrow")
		if !errors.Is(err, down) || told != !errors.Is(down, keymgr.ErrDisabled) {
			t.Errorf("own key is %v: %v", down, err)
		}
	}
	s.down["local"] = keymgr.ErrNotFound
	s.down["local re-encrypt"] = keymgr.ErrNotFound
	if n := len(events(t, s.Catalogue)); n != 0 {
		t.Errorf("%d events before", n)
	}
	d, err := s.Open(t.Context(), "db", OpenOptions{UseEscrow: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "escrow") {
		t.Errorf("warnings %q", d.Warnings)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if e := events(t, s.Catalogue); len(e) != 1 || e[0].Operation != keymgr.EventEscrow || e[0].KeyURI != escrow || e[0].ID != r.ID {
		t.Errorf("recorded: %+v", e)
	}
	got, err := s.ExportEscrowKey(t.Context(), "db", "k")
	if err != nil || !got.Equal(dk) {
		t.Fatalf("export: %v", err)
	}
	got.Destroy()
	// The catalogue is lost too.
	if err := os.Remove(s.recordPath("db")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), "db", r.Backend); !errors.Is(err, keymgr.ErrNotFound) {
		t.Errorf("import by the lost key: %v", err)
	}
	if back, err := s.ImportByEscrow(t.Context(), "db", r.Backend); err != nil || back != r {
		t.Errorf("import: %+v, %v, want %+v", back, err, r)
	}
	if e := events(t, s.Catalogue); len(e) != 3 || !strings.Contains(e[2].Detail, "imported") {
		t.Errorf("recorded: %+v", e)
	}
	// The disk gets a key of its own again, in the KMS that is left.
	own := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	done, err := s.Rewrap(t.Context(), "db", RewrapOptions{Key: own, UseEscrow: true})
	if err != nil || !done.Changed {
		t.Fatalf("%+v, %v", done, err)
	}
	wantKey(t, s.Catalogue, "db", dk, own, "1")
	if e := events(t, s.Catalogue); len(e) != 4 || !strings.Contains(e[3].Detail, "wrapped under "+own) {
		t.Errorf("recorded: %+v", e)
	}
	wantUsers(t, s.Catalogue, escrow, "db")
	check(t, s.Catalogue, diskSize, func(d *blockdevtest.Driver) {
		if string(d.Read(0, 4096)) != string(data) {
			t.Error("reads something else")
		}
	})
}

// TestEscrowIsRecordedOrNotUsed: where nothing can be recorded the disk does not open.
func TestEscrowIsRecordedOrNotUsed(t *testing.T) {
	s := newSite(t)
	escrow := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "db", EscrowKey: escrow})
	if err := os.Mkdir(filepath.Join(s.dir, "events.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Open(t.Context(), "db", OpenOptions{UseEscrow: true}); err == nil {
		d.Close()
		t.Error("opened")
	}
	if dk, err := s.ExportEscrowKey(t.Context(), "db", "k"); err == nil {
		dk.Destroy()
		t.Error("exported")
	}
}

// TestSetEscrow: put in, changed, kept by a re-wrap and a resize, brought up to date,
// taken out; and what makes no sense.
func TestSetEscrow(t *testing.T) {
	s := newSite(t)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "db", Encrypted: true})
	mustCreate(t, s.Catalogue, CreateOptions{Name: "plain"})
	operator, other := s.operator(t, "local"), s.operator(t, "other")
	r, dk := must(s.Get("db")), keyOf(t, s.Catalogue, "db")
	a, b := newCMK(t, operator), strings.Replace(newCMK(t, other), "local:", "other:", 1)
	in := func(uri string) {
		t.Helper()
		if r := must(s.Get("db")); r.EscrowKeyURI != uri || s.Current(r).EscrowKeyURI != uri || r.RewrappingTo != "" {
			t.Errorf("in escrow under %s, on the way to %q, want %s", r.EscrowKeyURI, r.RewrappingTo, uri)
		}
		if uri == "" {
			return
		}
		wantUsers(t, s.Catalogue, uri, "db")
		got, err := s.ExportEscrowKey(t.Context(), "db", "k")
		if err != nil || !got.Equal(dk) {
			t.Fatalf("export: %v", err)
		}
		got.Destroy()
	}
	for _, uri := range []string{a, b} {
		if _, err := s.SetEscrow(t.Context(), "db", uri); err != nil {
			t.Fatal(err)
		}
		in(uri)
	}
	if _, err := s.SetEscrow(t.Context(), "db", r.KeyURI); !errors.Is(err, ErrInvalid) {
		t.Errorf("the disk's own key: %v", err)
	}
	if _, err := s.Rewrap(t.Context(), "db", RewrapOptions{Key: b}); !errors.Is(err, ErrInvalid) {
		t.Errorf("re-wrapped under the key in escrow: %v", err)
	}
	if _, err := s.SetEscrow(t.Context(), "plain", a); !errors.Is(err, ErrNotEncrypted) {
		t.Errorf("a plain disk: %v", err)
	}
	in(b)
	rotate(t, operator, r.KeyURI)
	mustRewrap(t, s.Catalogue, "db", "")
	if _, _, err := s.Resize(t.Context(), "db", 2*diskSize); err != nil {
		t.Fatal(err)
	}
	in(b)
	wantKey(t, s.Catalogue, "db", dk, r.KeyURI, "2")
	// The key in escrow is rotated.
	if _, err := other.RotateKey(t.Context(), strings.TrimPrefix(b, "other:")); err != nil {
		t.Fatal(err)
	}
	var outcomes []Outcome
	if err := s.RewrapAll(t.Context(), RewrapAllOptions{From: b, Done: func(o Outcome) { outcomes = append(outcomes, o) }}); err != nil {
		t.Fatal(err)
	}
	if len(outcomes) != 1 || outcomes[0].Result != OutcomeRewrapped || outcomes[0].Wrapping != (Wrapping{b, "2"}) {
		t.Errorf("%+v", outcomes)
	}
	in(b)
	wantKey(t, s.Catalogue, "db", dk, r.KeyURI, "2")
	if _, err := s.SetEscrow(t.Context(), "db", ""); err != nil {
		t.Fatal(err)
	}
	in("")
	wantUsers(t, s.Catalogue, b)
	wantWhole(t, s.Catalogue, "db")
}

// TestEscrowOfUnseenKey: within one KMS; across two it would have to be seen.
func TestEscrowOfUnseenKey(t *testing.T) {
	c := newCatalogue(t)
	escrow := newCMK(t, c.operator(t, ""))
	r := createSealed(t, c, CreateOptions{EscrowKey: escrow})
	if r.EscrowKeyURI != escrow {
		t.Errorf("%+v", r)
	}
	wantWhole(t, c, "db")
	dk := keyOf(t, c, "db")
	if got, err := c.ExportEscrowKey(t.Context(), "db", "k"); err != nil || !got.Equal(dk) {
		t.Errorf("export: %v", err)
	} else {
		got.Destroy()
	}
	s := newSite(t)
	other := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	if _, err := s.Create(t.Context(), CreateOptions{Name: "db", SizeBytes: diskSize, NoPlaintext: true, EscrowKey: other}); !errors.Is(err, ErrInvalid) {
		t.Errorf("across two KMSs: %v", err)
	}
	if list, damaged := s.List(); len(list)+len(damaged) > 0 {
		t.Errorf("left: %v, %v", list, damaged)
	}
}

// TestUnlockAfterEscrowWasTakenOut: a disk that was opened by its key in escrow has one
// of its own again; when it is locked and unlocked, that opens it.
func TestUnlockAfterEscrowWasTakenOut(t *testing.T) {
	c := newCatalogue(t)
	operator := c.operator(t, "")
	mustCreate(t, c, CreateOptions{Name: "db", EscrowKey: newCMK(t, operator)})
	d, err := c.Open(t.Context(), "db", OpenOptions{UseEscrow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	publish(t, d, os.Getpid())
	if _, err := c.Rewrap(t.Context(), "db", RewrapOptions{UseEscrow: true, Key: newCMK(t, operator)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetEscrow(t.Context(), "db", ""); err != nil {
		t.Fatal(err)
	}
	d.Lock()
	if err := d.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestExportIsRecordedOrRefused: whatever KMS has the key, and by either slot: in the
// audit log of the embedded KMS, or else in that of the state directory.
func TestExportIsRecordedOrRefused(t *testing.T) {
	s := newSite(t)
	escrow := newCMK(t, s.operator(t, "local"))
	elsewhere := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "db", Key: elsewhere, EscrowKey: escrow})
	mustCreate(t, s.Catalogue, CreateOptions{Name: "home", Encrypted: true})
	dk, err := s.ExportKey(t.Context(), "db", "/keys/db\n")
	if err != nil {
		t.Fatal(err)
	}
	dk.Destroy()
	want := fmt.Sprintf(`disk db: data key exported by user %d to "/keys/db\n"`, os.Getuid())
	if e := events(t, s.Catalogue); len(e) != 1 || e[0].Operation != keymgr.EventExport || e[0].Disk != "db" || e[0].KeyURI != elsewhere || e[0].Detail != want {
		t.Errorf("recorded %+v, want %s", e, want)
	}
	for name, x := range map[string]struct {
		export    func(ctx context.Context, name, file string) (*secret.Buffer, error)
		disk      string
		operation string
	}{
		"the embedded KMS": {s.ExportKey, "home", keymgr.EventExport},
		"the escrow":       {s.ExportEscrowKey, "db", keymgr.EventEscrow},
	} {
		was := audited(t, s.operator(t, "local"), x.operation)
		dk, err := x.export(t.Context(), x.disk, "/k")
		if err != nil {
			t.Fatal(err)
		}
		dk.Destroy()
		if n := audited(t, s.operator(t, "local"), x.operation) - was; n != 1 {
			t.Errorf("%s: recorded %d times", name, n)
		}
	}
	blockEvents(t, s.Catalogue)
	if dk, err := s.ExportKey(t.Context(), "db", "/k"); err == nil || !strings.Contains(err.Error(), "record "+keymgr.EventExport) {
		dk.Destroy()
		t.Errorf("exported without a record: %v", err)
	}
}

// TestExportToALongPath: the record names the file, however deep that is and however long
// the name of the disk.
func TestExportToALongPath(t *testing.T) {
	s := newSite(t)
	name := strings.Repeat("d", 63)
	mustCreate(t, s.Catalogue, CreateOptions{Name: name, Encrypted: true})
	for _, dir := range []string{strings.Repeat("/x", 500), strings.Repeat("/\x01é", 200)} {
		dk, err := s.ExportKey(t.Context(), name, dir+"/the-file")
		if err != nil {
			t.Fatal(err)
		}
		dk.Destroy()
		last := ""
		err = s.operator(t, "local").AuditLog(t.Context(), func(e local.Entry) {
			if e.Operation == keymgr.EventExport {
				last = e.Detail
			}
		})
		if err != nil || !strings.HasSuffix(last, `/the-file"`) {
			t.Errorf("recorded %q, %v", last, err)
		}
	}
}

// blockEvents lets nothing be written to the state directory's log.
func blockEvents(t *testing.T, c *Catalogue) {
	t.Helper()
	log := filepath.Join(c.dir, "events.log")
	if err := os.RemoveAll(log); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(log, 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestWrappedBy: a disk needs a KMS for its own key, or for that in escrow.
func TestWrappedBy(t *testing.T) {
	s := newSite(t)
	other := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "plain"})
	mustCreate(t, s.Catalogue, CreateOptions{Name: "home", Encrypted: true})
	mustCreate(t, s.Catalogue, CreateOptions{Name: "away", Key: other})
	mustCreate(t, s.Catalogue, CreateOptions{Name: "both", Encrypted: true, EscrowKey: other})
	for scheme, want := range map[string]string{"local": "both home", "other": "away both", "shut": ""} {
		if names, err := s.WrappedBy(scheme); strings.Join(names, " ") != want || err != nil {
			t.Errorf("%s: %v, %v, want %s", scheme, names, err, want)
		}
	}
	if err := os.WriteFile(s.recordPath("home"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WrappedBy("local"); !errors.Is(err, ErrRecord) {
		t.Errorf("with a damaged record: %v", err)
	}
}
