package local

import (
	"context"
	"errors"
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
	// Users names what is wrapped under a key, by its URI: disks, snapshots. A key with
	// users is deleted by force only. Nil: nobody is asked. It must not call the KMS.
	Users func(ctx context.Context, uri string) ([]string, error)
	// Wrapped names what is wrapped under any key of this folder; see [KMS.Lost]. Nil: nobody
	// is asked. It must not call the KMS.
	Wrapped func(ctx context.Context) ([]string, error)
	// Root is the source that keeps the root key of a KMS that is made or restored, ""
	// for RootFile. An existing one opens by the source that has it.
	Root string
	// Sources are the sources of root keys beside RootFile, by name.
	Sources map[string]RootSource
	// Warn is told of damage that does not stop a backup or a restore; nil: nobody is.
	// It must not call the KMS.
	Warn func(error)
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

// KMS is the embedded KMS, used by one principal.
type KMS struct {
	store     *store
	region    string
	principal string
	users     func(ctx context.Context, uri string) ([]string, error)
	wrapped   func(ctx context.Context) ([]string, error)
	warn      func(error)
	now       func() time.Time
}

var _ keymgr.KMS = (*KMS)(nil)

// Open opens the KMS in a folder. One that is not there is made, with a root key, by the
// first call that makes a key; until then other calls fail with keymgr.ErrNotFound. Where
// one was lost ([KMS.Lost]) only CreateKey makes another.
func Open(dir string, opts Options) (*KMS, error) {
	return open(files{dir: dir}, opts)
}

func open(f files, opts Options) (*KMS, error) {
	k := &KMS{
		store:     &store{files: f, random: secret.Random, rootSource: opts.Root, sources: opts.Sources},
		region:    orDefault(opts.Region, DefaultRegion),
		principal: orDefault(opts.Principal, Operator),
		users:     opts.Users,
		wrapped:   opts.Wrapped,
		warn:      opts.Warn,
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
	return k.generate(ctx, "GenerateDataKey", key, keymgr.DataKeySize, ec)
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for a caller that must not see
// the data key.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	return k.GenerateSecretWithoutPlaintext(ctx, key, keymgr.DataKeySize, ec)
}

func (k *KMS) generate(ctx context.Context, operation, key string, size int, ec keymgr.Context) (dk *secret.Buffer, w keymgr.WrappedKey, err error) {
	var made *secret.Buffer
	defer func() {
		if dk == nil {
			made.Destroy() // the call failed behind it
		}
	}()
	wrong := checkSize("generate", size, MaxGenerated)
	err = k.callChecked(ctx, Entry{Operation: operation, Key: key}, wrong, func(t *session) error {
		digest, err := t.bind(ec)
		if err != nil {
			return err
		}
		r, err := k.findForUse(t, key, Generate)
		if err != nil {
			return err
		}
		t.entry.Version = r.primary()
		made, w, err = t.generate(r, size, digest)
		return err
	})
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	return made, w, nil
}

// Decrypt unwraps a data key. It needs the permission Decrypt.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	return k.open(ctx, w, ec, keymgr.CheckDataKey)
}

// open unwraps a secret that check finds fit.
func (k *KMS) open(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, check func(*secret.Buffer) error) (dk *secret.Buffer, err error) {
	var made *secret.Buffer
	defer func() {
		if dk == nil {
			made.Destroy() // the call failed behind it
		}
	}()
	err = k.call(ctx, Entry{Operation: "Decrypt", Key: w.URI}, func(t *session) (err error) {
		if made, err = k.decrypt(t, w, ec, Decrypt); err != nil {
			return err
		}
		return check(made)
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// ReEncrypt wraps a data key under the primary version of newKey, which may be the
// key that it is under. It needs the permission ReEncrypt on both keys.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (out keymgr.WrappedKey, err error) {
	err = k.call(ctx, Entry{Operation: "ReEncrypt", Key: w.URI, ToKey: newKey}, func(t *session) error {
		dk, err := k.decrypt(t, w, ec, ReEncrypt)
		if err != nil {
			return err
		}
		defer dk.Destroy()
		from := t.entry.Key
		r, err := k.findForUse(t, newKey, ReEncrypt)
		t.entry.Key = from
		if err != nil {
			return err
		}
		t.entry.ToKey, t.entry.ToVersion = r.ID, r.primary()
		digest, err := digestContext(ec)
		if err != nil {
			return err
		}
		out, err = t.wrap(r, dk, digest)
		return err
	})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return out, nil
}

// call makes one call of the KMS: nothing else happens meanwhile, and however it ends
// it is recorded, except where the store cannot be opened or written.
func (k *KMS) call(ctx context.Context, e Entry, f func(*session) error) error {
	return k.callIn(ctx, e, k.store.begin, f)
}

// callNew is call for what makes a key: it makes the KMS if there is none.
func (k *KMS) callNew(ctx context.Context, e Entry, f func(*session) error) error {
	return k.callIn(ctx, e, k.store.beginNew, f)
}

// callChecked is callNew for a call whose arguments may be found wrong before it: that
// is recorded where there is a KMS, but makes none.
func (k *KMS) callChecked(ctx context.Context, e Entry, wrong error, f func(*session) error) error {
	if wrong == nil {
		if err := k.Lost(ctx); err != nil {
			return err
		}
		return k.callNew(ctx, e, f)
	}
	if err := k.call(ctx, e, func(*session) error { return wrong }); err != nil && !errors.Is(err, errNoKMS) {
		return err
	}
	return wrong
}

func (k *KMS) callIn(ctx context.Context, e Entry, begin func(context.Context) (*session, error), f func(*session) error) error {
	t, err := begin(ctx)
	if err != nil {
		return err
	}
	defer t.end()
	if err := k.catchUp(t); err != nil {
		return err
	}
	t.entry = k.stamp(e)
	return t.record(f(t))
}

func (k *KMS) stamp(e Entry) Entry {
	e.Time, e.Principal = k.now().UTC().Truncate(time.Millisecond), k.principal
	return e
}

// bind takes the encryption context of a call.
func (t *session) bind(ec keymgr.Context) (contextDigest, error) {
	digest, err := digestContext(ec)
	if err == nil {
		t.entry.Context = ec
	}
	return digest, err
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
	t.entry.Key = r.ID
	return r, k.mayUse(r, p)
}

func (k *KMS) makeServiceKey(t *session, p Permission) (*record, error) {
	if err := t.checkStrays(); err != nil {
		return nil, err // there may have been one
	}
	r, err := t.newRecord(k, servicePolicy(), originKMS)
	if err != nil {
		return nil, err
	}
	r.Service = true
	r.Description = "service key of the region " + k.region
	if err := k.mayUse(r, p); err != nil {
		return nil, err
	}
	t.index.setAlias(k.region, ServiceAlias, r.ID)
	made := k.stamp(Entry{Operation: "CreateKey", Key: r.ID, Version: 1, Detail: ServiceAlias, Result: ResultOK})
	if err := t.write(made, r); err != nil {
		return nil, fmt.Errorf("make service key: %w", err)
	}
	t.entry.Key = r.ID
	return r, nil
}

func (k *KMS) decrypt(t *session, w keymgr.WrappedKey, ec keymgr.Context, p Permission) (*secret.Buffer, error) {
	digest, err := t.bind(ec)
	if err != nil {
		return nil, err
	}
	b, err := parseWrapped(w)
	if err != nil {
		return nil, err
	}
	t.entry.Key, t.entry.Version = b.id, b.version
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
	return unwrap(cmk, b, digest)
}

func (t *session) generate(r *record, size int, digest contextDigest) (*secret.Buffer, keymgr.WrappedKey, error) {
	dk, err := t.random(size)
	if err != nil {
		return nil, keymgr.WrappedKey{}, fmt.Errorf("make data key: %w", err)
	}
	if size == keymgr.DataKeySize {
		err = keymgr.CheckDataKey(dk)
	}
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
	cmk, err := t.material(r, r.primary())
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	defer cmk.Destroy()
	return wrap(cmk, r, dk, digest)
}
