package kmstest

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest/simulated"
	"sealblk/keymgr/secret"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// mutant is a KMS with one thing wrong: what is set replaces the call.
type mutant struct {
	*simulated.KMS
	generate  func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error)
	without   func(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error)
	decrypt   func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error)
	reEncrypt func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error)
	wrap      func(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error)
	describe  func(ctx context.Context, key string) (keymgr.KeyInfo, error)
	errors    func(error) error // alters every error
}

func (m *mutant) err(err error) error {
	if err == nil || m.errors == nil {
		return err
	}
	return m.errors(err)
}

func (m *mutant) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	f := m.KMS.GenerateDataKey
	if m.generate != nil {
		f = m.generate
	}
	dk, w, err := f(ctx, key, ec)
	return dk, w, m.err(err)
}

func (m *mutant) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	f := m.KMS.GenerateDataKeyWithoutPlaintext
	if m.without != nil {
		f = m.without
	}
	w, err := f(ctx, key, ec)
	return w, m.err(err)
}

func (m *mutant) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	f := m.KMS.Wrap
	if m.wrap != nil {
		f = m.wrap
	}
	w, err := f(ctx, key, dk, ec)
	return w, m.err(err)
}

func (m *mutant) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	f := m.KMS.Decrypt
	if m.decrypt != nil {
		f = m.decrypt
	}
	dk, err := f(ctx, w, ec)
	return dk, m.err(err)
}

func (m *mutant) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	f := m.KMS.ReEncrypt
	if m.reEncrypt != nil {
		f = m.reEncrypt
	}
	out, err := f(ctx, w, ec, newKey)
	return out, m.err(err)
}

func (m *mutant) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	f := m.KMS.DescribeKey
	if m.describe != nil {
		f = m.describe
	}
	info, err := f(ctx, key)
	return info, m.err(err)
}

// fixed is the context of a KMS that binds none.
var fixed = keymgr.Context{"any": "disk"}

// onEveryCall makes a mutant that does something before each call.
func onEveryCall(k *simulated.KMS, before func(ctx context.Context) (context.Context, error)) *mutant {
	return &mutant{
		KMS: k,
		generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
			ctx, err := before(ctx)
			if err != nil {
				return nil, keymgr.WrappedKey{}, err
			}
			return k.GenerateDataKey(ctx, key, ec)
		},
		without: func(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
			ctx, err := before(ctx)
			if err != nil {
				return keymgr.WrappedKey{}, err
			}
			return k.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
		},
		decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
			ctx, err := before(ctx)
			if err != nil {
				return nil, err
			}
			return k.Decrypt(ctx, w, ec)
		},
		reEncrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
			ctx, err := before(ctx)
			if err != nil {
				return keymgr.WrappedKey{}, err
			}
			return k.ReEncrypt(ctx, w, ec, newKey)
		},
		describe: func(ctx context.Context, key string) (keymgr.KeyInfo, error) {
			ctx, err := before(ctx)
			if err != nil {
				return keymgr.KeyInfo{}, err
			}
			return k.DescribeKey(ctx, key)
		},
	}
}

// withContexts is a mutant that hands another context to the KMS.
func withContexts(k *simulated.KMS, alter func(keymgr.Context) keymgr.Context) *mutant {
	return &mutant{
		KMS: k,
		generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
			return k.GenerateDataKey(ctx, key, alter(ec))
		},
		without: func(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
			return k.GenerateDataKeyWithoutPlaintext(ctx, key, alter(ec))
		},
		decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
			return k.Decrypt(ctx, w, alter(ec))
		},
		reEncrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
			return k.ReEncrypt(ctx, w, alter(ec), newKey)
		},
	}
}

// spoilKey is a mutant whose generated data keys are altered; the blobs are not.
func spoilKey(k *simulated.KMS, alter func(dk []byte)) *mutant {
	return &mutant{KMS: k, generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
		dk, w, err := k.GenerateDataKey(ctx, key, ec)
		if err == nil {
			alter(dk.Bytes())
		}
		return dk, w, err
	}}
}

