package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// againPause is how often a worker that was broken into can have the KMS called.
var againPause = time.Second

// lastWords is how long a KMS whose time is over may take to say what was wrong.
const lastWords = 500 * time.Millisecond

// binding is what a worker had unwrapped before it was sealed: the CMK, and the
// encryption context, which tells the disk.
type binding struct {
	uri     string
	version string
	context keymgr.Context
	// recorded is what the disk's record said of the CMK then.
	recorded string
}

// decrypt puts the data key into the pipe, which has room for it, and wipes it.
func (s *server) decrypt(ctx context.Context, r request) (int, error) {
	ctx, done := s.serving.begin(ctx)
	defer done()
	if err := s.mayDecrypt(ctx, r); err != nil {
		return 0, err
	}
	dk, err := s.unwrap(ctx, r)
	if err != nil {
		return 0, err
	}
	defer dk.Destroy()
	if !s.sealed {
		s.disk = binding{r.Key.URI, r.Key.Version, maps.Clone(r.Context), s.recorded()}
	}
	return dk.Len(), dk.WritePipe(s.keys)
}

// mayDecrypt is for a sealed worker. It may have the key of its disk once more, which it
// wiped: the context is the one from before, and every KMS binds a wrapped key to its
// context; the CMK is the one from before, or the one that the disk's record names since
// the disk was wrapped anew. The wrapped key itself is whatever the header of the disk
// holds now, or the worker makes up: it opens to the disk's own key, or not at all.
func (s *server) mayDecrypt(ctx context.Context, r request) error {
	switch {
	case !s.sealed:
		return nil
	case s.disk.context[keymgr.ContextDisk] == "" || !maps.Equal(r.Context, s.disk.context),
		r.Key.URI != s.disk.uri && r.Key.URI != s.recorded():
		return ErrSealed
	}
	select {
	case <-time.After(time.Until(s.again)):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.again = time.Now().Add(againPause)
	return nil
}

// serving is the request under way, if that takes its time.
type serving struct {
	mu     sync.Mutex
	cancel func()
}

func (s *serving) begin(ctx context.Context) (_ context.Context, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, s.cancel = context.WithCancel(ctx)
	return ctx, s.giveUp
}

func (s *serving) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
}

// recorded is the CMK that the disk's record names, empty if that is not known.
func (s *server) recorded() string {
	d, _ := s.readDisk()
	return d.KeyURI
}

func (s *server) readDisk() (Disk, bool) {
	if s.opts.Disk == nil {
		return Disk{}, false
	}
	d, err := s.opts.Disk()
	return d, err == nil
}

// unwrapped is how a call of the KMS ended.
type unwrapped struct {
	dk  *secret.Buffer
	err error
}

// unwrap asks the KMS, until the deadline. A client library that does not look at its
// context is left behind.
func (s *server) unwrap(ctx context.Context, r request) (*secret.Buffer, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Deadline)
	defer cancel()
	done := make(chan unwrapped, 1)
	go func() {
		var u unwrapped
		u.err = sigmask.Do(func() (err error) {
			u.dk, err = s.kms.Decrypt(ctx, r.Key, r.Context)
			return err
		})
		done <- u
	}()
	select {
	case u := <-done:
		return u.dk, down(ctx, r, began, u.err)
	case <-ctx.Done():
	}
	select {
	case u := <-done:
		return u.dk, down(ctx, r, began, u.err)
	case <-time.After(lastWords):
	}
	go func() { (<-done).dk.Destroy() }()
	return nil, down(ctx, r, began, keymgr.ErrUnreachable)
}

// down says of a KMS that does not answer for how long it was asked, and what to do.
func down(ctx context.Context, r request, began time.Time, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && !unanswered(err) {
		err = fmt.Errorf("%w: %w", keymgr.ErrUnreachable, err)
	}
	if !unanswered(err) {
		return err
	}
	return &keymgr.Error{
		Key: r.Key.URI, Hint: "see that the KMS runs and can be reached from here, then try again",
		Err: fmt.Errorf("no data key within %v: %w", time.Since(began).Round(100*time.Millisecond), err),
	}
}

func unanswered(err error) bool {
	return errors.Is(err, keymgr.ErrUnreachable) || errors.Is(err, keymgr.ErrThrottled)
}
