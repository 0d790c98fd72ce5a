package vhost

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Options of a server. The zero Options are good.
type Options struct {
	// Logger takes one line for each session that ends and for each ring that
	// breaks. Nil is slog.Default().
	Logger *slog.Logger
	// Active is told when a session begins (true) and when it has ended (false). May
	// be nil.
	Active func(bool)
	// PollMax bounds the time for which a ring is looked at before its thread sleeps;
	// how long it is in fact depends on what that gained. 0: threads sleep at once.
	PollMax time.Duration
}

func (o *Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.Default()
	}
	return o.Logger
}

// Serve accepts front-ends and serves one at a time, the next when the one before
// is gone. It returns nil when the context is done, after the requests in flight,
// and an error when it cannot accept any more. The listener stays the caller's.
func Serve(ctx context.Context, ln *net.UnixListener, dev Device, opts Options) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		conn, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("accept front-end: %w", err)
		}
		logEnd(opts.logger(), ServeConn(ctx, conn, dev, opts))
	}
	return nil
}

func logEnd(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("session ended with an error", "err", err)
		return
	}
	log.Info("session ended")
}

// ServeConn serves the front-end behind conn, and closes conn. It returns nil when
// the front-end leaves or the context is done, and else what ended the session.
func ServeConn(ctx context.Context, conn *net.UnixConn, dev Device, opts Options) error {
	s, err := newSession(conn, dev, &opts)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	if opts.Active != nil {
		opts.Active(true)
		defer opts.Active(false)
	}
	return s.run(ctx)
}
