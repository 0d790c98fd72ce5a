package keymgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"sealblk/internal/sigmask"
	"sealblk/keymgr/secret"
)

// Opener connects to a KMS. It runs when a key of that KMS is first used.
type Opener func(ctx context.Context) (KMS, error)

// Set is all the KMSs of a configuration as one: a [KMS] whose key arguments are
// whole URIs. It opens a KMS at its first use, tries again what may be tried again,
// unwraps a blob once for all who ask for it at the same time, and hands out no data
// key that [CheckDataKey] refuses.
type Set struct {
	retry   Retry
	members map[string]*member
	flights flights
	gate    Gate // nil: none
	// simulated: the data keys protect nothing.
	simulated bool
}

type member struct {
	mu   sync.Mutex
	open Opener
	kms  KMS // nil until open succeeded
}

var _ KMS = (*Set)(nil)

// NewSet makes a set of KMSs by the schemes of their URIs.
func NewSet(retry Retry, openers map[string]Opener) *Set {
	s := &Set{retry: retry, members: make(map[string]*member)}
	for scheme, open := range openers {
		s.members[scheme] = &member{open: open}
	}
	return s
}

// SetGate has calls that unwrap wait for their turn. It is called before all others. The
// embedded KMS is no service, and has no gate.
func (s *Set) SetGate(g Gate) { s.gate = g }

// SetSimulated says that data keys protect nothing, so that calls need not keep a thread
// each from signals: a simulation makes more of them than there may be threads.
func (s *Set) SetSimulated() { s.simulated = true }

// Close ends the calls that unwrap, and closes the KMSs that were opened, where they
// can be closed.
func (s *Set) Close() error {
	s.flights.stop()
	var errs []error
	for _, m := range s.members {
		m.mu.Lock()
		if c, ok := m.kms.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
		m.kms = nil
		m.mu.Unlock()
	}
	return errors.Join(errs...)
}

// GenerateDataKey makes a data key under the CMK that a URI names.
func (s *Set) GenerateDataKey(ctx context.Context, uri string, ec Context) (dk *secret.Buffer, w WrappedKey, err error) {
	err = s.call(ctx, uri, func(k KMS, u URI) error {
		dk, w, err = k.GenerateDataKey(ctx, u.Key, ec)
		return err
	})
	if err == nil {
		dk, err = checked(dk)
	}
	if err != nil {
		return nil, WrappedKey{}, err
	}
	return dk, w, nil
}

// GenerateDataKeyWithoutPlaintext makes a data key that the caller does not see.
func (s *Set) GenerateDataKeyWithoutPlaintext(ctx context.Context, uri string, ec Context) (w WrappedKey, err error) {
	err = s.call(ctx, uri, func(k KMS, u URI) error {
		w, err = k.GenerateDataKeyWithoutPlaintext(ctx, u.Key, ec)
		return err
	})
	return w, err
}

// Decrypt unwraps a data key at the KMS that its URI names. Callers who ask for the
// same blob under the same context at the same time share one call; each gets a buffer
// of its own. One whose ctx ends leaves the others their call; the call ends when
// nobody waits for it.
func (s *Set) Decrypt(ctx context.Context, w WrappedKey, ec Context) (*secret.Buffer, error) {
	encoded, err := ec.Encode()
	if err != nil {
		return nil, &Error{Code: CodeInvalid, Key: w.URI, Err: err}
	}
	key := flightKey{uri: w.URI, version: w.Version, blob: string(w.Blob), context: string(encoded)}
	w.Blob, ec = bytes.Clone(w.Blob), maps.Clone(ec) // the call may outlive this caller
	return s.flights.unwrap(ctx, key, func(ctx context.Context, failed func(error)) (*secret.Buffer, error) {
		return s.decrypt(ctx, w, ec, failed)
	})
}

