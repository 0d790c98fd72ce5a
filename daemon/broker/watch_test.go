package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// A broker whose environment names a folder has a KMS that does what is written there:
//
//	state-K   the state of the key K, or an error
//	state-K-V that of the version V of K
//	version   the version in the disk's header
//	recorded  the CMK in the disk's record
//	relaxed   if it is there, nothing follows from the loss of the key
//	away      if it is there, the KMS has no stamp
//	interval  if it is there, the KMS is not asked before long without a cause
//	calls     a line for each call, by the KMS
type fileKMS struct {
	*Client
	dir string
}

// deadline is that of the brokers over a fileKMS.
const deadline = time.Second

func serveTest(dir string) error {
	if dir == "1" {
		return Serve(context.Background(), fakeKMS{}, Options{})
	}
	k := fileKMS{dir: dir}
	interval := 20 * time.Millisecond
	if k.read("interval") != "" {
		interval = time.Hour
	}
	var version func(string) string
	if k.read("version") != "" {
		version = func(string) string { return k.read("version") }
	}
	return Serve(context.Background(), keymgr.NewSet(keymgr.Retry{Patience: time.Hour, Base: time.Millisecond, Max: 10 * time.Millisecond}, map[string]keymgr.Opener{
		"slow":  func(context.Context) (keymgr.KMS, error) { return k, nil },
		"local": func(context.Context) (keymgr.KMS, error) { return watchableKMS{k}, nil },
	}), Options{
		Deadline: deadline, Interval: interval, Version: version,
		Disk: func() (Disk, error) { return Disk{KeyURI: k.read("recorded"), Urgent: k.read("relaxed") == ""}, nil },
	})
}

func (k fileKMS) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(k.dir, name))
	return string(text)
}

func (k fileKMS) called(what string) {
	f, err := os.OpenFile(filepath.Join(k.dir, "calls"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		fmt.Fprintln(f, what)
		f.Close()
	}
}

// verdict is what the KMS thinks of a key.
func (k fileKMS) verdict(ctx context.Context, key string) error {
	switch state := k.read("state-" + key); state {
	case "", string(keymgr.Enabled):
		return nil
	case string(keymgr.Disabled):
		return &keymgr.Error{Code: "Rejected.Disabled", Key: key, Err: keymgr.ErrDisabled}
	case "denied":
		return keymgr.ErrAccessDenied
	case "expired":
		return keymgr.ErrCredentials
	case "unreachable":
		return fmt.Errorf("dial: %w", keymgr.ErrUnreachable)
	case "throttled":
		return keymgr.ErrThrottled
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "hang for ever":
		select {}
	default:
		return errors.New("state " + state)
	}
}

func (k fileKMS) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	k.called("describe " + key)
	err := k.verdict(ctx, key)
	if errors.Is(err, keymgr.ErrDisabled) {
		return keymgr.KeyInfo{State: keymgr.Disabled}, nil
	}
	return keymgr.KeyInfo{State: keymgr.Enabled}, err
}

func (k fileKMS) CheckVersion(ctx context.Context, key, version string) error {
	k.called("check " + key)
	return k.verdict(ctx, key+"-"+version)
}

func (k fileKMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	u, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return nil, err
	}
	k.called("decrypt " + u.Key + " " + string(w.Blob))
	if err := k.verdict(ctx, u.Key); err != nil {
		return nil, err
	}
	if string(w.Blob) != ec[keymgr.ContextDisk] { // a blob of this KMS tells its context
		return nil, keymgr.ErrContextMismatch
	}
	b, err := secret.New(keymgr.DataKeySize)
	if err == nil {
		copy(b.Bytes(), plain())
	}
	return b, err
}

// watchableKMS tells of changes by itself.
type watchableKMS struct{ fileKMS }

func (k watchableKMS) Usable(ctx context.Context, key, _ string) error {
	k.called("usable " + key)
	return k.verdict(ctx, key)
}

func (k watchableKMS) Stamp(key string) string {
	if k.read("away") != "" {
		return ""
	}
	return "stamp " + k.read("state-"+key)
}

// site is a broker with a KMS in a folder.
type site struct {
	*Client
	t    *testing.T
	dir  string
	told chan error
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), told: make(chan error, 100)}
	t.Setenv(brokerEnv, s.dir)
	s.Client = New("/proc/self/exe", []string{"broker"}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) set(name, value string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", []byte(value), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) calls(what string) int {
	text, _ := os.ReadFile(filepath.Join(s.dir, "calls"))
	return strings.Count(string(text), what)
}

