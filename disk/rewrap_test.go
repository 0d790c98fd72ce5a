package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/luks"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

func mustRewrap(t *testing.T, c *Catalogue, name, key string) Rewrapped {
	t.Helper()
	done, err := c.Rewrap(t.Context(), name, RewrapOptions{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// TestRewrap: a new version, another CMK, another KMS and back; the data key and the
// data stay, and what is up to date is left alone.
func TestRewrap(t *testing.T) {
	s := newSite(t)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "db", Encrypted: true})
	r, dk := must(s.Get("db")), keyOf(t, s.Catalogue, "db")
	data := blockdevtest.Noise(1, diskSize)
	check(t, s.Catalogue, diskSize, func(d *blockdevtest.Driver) { d.Write(0, data) })
	operator, other := s.operator(t, "local"), s.operator(t, "other")
	first, second := r.KeyURI, newCMK(t, operator)
	third := strings.Replace(newCMK(t, other), "local:", "other:", 1)
	rotate(t, operator, first)
	for _, x := range []struct{ key, uri, version string }{
		{"", first, "2"}, {second, second, "1"}, {third, third, "1"}, {"", third, "1"}, {first, first, "2"},
	} {
		before := must(s.Get("db"))
		done := mustRewrap(t, s.Catalogue, "db", x.key)
		changed := before.KeyURI != x.uri || before.KeyVersion != x.version
		if done.Changed != changed || done.To != (Wrapping{x.uri, x.version}) || done.From != (Wrapping{before.KeyURI, before.KeyVersion}) {
			t.Errorf("under %q: %+v", x.key, done)
		}
		wantKey(t, s.Catalogue, "db", dk, x.uri, x.version)
		wantUsers(t, s.Catalogue, x.uri, "db")
		if got := s.VersionOf("db", x.uri); got != x.version {
			t.Errorf("under %s: version %q", x.uri, got)
		}
		if before.KeyURI != x.uri && s.VersionOf("db", before.KeyURI) != "" {
			t.Errorf("%s has a version still, and wraps nothing", before.KeyURI)
		}
		still := files(t, s.dir)
		if again := mustRewrap(t, s.Catalogue, "db", ""); again.Changed || len(differ(still, files(t, s.dir))) > 0 {
			t.Errorf("again under %s: %+v, %v", x.uri, again, differ(still, files(t, s.dir)))
		}
	}
	wantUsers(t, s.Catalogue, second)
	wantUsers(t, s.Catalogue, third)
	wantWhole(t, s.Catalogue, "db")
	check(t, s.Catalogue, diskSize, func(d *blockdevtest.Driver) {
		if string(d.Read(0, diskSize)) != string(data) {
			t.Error("the data has changed")
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestRewrapRefuses: nothing is changed, and the error says what to do.
func TestRewrapRefuses(t *testing.T) {
	s := newSite(t)
	mustCreate(t, s.Catalogue, CreateOptions{Name: "db", Encrypted: true})
	mustCreate(t, s.Catalogue, CreateOptions{Name: "plain"})
	operator := s.operator(t, "local")
	info, err := operator.CreateKey(t.Context(), local.CreateOptions{Alias: "alias/closed"})
	if err != nil {
		t.Fatal(err)
	}
	shut := strings.Replace(newCMK(t, s.operator(t, "shut")), "local:", "shut:", 1)
	before := files(t, s.dir)
	for _, x := range []struct {
		name, key string
		want      error
		says      string
	}{
		{"none", "", ErrNotFound, "no such disk"},
		{"plain", "", ErrNotEncrypted, "no key to wrap"},
		{"db", "alias/none", keymgr.ErrNotFound, "alias/none"},
		{"db", "nowhere:key", keymgr.ErrInvalid, "no KMS"},
		{"db", info.URI, keymgr.ErrAccessDenied, "reencrypt"},
		{"db", shut, keymgr.ErrUnsupported, "cannot do this"},
	} {
		_, err := s.Rewrap(t.Context(), x.name, RewrapOptions{Key: x.key})
		if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s under %q: %v", x.name, x.key, err)
		}
	}
	if _, err := s.Rewrap(t.Context(), "db", RewrapOptions{UseEscrow: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("out of an escrow that is not there: %v", err)
	}
	if d := differ(before, files(t, s.dir)); len(d) > 0 {
		t.Errorf("changed: %v", d)
	}
	d, err := s.Open(t.Context(), "db", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rotate(t, operator, must(s.Get("db")).KeyURI)
	if _, err := s.Rewrap(t.Context(), "db", RewrapOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("while another command has it: %v", err)
	}
}

// liar is a KMS that re-encrypts to another data key.
type liar struct{ *keymgr.Set }

func (l liar) ReEncrypt(ctx context.Context, _ keymgr.WrappedKey, ec keymgr.Context, key string) (keymgr.WrappedKey, error) {
	return l.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
}

// blind is a KMS that lets this principal decrypt nothing.
type blind struct{ *keymgr.Set }

func (blind) Decrypt(context.Context, keymgr.WrappedKey, keymgr.Context) (*secret.Buffer, error) {
	return nil, keymgr.ErrAccessDenied
}

// blindTo is a KMS that lets this principal decrypt nothing under one key.
type blindTo struct {
	*keymgr.Set
	uri string
}

func (b blindTo) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	if w.URI == b.uri {
		return nil, keymgr.ErrAccessDenied
	}
	return b.Set.Decrypt(ctx, w, ec)
}

// TestRewrapIsProved: a wrapping that does not hold the disk's key never reaches the
// header. Who may not decrypt has the KMS look.
func TestRewrapIsProved(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	dk, r, operator := keyOf(t, c, "db"), must(c.Get("db")), c.operator(t, "")
	rotate(t, operator, r.KeyURI)
	before, set := files(t, c.dir), c.keys.(*keymgr.Set)
	c.keys = liar{set}
	if _, err := c.Rewrap(t.Context(), "db", RewrapOptions{}); !errors.Is(err, luks.ErrWrongKey) {
		t.Errorf("a KMS that returns another key: %v", err)
	}
	if d := differ(before, files(t, c.dir)); len(d) > 0 {
		t.Errorf("changed: %v", d)
	}
	c.keys = blind{set}
	mustRewrap(t, c, "db", "")
	c.keys = set
	wantKey(t, c, "db", dk, r.KeyURI, "2")

	// A key that this host may not open is for the escrow, not for the disk.
	other := newCMK(t, operator)
	c.keys = blindTo{set, other}
	if _, err := c.Rewrap(t.Context(), "db", RewrapOptions{Key: other}); !errors.Is(err, keymgr.ErrAccessDenied) {
		t.Errorf("under a key that does not open here: %v", err)
	}
	if _, err := c.SetEscrow(t.Context(), "db", other); err != nil {
		t.Errorf("in escrow under such a key: %v", err)
	}
	c.keys = set
	wantKey(t, c, "db", dk, r.KeyURI, "2")
}

// TestRewrapOfRunningDisk: an export has the disk, another stands by for it; I/O goes on,
// the disk is handed over, and resizes and re-wraps do not undo each other.
func TestRewrapOfRunningDisk(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	r, dk, operator := must(c.Get("db")), keyOf(t, c, "db"), c.operator(t, "")
	source, destination := mustOpen(t, c, false, 1), mustOpen(t, c, true, 2)
	defer source.Close()
	defer destination.Close()
	q, err := source.Device.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	d, data := blockdevtest.NewDriver(t, q, 4), blockdevtest.Noise(1, diskSize)
	d.Write(0, data)
	second := newCMK(t, operator)
	var running sync.WaitGroup
	running.Go(func() {
		for i := range 10 {
			if _, err := c.Rewrap(context.Background(), "db", RewrapOptions{Key: []string{second, r.KeyURI}[i%2]}); err != nil {
				t.Errorf("re-wrap: %v", err)
			}
		}
	})
	running.Go(func() {
		for i := range 10 {
			if _, _, err := c.Resize(context.Background(), "db", diskSize+int64(i+1)*4096); err != nil {
				t.Errorf("resize: %v", err)
			}
		}
	})
	for i := range 50 {
		d.Write(int64(i)*4096, data[:4096])
		if string(d.Read(int64(i)*4096, 4096)) != string(data[:4096]) {
			t.Fatal("read something else")
		}
	}
	running.Wait()
	if err := errors.Join(q.Close(), source.Release(), destination.Take()); err != nil {
		t.Fatal(err)
	}
	wantKey(t, c, "db", dk, r.KeyURI, "1")
	if r := must(c.Get("db")); r.SizeBytes != diskSize+10*4096 || destination.Record.SizeBytes != r.SizeBytes {
		t.Errorf("sizes %d and %d", r.SizeBytes, destination.Record.SizeBytes)
	}
	mustRewrap(t, c, "db", second)
	wantKey(t, c, "db", dk, second, "1")
}

// TestRewrapsRace: whoever comes last wins; nothing is lost in between.
func TestRewrapsRace(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	dk, operator := keyOf(t, c, "db"), c.operator(t, "")
	keys := []string{must(c.Get("db")).KeyURI, newCMK(t, operator), newCMK(t, operator)}
	var running sync.WaitGroup
	for i := range 6 {
		running.Go(func() {
			if _, err := c.Rewrap(context.Background(), "db", RewrapOptions{Key: keys[i%3]}); err != nil && !errors.Is(err, ErrInUse) {
				t.Errorf("%v", err)
			}
		})
	}
	running.Wait()
	r := must(c.Get("db"))
	wantKey(t, c, "db", dk, r.KeyURI, "1")
	wantUsers(t, c, r.KeyURI, "db")
	wantWhole(t, c, "db")
}

// TestInterruptedRewrap stops a re-wrap after each of its changes to files. Both CMKs
// are guarded, the disk opens, and the same re-wrap, or the next export, ends it.
func TestInterruptedRewrap(t *testing.T) {
	for _, finish := range []string{"by an export", "by the same re-wrap", "by nothing"} {
		t.Run(finish, func(t *testing.T) {
			c := newCatalogue(t)
			mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
			dk, operator := keyOf(t, c, "db"), c.operator(t, "")
			from := must(c.Get("db")).KeyURI
			for n := 1; ; n++ {
				to := newCMK(t, operator)
				left, at := n, ""
				c.step = func(operation string) error {
					if left--; left == 0 {
						at = operation
						return errFault
					}
					return nil
				}
				_, err := c.Rewrap(t.Context(), "db", RewrapOptions{Key: to})
				c.step = nil
				if err == nil {
					if n != 4 {
						t.Errorf("%d steps", n-1)
					}
					return
				}
				if got := c.KeyOf(must(c.Get("db"))); got != c.Current(must(c.Get("db"))).KeyURI {
					t.Errorf("after %s: KeyOf says %s", at, got)
				}
				switch header := c.Current(must(c.Get("db"))).KeyURI; {
				case strings.HasPrefix(at, "announce"):
					wantUsers(t, c, from, "db")
					wantUsers(t, c, to, "db")
					to = from
				case header != to:
					t.Errorf("after %s: under %s", at, header)
				default:
					wantUsers(t, c, to, "db")
				}
				switch finish {
				case "by an export":
					wantWholeAfter(t, c, at, false, diskSize)
				case "by the same re-wrap":
					mustRewrap(t, c, "db", to)
				case "by nothing":
					if d, err := c.Open(t.Context(), "db", OpenOptions{ReadOnly: true}); err != nil {
						t.Errorf("after %s: %v", at, err)
					} else {
						d.Close()
					}
					from = c.Current(must(c.Get("db"))).KeyURI
					continue
				}
				wantKey(t, c, "db", dk, to, "1")
				wantWhole(t, c, "db")
				from = to
			}
		})
	}
}

// TestRewrapMends: a header that a power cut left with one good copy is made whole, also
// if its wrapping is up to date.
func TestRewrapMends(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	f, err := os.OpenFile(r.Where(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("torn"), headerCopy+5000); err != nil {
		t.Fatal(err)
	}
	if done := mustRewrap(t, c, "db", ""); done.Changed {
		t.Errorf("%+v", done)
	}
	wantWhole(t, c, "db")
}

// TestRewrapAll: under one key, under all; what fails is named and the rest is done; and
// the same call goes on.
func TestRewrapAll(t *testing.T) {
	c := newCatalogue(t)
	operator := c.operator(t, "")
	mustCreate(t, c, CreateOptions{Name: "plain"})
	mustCreate(t, c, CreateOptions{Name: "other", Encrypted: true})
	mine := newCMK(t, operator)
	for i := range 6 {
		mustCreate(t, c, CreateOptions{Name: fmt.Sprint("db", i), Key: mine})
	}
	rotate(t, operator, mine)
	rotate(t, operator, must(c.Get("other")).KeyURI)
	broken := must(c.Get("db3")).Where()
	if err := os.Rename(broken, broken+".away"); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, o RewrapAllOptions) (all map[string]Outcome, total int, err error) {
		all = map[string]Outcome{}
		started, done := o.Started, o.Done
		o.Started = func(n int) {
			if total = n; started != nil {
				started(n)
			}
		}
		o.Done = func(out Outcome) {
			if all[out.Name] = out; done != nil {
				done(out)
			}
		}
		return all, total, c.RewrapAll(ctx, o)
	}
	// Interrupted after the first.
	ctx, cancel := context.WithCancel(t.Context())
	some, total, err := run(ctx, RewrapAllOptions{From: mine, Done: func(Outcome) { cancel() }})
	if !errors.Is(err, context.Canceled) || total != 6 || len(some) == 0 {
		t.Errorf("interrupted: %d of %d, %v", len(some), total, err)
	}
	all, total, err := run(t.Context(), RewrapAllOptions{From: mine})
	if err != nil || total != 6 || len(all) != 6 {
		t.Fatalf("%d of %d, %v", len(all), total, err)
	}
	for name, out := range all {
		want := OutcomeRewrapped
		if some[name].Result == OutcomeRewrapped {
			want = OutcomeCurrent
		}
		if name == "db3" {
			if out.Result != OutcomeFailed || out.Err == nil || !strings.Contains(out.Error, "db3") {
				t.Errorf("%+v", out)
			}
			continue
		}
		if out.Result != want || out.Wrapping != (Wrapping{mine, "2"}) {
			t.Errorf("%+v, want %s", out, want)
		}
	}
	if r := must(c.Get("other")); r.KeyVersion != "1" {
		t.Errorf("a disk under another key: %+v", r)
	}
	if err := os.Rename(broken+".away", broken); err != nil {
		t.Fatal(err)
	}
	all, _, err = run(t.Context(), RewrapAllOptions{})
	if err != nil || len(all) != 7 || all["db3"].Result != OutcomeRewrapped || all["other"].Result != OutcomeRewrapped || all["db1"].Result != OutcomeCurrent {
		t.Errorf("all: %v, %v", all, err)
	}
	// A name with a mistake in it is no success.
	if _, _, err = run(t.Context(), RewrapAllOptions{From: "local:alias/typo"}); !errors.Is(err, keymgr.ErrNotFound) || !strings.Contains(err.Error(), "alias/typo") {
		t.Errorf("under a key that is not there: %v", err)
	}
}

// TestRotationNote: it outlives the process, and is of one key.
func TestRotationNote(t *testing.T) {
	c := newCatalogue(t)
	if _, begun, err := c.Rotation("local:a"); begun || err != nil {
		t.Errorf("before: %v, %v", begun, err)
	}
	if err := c.BeginRotation("local:a", "3"); err != nil {
		t.Fatal(err)
	}
	if from, begun, err := c.Rotation("local:a"); !begun || from != "3" || err != nil {
		t.Errorf("after: %q, %v, %v", from, begun, err)
	}
	if _, begun, _ := c.Rotation("local:b"); begun {
		t.Error("another key is being rotated")
	}
	if list, damaged := c.List(); len(list)+len(damaged) > 0 {
		t.Errorf("taken for a disk: %v, %v", list, damaged)
	}
	if err := c.EndRotation("local:a"); err != nil {
		t.Fatal(err)
	}
	if _, begun, err := c.Rotation("local:a"); begun || err != nil {
		t.Errorf("ended: %v, %v", begun, err)
	}
}
