package kmsserver

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// Window is how far a time stamp may be from the server's clock.
	Window = 15 * time.Minute
	// maxNonces bounds the memory: 1,000 signed requests a second for the window.
	maxNonces = 1 << 20
)

// replays remembers the nonces of requests until their time stamps are too old to be
// accepted again. Only requests with a true signature come here, so strangers cannot
// fill it.
type replays struct {
	start time.Time

	mu    sync.Mutex
	count int
	// seen holds, for each minute, the nonces that may be forgotten when it is over.
	seen map[int64]map[nonce]struct{}
}

// nonce is a digest of access key and nonce.
type nonce [16]byte

func newReplays(start time.Time) *replays {
	return &replays{start: start.Truncate(time.Second), seen: map[int64]map[nonce]struct{}{}}
}

// checkTime refuses a time stamp that is out of the window.
func (r *replays) checkTime(now, stamped time.Time) error {
	switch {
	case stamped.Before(now.Add(-Window)) || stamped.After(now.Add(Window)):
		return faultf(codeTime, "the time stamp is more than %v from the server's clock", Window)
	case stamped.Before(r.start):
		return faultf(codeStarting, "the request was signed before this server started, sign it again")
	}
	return nil
}

// take notes a nonce, which must be new.
func (r *replays) take(now time.Time, c *claim) error {
	sum := sha256.Sum256([]byte(c.accessKey + "\x00" + c.nonce))
	n := nonce(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(now)
	for _, minute := range r.seen {
		if _, used := minute[n]; used {
			return faultf(codeNonce, "the nonce was used before, sign each request with another one")
		}
	}
	if r.count >= maxNonces {
		return faultf(codeThrottled, "there are too many requests, try again later")
	}
	minute := c.time.Add(Window).Unix()/60 + 1
	if r.seen[minute] == nil {
		r.seen[minute] = map[nonce]struct{}{}
	}
	r.seen[minute][n] = struct{}{}
	r.count++
	return nil
}

func (r *replays) forgetLocked(now time.Time) {
	for minute, nonces := range r.seen {
		if minute < now.Unix()/60 {
			r.count -= len(nonces)
			delete(r.seen, minute)
		}
	}
}
