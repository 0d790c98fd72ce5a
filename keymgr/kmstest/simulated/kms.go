package simulated

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Scheme of the URIs of a simulated KMS.
const Scheme = "simulated"

// KMS is a simulated KMS.
type KMS struct {
	opts Options

	mu       sync.Mutex
	keys     map[string]*cmk
	random   *mathrand.Rand
	bucket   *bucket // nil: no limit
	load     load
	throttle int // so many calls are refused yet
	broken   bool
	hanging  bool
}

var _ keymgr.KMS = (*KMS)(nil)

// cmk is a key. Versions count from 1.
type cmk struct {
	versions []cipher.AEAD
	state    keymgr.State
	denied   bool
}

// New makes a KMS without keys.
func New(opts Options) *KMS {
	opts = opts.withDefaults()
	k := &KMS{
		opts: opts, keys: map[string]*cmk{},
		random: mathrand.New(mathrand.NewPCG(opts.Seed, 1)),
	}
	if opts.Limit > 0 {
		k.bucket = newBucket(opts.Limit, opts.Burst)
	}
	return k
}

// GenerateDataKey makes a data key under a key.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (dk *secret.Buffer, w keymgr.WrappedKey, err error) {
	err = k.call(ctx, func() error {
		dk, w, err = k.generate(key, ec)
		return err
	}, func() { dk.Destroy() })
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	return dk, w, nil
}

// GenerateDataKeyWithoutPlaintext makes one that the caller does not see.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (w keymgr.WrappedKey, err error) {
	err = k.call(ctx, func() error {
		dk, made, err := k.generate(key, ec)
		dk.Destroy()
		w = made
		return err
	}, func() {})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return w, nil
}

// Decrypt unwraps a data key.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (dk *secret.Buffer, err error) {
	err = k.call(ctx, func() error {
		dk, err = k.decrypt(w, ec)
		return err
	}, func() { dk.Destroy() })
	if err != nil {
		return nil, err
	}
	return dk, nil
}

// ReEncrypt wraps a data key under the newest version of a key.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (out keymgr.WrappedKey, err error) {
	err = k.call(ctx, func() error {
		dk, err := k.decrypt(w, ec)
		if err != nil {
			return err
		}
		defer dk.Destroy()
		out, err = k.wrap(newKey, dk, ec)
		return err
	}, func() {})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return out, nil
}

// Wrap wraps a data key that was made elsewhere.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (w keymgr.WrappedKey, err error) {
	err = k.call(ctx, func() error {
		w, err = k.wrap(key, dk, ec)
		return err
	}, func() {})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return w, nil
}

// DescribeKey tells a key's state and newest version.
func (k *KMS) DescribeKey(ctx context.Context, key string) (info keymgr.KeyInfo, err error) {
	err = k.call(ctx, func() error {
		c, err := k.find(key)
		if err != nil {
			return err
		}
		n := len(c.versions)
		info = keymgr.KeyInfo{
			URI: uri(key), KeyID: key, Aliases: []string{}, State: c.state, Origin: "simulated",
			PrimaryVersion: fmt.Sprint(n), Versions: n,
		}
		return nil
	}, func() {})
	return info, err
}

// Load is what arrived in each second since the beginning.
func (k *KMS) Load() []Second {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.load)
}

// CreateKey makes an enabled key.
func (k *KMS) CreateKey(name string) error {
	material, err := newVersion()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[name] = &cmk{versions: []cipher.AEAD{material}, state: keymgr.Enabled}
	return nil
}

// Seed makes a data key behind the network's back: what a disk had before a simulation
// began.
func (k *KMS) Seed(key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	dk, w, err := k.generate(key, ec)
	dk.Destroy()
	return w, err
}

// Rotate adds a version to a key, if it is there.
func (k *KMS) Rotate(name string) error {
	material, err := newVersion()
	if err != nil {
		return err
	}
	k.change(name, func(c *cmk) { c.versions = append(c.versions, material) })
	return nil
}

// Disable, Enable and Deny change a key, if it is there.
func (k *KMS) Disable(name string) { k.change(name, func(c *cmk) { c.state = keymgr.Disabled }) }

// Enable undoes Disable.
func (k *KMS) Enable(name string) { k.change(name, func(c *cmk) { c.state = keymgr.Enabled }) }

// Deny takes the right to use a key away.
func (k *KMS) Deny(name string) { k.change(name, func(c *cmk) { c.denied = true }) }

func (k *KMS) change(name string, f func(*cmk)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.keys[name]; c != nil {
		f(c)
	}
}

// Throttle has the next n calls refused.
func (k *KMS) Throttle(n int) { k.turn(func() { k.throttle = n }) }

// Break has all connections refused, Hang all calls unanswered, until Mend.
func (k *KMS) Break() { k.turn(func() { k.broken, k.hanging = true, false }) }

// Hang leaves calls without an answer.
func (k *KMS) Hang() { k.turn(func() { k.broken, k.hanging = false, true }) }

// Mend ends Break and Hang.
func (k *KMS) Mend() { k.turn(func() { k.broken, k.hanging = false, false }) }

func (k *KMS) turn(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func newVersion() (cipher.AEAD, error) {
	var material [32]byte
	rand.Read(material[:]) // never fails
	block, err := aes.NewCipher(material[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func uri(key string) string { return Scheme + ":" + key }

// hangUp is how long a lost connection takes to be noticed.
const hangUp = 5 * time.Millisecond
