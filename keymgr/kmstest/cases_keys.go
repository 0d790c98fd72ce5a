package kmstest

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func generate(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	if err := keymgr.CheckDataKey(dk); err != nil {
		p.Fatalf("data key: %v", err)
	}
	p.isWrapped("GenerateDataKey", w, key)
	if bytes.Contains(w.Blob, dk.Bytes()[:16]) || bytes.Contains(w.Blob, dk.Bytes()[32:48]) {
		p.Error("the blob holds the data key in the clear")
	}
	again, w2 := p.generate(key, Disk("1"))
	if again.Equal(dk) {
		p.Error("two calls made the same data key")
	}
	if bytes.Equal(w.Blob, w2.Blob) {
		p.Error("two calls made the same blob")
	}
}

// isWrapped checks that a wrapped key says what it is under.
func (p *probe) isWrapped(what string, w keymgr.WrappedKey, key string) {
	p.Helper()
	if w.URI != p.uri(key) {
		p.Errorf("%s: wrapped under %q, want %q", what, w.URI, p.uri(key))
	}
	if _, err := keymgr.ParseURI(w.URI); err != nil {
		p.Errorf("%s: %v", what, err)
	}
	if len(w.Blob) == 0 {
		p.Errorf("%s: empty blob", what)
	}
}

func generateWithoutPlaintext(p *probe) {
	key := p.NewKey(p)
	p.generate(key, Disk("1")) // whatever is read at first use is in memory now
	live, _ := secret.Live()
	w, err := p.kms.GenerateDataKeyWithoutPlaintext(p.Context(), key, Disk("1"))
	if err != nil {
		p.Fatalf("GenerateDataKeyWithoutPlaintext: %v", err)
	}
	if n, _ := secret.Live(); n > live {
		p.Errorf("%d secrets are in memory after the call", n-live)
	}
	p.isWrapped("GenerateDataKeyWithoutPlaintext", w, key)
	dk := p.open("what was made without plaintext", w, Disk("1"))
	if err := keymgr.CheckDataKey(dk); err != nil {
		p.Errorf("data key: %v", err)
	}
	other, err := p.kms.GenerateDataKeyWithoutPlaintext(p.Context(), key, Disk("1"))
	if err != nil {
		p.Fatalf("GenerateDataKeyWithoutPlaintext: %v", err)
	}
	if p.open("the second", other, Disk("1")).Equal(dk) {
		p.Error("two calls made the same data key")
	}
	p.refuses("without plaintext, other disk", w, Disk("2"), keymgr.ErrContextMismatch)
}

func unwrap(p *probe) {
	ec := keymgr.Context{keymgr.ContextDisk: "1", "tenant": "Blüm & Söhne=\"1\",\\", "empty": ""}
	dk, w := p.generate(p.NewKey(p), ec)
	for _, what := range []string{"once", "again"} {
		p.opensTo(what, w, ec, dk)
	}
}

func contextMismatch(p *probe) {
	key := p.NewKey(p)
	ec := keymgr.Context{keymgr.ContextDisk: "1", "tenant": "a"}
	dk, w := p.generate(key, ec)
	for what, other := range map[string]keymgr.Context{
		"other value":    {keymgr.ContextDisk: "2", "tenant": "a"},
		"missing entry":  {keymgr.ContextDisk: "1"},
		"extra entry":    {keymgr.ContextDisk: "1", "tenant": "a", "more": "x"},
		"empty extra":    {keymgr.ContextDisk: "1", "tenant": "a", "more": ""},
		"other name":     {keymgr.ContextDisk: "1", "Tenant": "a"},
		"other case":     {keymgr.ContextDisk: "1", "tenant": "A"},
		"values swapped": {keymgr.ContextDisk: "a", "tenant": "1"},
		"empty":          {},
		"none":           nil,
	} {
		p.refuses("context with "+what, w, other, keymgr.ErrContextMismatch)
	}
	p.opensTo("its own context", w, ec, dk)
}