// mutants have one thing wrong each, and the case that must notice.
var mutants = map[string]struct {
	want string
	make func(*Subject, *simulated.KMS) keymgr.KMS
}{
	"no context is bound": {"context mismatch", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return withContexts(k, func(keymgr.Context) keymgr.Context { return fixed })
	}},
	"only the disk is bound": {"context mismatch", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return withContexts(k, func(ec keymgr.Context) keymgr.Context {
			return keymgr.Context{keymgr.ContextDisk: ec[keymgr.ContextDisk]}
		})
	}},
	"empty entries are dropped": {"context mismatch", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return withContexts(k, func(ec keymgr.Context) keymgr.Context {
			out := keymgr.Context{}
			for name, value := range ec {
				if value != "" {
					out[name] = value
				}
			}
			return out
		})
	}},
	"entries run together": {"context entries do not run together", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return withContexts(k, func(ec keymgr.Context) keymgr.Context {
			joined := ""
			for _, name := range slices.Sorted(mapKeys(ec)) {
				joined += name + ec[name]
			}
			return keymgr.Context{"joined": joined}
		})
	}},
	"wraps for every disk alike": {"wrap a key from elsewhere", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, wrap: func(ctx context.Context, key string, dk *secret.Buffer, _ keymgr.Context) (keymgr.WrappedKey, error) {
			return k.Wrap(ctx, key, dk, nil)
		}}
	}},
	"wraps a key of its own": {"wrap a key from elsewhere", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, wrap: func(ctx context.Context, key string, _ *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
			return k.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
		}}
	}},
	"destroys the caller's key": {"wrap a key from elsewhere", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, wrap: func(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
			defer dk.Destroy()
			return k.Wrap(ctx, key, dk, ec)
		}}
	}},
	"re-wrap takes any context": {"re-wrap binds the context", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, reEncrypt: func(_ context.Context, w keymgr.WrappedKey, _ keymgr.Context, _ string) (keymgr.WrappedKey, error) {
			return w, nil
		}}
	}},
	"another data key is returned": {"unwrap", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, decrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
			dk, err := k.Decrypt(ctx, w, ec)
			if err == nil {
				dk.Bytes()[63] ^= 1
			}
			return dk, err
		}}
	}},
	"a short data key": {"generate", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, generate: func(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
			dk, w, err := k.GenerateDataKey(ctx, key, ec)
			if err != nil {
				return nil, w, err
			}
			dk.Destroy()
			dk, err = secret.Random(32)
			return dk, w, err
		}}
	}},
	"equal halves": {"generate", func(_ *Subject, k *simulated.KMS) keymgr.KMS { return spoilKey(k, func(b []byte) { copy(b, b[32:]) }) }},
	"always the same key": {"generate", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return spoilKey(k, func(b []byte) { copy(b, bytes.Repeat([]byte{1}, 32)); copy(b[32:], bytes.Repeat([]byte{2}, 32)) })
	}},
	"plaintext in the blob":   {"generate", plaintextInBlob},
	"the same blob twice":     {"generate without plaintext", sameBlob},
	"wrong URI":               {"generate", wrongURI},
	"damage is not noticed":   {"damaged blob", damageUnnoticed},
	"tail is ignored":         {"damaged blob", tailIgnored},
	"URI is ignored":          {"blob of another key", uriIgnored},
	"unknown keys are made":   {"unknown key", unknownMade},
	"any error is not found":  {"disabled key", sentinel(keymgr.ErrNotFound)},
	"bare errors":             {"unknown key", func(_ *Subject, k *simulated.KMS) keymgr.KMS { return &mutant{KMS: k, errors: bare} }},
	"no hint":                 {"context mismatch", func(_ *Subject, k *simulated.KMS) keymgr.KMS { return &mutant{KMS: k, errors: noHint} }},
	"key is not named":        {"disabled key", func(_ *Subject, k *simulated.KMS) keymgr.KMS { return &mutant{KMS: k, errors: nameless} }},
	"two lines":               {"unknown key", func(_ *Subject, k *simulated.KMS) keymgr.KMS { return &mutant{KMS: k, errors: twoLines} }},
	"key in an error":         {"unwrap", keyInError},
	"key beside an error":     {"context mismatch", keyBesideError},
	"secret left by an error": {"context mismatch", secretLeft},
	"state is not shown": {"disabled key", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, describe: func(ctx context.Context, key string) (keymgr.KeyInfo, error) {
			info, err := k.DescribeKey(ctx, key)
			info.State = keymgr.Enabled
			return info, err
		}}
	}},
	"disabled keys decrypt": {"disabled key", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		return eachDecrypt(k, k.Enable, func(key string) { k.Disable(key) }, disabledKeys(s))
	}},
	"enabling has no effect": {"enabled again", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		s.Enable = func(testing.TB, string) {}
		return k
	}},
	"denying has no effect": {"access denied", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		s.Deny = func(testing.TB, string) {}
		return k
	}},
	"denied is disabled": {"access denied", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		s.Deny = s.Disable
		return k
	}},
	"rotation has no effect": {"rotation", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		s.Rotate = func(testing.TB, string) {}
		return k
	}},
	"rotation loses old versions": {"rotation", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		s.Rotate = func(t testing.TB, key string) {
			if err := errors.Join(k.CreateKey(key), k.Rotate(key)); err != nil {
				t.Fatal(err)
			}
		}
		return k
	}},
	"re-wrap makes a new data key": {"re-wrap under the same key", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, reEncrypt: func(ctx context.Context, _ keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
			return k.GenerateDataKeyWithoutPlaintext(ctx, newKey, ec)
		}}
	}},
	"re-wrap returns what it got": {"re-wrap under a new version", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, reEncrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
			if _, err := k.ReEncrypt(ctx, w, ec, newKey); err != nil {
				return keymgr.WrappedKey{}, err
			}
			return w, nil
		}}
	}},
	"re-wrap stays under its key": {"re-wrap under another key", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, reEncrypt: func(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, _ string) (keymgr.WrappedKey, error) {
			u, err := keymgr.ParseURI(w.URI)
			if err != nil {
				return keymgr.WrappedKey{}, err
			}
			return k.ReEncrypt(ctx, w, ec, u.Key)
		}}
	}},
	"throttled is unreachable": {"throttled", sentinelFor(keymgr.ErrThrottled, keymgr.ErrUnreachable)},
	"throttled is final":       {"throttled, then not", sentinelFor(keymgr.ErrThrottled, keymgr.ErrState)},
	"the client retries":       {"throttled", clientRetries},
	"unreachable is final":     {"connection lost, then back", sentinelFor(keymgr.ErrUnreachable, keymgr.ErrState)},
	"once lost is lost": {"connection lost", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		var mu sync.Mutex
		failed := false
		m := &mutant{}
		*m = *onEveryCall(k, func(ctx context.Context) (context.Context, error) {
			mu.Lock()
			defer mu.Unlock()
			if failed {
				return nil, &keymgr.Error{Hint: "start again", Err: keymgr.ErrUnreachable}
			}
			return ctx, nil
		})
		m.errors = func(err error) error {
			mu.Lock()
			defer mu.Unlock()
			failed = failed || errors.Is(err, keymgr.ErrUnreachable)
			return err
		}
		return m
	}},
	"a cancelled call is made": {"cancelled before the call", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return onEveryCall(k, func(ctx context.Context) (context.Context, error) { return context.WithoutCancel(ctx), nil })
	}},
	"cancelling changes nothing": {"cancelled during the call", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return onEveryCall(k, func(ctx context.Context) (context.Context, error) { return context.WithoutCancel(ctx), ctx.Err() })
	}},
	"time-out is a cancellation": {"time-out", sentinelFor(keymgr.ErrUnreachable, context.Canceled)},
	"another version is shown": {"describe", func(_ *Subject, k *simulated.KMS) keymgr.KMS {
		return &mutant{KMS: k, describe: func(ctx context.Context, key string) (keymgr.KeyInfo, error) {
			info, err := k.DescribeKey(ctx, key)
			info.PrimaryVersion += "0"
			return info, err
		}}
	}},
	"no time-out": {"time-out", func(s *Subject, k *simulated.KMS) keymgr.KMS {
		return onEveryCall(k, func(ctx context.Context) (context.Context, error) {
			return ctx, simulated.Real().Sleep(ctx, 0)
		}).slowWhenHanging(s)
	}},
	"users share a buffer": {"concurrent use", sharedBuffer},
}
