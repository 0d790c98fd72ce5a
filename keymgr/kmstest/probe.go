package kmstest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// probe is a subject while a case runs on it.
type probe struct {
	testing.TB
	*Subject
	kms *witness // in place of Subject.KMS
}

func newProbe(t testing.TB, s *Subject) *probe {
	p := &probe{TB: t, Subject: s, kms: &witness{t: t, kms: s.KMS}}
	t.Cleanup(p.kms.testify)
	return p
}

// generate makes a data key for a context.
func (p *probe) generate(key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey) {
	p.Helper()
	dk, w, err := p.kms.GenerateDataKey(p.Context(), key, ec)
	if err != nil {
		p.Fatalf("GenerateDataKey under %s: %v", key, err)
	}
	p.Cleanup(dk.Destroy)
	return dk, w
}

// open unwraps what must unwrap.
func (p *probe) open(what string, w keymgr.WrappedKey, ec keymgr.Context) *secret.Buffer {
	p.Helper()
	dk, err := p.kms.Decrypt(p.Context(), w, ec)
	if err != nil {
		p.Fatalf("Decrypt, %s: %v", what, err)
	}
	p.Cleanup(dk.Destroy)
	return dk
}

// opensTo checks that a wrapped key holds a data key.
func (p *probe) opensTo(what string, w keymgr.WrappedKey, ec keymgr.Context, dk *secret.Buffer) {
	p.Helper()
	if got := p.open(what, w, ec); !got.Equal(dk) {
		p.Errorf("Decrypt, %s: another data key", what)
	}
}

// refuses checks that a wrapped key does not open, for one of some reasons.
func (p *probe) refuses(what string, w keymgr.WrappedKey, ec keymgr.Context, want ...error) {
	p.Helper()
	live, _ := secret.Live()
	dk, err := p.kms.Decrypt(p.Context(), w, ec)
	if err == nil {
		dk.Destroy()
		p.Errorf("Decrypt, %s: it opened", what)
		return
	}
	p.fails("Decrypt, "+what, err, want...)
	if n, _ := secret.Live(); n > live {
		p.Errorf("Decrypt, %s: %d secrets stayed in memory", what, n-live)
	}
}

// fails checks that an error is one of some, and says how to go on.
func (p *probe) fails(what string, err error, want ...error) {
	p.Helper()
	if !isOneOf(err, want) {
		p.Errorf("%s: error %v, want %v", what, err, want)
		return
	}
	var e *keymgr.Error
	if !errors.As(err, &e) || e.Hint == "" {
		p.Errorf("%s: error %q has no hint: wrap it in a keymgr.Error", what, err)
	}
}

// namesKey is fails for an error that is about one key, which it must name.
func (p *probe) namesKey(what, key string, err, want error) {
	p.Helper()
	p.fails(what, err, want)
	if err != nil && !strings.Contains(err.Error(), key) {
		p.Errorf("%s: error %q does not name the key %s", what, err, key)
	}
}

func isOneOf(err error, want []error) bool {
	for _, w := range want {
		if errors.Is(err, w) {
			return true
		}
	}
	return false
}

// uri is the URI of a key.
func (p *probe) uri(key string) string { return p.Scheme + ":" + key }

// call is a method of the KMS with its results left out.
type call struct {
	name string
	do   func(ctx context.Context) error
}

// calls are all methods, on a key and on what it wrapped for a context.
func (p *probe) calls(key string, w keymgr.WrappedKey, ec keymgr.Context) []call {
	return append(p.uses(key, w, ec), call{"DescribeKey", func(ctx context.Context) error {
		_, err := p.kms.DescribeKey(ctx, key)
		return err
	}})
}

// uses are the methods that use a key.
func (p *probe) uses(key string, w keymgr.WrappedKey, ec keymgr.Context) []call {
	list := []call{
		{"GenerateDataKey", func(ctx context.Context) error {
			dk, _, err := p.kms.GenerateDataKey(ctx, key, ec)
			dk.Destroy()
			return err
		}},
		{"GenerateDataKeyWithoutPlaintext", func(ctx context.Context) error {
			_, err := p.kms.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
			return err
		}},
		{"Decrypt", func(ctx context.Context) error {
			dk, err := p.kms.Decrypt(ctx, w, ec)
			dk.Destroy()
			return err
		}},
	}
	if p.Lacks[ReWrapping] == "" {
		list = append(list, call{"ReEncrypt", func(ctx context.Context) error {
			_, err := p.kms.ReEncrypt(ctx, w, ec, key)
			return err
		}})
	}
	return list
}

// within fails the test unless f ends in time; it waits for f all the same.
func (p *probe) within(limit time.Duration, what string, f func() error) error {
	p.Helper()
	start := time.Now()
	err := f()
	if took := time.Since(start); took > limit {
		p.Errorf("%s took %v, want at most %v", what, took.Round(time.Millisecond), limit)
	}
	return err
}

// set is the KMS as the product calls it, with waits that do not wait: slept hears of
// each.
func (p *probe) set(attempts int, slept func(n int)) *keymgr.Set {
	n := 0
	retry := keymgr.Retry{
		Attempts: attempts, Base: time.Millisecond, Max: time.Millisecond,
		Sleep: func(ctx context.Context, _ time.Duration) error {
			n++
			slept(n)
			return ctx.Err()
		},
	}
	return keymgr.NewSet(retry, map[string]keymgr.Opener{
		p.Scheme: func(context.Context) (keymgr.KMS, error) { return p.kms, nil },
	})
}
