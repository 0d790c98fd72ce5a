package luks

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/sealblk-v*.gz again")

// golden reads the first 32 KiB of a container from testdata.
func golden(t testing.TB, name string) *memFile {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.LimitReader(z, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return &memFile{b: b}
}

// goldens are disks by the version of their token.
var goldens = map[string]func() Params{
	"sealblk-v1.gz": goldenParams,
	"sealblk-v2.gz": func() Params {
		p := goldenParams()
		p.Token.KeyScopeBlocks = p.Token.Disk.Blocks()
		p.Token.Escrow = &Escrow{KeyURI: "vault:transit/k", KeyVersion: "3", WrappedKey: []byte("other")}
		return p
	},
}

// TestGolden: a disk of each release opens for ever, and is written the same way, bit by
// bit.
func TestGolden(t *testing.T) {
	for name, params := range goldens {
		t.Run(name, func(t *testing.T) { testGolden(t, name, params()) })
	}
}

func testGolden(t *testing.T, name string, p Params) {
	if *update {
		writeGolden(t, name, p)
	}
	f := golden(t, name)
	h := mustOpen(t, f)
	if h.UUID() != "0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9" || h.Label() != "golden" || h.Seqid() != 1 || h.Warnings() != nil {
		t.Errorf("UUID %q, label %q, seqid %d, warnings %q", h.UUID(), h.Label(), h.Seqid(), h.Warnings())
	}
	if d := cmp.Diff(p.Token, mustToken(t, h)); d != "" {
		t.Error(d)
	}
	if err := h.VerifyKey(testKey(9)); err != nil {
		t.Error(err)
	}
	sameBytes(t, f, h, p)
}

// sameBytes writes the header again, with the golden salts.
func sameBytes(t *testing.T, f *memFile, h *Header, p Params) {
	t.Helper()
	doc, err := newMetadata(&p.Token, DataOffset, h.meta.digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int{0, defaultHdrSize} {
		old := image(f.b[off:][:defaultHdrSize])
		now := newBinary(p.UUID, p.Label).derive(uint64(off), 1, old[offSalt:][:sizeSalt], doc.encode())
		if !bytes.Equal(old, now) {
			t.Errorf("copy at byte %d would be written in another way", off)
		}
	}
}

func goldenParams() Params {
	p := testParams()
	p.UUID, p.Label = "0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9", "golden"
	return p
}

func writeGolden(t *testing.T, name string, p Params) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(headOf(t, p, testKey(9)).b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenOfCryptsetup: made by cryptsetup 2.6.1, with a passphrase, 4096-byte
// sectors and the key of testKey(3), so that it is read where cryptsetup is missing.
func TestGoldenOfCryptsetup(t *testing.T) {
	f := golden(t, "cryptsetup-2.6.1.gz")
	h := mustOpen(t, f)
	if err := h.VerifyKey(testKey(3)); err != nil {
		t.Error(err)
	}
	if !slices.Equal(h.Keyslots(), []string{"0"}) || h.SectorSize() != 4096 || h.Detached() {
		t.Errorf("key slots %q, sector size %d", h.Keyslots(), h.SectorSize())
	}
	if n, fixed := h.Size(); fixed {
		t.Errorf("size %d, want to the end of the device", n)
	}
	slots, _ := h.doc.get("keyslots")
	if err := Update(f, h, func(h *Header) error { return h.Resize(1 << 20) }); err != nil {
		t.Fatal(err)
	}
	if now, _ := h.doc.get("keyslots"); !bytes.Equal(now, slots) {
		t.Errorf("key slots are now %s", now)
	}
}
