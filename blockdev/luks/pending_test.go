package luks

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pendingHead is the header area of a container without a digest.
func pendingHead(t *testing.T) *memFile {
	t.Helper()
	f := &memFile{}
	p := testParams()
	p.Token.KeyScopeBlocks = p.Token.Disk.Blocks()
	if _, err := FormatPending(f, p); err != nil {
		t.Fatal(err)
	}
	return f.head()
}

func bind(f *memFile, h *Header, key []byte) error {
	return Update(f, h, func(h *Header) error { return h.BindDigest(key) })
}

// TestPendingDigest: no key is the right one until one is bound, then that one only.
func TestPendingDigest(t *testing.T) {
	f := pendingHead(t)
	h := mustOpen(t, f)
	if !h.DigestPending() || !mustToken(t, h).DigestPending || h.Warnings() != nil {
		t.Errorf("pending %v, token %+v, warnings %q", h.DigestPending(), mustToken(t, h), h.Warnings())
	}
	for _, key := range [][]byte{testKey(1), make([]byte, keySize)} {
		if err := h.VerifyKey(key); !errors.Is(err, ErrDigestPending) {
			t.Errorf("key %x before: %v", key[:2], err)
		}
	}
	if err := bind(f, h, make([]byte, keySize)); !errors.Is(err, ErrKey) {
		t.Errorf("bound a weak key: %v", err)
	}
	if err := bind(f, h, testKey(1)); err != nil {
		t.Fatal(err)
	}
	h = mustOpen(t, f)
	if h.DigestPending() || mustToken(t, h).DigestPending || h.VerifyKey(testKey(1)) != nil || h.Seqid() != 2 {
		t.Error("the key is not bound")
	}
	if err := h.VerifyKey(testKey(2)); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	if err := bind(f, h, testKey(2)); !errors.Is(err, ErrNotPending) {
		t.Errorf("bound another key: %v", err)
	}
}

// TestHalfPending: a header in which one of the two marks was changed opens with
// nothing and takes no key.
func TestHalfPending(t *testing.T) {
	zeros := quoteBytes(make([]byte, 32))
	for name, change := range map[string]func() *Header{
		"sum of zeros in a made disk": func() *Header {
			doc := mustOpen(t, headOf(t, testParams(), testKey(1))).doc
			digests, _ := doc.section("digests")
			d, _ := digests.section("0")
			return mustOpen(t, seal(doc.with("digests", digests.with("0", d.with("digest", zeros).encode()).encode()).encode()))
		},
		"mark taken off": func() *Header {
			text := mustOpen(t, pendingHead(t)).doc.encode()
			return mustOpen(t, seal(bytes.Replace(text, []byte(`,"digest":"pending"`), nil, 1)))
		},
	} {
		h := change()
		if _, err := h.Token(); !errors.Is(err, ErrToken) {
			t.Errorf("%s: token %v", name, err)
		}
		if err := h.VerifyKey(testKey(1)); !errors.Is(err, ErrDigestPending) {
			t.Errorf("%s: key %v", name, err)
		}
		if err := h.BindDigest(testKey(1)); !errors.Is(err, ErrToken) {
			t.Errorf("%s: bind %v", name, err)
		}
	}
}

// TestSetTokenKeepsTheMark: a caller cannot put a disk back to pending, nor call one
// made whose key nobody has seen.
func TestSetTokenKeepsTheMark(t *testing.T) {
	for _, f := range []*memFile{pendingHead(t), headOf(t, testParams(), testKey(1))} {
		h := mustOpen(t, f)
		tok := mustToken(t, h)
		tok.DigestPending = !tok.DigestPending
		if err := h.SetToken(tok); !errors.Is(err, ErrInvalid) {
			t.Errorf("set to %v: %v", tok.DigestPending, err)
		}
	}
}

// TestBindSurvivesPowerCut: at every moment the header is pending, or has the digest of
// the key.
func TestBindSurvivesPowerCut(t *testing.T) {
	f := pendingHead(t)
	f.events = nil
	start := slices.Clone(f.b)
	if err := bind(f, mustOpen(t, f), testKey(1)); err != nil {
		t.Fatal(err)
	}
	seen := map[bool]int{}
	crashes(t, start, f.events, func(state []byte, durable int) {
		h := mustOpen(t, &memFile{b: state})
		pending := mustToken(t, h).DigestPending
		seen[pending]++
		want := error(nil)
		if pending {
			want = ErrDigestPending
		}
		if err := h.VerifyKey(testKey(1)); !errors.Is(err, want) {
			t.Fatalf("after %d syncs: %v", durable, err)
		}
	})
	if seen[true] < 2 || seen[false] < 2 {
		t.Errorf("states seen: %v", seen)
	}
}