// unwrap asks for the key of a disk, under a CMK.
func (s *site) unwrap(uri, disk, blob string) error {
	dk, err := s.Decrypt(context.Background(), keymgr.WrappedKey{URI: uri, Blob: []byte(blob)}, keymgr.Context{keymgr.ContextDisk: disk})
	if err == nil && !bytes.Equal(dk.Bytes(), plain()) {
		s.t.Error("another key came out")
	}
	dk.Destroy()
	return err
}

// serving is the state in which a worker serves: unwrapped, sealed and watching.
func (s *site) serving(uri string) {
	s.t.Helper()
	ctx := context.Background()
	if err := s.unwrap(uri, "mine", "mine"); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Seal(ctx, []string{"/nonexistent"}, nil); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Watch(ctx, func(err error) { s.told <- err }); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) wantTold(want error) {
	s.t.Helper()
	select {
	case err := <-s.told:
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			s.t.Fatalf("told %v, want %v", err, want)
		}
	case <-time.After(10 * time.Second):
		s.t.Fatalf("not told of %v", want)
	}
}

// quiet checks that nothing more is told, after the KMS was asked some more.
func (s *site) quiet(call string) {
	s.t.Helper()
	for n, end := s.calls(call), time.Now().Add(10*time.Second); s.calls(call) < n+3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("the KMS is not asked any more")
		}
	}
	select {
	case err := <-s.told:
		s.t.Fatalf("told %v", err)
	default:
	}
}

// TestWatch: each change of the key's state is told, once, and that a KMS does not answer
// is told as no loss.
func TestWatch(t *testing.T) {
	for uri, call := range map[string]string{"slow:key": "describe key", "local:key": "usable key"} {
		t.Run(uri, func(t *testing.T) {
			s := newSite(t)
			s.serving(uri)
			s.wantTold(nil)
			s.quiet(call)
			s.set("state-key", "Disabled")
			s.wantTold(keymgr.ErrDisabled)
			s.quiet(call)
			s.set("state-key", "Enabled")
			s.wantTold(nil)
			s.set("state-key", "unreachable")
			s.wantTold(keymgr.ErrUnreachable)
			s.quiet(call)
			s.set("state-key", "denied")
			s.wantTold(keymgr.ErrAccessDenied)
			s.set("state-key", "expired")
			if err := <-s.told; !errors.Is(err, keymgr.ErrCredentials) || keymgr.IsLoss(err) {
				t.Errorf("told %v", err)
			}
			s.set("state-key", "denied")
			s.wantTold(keymgr.ErrAccessDenied)
			s.set("state-key", "damaged")
			if err := <-s.told; err == nil || keymgr.IsLoss(err) {
				t.Errorf("told %v", err)
			}
			s.set("state-key", "Enabled")
			s.wantTold(nil)
		})
	}
}

