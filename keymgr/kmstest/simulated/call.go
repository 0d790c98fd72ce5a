package simulated

import (
	"context"
	"fmt"
	"time"

	"sealblk/keymgr"
)

// verdict is what becomes of a call.
type verdict int

const (
	taken verdict = iota
	refused
	lost       // before the server saw it
	answerLost // after the server did it
	noServer   // nobody listens
	noAnswer   // nobody answers
)

// call is one call over the network: work is what the server does, undo forgets the
// result when the answer does not arrive.
func (k *KMS) call(ctx context.Context, work func() error, undo func()) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("call KMS: %w", err)
	}
	v, latency := k.arrive()
	if v == noAnswer || latency > k.opts.Timeout {
		latency = k.opts.Timeout
	}
	if err := k.opts.Time.Sleep(ctx, latency); err != nil {
		return fmt.Errorf("call KMS: %w", err)
	}
	switch v {
	case refused:
		return throttled()
	case lost:
		return unreachable("connection lost")
	case noServer:
		return unreachable("connection refused")
	case noAnswer:
		return unreachable(fmt.Sprintf("no answer within %v", k.opts.Timeout))
	}
	if latency == k.opts.Timeout {
		return unreachable(fmt.Sprintf("no answer within %v", k.opts.Timeout))
	}
	err := work()
	if v == answerLost {
		if err == nil {
			undo()
		}
		return unreachable("connection lost")
	}
	return err
}

// arrive decides what becomes of a call that is made now, and how long it takes.
func (k *KMS) arrive() (verdict, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.opts.Time.Now()
	second := k.load.at(now)
	second.Offered++
	v := k.decideLocked(now)
	switch v {
	case taken, answerLost:
		second.Taken++
		return v, k.opts.Latency.draw(k.random)
	case refused:
		second.Throttled++
		return v, k.opts.Latency.Min
	case noServer, lost:
		second.Lost++
		return v, hangUp
	}
	second.Lost++
	return v, 0
}

func (k *KMS) decideLocked(now time.Duration) verdict {
	switch {
	case k.broken || k.opts.inOutage(now):
		return noServer
	case k.hanging:
		return noAnswer
	}
	chance := 1.0
	if k.opts.Loss > 0 {
		chance = k.random.Float64()
	}
	if chance < k.opts.Loss/2 {
		return lost
	}
	if k.throttle > 0 {
		k.throttle--
		return refused
	}
	if k.bucket != nil && !k.bucket.take(now) {
		return refused
	}
	if chance < k.opts.Loss {
		return answerLost
	}
	return taken
}

func throttled() error {
	return &keymgr.Error{
		Code: "Throttling", Hint: "try again later, or have the KMS's limit raised",
		Err: keymgr.ErrThrottled,
	}
}

func unreachable(why string) error {
	return &keymgr.Error{
		Hint: "see whether the KMS runs",
		Err:  fmt.Errorf("%s: %w", why, keymgr.ErrUnreachable),
	}
}