// TestCryptsetupOnPending: it reads the header, opens nothing with it, and the disk as
// any other once the key is bound.
func TestCryptsetupOnPending(t *testing.T) {
	f := pendingHead(t)
	size := DataOffset + testToken().Disk.Size
	path := writeFile(t, "disk", f.b)
	truncate(t, path, size)
	if dump := mustCryptsetup(t, "luksDump", path); !strings.Contains(dump, "0: sealblk") {
		t.Errorf("luksDump:\n%s", dump)
	}
	for _, key := range [][]byte{testKey(1), make([]byte, keySize)} {
		if out, err := openByCryptsetup(t, path, key); err == nil {
			t.Errorf("opened while pending: %s", out)
		}
	}
	if err := bind(f, mustOpen(t, f), testKey(1)); err != nil {
		t.Fatal(err)
	}
	path = writeFile(t, "disk", f.b)
	truncate(t, path, size)
	if out, err := openByCryptsetup(t, path, testKey(1)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := openByCryptsetup(t, path, testKey(2)); err == nil {
		t.Errorf("opened with another key: %s", out)
	}
}

func fullToken() Token {
	t := testToken()
	t.KeyScopeBlocks = t.Disk.Blocks() + 7
	t.Escrow = &Escrow{KeyURI: "vault:transit/k", KeyVersion: "3", WrappedKey: []byte("other")}
	return t
}

func TestTokenVersion2RoundTrip(t *testing.T) {
	for _, change := range []func(*Token){
		func(*Token) {}, func(t *Token) { t.Escrow = nil }, func(t *Token) { t.DigestPending = true },
		func(t *Token) { t.Escrow.KeyVersion = "" },
	} {
		want := fullToken()
		change(&want)
		raw, err := want.encode([]byte("[]"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseToken(raw)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestTokenVersion2IsStrict(t *testing.T) {
	tok := fullToken()
	tok.DigestPending = true
	raw, err := tok.encode([]byte("[]"))
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	for _, c := range [][2]string{
		{`"version":2`, `"version":1`},
		{`"version":2`, `"version":2,"new":1`},
		{`"digest":"pending"`, `"digest":"made"`},
		{`"digest":"pending"`, `"digest":true`},
		{`"key_scope_blocks":"67108871"`, `"key_scope_blocks":"67108863"`}, // the disk has more
		{`"key_scope_blocks":"67108871"`, `"key_scope_blocks":"0"`},
		{`"key_scope_blocks":"67108871"`, `"key_scope_blocks":67108871`},
		{`"key_scope_blocks":"67108871"`, `"key_scope_blocks":"17592186044417"`}, // 2^44 + 1
		{`"escrow":{`, `"escrow":{"more":1,`},
		{`"escrow":{"key_uri":"vault:transit/k"`, `"escrow":{"key_uri":""`},
		{`"wrapped_key":"b3RoZXI="`, `"wrapped_key":""`},
		{`"wrapped_key":"b3RoZXI="`, `"wrapped_key":null`},
		{`"key_version":"3",`, ``},
		{`"key_version":"3"`, `"key_version":"\u0007"`},
	} {
		if !strings.Contains(good, c[0]) {
			t.Fatalf("%q is not in %s", c[0], good)
		}
		if _, err := ParseToken([]byte(strings.Replace(good, c[0], c[1], 1))); !errors.Is(err, ErrToken) {
			t.Errorf("%s: got %v", c[1], err)
		}
	}
}

// TestKeyScope: it grows with the disk, is never less, and no more than one key may
// cover.
func TestKeyScope(t *testing.T) {
	p := testParams()
	p.Token = fullToken()
	f := headOf(t, p, testKey(1))
	h := mustOpen(t, f)
	for _, c := range []struct{ size, scope int64 }{{1<<30 + 512, 1<<26 + 32}, {1 << 30, 1<<26 + 32}, {1 << 48, MaxKeyScopeBlocks}} {
		if err := Update(f, h, func(h *Header) error { return h.Resize(c.size) }); err != nil {
			t.Fatal(err)
		}
		if got := mustToken(t, h).KeyScopeBlocks; got != c.scope {
			t.Errorf("%d bytes: scope of %d blocks, want %d", c.size, got, c.scope)
		}
	}
	if err := Update(f, h, func(h *Header) error { return h.Resize(1<<48 + 512) }); !errors.Is(err, ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	p = testParams()
	p.Token.Disk.Size = 1<<48 + 512
	if _, err := Format(&memFile{}, p, testKey(1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("made too large: %v", err)
	}
}

func openByCryptsetup(t *testing.T, path string, key []byte) (string, error) {
	t.Helper()
	return cryptsetup(t, "open", "--type", "luks2", "--test-passphrase", "--key-size", "512", "--volume-key-file", writeFile(t, "key", key), path)
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}
