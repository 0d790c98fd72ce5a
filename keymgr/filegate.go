package keymgr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sealblk/internal/filelock"
)

// FileGate is the gate of all processes of a host: for each place of a KMS a file,
// kms-SCHEME-N.lock, which is locked by whoever has it, so that a process that dies
// gives its place up; and kms-SCHEME.silent, which is there since the KMS stopped to
// answer. Where these files cannot be had there is no gate.
type FileGate struct {
	// Dir has the files; it must be there.
	Dir string
	// Places; 0: GatePlaces.
	Places int
}

// silenceCheck is how often those who wait look whether the KMS answers others.
const silenceCheck = 250 * time.Millisecond

// Enter takes a place of a KMS, or waits for one.
func (g FileGate) Enter(ctx context.Context, kms string, limits Retry) (Place, error) {
	start := time.Now()
	places := g.Places
	if places == 0 {
		places = GatePlaces
	}
	first := rand.N(places)
	for i := range places {
		f, err := filelock.Try(g.lock(kms, (first+i)%places))
		if err == nil {
			return &filePlace{file: f, mark: g.silent(kms)}, nil
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return open{}, nil
		}
	}
	f, err := g.wait(ctx, kms, g.lock(kms, first), limits)
	switch {
	case err == nil:
		p := &filePlace{file: f, mark: g.silent(kms)}
		if since, silent := g.silentSince(kms, start); silent {
			p.waited = time.Since(since)
		}
		return p, nil
	case errors.Is(err, ErrUnreachable) || ctx.Err() != nil:
		return nil, err
	}
	return open{}, nil
}

// wait queues for one place.
func (g FileGate) wait(ctx context.Context, kms, path string, limits Retry) (*os.File, error) {
	waiting, give := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { give(g.lookOut(waiting, kms, limits)) })
	f, err := filelock.Wait(waiting, path)
	give(nil)
	wg.Wait()
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return nil, context.Cause(waiting)
	}
	return f, err
}

// lookOut returns when a caller has waited long enough, and why; or when ctx ends.
func (g FileGate) lookOut(ctx context.Context, kms string, limits Retry) error {
	start := time.Now()
	ticker := time.NewTicker(silenceCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if limits.Patience > 0 && time.Since(start) >= limits.Patience {
			return errPatience(kms, limits.Patience)
		}
		if since, silent := g.silentSince(kms, start); silent && limits.Silence > 0 && time.Since(since) >= limits.Silence {
			return errSilent(kms, limits.Silence)
		}
	}
}

// silentSince is when the KMS stopped to answer, as far as somebody who came at start
// can tell: the file may be of another day.
func (g FileGate) silentSince(kms string, start time.Time) (since time.Time, silent bool) {
	info, err := os.Stat(g.silent(kms))
	if err != nil {
		return time.Time{}, false
	}
	if since = info.ModTime(); since.Before(start) {
		since = start
	}
	return since, true
}

func (g FileGate) lock(kms string, place int) string {
	return filepath.Join(g.Dir, fmt.Sprintf("kms-%s-%d.lock", kms, place))
}

func (g FileGate) silent(kms string) string { return filepath.Join(g.Dir, "kms-"+kms+".silent") }

type filePlace struct {
	file   *os.File
	mark   string        // the file that tells of silence
	waited time.Duration // in silence
}

func (p *filePlace) Silent() time.Duration { return p.waited }

// Answered keeps the mark. A failure costs others a wait.
func (p *filePlace) Answered(answered bool) {
	if answered {
		os.Remove(p.mark) //nolint:errcheck // it is seldom there
		return
	}
	if f, err := os.OpenFile(p.mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
		f.Close()
	}
}

func (p *filePlace) Leave() { p.file.Close() }