// contextBoundaries uses contexts that careless joining of names and values confuses.
func contextBoundaries(p *probe) {
	key := p.NewKey(p)
	for _, pair := range [][2]keymgr.Context{
		{{"a": "bc"}, {"ab": "c"}},
		{{"a": "b", "c": "d"}, {"a": "b,c=d"}},
		{{"a": "b", "c": "d"}, {"a": "b&c=d"}},
		{{"a": "b", "c": "d"}, {"a": `b","c":"d`}},
		{{"a": "1"}, {"a": "1 "}},
	} {
		dk, w := p.generate(key, pair[0])
		p.opensTo(fmt.Sprint(pair[0]), w, pair[0], dk)
		p.refuses(fmt.Sprintf("made under %q, opened under %q", pair[0], pair[1]), w, pair[1], keymgr.ErrContextMismatch)
	}
}

// maxFlips is how many places of a blob are tried: each is a call.
const maxFlips = 64

func damagedBlob(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	damaged := []error{keymgr.ErrCorrupt, keymgr.ErrContextMismatch}
	n := len(w.Blob)
	for i := range min(n, maxFlips) {
		at := i * n / min(n, maxFlips)
		bad := bytes.Clone(w.Blob)
		bad[at] ^= 1 << (i % 8)
		p.refuses(fmt.Sprintf("bit %d of byte %d of %d flipped", i%8, at, n), with(w, bad), Disk("1"), damaged...)
	}
	last := bytes.Clone(w.Blob)
	last[n-1] ^= 1
	for what, bad := range map[string][]byte{
		"last bit flipped": last, "last byte lost": w.Blob[:n-1], "second half lost": w.Blob[:n/2], "first byte lost": w.Blob[1:],
		"empty": {}, "none": nil, "a byte too long": append(bytes.Clone(w.Blob), 0), "a line end too long": append(bytes.Clone(w.Blob), '\n'),
		"zeros": make([]byte, n), "twice": bytes.Repeat(w.Blob, 2),
	} {
		p.refuses(what, with(w, bad), Disk("1"), damaged...)
	}
	if p.Lacks[ReWrapping] == "" {
		out, err := p.kms.ReEncrypt(p.Context(), with(w, last), Disk("1"), key)
		if err == nil {
			p.Errorf("ReEncrypt made %q of a damaged blob", out.URI)
		}
	}
	p.opensTo("undamaged", w, Disk("1"), dk)
}

func with(w keymgr.WrappedKey, blob []byte) keymgr.WrappedKey {
	w.Blob = blob
	return w
}

// blobOfAnotherKey presents a blob in the name of a key that did not wrap it.
func blobOfAnotherKey(p *probe) {
	a, b := p.NewKey(p), p.NewKey(p)
	if a == b {
		p.Fatal("NewKey made the same key twice")
	}
	_, w := p.generate(a, Disk("1"))
	other := w
	other.URI = p.uri(b)
	p.refuses("in the name of another key", other, Disk("1"), keymgr.ErrCorrupt, keymgr.ErrContextMismatch)
	other.URI = p.uri(p.UnknownKey)
	p.refuses("in the name of a key that is not there", other, Disk("1"), keymgr.ErrCorrupt, keymgr.ErrContextMismatch, keymgr.ErrNotFound)
	other.URI = "another" + p.uri(a)
	p.refuses("of another KMS", other, Disk("1"), keymgr.ErrCorrupt, keymgr.ErrContextMismatch, keymgr.ErrInvalid)
}

func unknownKey(p *probe) {
	ctx := p.Context()
	key := p.NewKey(p)
	_, w := p.generate(key, Disk("1"))
	dk, _, err := p.kms.GenerateDataKey(ctx, p.UnknownKey, Disk("1"))
	dk.Destroy()
	p.namesKey("GenerateDataKey", p.UnknownKey, err, keymgr.ErrNotFound)
	_, err = p.kms.GenerateDataKeyWithoutPlaintext(ctx, p.UnknownKey, Disk("1"))
	p.namesKey("GenerateDataKeyWithoutPlaintext", p.UnknownKey, err, keymgr.ErrNotFound)
	_, err = p.kms.DescribeKey(ctx, p.UnknownKey)
	p.namesKey("DescribeKey", p.UnknownKey, err, keymgr.ErrNotFound)
	if p.Lacks[Moving] == "" {
		_, err = p.kms.ReEncrypt(ctx, w, Disk("1"), p.UnknownKey)
		p.namesKey("ReEncrypt", p.UnknownKey, err, keymgr.ErrNotFound)
	}
}

