package vault

import (
	"net/http"
	"time"
)

// renewRetry is the wait after a renewal that failed.
const renewRetry = time.Second

// renewals keeps the token alive until close.
func (l *login) renewals() {
	for {
		have, err := l.current()
		if err != nil {
			return
		}
		if !l.pause(have) {
			return
		}
	}
}

// pause waits until a token is due and sees to it, or until there is another one. It
// returns false in the end.
func (l *login) pause(have grant) bool {
	due := make(<-chan time.Time) // never
	if have.ttl > 0 {
		timer := time.NewTimer(have.due())
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-l.ctx.Done():
		return false
	case <-l.changed:
		return true
	case <-due:
	}
	// A call that comes while this does not succeed finds out by itself when the token
	// has ended.
	return l.extend(have) || l.wait(renewRetry)
}

func (l *login) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// extend renews a token, or logs in anew where that is refused or adds little, as
// towards the end of the longest time that a token may have.
func (l *login) extend(have grant) bool {
	if have.renewable {
		got, err := l.renew(have)
		switch {
		case err == nil && got.ttl > have.ttl/2:
			return l.keep(got) == nil
		case err != nil && !isRefusal(err):
			return false
		}
	}
	_, err := l.logIn(l.ctx, have.token)
	return err == nil
}

func (l *login) renew(have grant) (grant, error) {
	answer, err := l.client.send(l.ctx, have.token, request{http.MethodPut, "auth/token/renew-self", map[string]any{}})
	if err != nil {
		return grant{}, err
	}
	defer answer.Destroy()
	return grantOf(answer)
}
