package kmstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest/simulated"
	"sealblk/keymgr/secret"
)

func TestMutantsAreCaught(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			if slices.Contains([]string{"time-out", "cancelled during the call"}, m.want) {
				t.Parallel() // they wait
			}
			got := complaintsOf(m.want, func(s *Subject, k *simulated.KMS) { s.KMS = m.make(s, k) })
			if len(got) == 0 {
				t.Errorf("the case %q did not notice", m.want)
			}
			t.Logf("%.200q", got)
		})
	}
}

func mapKeys(ec keymgr.Context) iter.Seq[string] { return maps.Keys(ec) }

func plaintextInBlob(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
		dk, w, err := k.GenerateDataKey(ctx, key, ec)
		if err == nil {
			w.Blob = append(w.Blob, dk.Bytes()[32:]...)
		}
		return dk, w, err
	}}
}

func sameBlob(_ *Subject, k *simulated.KMS) keymgr.KMS {
	var first keymgr.WrappedKey
	return &mutant{KMS: k, without: func(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
		w, err := k.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
		if first.URI == "" {
			first = w
		}
		return first, err
	}}
}

func wrongURI(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
		dk, w, err := k.GenerateDataKey(ctx, key, ec)
		if err == nil {
			w.URI = key
		}
		return dk, w, err
	}}
}

// damageUnnoticed opens damaged blobs to some key.
func damageUnnoticed(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := k.Decrypt(ctx, w, ec)
		if errors.Is(err, keymgr.ErrCorrupt) {
			return secret.Random(keymgr.DataKeySize)
		}
		return dk, err
	}}
}

// tailIgnored does not look behind the end of a blob.
func tailIgnored(_ *Subject, k *simulated.KMS) keymgr.KMS {
	size := 0
	return &mutant{
		KMS: k,
		generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
			dk, w, err := k.GenerateDataKey(ctx, key, ec)
			size = len(w.Blob)
			return dk, w, err
		},
		decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
			w.Blob = w.Blob[:min(size, len(w.Blob))]
			return k.Decrypt(ctx, w, ec)
		},
	}
}

// uriIgnored finds the key of a blob by trying all.
func uriIgnored(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		for i := 1; i < 3; i++ {
			w.URI = fmt.Sprint(simulated.Scheme, ":key-", i)
			if dk, err := k.Decrypt(ctx, w, ec); err == nil {
				return dk, nil
			}
		}
		return k.Decrypt(ctx, w, ec)
	}}
}

func unknownMade(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
		if _, err := k.DescribeKey(ctx, key); errors.Is(err, keymgr.ErrNotFound) {
			if err := k.CreateKey(key); err != nil {
				return nil, keymgr.WrappedKey{}, err
			}
		}
		return k.GenerateDataKey(ctx, key, ec)
	}}
}

// sentinel makes every error another one.
func sentinel(to error) func(*Subject, *simulated.KMS) keymgr.KMS {
	return func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, errors: func(err error) error { return reclassified(err, to) }}
	}
}

// sentinelFor makes errors of one kind another one.
func sentinelFor(from, to error) func(*Subject, *simulated.KMS) keymgr.KMS {
	return func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, errors: func(err error) error {
			if !errors.Is(err, from) {
				return err
			}
			return reclassified(err, to)
		}}
	}
}

func reclassified(err, to error) error {
	var e *keymgr.Error
	if !errors.As(err, &e) {
		return to
	}
	other := *e
	other.Err = fmt.Errorf("%s: %w", e.Err.Error(), to)
	return &other
}

func bare(err error) error {
	var e *keymgr.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func noHint(err error) error   { return altered(err, func(e *keymgr.Error) { e.Hint = "" }) }
func nameless(err error) error { return altered(err, func(e *keymgr.Error) { e.Key = "" }) }
func twoLines(err error) error { return altered(err, func(e *keymgr.Error) { e.Hint += "\nor not" }) }

func altered(err error, f func(*keymgr.Error)) error {
	var e *keymgr.Error
	if !errors.As(err, &e) {
		return err
	}
	other := *e
	f(&other)
	return &other
}

// keyInError fails the second call to decrypt and tells the key.
func keyInError(_ *Subject, k *simulated.KMS) keymgr.KMS {
	n := 0
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := k.Decrypt(ctx, w, ec)
		if n++; n == 2 && err == nil {
			text := b64(dk.Bytes())
			dk.Destroy()
			return nil, &keymgr.Error{Hint: "see " + text, Err: keymgr.ErrUnreachable}
		}
		return dk, err
	}}
}

func keyBesideError(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := k.Decrypt(ctx, w, ec)
		if err != nil {
			return &secret.Buffer{}, err
		}
		return dk, nil
	}}
}

// secretLeft forgets a buffer when a call fails; the test destroys it.
func secretLeft(s *Subject, k *simulated.KMS) keymgr.KMS {
	made := s.NewKey
	var left []*secret.Buffer
	s.NewKey = func(t testing.TB) string {
		t.Cleanup(func() {
			for _, b := range left {
				b.Destroy()
			}
		})
		return made(t)
	}
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := k.Decrypt(ctx, w, ec)
		if err != nil {
			if b, err := secret.New(64); err == nil {
				left = append(left, b)
			}
		}
		return dk, err
	}}
}

// disabledKeys notes the keys that a test disables.
func disabledKeys(s *Subject) map[string]bool {
	disabled := map[string]bool{}
	disable := s.Disable
	s.Disable = func(t testing.TB, key string) {
		disabled[key] = true
		disable(t, key)
	}
	return disabled
}

// eachDecrypt does something to disabled keys before they decrypt, and undoes it.
func eachDecrypt(k *simulated.KMS, before, after func(key string), disabled map[string]bool) *mutant {
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		for key := range disabled {
			before(key)
			defer after(key)
		}
		return k.Decrypt(ctx, w, ec)
	}}
}

func clientRetries(_ *Subject, k *simulated.KMS) keymgr.KMS {
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := k.Decrypt(ctx, w, ec)
		if errors.Is(err, keymgr.ErrThrottled) {
			return k.Decrypt(ctx, w, ec)
		}
		return dk, err
	}}
}

// slowWhenHanging has the client wait far beyond its time-out.
func (m *mutant) slowWhenHanging(s *Subject) *mutant {
	decrypt := m.decrypt
	m.decrypt = func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := decrypt(ctx, w, ec)
		if errors.Is(err, keymgr.ErrUnreachable) {
			if err := simulated.Real().Sleep(ctx, 2*s.Timeout+promptly+100*time.Millisecond); err != nil {
				return nil, err
			}
		}
		return dk, err
	}
	return m
}

// sharedBuffer decrypts into the same memory for all.
func sharedBuffer(_ *Subject, k *simulated.KMS) keymgr.KMS {
	var mu sync.Mutex
	shared := make([]byte, keymgr.DataKeySize)
	return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
		dk, err := k.Decrypt(ctx, w, ec)
		if err != nil {
			return dk, err
		}
		mu.Lock()
		before := bytes.Clone(shared)
		copy(shared, dk.Bytes())
		copy(dk.Bytes(), before) // of the call before this one
		mu.Unlock()
		return dk, nil
	}}
}
