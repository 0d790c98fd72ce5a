package kmstest

import (
	"bytes"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func rotation(p *probe) {
	key := p.NewKey(p)
	dk1, w1 := p.generate(key, Disk("1"))
	p.Rotate(p, key)
	dk2, w2 := p.generate(key, Disk("1"))
	if w1.Version == "" || w2.Version == w1.Version {
		p.Errorf("blobs have the versions %q before and %q after the rotation", w1.Version, w2.Version)
	}
	if info := p.info(key); info.PrimaryVersion != w2.Version {
		p.Errorf("DescribeKey: primary version %q, new blobs have %q", info.PrimaryVersion, w2.Version)
	}
	w3, err := p.kms.GenerateDataKeyWithoutPlaintext(p.Context(), key, Disk("1"))
	if err != nil || w3.Version != w2.Version {
		p.Errorf("GenerateDataKeyWithoutPlaintext: version %q, %v", w3.Version, err)
	}
	p.opensTo("before the rotation", w1, Disk("1"), dk1)
	p.opensTo("after the rotation", w2, Disk("1"), dk2)
	p.refuses("before the rotation, other disk", w1, Disk("2"), keymgr.ErrContextMismatch)
}

// reWrapped re-wraps what must re-wrap.
func (p *probe) reWrapped(w keymgr.WrappedKey, ec keymgr.Context, to string) keymgr.WrappedKey {
	p.Helper()
	out, err := p.kms.ReEncrypt(p.Context(), w, ec, to)
	if err != nil {
		p.Fatalf("ReEncrypt from %s to %s: %v", w.URI, to, err)
	}
	p.isWrapped("ReEncrypt", out, to)
	return out
}

func reWrap(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	out := p.reWrapped(w, Disk("1"), key)
	if out.Version != w.Version {
		p.Errorf("ReEncrypt: version %q became %q without a rotation", w.Version, out.Version)
	}
	p.opensTo("re-wrapped", out, Disk("1"), dk)
	p.opensTo("the old blob", w, Disk("1"), dk)
}

func reWrapAfterRotation(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	p.Rotate(p, key)
	_, fresh := p.generate(key, Disk("1"))
	out := p.reWrapped(w, Disk("1"), key)
	if out.Version != fresh.Version || out.Version == w.Version {
		p.Errorf("ReEncrypt: version %q became %q, the primary is %q", w.Version, out.Version, fresh.Version)
	}
	if bytes.Equal(out.Blob, w.Blob) {
		p.Error("ReEncrypt returned the blob that it was given")
	}
	p.opensTo("re-wrapped", out, Disk("1"), dk)
	p.refuses("re-wrapped, other disk", out, Disk("2"), keymgr.ErrContextMismatch)
}

func reWrapUnderAnotherKey(p *probe) {
	from, to := p.NewKey(p), p.NewKey(p)
	dk, w := p.generate(from, Disk("1"))
	out := p.reWrapped(w, Disk("1"), to)
	p.opensTo("under the other key", out, Disk("1"), dk)
	p.refuses("under the other key, other disk", out, Disk("2"), keymgr.ErrContextMismatch)
	back := p.reWrapped(out, Disk("1"), from)
	p.opensTo("moved back", back, Disk("1"), dk)
}

func reWrapBindsContext(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	_, err := p.kms.ReEncrypt(p.Context(), w, Disk("2"), key)
	if err == nil {
		p.Error("ReEncrypt moved a blob to another disk")
	} else {
		p.fails("ReEncrypt for another disk", err, keymgr.ErrContextMismatch)
	}
	p.opensTo("the old blob", w, Disk("1"), dk)
}

// wrapFromElsewhere is for a KMS that takes data keys of others, for which it is a
// keymgr.Wrapper.
func wrapFromElsewhere(p *probe) {
	if _, ok := p.kms.kms.(keymgr.Wrapper); !ok {
		p.Skip("this KMS wraps no data key that it did not make")
	}
	key := p.NewKey(p)
	dk, err := secret.Random(keymgr.DataKeySize)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(dk.Destroy)
	before, err := dk.Clone()
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(before.Destroy)
	w, err := p.kms.Wrap(p.Context(), key, dk, Disk("1"))
	if err != nil {
		p.Fatalf("Wrap: %v", err)
	}
	p.isWrapped("Wrap", w, key)
	if !dk.Equal(before) {
		p.Error("Wrap: the caller's data key was changed or destroyed")
	}
	if _, made := p.generate(key, Disk("1")); made.Version != w.Version {
		p.Errorf("Wrap: version %q, new blobs have %q", w.Version, made.Version)
	}
	p.opensTo("wrapped", w, Disk("1"), before)
	p.refuses("wrapped, other disk", w, Disk("2"), keymgr.ErrContextMismatch)
	_, err = p.kms.Wrap(p.Context(), p.UnknownKey, dk, Disk("1"))
	p.fails("Wrap under a key that is not there", err, keymgr.ErrNotFound)
}