// TestWatchOfAVersion: it is the one that was unwrapped, or the one in the disk's header,
// which changes when the disk is wrapped anew.
func TestWatchOfAVersion(t *testing.T) {
	unwrapped := newSite(t)
	dk, err := unwrapped.Decrypt(t.Context(), keymgr.WrappedKey{URI: "slow:key", Version: "1", Blob: []byte("mine")}, keymgr.Context{keymgr.ContextDisk: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	dk.Destroy()
	if err := unwrapped.Watch(t.Context(), func(err error) { unwrapped.told <- err }); err != nil {
		t.Fatal(err)
	}
	unwrapped.wantTold(nil)
	unwrapped.set("state-key-1", "Disabled")
	unwrapped.wantTold(keymgr.ErrDisabled)

	inHeader := newSite(t)
	inHeader.set("version", "1")
	inHeader.serving("slow:key")
	inHeader.wantTold(nil)
	inHeader.set("state-key-1", "Disabled")
	inHeader.wantTold(keymgr.ErrDisabled)
	inHeader.set("version", "2")
	inHeader.wantTold(nil)
	inHeader.quiet("check key")
}

// TestWatchSeesTheRecordAtOnce: a disk that was wrapped anew, or set to another policy, is
// not looked at much later.
func TestWatchSeesTheRecordAtOnce(t *testing.T) {
	s := newSite(t)
	s.set("interval", "long")
	s.set("recorded", "slow:key")
	s.serving("slow:key")
	s.wantTold(nil)
	s.set("state-key", "Disabled")
	s.set("state-new", "unreachable")
	s.set("recorded", "slow:new")
	s.wantTold(keymgr.ErrUnreachable)
	s.set("state-new", "Disabled")
	s.set("relaxed", "yes")
	s.wantTold(keymgr.ErrDisabled)
}

// TestWatchByStamp: of a KMS that tells of changes, a change is known within a second.
func TestWatchByStamp(t *testing.T) {
	s := newSite(t)
	s.set("interval", "long")
	s.serving("local:key")
	s.wantTold(nil)
	var took [3]time.Duration // the slower of two changes
	for round := range took {
		for _, c := range []struct {
			state string
			want  error
		}{{"Disabled", keymgr.ErrDisabled}, {"Enabled", nil}} {
			began := time.Now()
			s.set("state-key", c.state)
			s.wantTold(c.want)
			took[round] = max(took[round], time.Since(began))
		}
		if n, want := s.calls("usable key"), 3+2*round; n != want {
			t.Errorf("asked %d times, want %d", n, want)
		}
		if took[round] <= 2*time.Second {
			return
		}
	}
	// A host that stands still delays one, a broker that is slow is late each time.
	t.Errorf("told after %v", took)
}

// TestWatchSeesTheStampComeBack: a KMS that was away is looked at as soon as it is back,
// whatever was done to the key meanwhile.
func TestWatchSeesTheStampComeBack(t *testing.T) {
	s := newSite(t)
	s.set("interval", "long")
	s.serving("local:key")
	s.wantTold(nil)
	n := s.calls("usable key")
	s.set("away", "yes")
	for end := time.Now().Add(10 * time.Second); s.calls("usable key") == n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody looks at a KMS that went away")
		}
	}
	s.set("state-key", "Disabled")
	if err := os.Remove(filepath.Join(s.dir, "away")); err != nil {
		t.Fatal(err)
	}
	s.wantTold(keymgr.ErrDisabled)
}

