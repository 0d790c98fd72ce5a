package luks

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpdateToken(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	h := mustOpen(t, f)
	want := testToken()
	want.KeyURI, want.KeyVersion, want.WrappedKey = "vault:transit/k", "9", []byte("other")
	if err := Update(f, h, func(h *Header) error { return h.SetToken(want) }); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Header{h, mustOpen(t, f)} {
		if d := cmp.Diff(want, mustToken(t, h)); d != "" {
			t.Error(d)
		}
		if h.Seqid() != 2 || h.Warnings() != nil || h.VerifyKey(testKey(1)) != nil {
			t.Errorf("seqid %d, warnings %q", h.Seqid(), h.Warnings())
		}
	}
}

func TestUpdateResize(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	h := mustOpen(t, f)
	if err := Update(f, h, func(h *Header) error { return h.Resize(2 << 30) }); err != nil {
		t.Fatal(err)
	}
	h = mustOpen(t, f)
	if n, ok := h.Size(); !ok || n != 2<<30 || mustToken(t, h).Disk.Size != 2<<30 {
		t.Errorf("size %d", n)
	}
	for _, n := range []int64{0, -512, 513, math.MaxInt64 &^ 511} {
		if err := Update(f, h, func(h *Header) error { return h.Resize(n) }); !errors.Is(err, ErrInvalid) {
			t.Errorf("resize to %d: %v", n, err)
		}
	}
}

// TestUpdateMends: whichever copy is bad, and however, an update makes both good.
func TestUpdateMends(t *testing.T) {
	older := headOf(t, testParams(), testKey(1))
	newer := older.head()
	if err := Update(newer, mustOpen(t, newer), nil); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(f *memFile){
		"first erased":    func(f *memFile) { clear(f.b[:0x4000]) },
		"second erased":   func(f *memFile) { clear(f.b[0x4000:0x8000]) },
		"first checksum":  func(f *memFile) { f.b[0x1005]++ },
		"second checksum": func(f *memFile) { f.b[0x5005]++ },
		"first older":     func(f *memFile) { copy(f.b, older.b[:0x4000]) },
		"second older":    func(f *memFile) { copy(f.b[0x4000:], older.b[0x4000:]) },
		"second missing":  func(f *memFile) { f.b = f.b[:0x4000] },
	} {
		t.Run(name, func(t *testing.T) {
			f := newer.head()
			spoil(f)
			h := mustOpen(t, f)
			if h.Seqid() != 2 || len(h.Warnings()) != 1 {
				t.Fatalf("seqid %d, warnings %q", h.Seqid(), h.Warnings())
			}
			if err := Update(f, h, nil); err != nil {
				t.Fatal(err)
			}
			h = mustOpen(t, f)
			if h.Warnings() != nil || h.Seqid() != 3 || h.VerifyKey(testKey(1)) != nil {
				t.Errorf("after the update: seqid %d, warnings %q", h.Seqid(), h.Warnings())
			}
		})
	}
}

