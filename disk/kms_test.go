package disk

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// elsewhere is a KMS of another kind: an embedded one whose keys have another scheme. It
// wraps no key that it did not make, and keeps no audit log for others.
type elsewhere struct {
	kms    *local.KMS
	scheme string
}

func (e elsewhere) out(w keymgr.WrappedKey) keymgr.WrappedKey {
	w.URI = strings.Replace(w.URI, "local:", e.scheme+":", 1)
	return w
}

func (e elsewhere) in(w keymgr.WrappedKey) keymgr.WrappedKey {
	w.URI = strings.Replace(w.URI, e.scheme+":", "local:", 1)
	return w
}

func (e elsewhere) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	dk, w, err := e.kms.GenerateDataKey(ctx, key, ec)
	return dk, e.out(w), err
}

func (e elsewhere) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	w, err := e.kms.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
	return e.out(w), err
}

func (e elsewhere) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	return e.kms.Decrypt(ctx, e.in(w), ec)
}

func (e elsewhere) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, key string) (keymgr.WrappedKey, error) {
	w, err := e.kms.ReEncrypt(ctx, e.in(w), ec, key)
	return e.out(w), err
}

func (e elsewhere) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	info, err := e.kms.DescribeKey(ctx, key)
	info.URI = strings.Replace(info.URI, "local:", e.scheme+":", 1)
	return info, err
}

func (e elsewhere) Close() error { return e.kms.Close() }

// open is elsewhere that takes keys of other KMSs.
type open struct{ elsewhere }

func (o open) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	w, err := o.kms.Wrap(ctx, key, dk, ec)
	return o.out(w), err
}

// site is a catalogue with an embedded KMS, one of another kind (other:), and one that
// takes no keys (shut:). Each can be taken down.
type site struct {
	*Catalogue
	down map[string]error
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := newDir(t)
	s := &site{down: map[string]error{}}
	at := func(scheme, principal string) (*local.KMS, error) {
		return local.Open(filepath.Join(dir, "kms", scheme), local.Options{Principal: principal})
	}
	keys := keymgr.NewSet(keymgr.Retry{}, map[string]keymgr.Opener{
		"local": func(context.Context) (keymgr.KMS, error) {
			k, err := at("local", local.DiskService)
			return failing{k, s, "local"}, err
		},
		"other": func(context.Context) (keymgr.KMS, error) {
			k, err := at("other", local.DiskService)
			return failingOpen{open{elsewhere{k, "other"}}, s}, err
		},
		"shut": func(context.Context) (keymgr.KMS, error) {
			k, err := at("shut", local.DiskService)
			return elsewhere{k, "shut"}, err
		},
	})
	t.Cleanup(func() { keys.Close() })
	c, err := OpenCatalogue(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	s.Catalogue = c
	return s
}

// failing is the embedded KMS, which may be down.
type failing struct {
	*local.KMS
	site   *site
	scheme string
}

func (f failing) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	if err := f.site.down[f.scheme]; err != nil {
		return nil, err
	}
	return f.KMS.Decrypt(ctx, w, ec)
}

func (f failing) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	if err := f.site.down[f.scheme]; err != nil {
		return keymgr.KeyInfo{}, err
	}
	return f.KMS.DescribeKey(ctx, key)
}

func (f failing) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, key string) (keymgr.WrappedKey, error) {
	if err := f.site.down[f.scheme+" re-encrypt"]; err != nil {
		return keymgr.WrappedKey{}, err
	}
	return f.KMS.ReEncrypt(ctx, w, ec, key)
}

type failingOpen struct {
	open
	site *site
}

func (f failingOpen) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	if err := f.site.down["other"]; err != nil {
		return nil, err
	}
	return f.open.Decrypt(ctx, w, ec)
}

// operator is the administrator of a KMS of the site.
func (c *Catalogue) operator(t *testing.T, scheme string) *local.KMS {
	t.Helper()
	dir := filepath.Join(c.dir, "kms")
	if scheme != "" {
		dir = filepath.Join(dir, scheme)
	}
	k, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// newCMK makes a CMK that the disk service may use, and returns its URI.
func newCMK(t *testing.T, k *local.KMS) string {
	t.Helper()
	info, err := k.CreateKey(t.Context(), local.CreateOptions{})
	if err == nil {
		err = k.Authorize(t.Context(), info.KeyID, local.DiskService, []local.Permission{local.Generate, local.Decrypt, local.ReEncrypt})
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.URI
}

func rotate(t *testing.T, k *local.KMS, uri string) {
	t.Helper()
	if _, err := k.RotateKey(t.Context(), strings.TrimPrefix(uri, "local:")); err != nil {
		t.Fatal(err)
	}
}

// keyOf is the data key of a disk.
func keyOf(t *testing.T, c *Catalogue, name string) *secret.Buffer {
	t.Helper()
	_, _, dk, err := c.keyIn(t.Context(), name, mainSlot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dk.Destroy)
	return dk
}

// wantKey fails unless a disk has that data key, under that CMK and version, in header
// and record alike.
func wantKey(t *testing.T, c *Catalogue, name string, dk *secret.Buffer, uri, version string) {
	t.Helper()
	_, _, got, err := c.keyIn(t.Context(), name, mainSlot)
	if err != nil {
		t.Fatalf("disk %s: %v", name, err)
	}
	defer got.Destroy()
	if !got.Equal(dk) {
		t.Fatalf("disk %s has another data key", name)
	}
	r, err := c.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]Record{"record": r, "header": c.Current(r)} {
		if r.KeyURI != uri || r.KeyVersion != version || r.KeyID != keyID(uri) || r.RewrappingTo != "" {
			t.Fatalf("disk %s: %s says %s version %s (on its way to %q), want %s version %s", name, what, r.KeyURI, r.KeyVersion, r.RewrappingTo, uri, version)
		}
	}
}

// wantUsers fails unless exactly these disks need a CMK.
func wantUsers(t *testing.T, c *Catalogue, uri string, names ...string) {
	t.Helper()
	got, err := c.UsersOf(uri)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("users of %s: %v, %v, want %v", uri, got, err, names)
	}
}

// closeDisk closes what should not have been opened.
func closeDisk(d *Disk) {
	if d != nil {
		d.Close()
	}
}
