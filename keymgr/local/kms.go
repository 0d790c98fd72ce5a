package local

import (
	"context"
	"fmt"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Options of a KMS.
type Options struct {
	// Region is the region of new keys and of aliases; "" is DefaultRegion.
	Region string
	// Principal in whose name calls are made; "" is Operator.
	Principal string
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

// KMS is the embedded KMS, used by one principal.
type KMS struct {
	store     *store
	region    string
	principal string
	now       func() time.Time
}

var _ keymgr.KMS = (*KMS)(nil)

// Open opens the KMS in a folder. One that is not there is made, with a root key, by the
// first call that makes a key; until then other calls fail with keymgr.ErrNotFound.
func Open(dir string, opts Options) (*KMS, error) {
	return open(files{dir: dir}, opts)
}

func open(f files, opts Options) (*KMS, error) {
	k := &KMS{
		store:     &store{files: f, random: secret.Random},
		region:    orDefault(opts.Region, DefaultRegion),
		principal: orDefault(opts.Principal, Operator),
		now:       opts.Now,
	}
	if k.now == nil {
		k.now = time.Now
	}
	if err := checkRegion(k.region); err != nil {
		return nil, err
	}
	if err := checkPrincipal(k.principal); err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened {
			k.store.close()
		}
	}()
	if err := k.store.open(); err != nil {
		return nil, fmt.Errorf("open KMS: %w", err)
	}
	opened = true
	return k, nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// As is the same KMS for another principal. Close one of them and all are closed.
func (k *KMS) As(principal string) *KMS {
	other := *k
	other.principal = principal
	return &other
}

// Close forgets the root key. Calls that follow fail with ErrClosed.
func (k *KMS) Close() error {
	k.store.close()
	return nil
}

func (k *KMS) clock() time.Time { return k.now().UTC().Truncate(time.Second) }

// GenerateDataKey makes a data key under a CMK; the name acs/ecs or none at all is
// the service key, made now if need be. It needs the permission Generate.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	digest, err := digestContext(ec)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	t, err := k.store.beginNew(ctx)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	defer t.end()
	r, err := k.findForUse(t, key, Generate)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	return t.generate(r, digest)
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for a caller that must not see
// the data key.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	dk, w, err := k.GenerateDataKey(ctx, key, ec)
	dk.Destroy()
	return w, err
}

// Decrypt unwraps a data key. It needs the permission Decrypt.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	digest, err := digestContext(ec)
	if err != nil {
		return nil, err
	}
	b, err := parseWrapped(w)
	if err != nil {
		return nil, err
	}
	t, err := k.store.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer t.end()
	return k.decrypt(t, b, digest, Decrypt)
}

// ReEncrypt wraps a data key under the primary version of newKey, which may be the
// key that it is under. It needs the permission ReEncrypt on both keys.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	digest, err := digestContext(ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	b, err := parseWrapped(w)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	t, err := k.store.begin(ctx)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	defer t.end()
	dk, err := k.decrypt(t, b, digest, ReEncrypt)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	defer dk.Destroy()
	r, err := k.findForUse(t, newKey, ReEncrypt)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return t.wrap(r, dk, digest)
}

// mayUse checks policy first, so that a stranger does not learn the key's state.
func (k *KMS) mayUse(r *record, p Permission) error {
	if err := r.permit(k.principal, p); err != nil {
		return err
	}
	return r.allow(opUse)
}

// findForUse finds a key that the principal may use. The region's service key is made
// when it is asked for and not there.
func (k *KMS) findForUse(t *session, name string, p Permission) (*record, error) {
	_, there := t.index.Aliases[k.region][ServiceAlias]
	if aliasOf(name) == ServiceAlias && !there {
		return k.makeServiceKey(t, p)
	}
	r, err := t.find(k.region, name)
	if err != nil {
		return nil, err
	}
	return r, k.mayUse(r, p)
}

func (k *KMS) makeServiceKey(t *session, p Permission) (*record, error) {
	if err := t.checkStrays(); err != nil {
		return nil, err // there may have been one
	}
	r, err := t.newRecord(k, servicePolicy())
	if err != nil {
		return nil, err
	}
	r.Service = true
	r.Description = "service key of the region " + k.region
	if err := k.mayUse(r, p); err != nil {
		return nil, err
	}
	t.index.setAlias(k.region, ServiceAlias, r.ID)
	if err := t.commit(r); err != nil {
		return nil, fmt.Errorf("make service key: %w", err)
	}
	return r, nil
}

func (k *KMS) decrypt(t *session, b blob, digest contextDigest, p Permission) (*secret.Buffer, error) {
	r, err := t.load(b.id)
	if err != nil {
		return nil, err
	}
	if err := k.mayUse(r, p); err != nil {
		return nil, err
	}
	cmk, err := t.material(r, b.version)
	if err != nil {
		return nil, err
	}
	defer cmk.Destroy()
	dk, err := unwrap(cmk, b, digest)
	if err != nil {
		return nil, err
	}
	if err := keymgr.CheckDataKey(dk); err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}

func (t *session) generate(r *record, digest contextDigest) (*secret.Buffer, keymgr.WrappedKey, error) {
	dk, err := t.random(keymgr.DataKeySize)
	if err != nil {
		return nil, keymgr.WrappedKey{}, fmt.Errorf("make data key: %w", err)
	}
	err = keymgr.CheckDataKey(dk)
	var w keymgr.WrappedKey
	if err == nil {
		w, err = t.wrap(r, dk, digest)
	}
	if err != nil {
		dk.Destroy()
		return nil, keymgr.WrappedKey{}, err
	}
	return dk, w, nil
}

func (t *session) wrap(r *record, dk *secret.Buffer, digest contextDigest) (keymgr.WrappedKey, error) {
	cmk, err := t.material(r, uint32(len(r.Versions)))
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	defer cmk.Destroy()
	return wrap(cmk, r, dk, digest)
}
