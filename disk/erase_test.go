package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/luks"
	"sealblk/keymgr"
)

// TestDestroy: through another name of the file, which the deletion does not take, not
// one byte of the header is left, and that was read back and recorded.
func TestDestroy(t *testing.T) {
	s := newSite(t)
	other := strings.Replace(newCMK(t, s.operator(t, "other")), "local:", "other:", 1)
	for name, o := range map[string]CreateOptions{
		"audit": {Encrypted: true}, "log": {Key: other}, "both": {EscrowKey: other}, "plain": {},
	} {
		o.Name = name
		r := mustCreate(t, s.Catalogue, o)
		second := filepath.Join(s.dir, name+".second")
		f, err := os.OpenFile(r.Where(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("a passphrase slot"), 64<<10); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Close(), os.Link(r.Where(), second)); err != nil {
			t.Fatal(err)
		}
		was, logged := audited(t, s.operator(t, "local"), keymgr.EventErase), len(events(t, s.Catalogue))
		e, err := s.Destroy(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		left := must(os.ReadFile(second))
		if !r.Encrypted {
			if e != (Erasure{}) {
				t.Errorf("plain: %+v", e)
			}
			continue
		}
		if e.Bytes != luks.DataOffset || e.Verified == "" || len(bytes.Trim(left[:luks.DataOffset], "\x00")) > 0 {
			t.Errorf("%s: %+v", name, e)
		}
		wantAudit, wantLog := 0, 0
		if strings.HasPrefix(r.KeyURI, "local:") {
			wantAudit++
		}
		if strings.Contains(r.KeyURI+r.EscrowKeyURI, "other:") {
			wantLog++
		}
		if got := audited(t, s.operator(t, "local"), keymgr.EventErase) - was; got != wantAudit {
			t.Errorf("%s: %d records in the audit log, want %d", name, got, wantAudit)
		}
		log := events(t, s.Catalogue)[logged:]
		if len(log) != wantLog || wantLog == 1 && (log[0].ID != r.ID || !strings.Contains(log[0].Detail, "read back as zeros")) {
			t.Errorf("%s: log %+v, want %d lines", name, log, wantLog)
		}
	}
}

// TestReadErasedNotices: what does not read back as zeros is not called erased.
// TestDestroyWithoutRoom: where the end of the key cannot be recorded since the file
// system is full, the disk's data makes room for that.
func TestDestroyWithoutRoom(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	c.keys = struct{ keymgr.KMS }{c.keys} // keeps no log for others
	log := filepath.Join(c.Dir(), "events.log")
	if err := os.Symlink("/dev/full", log); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Destroy(t.Context(), "db"); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("on a full file system: %v", err)
	}
	if info, err := os.Stat(r.Where()); err != nil || info.Size() != 0 {
		t.Errorf("the backing file: %v, %v", info, err)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Destroy(t.Context(), "db"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.Where()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the backing file: %v", err)
	}
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), r.ID) {
		t.Errorf("the record: %q, %v", b, err)
	}
}

func TestReadErasedNotices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	data := make([]byte, 3<<20)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if e, err := readErased(f, 16<<20); err != nil || e.Bytes != 3<<20 {
		t.Errorf("zeros: %+v, %v", e, err)
	}
	for _, at := range []int64{0, 4097, 2 << 20, 3<<20 - 1} {
		if _, err := f.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
		if _, err := readErased(f, 16<<20); !errors.Is(err, luks.ErrNotErased) {
			t.Errorf("byte %d: %v", at, err)
		}
		if _, err := f.WriteAt([]byte{0}, at); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeyScope: it is recorded, grows with the disk, and what is beyond one key's reach
// is refused everywhere.
func TestKeyScope(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	if r.KeyScopeBlocks != diskSize/16 || c.Current(r).KeyScopeBlocks != diskSize/16 {
		t.Errorf("%+v", r)
	}
	if _, _, err := c.Resize(t.Context(), "db", 2*diskSize); err != nil {
		t.Fatal(err)
	}
	if r := must(c.Get("db")); r.KeyScopeBlocks != 2*diskSize/16 || c.Current(r).KeyScopeBlocks != 2*diskSize/16 {
		t.Errorf("resized: %+v", r)
	}
	const most = 1 << 48
	if _, err := c.Create(t.Context(), CreateOptions{Name: "big", Encrypted: true, SizeBytes: most + 512, Backend: "memory:"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("create: %v", err)
	}
	if _, _, err := c.Resize(t.Context(), "db", most+512); !errors.Is(err, ErrInvalid) {
		t.Errorf("resize: %v", err)
	}
	if err := (&Record{Format: 1, Name: "db", ID: r.ID, Lineage: r.Lineage, SizeBytes: diskSize, Encrypted: true, KeyURI: "local:k", KeyScopeBlocks: most/16 + 1, SectorSize: 512, Category: Cloud, Role: Data, Backend: "memory:", Discard: DiscardUnmap, Zeroes: ZeroesWrite}).validate(); err == nil {
		t.Error("a record beyond the scope")
	}
}

// TestImportBeyondKeyScope: a header that says so is not registered.
func TestImportBeyondKeyScope(t *testing.T) {
	s := newScene(t)
	if err := os.Remove(s.recordPath("db")); err != nil {
		t.Fatal(err)
	}
	s.replace(`"key_scope_blocks":"65536"`, `"key_scope_blocks":"17592186044417"`)
	if _, err := s.Import(t.Context(), "db", "file:"+s.img("db")); !errors.Is(err, luks.ErrToken) {
		t.Errorf("import: %v", err)
	}
}