func describe(p *probe) {
	key := p.NewKey(p)
	_, w := p.generate(key, Disk("1"))
	info := p.info(key)
	if info.URI != w.URI {
		p.Errorf("DescribeKey: URI %q, blobs have %q", info.URI, w.URI)
	}
	if info.State != keymgr.Enabled {
		p.Errorf("DescribeKey: state %q, want %q", info.State, keymgr.Enabled)
	}
	if info.KeyID == "" {
		p.Error("DescribeKey: no key id")
	}
	if info.PrimaryVersion != w.Version {
		p.Errorf("DescribeKey: primary version %q, new blobs have %q", info.PrimaryVersion, w.Version)
	}
}

func (p *probe) info(key string) keymgr.KeyInfo {
	p.Helper()
	info, err := p.kms.DescribeKey(p.Context(), key)
	if err != nil {
		p.Fatalf("DescribeKey: %v", err)
	}
	return info
}

func disabledKey(p *probe) {
	key, other := p.NewKey(p), p.NewKey(p)
	_, w := p.generate(key, Disk("1"))
	_, w2 := p.generate(other, Disk("1"))
	p.Disable(p, key)
	for _, c := range p.uses(key, w, Disk("1")) {
		err := c.do(p.Context())
		if err == nil {
			p.Errorf("%s under a disabled key succeeded", c.name)
			continue
		}
		p.namesKey(c.name+" under a disabled key", key, err, p.disabledIs())
		if p.DisabledIs == nil && !strings.Contains(err.Error(), "disabled") {
			p.Errorf("%s: error %q does not say that the key is disabled", c.name, err)
		}
	}
	if p.Lacks[Moving] == "" {
		_, err := p.kms.ReEncrypt(p.Context(), w2, Disk("1"), key)
		p.namesKey("ReEncrypt to a disabled key", key, err, p.disabledIs())
	}
	if p.DisabledIs == nil {
		if info := p.info(key); info.State != keymgr.Disabled {
			p.Errorf("DescribeKey: state %q, want %q", info.State, keymgr.Disabled)
		}
	}
	p.open("other key", w2, Disk("1"))
}

func enabledAgain(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	p.Disable(p, key)
	p.refuses("disabled", w, Disk("1"), p.disabledIs())
	p.Enable(p, key)
	p.opensTo("enabled again", w, Disk("1"), dk)
	p.generate(key, Disk("1"))
	if info := p.info(key); info.State != keymgr.Enabled {
		p.Errorf("DescribeKey: state %q, want %q", info.State, keymgr.Enabled)
	}
}

func accessDenied(p *probe) {
	key, other := p.NewKey(p), p.NewKey(p)
	_, w := p.generate(key, Disk("1"))
	_, w2 := p.generate(other, Disk("1"))
	p.Deny(p, key)
	for _, c := range p.uses(key, w, Disk("1")) {
		err := c.do(p.Context())
		if err == nil {
			p.Errorf("%s succeeded without access", c.name)
			continue
		}
		p.namesKey(c.name+" without access", key, err, keymgr.ErrAccessDenied)
	}
	p.open("other key", w2, Disk("1"))
}

func cancelledBefore(p *probe) {
	key := p.NewKey(p)
	_, w := p.generate(key, Disk("1"))
	ctx, cancel := context.WithCancel(p.Context())
	cancel()
	for _, c := range p.calls(key, w, Disk("1")) {
		err := p.within(promptly, c.name, func() error { return c.do(ctx) })
		p.isCancelled(c.name+" with a cancelled context", err)
	}
}
