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
		if err := h.VerifyKey(key); !errors.Is(err, ErrWrongKey) {
			t.Errorf("key wrong in byte %d: %v", i, err)
		}
		key[i] ^= 0x80
	}
	for _, n := range []int{0, 32, 63, 65} {
		if err := h.VerifyKey(make([]byte, n)); !errors.Is(err, ErrKey) {
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
	step := 1
	if raceEnabled {
		// One goroutine: the detector only makes it twenty times slower.
		step = 37
	}
	for i := 0; i < defaultHdrSize; i += step {
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
	for i := 0; i < defaultHdrSize; i += step {
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
