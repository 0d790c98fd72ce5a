package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// auditOf is the whole log, which must be whole.
func auditOf(t *testing.T, k *KMS) []Entry {
	t.Helper()
	var entries []Entry
	if err := k.AuditLog(t.Context(), func(e Entry) { entries = append(entries, e) }); err != nil {
		t.Fatal(err)
	}
	return entries
}

// told is an entry in one line, without its time.
func told(e Entry) string {
	s := fmt.Sprintf("%d %s %s %s/%d", e.Number, e.Principal, e.Operation, e.Key, e.Version)
	if e.ToKey != "" {
		s += fmt.Sprintf(" to %s/%d", e.ToKey, e.ToVersion)
	}
	if e.Context != nil {
		s += fmt.Sprint(" ", e.Context)
	}
	return strings.TrimSpace(s+" "+e.Detail) + ": " + e.Result
}

func TestEveryCallIsRecorded(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	service := k.As(DiskService)
	info, err := k.CreateKey(ctx, CreateOptions{Alias: "alias/a"})
	if err != nil {
		t.Fatal(err)
	}
	id := info.KeyID
	service.GenerateDataKeyWithoutPlaintext(ctx, "alias/a", disk("1"))
	k.Authorize(ctx, id, DiskService, []Permission{Generate, Decrypt, ReEncrypt})
	dk, w := generate(t, k, "alias/a")
	k.RotateKey(ctx, id)
	wantOpens(t, k, w, dk)
	service.Decrypt(ctx, w, disk("2"))
	to, err := service.ReEncrypt(ctx, w, disk("1"), "")
	if err != nil {
		t.Fatal(err)
	}
	serviceKey := strings.TrimPrefix(to.URI, "local:")
	k.DisableKey(ctx, id)
	service.Decrypt(ctx, w, disk("1"))
	k.DescribeKey(ctx, "alias/none")
	service.Decrypt(ctx, keymgr.WrappedKey{URI: "local:x"}, disk("1"))
	k.ListKeys(ctx)
	want := []string{
		"1 operator CreateKey " + id + "/1 alias/a: ok",
		"2 disk-service GenerateDataKeyWithoutPlaintext " + id + "/0 map[sealblk:disk:1]: Forbidden.NoPermission",
		"3 operator Authorize " + id + "/0 disk-service [generate decrypt reencrypt]: ok",
		"4 disk-service GenerateDataKey " + id + "/1 map[sealblk:disk:1]: ok",
		"5 operator RotateKey " + id + "/2: ok",
		"6 disk-service Decrypt " + id + "/1 map[sealblk:disk:1]: ok",
		"7 disk-service Decrypt " + id + "/1 map[sealblk:disk:2]: InvalidEncryptionContext",
		"8 disk-service CreateKey " + serviceKey + "/1 alias/acs/ecs: ok",
		"9 disk-service ReEncrypt " + id + "/1 to " + serviceKey + "/1 map[sealblk:disk:1]: ok",
		"10 operator DisableKey " + id + "/0: ok",
		"11 disk-service Decrypt " + id + "/1 map[sealblk:disk:1]: Rejected.Disabled",
		"12 operator DescribeKey alias/none/0: Forbidden.AliasNotFound",
		"13 disk-service Decrypt local:x/0 map[sealblk:disk:1]: InvalidCiphertext",
		"14 operator ListKeys /0: ok",
	}
	var got []string
	for _, e := range auditOf(t, k) {
		got = append(got, told(e))
		if !e.Time.Equal(noon) {
			t.Errorf("record %d has the time %v", e.Number, e.Time)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("log\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := service.AuditLog(ctx, func(Entry) {}); !errors.Is(err, keymgr.ErrAccessDenied) {
		t.Errorf("the disk service reads the log: %v", err)
	}
}

// longLog is a closed KMS whose log has records that are synced and records that are
// not yet.
func longLog(t *testing.T) (dir string, records int) {
	t.Helper()
	k := newKMS(t)
	records = maxTail + maxTail/2
	for range records {
		if _, err := k.ListKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	k.Close()
	return k.store.dir, records
}

// verify opens a KMS and looks at its log.
func verify(t *testing.T, dir string) (uint64, error) {
	t.Helper()
	k, err := Open(dir, Options{})
	if err != nil {
		return 0, err
	}
	defer k.Close()
	return k.VerifyAudit(t.Context())
}

func TestAlteredAuditLogIsNamed(t *testing.T) {
	dir, records := longLog(t)
	path := dir + "/" + auditFile
	good := readFile(t, path)
	lines := bytes.SplitAfter(good, []byte("\n"))
	join := func(parts ...[][]byte) []byte { return bytes.Join(slices.Concat(parts...), nil) }
	edited := slices.Clone(lines)
	edited[4] = bytes.Replace(lines[4], []byte(`"ok"`), []byte(`"no"`), 1)
	swapped := slices.Clone(lines)
	swapped[2], swapped[3] = lines[3], lines[2]
	for _, c := range []struct {
		what string
		log  []byte
		bad  int // the first bad record
	}{
		{"edited", join(edited), 5},
		{"removed", join(lines[:6], lines[7:]), 7},
		{"swapped", join(swapped), 3},
		{"doubled and one left out", join(lines[:9], lines[8:9], lines[10:]), 10},
		{"cut in a record", good[:len(join(lines[:3]))+20], 4},
		{"cut behind a record", join(lines[:7]), 8},
		{"emptied", nil, 1},
	} {
		writeFile(t, path, c.log)
		_, err := verify(t, dir)
		wantDamage(t, c.what, err, fmt.Sprintf("record %d ", c.bad))
	}
	writeFile(t, path, append(bytes.Clone(good), lines[0]...))
	_, err := verify(t, dir)
	wantDamage(t, "added to", err, auditFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = verify(t, dir)
	wantDamage(t, "missing", err, "record 1 ")
	writeFile(t, path, good)
	if n, err := verify(t, dir); err != nil || n != uint64(records) {
		t.Errorf("restored: %d records, %v", n, err)
	}
}

// TestDamagedLogDoesNotStopTheKMS: an unwrap matters more than the log's past.
func TestDamagedLogDoesNotStopTheKMS(t *testing.T) {
	dir, records := longLog(t)
	if err := os.Truncate(dir+"/"+auditFile, 10); err != nil {
		t.Fatal(err)
	}
	k := openAt(t, dir)
	dk, w := generate(t, k, "")
	wantOpens(t, k, w, dk)
	_, err := k.VerifyAudit(t.Context())
	wantDamage(t, "cut log", err, "record 1 ")
	if count := k.count(t); count != uint64(records)+3 {
		t.Errorf("%d records are counted, want %d", count, records+3)
	}
}

func (k *KMS) count(t *testing.T) uint64 {
	t.Helper()
	s, err := k.store.begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	return s.index.Audit.Count
}

// TestTornLogIsClosed: what a crash of the host tears off the log is in the index.
func TestTornLogIsClosed(t *testing.T) {
	dir, records := longLog(t)
	path := dir + "/" + auditFile
	good := readFile(t, path)
	durable := bytes.Index(good, fmt.Appendf(nil, `{"number":%d,`, maxTail+1))
	for n := len(good); n >= durable; n -= 7 {
		for _, torn := range [][]byte{good[:n], append(bytes.Clone(good[:n]), make([]byte, len(good)-n)...)} {
			writeFile(t, path, torn)
			if got, err := verify(t, dir); err != nil || got != uint64(records) {
				t.Fatalf("torn at %d: %d records, %v", n, got, err)
			}
		}
	}
	if !bytes.Equal(readFile(t, path), good) {
		t.Error("the log was not mended")
	}
}

func TestForgedLogNeedsTheRootKey(t *testing.T) {
	dir, _ := longLog(t)
	other, _ := longLog(t)
	path := dir + "/" + auditFile
	writeFile(t, path, readFile(t, other+"/"+auditFile))
	_, err := verify(t, dir)
	wantDamage(t, "another KMS's log", err, "record 1 ")
}

// TestIndexPutBackAfterUnwrap: the log shows it where no key has changed.
func TestIndexPutBackAfterUnwrap(t *testing.T) {
	k := newKMS(t)
	dk, w := generate(t, k, "")
	path := k.store.path(indexFile)
	old := readFile(t, path)
	wantOpens(t, k, w, dk)
	writeFile(t, path, old)
	_, err := k.As(DiskService).Decrypt(t.Context(), w, disk("1"))
	wantDamage(t, "index put back", err, path)
}

// TestUnrecordedCallFails: no data key leaves without a record.
func TestUnrecordedCallFails(t *testing.T) {
	k := newKMS(t)
	_, w := generate(t, k, "")
	k.store.step = func(string, string) error { return errDisk }
	dk, err := k.As(DiskService).Decrypt(t.Context(), w, disk("1"))
	if dk != nil || !errors.Is(err, errDisk) {
		t.Errorf("Decrypt without a record: %v", err)
	}
}

func FuzzParseAuditLine(f *testing.F) {
	var h auditHead
	if err := h.add([]byte("key"), Entry{Operation: "Decrypt", Key: "key-1", Context: disk("1"), Result: ResultOK}); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(h.Tail[0]))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, wrong := parseAuditLine(data)
		if wrong != "" {
			return
		}
		c := chain{key: []byte("key")}
		if _, wrong := c.next(data); wrong == "" && !bytes.Equal(data, h.Tail[0]) {
			t.Fatalf("a forged record %+v was accepted", l)
		}
	})
}