// decrypt is one call for all who wait for it. failed hears of each attempt that failed.
func (s *Set) decrypt(ctx context.Context, w WrappedKey, ec Context, failed func(error)) (dk *secret.Buffer, err error) {
	place, err := s.enter(ctx, w.URI)
	if err != nil {
		return nil, err
	}
	defer place.Leave()
	retry := s.retry
	retry.silent = place.Silent()
	heard := func(err error) {
		place.Answered(!errors.Is(err, ErrUnreachable))
		if err != nil {
			failed(err)
		}
	}
	err = s.callWith(ctx, retry, heard, w.URI, func(k KMS, _ URI) error {
		dk, err = s.attempt(ctx, k, w, ec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return checked(dk)
}

// attempt unwraps once. No signal interrupts the thread, whose registers may hold words
// of the data key. A KMS that does not answer at all is not waited for longer than one
// that says so.
func (s *Set) attempt(ctx context.Context, k KMS, w WrappedKey, ec Context) (dk *secret.Buffer, err error) {
	inTime := ctx
	if s.retry.Silence > 0 {
		var cancel context.CancelFunc
		inTime, cancel = context.WithTimeout(ctx, s.retry.Silence)
		defer cancel()
	}
	unwrap := func() error {
		dk, err = k.Decrypt(inTime, w, ec)
		return err
	}
	if s.simulated {
		err = unwrap()
	} else {
		err = sigmask.Do(unwrap)
	}
	if err != nil && inTime.Err() != nil && ctx.Err() == nil && !retryable(err) {
		err = fmt.Errorf("%w: no answer within %v: %w", ErrUnreachable, s.retry.Silence, err)
	}
	return dk, err
}

// enter waits for a call's turn.
func (s *Set) enter(ctx context.Context, uri string) (Place, error) {
	u, err := ParseURI(uri)
	if s.gate == nil || err != nil || u.Scheme == SchemeLocal || s.members[u.Scheme] == nil {
		return open{}, nil
	}
	return s.gate.Enter(ctx, u.Scheme, s.retry)
}

// ReEncrypt wraps a data key under another CMK of the same KMS.
func (s *Set) ReEncrypt(ctx context.Context, w WrappedKey, ec Context, newURI string) (out WrappedKey, err error) {
	to, err := ParseURI(newURI)
	if err != nil {
		return WrappedKey{}, err
	}
	err = s.call(ctx, w.URI, func(k KMS, from URI) error {
		if from.Scheme != to.Scheme {
			return &Error{
				Code: CodeInvalid, Key: newURI,
				Hint: "a wrapped key moves between keys of one KMS only, this one belongs to " + from.Scheme,
				Err:  fmt.Errorf("re-encrypt under a key of another KMS: %w", ErrInvalid),
			}
		}
		out, err = k.ReEncrypt(ctx, w, ec, to.Key)
		return err
	})
	return out, err
}

// DescribeKey tells what is known of the key that a URI names.
func (s *Set) DescribeKey(ctx context.Context, uri string) (info KeyInfo, err error) {
	err = s.call(ctx, uri, func(k KMS, u URI) error {
		info, err = k.DescribeKey(ctx, u.Key)
		return err
	})
	return info, err
}

// call finds the KMS of a URI and calls it under the retry policy.
func (s *Set) call(ctx context.Context, uri string, f func(KMS, URI) error) error {
	return s.callWith(ctx, s.retry, func(error) {}, uri, f)
}

// callWith is call under a policy of its own. heard is told how each attempt ended.
func (s *Set) callWith(ctx context.Context, retry Retry, heard func(error), uri string, f func(KMS, URI) error) error {
	m, u, err := s.find(uri)
	if err != nil {
		return err
	}
	return retry.Do(ctx, func() error {
		k, err := m.get(ctx)
		if err == nil {
			err = f(k, u)
		}
		heard(err)
		return err
	})
}

// find is the KMS that a URI names.
func (s *Set) find(uri string) (*member, URI, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, u, err
	}
	m, ok := s.members[u.Scheme]
	if !ok {
		return nil, u, &Error{
			Code: CodeInvalid, Key: uri,
			Hint: "known are: " + strings.Join(slices.Sorted(maps.Keys(s.members)), ", "),
			Err:  fmt.Errorf("no KMS %q is configured: %w", u.Scheme, ErrInvalid),
		}
	}
	return m, u, nil
}

// get opens the KMS unless it is open. A failure is not remembered.
func (m *member) get(ctx context.Context) (KMS, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kms != nil {
		return m.kms, nil
	}
	k, err := m.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open KMS: %w", err)
	}
	m.kms = k
	return k, nil
}

// checked destroys a data key that is not fit for use.
func checked(dk *secret.Buffer) (*secret.Buffer, error) {
	if err := CheckDataKey(dk); err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}
