package kmstest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sealblk/keymgr"
)

// promptly is how long a call may go on that nobody wants any more.
const promptly = 2 * time.Second

func throttled(p *probe) {
	key := p.NewKey(p)
	_, w := p.generate(key, Disk("1"))
	for _, c := range p.calls(key, w, Disk("1")) {
		p.Throttle(p, 1)
		err := c.do(p.Context())
		if err == nil {
			p.Errorf("%s: it was throttled and succeeded: the client retries by itself", c.name)
			continue
		}
		p.fails(c.name, err, keymgr.ErrThrottled)
		if err := c.do(p.Context()); err != nil {
			p.Errorf("%s after it was throttled: %v", c.name, err)
		}
	}
}

func throttledThenNot(p *probe) {
	dk, w := p.generate(p.NewKey(p), Disk("1"))
	p.Throttle(p, 3)
	waits := 0
	got, err := p.set(6, func(n int) { waits = n }).Decrypt(p.Context(), w, Disk("1"))
	if err != nil {
		p.Fatalf("Decrypt through a set, throttled three times: %v", err)
	}
	defer got.Destroy()
	if !got.Equal(dk) || waits != 3 {
		p.Errorf("same data key: %v, after %d waits, want 3", got.Equal(dk), waits)
	}
}

func connectionLost(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	p.Break(p)
	for _, c := range p.calls(key, w, Disk("1")) {
		err := p.within(p.limit(), c.name, func() error { return c.do(p.Context()) })
		if err == nil {
			p.Errorf("%s succeeded without a connection", c.name)
			continue
		}
		p.fails(c.name+" without a connection", err, keymgr.ErrUnreachable)
	}
	p.Mend(p)
	p.opensTo("with the connection back", w, Disk("1"), dk)
	for _, c := range p.calls(key, w, Disk("1")) {
		if err := c.do(p.Context()); err != nil {
			p.Errorf("%s with the connection back: %v", c.name, err)
		}
	}
}

// limit is how long a call may take that ends by itself.
func (p *probe) limit() time.Duration { return 2*p.Timeout + promptly }

func connectionLostThenBack(p *probe) {
	dk, w := p.generate(p.NewKey(p), Disk("1"))
	p.Break(p)
	got, err := p.set(6, func(n int) {
		if n == 2 {
			p.Mend(p)
		}
	}).Decrypt(p.Context(), w, Disk("1"))
	if err != nil {
		p.Fatalf("Decrypt through a set, connection back after two attempts: %v", err)
	}
	defer got.Destroy()
	if !got.Equal(dk) {
		p.Error("another data key")
	}
}

func timeOut(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	p.Hang(p)
	for _, c := range p.calls(key, w, Disk("1")) {
		err := p.within(p.limit(), c.name, func() error { return c.do(p.Context()) })
		if err == nil {
			p.Errorf("%s succeeded without an answer", c.name)
			continue
		}
		p.fails(c.name+" without an answer", err, keymgr.ErrUnreachable)
	}
	p.Mend(p)
	p.opensTo("with answers back", w, Disk("1"), dk)
}

func cancelledDuring(p *probe) {
	key := p.NewKey(p)
	dk, w := p.generate(key, Disk("1"))
	p.Hang(p)
	for _, c := range p.calls(key, w, Disk("1")) {
		p.isCancelled(c.name+", cancelled without an answer", p.cancelDuring(c))
	}
	p.Mend(p)
	p.opensTo("with answers back", w, Disk("1"), dk)
}

// cancelDuring makes a call that gets no answer and cancels it. On a machine that is so
// busy that the cancellation comes no sooner than the KMS's own time-out it tries again.
func (p *probe) cancelDuring(c call) (err error) {
	for range 5 {
		ctx, cancel := context.WithCancel(p.Context())
		start := time.Now()
		at := make(chan time.Duration, 1)
		time.AfterFunc(p.Timeout/8, func() {
			cancel()
			at <- time.Since(start)
		})
		err = p.within(promptly, c.name, func() error { return c.do(ctx) })
		if took := <-at; took < p.Timeout/3 || errors.Is(err, context.Canceled) {
			return err
		}
	}
	return err
}

func (p *probe) isCancelled(what string, err error) {
	p.Helper()
	if !errors.Is(err, context.Canceled) {
		p.Errorf("%s: error %v, want %v", what, err, context.Canceled)
	}
}

// users and rounds of concurrent use.
const (
	users  = 8
	rounds = 4
)

func concurrentUse(p *probe) {
	key := p.NewKey(p)
	var wg sync.WaitGroup
	for user := range users {
		wg.Go(func() {
			for round := range rounds {
				if err := p.useOnce(key, Disk(fmt.Sprint(user, "-", round))); err != nil {
					p.Errorf("user %d, round %d: %v", user, round, err)
				}
			}
		})
	}
	wg.Wait()
}

// useOnce makes a data key and opens it, for a context that nobody else uses.
func (p *probe) useOnce(key string, ec keymgr.Context) error {
	dk, w, err := p.kms.GenerateDataKey(p.Context(), key, ec)
	if err != nil {
		return fmt.Errorf("GenerateDataKey: %w", err)
	}
	defer dk.Destroy()
	got, err := p.kms.Decrypt(p.Context(), w, ec)
	if err != nil {
		return fmt.Errorf("Decrypt: %w", err)
	}
	defer got.Destroy()
	if !got.Equal(dk) {
		return errors.New("another data key")
	}
	if stray, err := p.kms.Decrypt(p.Context(), w, Disk("another")); !errors.Is(err, keymgr.ErrContextMismatch) {
		stray.Destroy()
		return fmt.Errorf("under another context: %w", err)
	}
	return nil
}
