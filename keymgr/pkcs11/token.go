//go:build pkcs11

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// token is a connection to one token: sessions that are logged in.
type token struct {
	config Config
	module *module
	// places has room for each session that may exist; a call holds one.
	places chan struct{}
	calls  sync.WaitGroup

	// opening is held while a session is opened, which may wait for the PIN. It comes
	// before mu.
	opening sync.Mutex
	// refused is the answer to a PIN, which is not tried again.
	refused error

	mu     sync.Mutex
	idle   []session
	closed bool

	// life ends when the token is closed.
	life context.Context
	end  context.CancelFunc
}

// session is one session with the token, used by one call at a time.
type session struct {
	*module
	config  Config
	handle  pkcs11.SessionHandle
	started uint64 // of the module when the session was opened
}

// newToken takes a configuration. It connects when it is first used.
func newToken(c Config) (*token, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := useModule(c.Module)
	if err != nil {
		return nil, err
	}
	t := &token{config: c, module: m, places: make(chan struct{}, c.Sessions)}
	t.life, t.end = context.WithCancel(context.Background())
	return t, nil
}

// close ends the sessions. Calls that the module has not answered in time keep it.
func (t *token) close() {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.closed = true
	t.end()
	idle := t.idle
	t.idle = nil
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.calls.Wait()
		t.closeAll(idle)
		t.module.release()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), t.config.Timeout)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// closeAll closes the sessions that the module still knows: another one may have got the
// number of one that it does not.
func (t *token) closeAll(sessions []session) {
	t.module.mu.RLock()
	defer t.module.mu.RUnlock()
	for _, s := range sessions {
		if s.started == t.module.started {
			s.close()
		}
	}
}

// job is what a call does with a session of its own.
type job[T any] struct {
	key, what string // for errors
	run       func(session) (T, error)
	// discard takes a result that comes too late. done is called when run will not be
	// called any more, which may be after the call has returned. Both may be nil.
	discard func(T)
	done    func()
}

func (j *job[T]) end() {
	if j.done != nil {
		j.done()
	}
}

// call does a job before the context or the time-out of the token ends.
func call[T any](ctx context.Context, t *token, j job[T]) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	ctx, cancel := context.WithTimeoutCause(ctx, t.config.Timeout, errTimeout)
	defer cancel()
	if err := t.enter(ctx); err != nil {
		j.end()
		return none, late(ctx, j.key, j.what, err)
	}
	answers := make(chan answer)
	go func() {
		defer t.leave()
		defer j.end()
		value, err := withSession(ctx, t, j.run)
		select {
		case answers <- answer{value, err}:
		case <-ctx.Done():
			if err == nil && j.discard != nil {
				j.discard(value)
			}
		}
	}()
	select {
	case a := <-answers:
		return a.value, explain(j.key, j.what, a.err)
	case <-ctx.Done():
		return none, late(ctx, j.key, j.what, ctx.Err())
	}
}

var errTimeout = errors.New("the module does not answer in time")

// late is the error of a call that was given up.
func late(ctx context.Context, key, what string, err error) error {
	if !errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return &keymgr.Error{
		Key: uriOf(key), Hint: "see whether the HSM works, or raise timeout in [kms.pkcs11]",
		Err: fmt.Errorf("%s: %w: %w", what, keymgr.ErrUnreachable, errTimeout),
	}
}

// enter waits for a place.
func (t *token) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		<-t.places
		return errClosed
	}
	t.calls.Add(1)
	return nil
}

func (t *token) leave() {
	<-t.places
	t.calls.Done()
}

// withSession runs f, and once more with a new session when the token has forgotten
// the old one.
func withSession[T any](ctx context.Context, t *token, f func(session) (T, error)) (T, error) {
	value, seen, err := once(ctx, t, f)
	if !lost(err) {
		return value, err
	}
	var none T
	if err := t.module.restart(seen); err != nil {
		return none, err
	}
	value, _, err = once(ctx, t, f)
	return value, err
}

// once runs f with a session, in which no restart of the module comes.
func once[T any](ctx context.Context, t *token, f func(session) (T, error)) (value T, started uint64, err error) {
	t.module.mu.RLock()
	defer t.module.mu.RUnlock()
	started = t.module.started
	s, err := t.take(ctx)
	if err != nil {
		return value, started, err
	}
	value, err = f(s)
	if err != nil && !keepsSession(err) {
		s.close()
		return value, started, err
	}
	t.put(s)
	return value, started, err
}

// keepsSession tells whether an error leaves no operation of PKCS#11 half done.
func keepsSession(err error) bool {
	var code pkcs11.Error
	return !errors.As(err, &code)
}

// take returns an idle session or opens one. The caller holds the module's lock.
func (t *token) take(ctx context.Context) (session, error) {
	if s, ok := t.takeIdle(); ok {
		return s, nil
	}
	t.opening.Lock()
	defer t.opening.Unlock()
	return t.open(ctx)
}

func (t *token) takeIdle() (session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := len(t.idle); n > 0; n = len(t.idle) {
		s := t.idle[n-1]
		t.idle = t.idle[:n-1]
		if s.started == t.module.started {
			return s, true
		}
	}
	return session{}, false
}

func (t *token) put(s session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		s.close()
		return
	}
	t.idle = append(t.idle, s)
}

// open opens a session and logs in. opening keeps two from doing so at once: a wrong PIN
// must be tried once only.
func (t *token) open(ctx context.Context) (session, error) {
	if t.refused != nil {
		return session{}, t.refused
	}
	m := t.module
	slot, err := m.slot(t.config)
	if err != nil {
		return session{}, err
	}
	handle, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return session{}, err
	}
	s := session{m, t.config, handle, m.started}
	if err := t.login(ctx, s); err != nil {
		s.close()
		return session{}, err
	}
	return s, nil
}

func (t *token) login(ctx context.Context, s session) error {
	if t.config.PINFile == "" || s.loggedIn() {
		return nil
	}
	pin, err := t.readPIN(ctx)
	if err != nil {
		return fmt.Errorf("read PIN: %w", err)
	}
	defer pin.Destroy()
	err = s.raw.login(s.handle, pin)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return nil
	}
	if denied := explain("", "log in to token "+t.config.Token, err); errors.Is(denied, keymgr.ErrAccessDenied) {
		t.refused = denied
		return denied
	}
	return err
}

// readPIN reads the PIN, which may be a pipe, as long as somebody waits for the call.
func (t *token) readPIN(ctx context.Context) (*secret.Buffer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	pin, err := secret.ReadTextFile(ctx, t.config.PINFile, maxPIN)
	if err != nil && t.life.Err() != nil {
		return nil, errClosed
	}
	return pin, wire.Silent(err)
}

// loggedIn: the token shows its private objects.
func (s session) loggedIn() bool {
	info, err := s.ctx.GetSessionInfo(s.handle)
	return err == nil && (info.State == pkcs11.CKS_RO_USER_FUNCTIONS || info.State == pkcs11.CKS_RW_USER_FUNCTIONS)
}

func (s session) close() {
	s.ctx.CloseSession(s.handle) //nolint:errcheck // it may be gone
}
