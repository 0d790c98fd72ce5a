package kmip

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/secret"
)

func random(t *testing.T, size int) *secret.Buffer {
	t.Helper()
	b, err := secret.Random(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	return b
}

func mustBind(t testing.TB, ec keymgr.Context) binding {
	t.Helper()
	b, err := bind(ec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newBlob wraps a data key in this process.
func newBlob(t *testing.T, kek, dk *secret.Buffer, b binding) []byte {
	t.Helper()
	s, err := seal(kek, dk, b.aad)
	if err != nil {
		t.Fatal(err)
	}
	return s.encode(b)
}

func TestBlob(t *testing.T) {
	kek, dk, b := random(t, 32), random(t, keymgr.DataKeySize), mustBind(t, kmstest.Disk("1"))
	blob := newBlob(t, kek, dk, b)
	if len(blob) != blobSize || bytes.Contains(blob, dk.Bytes()[:16]) {
		t.Fatalf("blob %x", blob)
	}
	s, err := parseBlob("k", blob, b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unseal(kek, s, b.aad)
	if err != nil || got == nil || !got.Equal(dk) {
		t.Fatalf("unseal: %v", err)
	}
	got.Destroy()
	if again := newBlob(t, kek, dk, b); bytes.Equal(again[blobNonce:blobText], blob[blobNonce:blobText]) {
		t.Error("a nonce was used twice")
	}
}

func TestBlobOfAnotherContext(t *testing.T) {
	kek, dk := random(t, 32), random(t, keymgr.DataKeySize)
	blob := newBlob(t, kek, dk, mustBind(t, kmstest.Disk("1")))
	for _, ec := range []keymgr.Context{kmstest.Disk("2"), nil, {keymgr.ContextDisk: "1", "x": ""}} {
		_, err := parseBlob("k", blob, mustBind(t, ec))
		kmstest.WantError(t, "another context", err, keymgr.ErrContextMismatch, CodeContext)
	}
}

func TestEveryBitOfABlobCounts(t *testing.T) {
	kek, dk, b := random(t, 32), random(t, keymgr.DataKeySize), mustBind(t, kmstest.Disk("1"))
	blob := newBlob(t, kek, dk, b)
	for bit := range 8 * len(blob) {
		bad := bytes.Clone(blob)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := parseBlob("k", bad, b); !errors.Is(err, keymgr.ErrCorrupt) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
	for size := range len(blob) {
		if _, err := parseBlob("k", blob[:size], b); !errors.Is(err, keymgr.ErrCorrupt) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}

// Whoever computes checksum and digest anew still meets the tag.
func TestForgedBlob(t *testing.T) {
	kek, dk := random(t, 32), random(t, keymgr.DataKeySize)
	one, two := mustBind(t, kmstest.Disk("1")), mustBind(t, kmstest.Disk("2"))
	s, err := parseBlob("k", newBlob(t, kek, dk, one), one)
	if err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]sealed{
		"for another disk": s,
		"another text":     {s.nonce, bytes.Repeat([]byte{1}, len(s.text)), s.tag},
	} {
		p, err := parseBlob("k", forged.encode(two), two)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unseal(kek, p, two.aad); got != nil || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func FuzzParseBlob(f *testing.F) {
	b := mustBind(f, kmstest.Disk("1"))
	good := sealed{make([]byte, nonceSize), make([]byte, keymgr.DataKeySize), make([]byte, tagSize)}.encode(b)
	f.Add(good)
	f.Add(good[:blobSum])
	f.Add(make([]byte, sha256.Size))
	f.Fuzz(func(t *testing.T, blob []byte) {
		s, err := parseBlob("k", blob, b)
		if err != nil {
			if !errors.Is(err, keymgr.ErrCorrupt) && !errors.Is(err, keymgr.ErrContextMismatch) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(s.encode(b), blob) {
			t.Fatalf("%x is not in the form in which it was written", blob)
		}
	})
}