func TestUpdateWritesNothingWhenRefused(t *testing.T) {
	mine := errors.New("changed my mind")
	bad := testToken()
	bad.Disk.Size += 512
	big := testToken()
	big.Context = bigContext(12)
	for name, c := range map[string]struct {
		change func(*Header) error
		want   error
	}{
		"callback":           {func(*Header) error { return mine }, mine},
		"size of the token":  {func(h *Header) error { return h.SetToken(bad) }, ErrInvalid},
		"JSON area is full":  {func(h *Header) error { return h.SetToken(big) }, ErrFull},
		"token not complete": {func(h *Header) error { return h.SetToken(Token{Disk: testToken().Disk}) }, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			f := headOf(t, testParams(), testKey(1))
			before := bytes.Clone(f.b)
			h := mustOpen(t, f)
			if err := Update(f, h, c.change); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if len(f.events) != 0 || !bytes.Equal(before, f.b) {
				t.Error("something was written")
			}
			if h.Seqid() != 1 || h.checkToken(ptr(mustToken(t, h))) != nil {
				t.Error("the caller's header was changed")
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// TestJSONAreaExactlyFull: the last byte of the area is the terminator.
func TestJSONAreaExactlyFull(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	h := mustOpen(t, f)
	room := defaultHdrSize - binarySize - 1 - len(h.doc.encode())
	fill := func(n int) func(*Header) error {
		return func(h *Header) error {
			pad := object(nil).with("type", quote("x")).with("keyslots", []byte("[]")).with("p", nil)
			over := len(pad.encode()) + len(`,"1":""`)
			pad = pad.with("p", quote(strings.Repeat("p", n-over)))
			tokens, err := h.doc.section("tokens")
			h.doc = h.doc.with("tokens", tokens.with("1", pad.encode()).encode())
			return err
		}
	}
	if err := Update(f, h, fill(room+1)); !errors.Is(err, ErrFull) {
		t.Fatalf("one byte too many: %v", err)
	}
	if err := Update(f, h, fill(room)); err != nil {
		t.Fatal(err)
	}
	if h = mustOpen(t, f); f.b[0x3fff] != 0 || f.b[0x3ffe] != '}' || h.Warnings() != nil {
		t.Errorf("area is not full: warnings %q", h.Warnings())
	}
}

func TestUpdateOfAnotherDisk(t *testing.T) {
	a, b := headOf(t, testParams(), testKey(1)), headOf(t, testParams(), testKey(1))
	if err := Update(b, mustOpen(t, a), nil); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

// TestUpdateMergesForeignChange: what somebody wrote after we opened is not lost.
func TestUpdateMergesForeignChange(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	mine, theirs := mustOpen(t, f), mustOpen(t, f)
	foreign := []byte(`{"type":"x-luks2","keyslots":[],"odd" : [1e400, -0, "\u00e9\ud800", {"a":{}}] }`)
	err := Update(f, theirs, func(h *Header) error {
		tokens, err := h.doc.section("tokens")
		h.doc = h.doc.with("tokens", tokens.with("7", foreign).encode()).with("future", []byte(`[ null,true]`))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Update(f, mine, func(h *Header) error { return h.Resize(4096) }); err != nil {
		t.Fatal(err)
	}
	h := mustOpen(t, f)
	tokens, _ := h.doc.section("tokens")
	if got, _ := tokens.get("7"); !bytes.Equal(got, foreign) {
		t.Errorf("foreign token is now %s", got)
	}
	if got, _ := h.doc.get("future"); string(got) != `[ null,true]` {
		t.Errorf("unknown member is now %s", got)
	}
	if n, _ := h.Size(); n != 4096 || h.Seqid() != 3 {
		t.Errorf("size %d, seqid %d", n, h.Seqid())
	}
}

func TestErase(t *testing.T) {
	f := &memFile{b: bytes.Repeat([]byte{0xaa}, DataOffset+4096)}
	if _, err := Format(f, testParams(), testKey(1)); err != nil {
		t.Fatal(err)
	}
	copy(f.b[0x9000:], "a passphrase slot")
	if err := Erase(f); err != nil {
		t.Fatal(err)
	}
	if !allZero(f.b[:DataOffset]) || f.b[DataOffset] != 0xaa {
		t.Error("erased too little or too much")
	}
	if _, err := Open(f); !errors.Is(err, ErrNoHeader) {
		t.Errorf("open after erase: %v", err)
	}
	if err := Erase(f); !errors.Is(err, ErrNoHeader) {
		t.Errorf("erase of a file without header: %v", err)
	}
}

// fullFile is on a file system that has no block left for a hole.
type fullFile struct{ *memFile }

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	const block = 4096
	for b := off / block * block; b < off+int64(len(p)); b += block {
		if allZero(f.b[b : b+block]) {
			return 0, syscall.ENOSPC
		}
	}
	return f.memFile.WriteAt(p, off)
}

// TestEraseWithoutRoom: a full file system is why a disk is deleted.
func TestEraseWithoutRoom(t *testing.T) {
	f := fullFile{headOf(t, testParams(), testKey(1))}
	f.b = append(f.b, make([]byte, DataOffset-len(f.b))...)
	copy(f.b[0x9000:], "a passphrase slot")
	if err := Erase(f); err != nil {
		t.Fatal(err)
	}
	if !allZero(f.b) {
		t.Error("not all was erased")
	}
}

func TestEraseOfDamagedHeader(t *testing.T) {
	f := &memFile{}
	if _, err := Format(f, testParams(), testKey(1)); err != nil {
		t.Fatal(err)
	}
	clear(f.b[:0x4000])
	f.b[0x4000+700]++
	copy(f.b[0x9000:], "a passphrase slot")
	if err := Erase(f); err != nil {
		t.Fatal(err)
	}
	if !allZero(f.b) {
		t.Error("not all was erased")
	}
}

func TestEraseNotices(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	f.lost = true
	if err := Erase(f); !errors.Is(err, ErrNotErased) {
		t.Errorf("writes were lost: %v", err)
	}
	f.fail = func(int64) error { return syscall.EIO }
	if err := Erase(f); !errors.Is(err, syscall.EIO) {
		t.Errorf("writes failed: %v", err)
	}
}

func TestUpdateReportsFailedWrites(t *testing.T) {
	for _, bad := range []int64{0, 0x4000} {
		f := headOf(t, testParams(), testKey(1))
		h := mustOpen(t, f)
		f.fail = func(off int64) error {
			if off == bad {
				return syscall.ENOSPC
			}
			return nil
		}
		if err := Update(f, h, nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write at %d failed: %v", bad, err)
		}
		if h.Seqid() != 1 {
			t.Error("the caller's header was changed")
		}
		mustOpen(t, f)
	}
}