// TestWatchWithoutPermission: a service that may never see the state of its keys has not
// lost them.
func TestWatchWithoutPermission(t *testing.T) {
	s := newSite(t)
	if err := s.unwrap("slow:key", "mine", "mine"); err != nil {
		t.Fatal(err)
	}
	s.set("state-key", "denied")
	if err := s.Watch(context.Background(), func(err error) { s.told <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-s.told; err == nil || keymgr.IsLoss(err) || !strings.Contains(err.Error(), "denied") {
		t.Errorf("told %v", err)
	}
	s.quiet("describe key")
}

// TestWatchSparesTheKMS: it is asked less often when nothing follows from its answer, until
// something does; and when it throttles.
func TestWatchSparesTheKMS(t *testing.T) {
	looks := func(s *site, d time.Duration) int {
		before := s.calls("describe key")
		time.Sleep(d) // what is measured
		return s.calls("describe key") - before
	}
	const interval, long = 20 * time.Millisecond, 600 * time.Millisecond
	relaxed := newSite(t)
	relaxed.set("relaxed", "yes")
	relaxed.serving("slow:key")
	relaxed.wantTold(nil)
	if n := looks(relaxed, long); n > 3 {
		t.Errorf("asked %d times in %d intervals, for nothing", n, long/interval)
	}
	if err := os.Remove(filepath.Join(relaxed.dir, "relaxed")); err != nil {
		t.Fatal(err)
	}
	relaxed.quiet("describe key") // it is asked three times

	throttled := newSite(t)
	throttled.serving("slow:key")
	throttled.wantTold(nil)
	throttled.set("state-key", "throttled")
	throttled.wantTold(keymgr.ErrThrottled)
	if n := looks(throttled, long); n > 6 {
		t.Errorf("asked %d times in %d intervals, while it throttles", n, long/interval)
	}
	throttled.set("state-key", "Enabled")
	throttled.wantTold(nil)
	throttled.quiet("describe key")
}

// TestWatchFollowsTheRecord: a disk that was wrapped anew depends on its new CMK.
func TestWatchFollowsTheRecord(t *testing.T) {
	s := newSite(t)
	s.set("recorded", "slow:stale") // it is not what the header says, and does not count
	s.set("state-stale", "Disabled")
	s.serving("slow:key")
	s.wantTold(nil)
	s.set("recorded", "slow:new")
	s.set("state-key", "Disabled")
	s.quiet("describe new")
	s.set("state-new", "Disabled")
	s.wantTold(keymgr.ErrDisabled)
	if s.calls("describe stale") != 0 {
		t.Error("asked for a key that is not the disk's")
	}
}

// TestWatchEnds with the broker, which is told as no loss.
func TestWatchEnds(t *testing.T) {
	s := newSite(t)
	if err := s.Watch(context.Background(), func(error) {}); err == nil {
		t.Error("watches without a key")
	}
	s.serving("slow:key")
	s.wantTold(nil)
	if _, err := s.process.conn.WriteString("{]"); err != nil {
		t.Fatal(err)
	}
	s.wantTold(ErrGone)
}

// TestSealedUnwrapsItsOwn: a worker that wiped its key gets it again, as long as the CMK
// lets it; one that was broken into gets nothing else.
func TestSealedUnwrapsItsOwn(t *testing.T) {
	s := newSite(t)
	s.set("recorded", "slow:key")
	s.set("state-other", "Enabled")
	s.serving("slow:key")
	began := time.Now()
	for range 2 {
		if err := s.unwrap("slow:key", "mine", "mine"); err != nil {
			t.Fatalf("its own key: %v", err)
		}
	}
	if took := time.Since(began); took < againPause {
		t.Errorf("two keys within %v", took)
	}
	asked := s.calls("decrypt")
	for name, refused := range map[string][3]string{
		"another disk's":        {"slow:key", "theirs", "theirs"},
		"no disk's":             {"slow:key", "", ""},
		"one under another CMK": {"slow:other", "mine", "mine"},
		"one of another KMS":    {"local:key", "mine", "mine"},
	} {
		if err := s.unwrap(refused[0], refused[1], refused[2]); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := s.calls("decrypt"); n != asked {
		t.Error("the KMS was asked for what a sealed worker may not have")
	}
	if err := s.unwrap("slow:key", "mine", "theirs"); !errors.Is(err, keymgr.ErrContextMismatch) {
		t.Errorf("another disk's wrapped key as its own: %v", err)
	}
	s.set("recorded", "slow:other") // it was wrapped anew
	if err := s.unwrap("slow:other", "mine", "mine"); err != nil {
		t.Errorf("under the CMK that the record names: %v", err)
	}
	s.set("state-other", "Disabled")
	if err := s.unwrap("slow:other", "mine", "mine"); !errors.Is(err, keymgr.ErrDisabled) {
		t.Errorf("under a disabled CMK: %v", err)
	}
}

// TestKMSDown: an unwrap is tried until its deadline, and fails with what was wrong; it
// succeeds when the KMS comes back before that, and after it.
func TestKMSDown(t *testing.T) {
	for _, state := range []string{"unreachable", "hang", "hang for ever"} {
		t.Run(state, func(t *testing.T) {
			s := newSite(t)
			s.set("state-key", state)
			began := time.Now()
			err := s.unwrap("slow:key", "mine", "mine")
			took := time.Since(began)
			if !errors.Is(err, keymgr.ErrUnreachable) || !strings.Contains(err.Error(), "no data key within ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			var hint *keymgr.Error
			if !errors.As(err, &hint) || hint.Hint == "" {
				t.Error("no hint")
			}
			if took < deadline || took > deadline+lastWords+5*time.Second {
				t.Errorf("it took %v", took)
			}
			if n := s.calls("decrypt"); state == "unreachable" && n < 5 {
				t.Errorf("it was tried %d times", n)
			}
			s.set("state-key", "Enabled")
			if err := s.unwrap("slow:key", "mine", "mine"); err != nil {
				t.Errorf("when the KMS is back: %v", err)
			}
		})
	}
	s := newSite(t)
	s.set("state-key", "unreachable")
	time.AfterFunc(50*time.Millisecond, func() { os.Remove(filepath.Join(s.dir, "state-key")) })
	if err := s.unwrap("slow:key", "mine", "mine"); err != nil {
		t.Errorf("when the KMS comes back in time: %v", err)
	}
}

// TestGiveUp: a call that was given up holds up no other, and its late answer is nobody's.
func TestGiveUp(t *testing.T) {
	s := newSite(t)
	s.serving("slow:key")
	s.set("state-key", "hang")
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_, err := s.Decrypt(ctx, keymgr.WrappedKey{URI: "slow:key", Blob: []byte("mine")}, keymgr.Context{keymgr.ContextDisk: "mine"})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		began := time.Now()
		if err := s.Show(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the next call waited for %v", took)
		}
	}
	s.set("state-key", "Enabled")
	if err := s.unwrap("slow:key", "mine", "mine"); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
}
