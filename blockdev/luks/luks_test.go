package luks

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testKey is a data key whose halves differ.
func testKey(seed byte) []byte {
	k := make([]byte, keySize)
	for i := range k {
		k[i] = seed + byte(i)*7
	}
	return k
}

func testToken() Token {
	return Token{
		KeyURI:     "local:3f0c",
		KeyVersion: "2",
		Context:    map[string]string{"sealblk:disk": "lin-1", "owner": "a<b>&\"ü\u2028"},
		WrappedKey: []byte{0, 1, 2, 0xff},
		Disk: Disk{
			ID: "d-1", Lineage: "lin-1", Name: "vm <1> disk", Size: 1 << 30, SectorSize: 512,
			Role: "data", Serial: "S123", Created: time.Date(2025, 11, 23, 12, 0, 0, 5, time.UTC),
		},
	}
}

func testParams() Params { return Params{Token: testToken(), Label: "vm1"} }

func mustOpen(t *testing.T, f *memFile) *Header {
	t.Helper()
	h, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func mustToken(t *testing.T, h *Header) Token {
	t.Helper()
	tok, err := h.Token()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestFormatThenOpen(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, detached := range []bool{false, true} {
			t.Run(fmt.Sprintf("sector %d detached %v", sector, detached), func(t *testing.T) {
				p := testParams()
				p.Detached = detached
				p.Token.Disk.SectorSize = sector
				f := &memFile{}
				made, err := Format(f, p, testKey(1))
				if err != nil {
					t.Fatal(err)
				}
				h := mustOpen(t, f)
				if h.UUID() != made.UUID() || h.UUID() == "" || h.Label() != "vm1" || h.Seqid() != 1 {
					t.Errorf("opened %q %q %d, made %q", h.UUID(), h.Label(), h.Seqid(), made.UUID())
				}
				if w := h.Warnings(); w != nil {
					t.Errorf("warnings of a new header: %q", w)
				}
				if d := cmp.Diff(p.Token, mustToken(t, h)); d != "" {
					t.Error(d)
				}
				if len(f.b) != DataOffset {
					t.Errorf("file has %d bytes, want %d", len(f.b), DataOffset)
				}
				want := Extent{Offset: DataOffset, Size: 1 << 30, SectorSize: sector}
				if detached {
					want.Offset = 0
				}
				if got, err := h.Data(want.Offset + want.Size); err != nil || got != want {
					t.Errorf("data at %v, %v, want %v", got, err, want)
				}
				if _, err := h.Data(want.Offset + want.Size - 1); !errors.Is(err, ErrTooShort) {
					t.Errorf("file one byte short: %v", err)
				}
				if h.Detached() != detached || h.SectorSize() != sector || len(h.Keyslots()) != 0 {
					t.Error("header does not say what was asked for")
				}
			})
		}
	}
}

func TestVerifyKey(t *testing.T) {
	h := mustOpen(t, headOf(t, testParams(), testKey(1)))
	key := testKey(1)
	if err := h.VerifyKey(key); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, testKey(1)) {
		t.Error("the caller's key was changed")
	}
	for i := range key {
		key[i] ^= 0x80
		if err := h.VerifyKey(key); err != ErrWrongKey {
			t.Errorf("key wrong in byte %d: %v", i, err)
		}
		key[i] ^= 0x80
	}
	for _, n := range []int{0, 32, 63, 65} {
		if err := h.VerifyKey(make([]byte, n)); err != ErrKey {
			t.Errorf("key of %d bytes: %v", n, err)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	equalHalves := append(testKey(1)[:32:32], testKey(1)[:32]...)
	for name, c := range map[string]struct {
		change func(*Params)
		dk     []byte
		want   error
	}{
		"short key":             {dk: make([]byte, 32), want: ErrKey},
		"equal halves":          {dk: equalHalves, want: ErrKey},
		"uuid":                  {change: func(p *Params) { p.UUID = "not-a-uuid" }, want: ErrInvalid},
		"long label":            {change: func(p *Params) { p.Label = strings.Repeat("x", 48) }, want: ErrInvalid},
		"label with escape":     {change: func(p *Params) { p.Label = "\x1b[2J" }, want: ErrInvalid},
		"few iterations":        {change: func(p *Params) { p.Iterations = 999 }, want: ErrInvalid},
		"many iterations":       {change: func(p *Params) { p.Iterations = maxIterations + 1 }, want: ErrInvalid},
		"sector size":           {change: func(p *Params) { p.Token.Disk.SectorSize = 520 }, want: ErrInvalid},
		"size not of sectors":   {change: func(p *Params) { p.Token.Disk.Size = 513 }, want: ErrInvalid},
		"no size":               {change: func(p *Params) { p.Token.Disk.Size = 0 }, want: ErrInvalid},
		"no wrapped key":        {change: func(p *Params) { p.Token.WrappedKey = nil }, want: ErrInvalid},
		"no uri":                {change: func(p *Params) { p.Token.KeyURI = "" }, want: ErrInvalid},
		"no lineage":            {change: func(p *Params) { p.Token.Disk.Lineage = "" }, want: ErrInvalid},
		"name not utf-8":        {change: func(p *Params) { p.Token.Disk.Name = "\xff" }, want: ErrInvalid},
		"serial with newline":   {change: func(p *Params) { p.Token.Disk.Serial = "a\nb" }, want: ErrInvalid},
		"context split in rune": {change: func(p *Params) { p.Token.Context = map[string]string{"\xc3": "\xbc"} }, want: ErrInvalid},
		"size wraps":            {change: func(p *Params) { p.Token.Disk.Size = math.MaxInt64 &^ 511 }, want: ErrInvalid},
		"token too large":       {change: func(p *Params) { p.Token.Context = bigContext(12) }, want: ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			p, dk := testParams(), testKey(1)
			if c.change != nil {
				c.change(&p)
			}
			if c.dk != nil {
				dk = c.dk
			}
			f := &memFile{}
			if _, err := Format(f, p, dk); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if len(f.events) != 0 {
				t.Error("something was written")
			}
		})
	}
}

// bigContext is a legal context of about n KiB.
func bigContext(n int) map[string]string {
	m := make(map[string]string)
	for i := range n {
		m[fmt.Sprint(i)] = strings.Repeat("x", maxText)
	}
	return m
}

func TestFormatKeepsExistingHeaders(t *testing.T) {
	luks1 := make([]byte, 4096)
	copy(luks1, "LUKS\xba\xbe\x00\x01")
	second := make([]byte, 1<<20)
	copy(second[0x8000:], magicSecond)
	for name, f := range map[string]*memFile{
		"ours":                         headOf(t, testParams(), testKey(1)),
		"luks1":                        {b: luks1},
		"first copy gone, other place": {b: second},
	} {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(f.b)
			if _, err := Format(f, testParams(), testKey(2)); !errors.Is(err, ErrExists) {
				t.Errorf("got %v, want %v", err, ErrExists)
			}
			if !bytes.Equal(before, f.b) {
				t.Error("the file was changed")
			}
			p := testParams()
			p.Overwrite = true
			h, err := Format(f, p, testKey(2))
			if err != nil {
				t.Fatal(err)
			}
			if err := h.VerifyKey(testKey(2)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFormatLeavesDataAlone(t *testing.T) {
	f := &memFile{b: bytes.Repeat([]byte{0xaa}, DataOffset+4096)}
	if _, err := Format(f, testParams(), testKey(1)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.b[DataOffset:], bytes.Repeat([]byte{0xaa}, 4096)) {
		t.Error("data behind the header was changed")
	}
	if !allZero(f.b[2*defaultHdrSize : DataOffset]) {
		t.Error("key slot area still holds old bytes")
	}
}

func TestOpenTellsWhatIsThere(t *testing.T) {
	luks1 := make([]byte, 4096)
	copy(luks1, "LUKS\xba\xbe\x00\x01")
	bad := headOf(t, testParams(), testKey(1))
	bad.b[5000]++
	bad.b[0x4000+5000]++
	for name, c := range map[string]struct {
		f    *memFile
		want error
		text string
	}{
		"empty":    {&memFile{}, ErrNoHeader, ""},
		"zeros":    {&memFile{b: make([]byte, 1<<20)}, ErrNoHeader, ""},
		"luks1":    {&memFile{b: luks1}, ErrUnsupported, "LUKS1"},
		"both bad": {bad, ErrDamaged, "first copy at byte 0: checksum does not match; second copy at byte 16384: checksum does not match"},
		"cut off":  {&memFile{b: bad.b[:0x2000]}, ErrDamaged, "file ends at byte 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(c.f)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

// TestEveryByteOfBothCopies: a flipped byte anywhere in a copy makes that copy a
// warning and changes nothing else; in both copies it is an error.
func TestEveryByteOfBothCopies(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	good := mustOpen(t, f)
	for i := range defaultHdrSize {
		for c := range 2 {
			f.b[c*defaultHdrSize+i] ^= 0x10
			h := mustOpen(t, f)
			if len(h.Warnings()) != 1 || h.Copies()[c].Err == nil || !h.Copies()[1-c].Used {
				t.Fatalf("byte %d of copy %d: warnings %q", i, c, h.Warnings())
			}
			if !bytes.Equal(h.doc.encode(), good.doc.encode()) || h.UUID() != good.UUID() {
				t.Fatalf("byte %d of copy %d: other content", i, c)
			}
			f.b[c*defaultHdrSize+i] ^= 0x10
		}
	}
	for i := 0; i < defaultHdrSize; i += 61 {
		f.b[i] ^= 0x10
		f.b[defaultHdrSize+i] ^= 0x10
		if _, err := Open(f); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNoHeader) {
			t.Fatalf("byte %d of both copies: %v", i, err)
		}
		f.b[i] ^= 0x10
		f.b[defaultHdrSize+i] ^= 0x10
	}
	if len(f.events) != 0 {
		t.Error("Open wrote")
	}
}

// TestUnreadableCopy: a bad sector under one copy is no reason to lose the disk.
func TestUnreadableCopy(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	h, err := Open(badSector{f, 512})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(h.Copies()[0].Err, syscall.EIO) {
		t.Errorf("first copy: %v", h.Copies()[0].Err)
	}
	clear(f.b[0x4000:])
	if _, err := Open(badSector{f, 512}); !errors.Is(err, syscall.EIO) || !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

type badSector struct {
	*memFile
	at int64
}

func (b badSector) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	return b.memFile.ReadAt(p, off)
}

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
	if _, err := Open(f); err != ErrNoHeader {
		t.Errorf("open after erase: %v", err)
	}
	if err := Erase(f); err != ErrNoHeader {
		t.Errorf("erase of a file without header: %v", err)
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
