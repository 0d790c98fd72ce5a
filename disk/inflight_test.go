package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// meddled is a KMS that lets another act before and after each call that uses a key.
type meddled struct {
	*keymgr.Set
	act func()
}

func (m meddled) GenerateDataKey(ctx context.Context, uri string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	m.act()
	defer m.act()
	return m.Set.GenerateDataKey(ctx, uri, ec)
}

func (m meddled) GenerateDataKeyWithoutPlaintext(ctx context.Context, uri string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	m.act()
	defer m.act()
	return m.Set.GenerateDataKeyWithoutPlaintext(ctx, uri, ec)
}

func (m meddled) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	m.act()
	defer m.act()
	return m.Set.Decrypt(ctx, w, ec)
}

func (m meddled) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, uri string) (keymgr.WrappedKey, error) {
	m.act()
	defer m.act()
	return m.Set.ReEncrypt(ctx, w, ec, uri)
}

func (m meddled) DescribeKey(ctx context.Context, uri string) (keymgr.KeyInfo, error) {
	m.act()
	defer m.act()
	return m.Set.DescribeKey(ctx, uri)
}

// meddle calls act once while run is under way: at the n-th moment, which is before or
// after a call of the KMS or a change to files. False: there are fewer.
func meddle(c *Catalogue, n int, act func(), run func()) bool {
	set := c.keys.(*keymgr.Set)
	moment := func() {
		if n--; n == 0 {
			act()
		}
	}
	c.keys = meddled{set, moment}
	c.step = func(string) error { moment(); return nil }
	run()
	c.keys, c.step = set, nil
	return n <= 0
}

// guardedBy is the administrator of the embedded KMS, who asks the catalogue for the
// users of a key as the command line does.
func guardedBy(t *testing.T, c *Catalogue) *local.KMS {
	t.Helper()
	k, err := local.Open(filepath.Join(c.dir, "kms"), local.Options{
		Users: func(_ context.Context, uri string) ([]string, error) { return c.UsersOf(uri) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// TestKeyInFlightIsGuarded: at every moment of what puts a data key under a CMK, either
// the deletion of the CMK is refused, or the operation is, and leaves nothing.
func TestKeyInFlightIsGuarded(t *testing.T) {
	for name, put := range map[string]func(ctx context.Context, c *Catalogue, uri string) error{
		"create": func(ctx context.Context, c *Catalogue, uri string) error {
			_, err := c.Create(ctx, CreateOptions{Name: "new", SizeBytes: diskSize, Key: uri})
			return err
		},
		"create by alias": func(ctx context.Context, c *Catalogue, uri string) error {
			_, err := c.Create(ctx, CreateOptions{Name: "new", SizeBytes: diskSize, Key: "alias/" + strings.TrimPrefix(uri, "local:")})
			return err
		},
		"create without plaintext": func(ctx context.Context, c *Catalogue, uri string) error {
			_, err := c.Create(ctx, CreateOptions{Name: "new", SizeBytes: diskSize, Key: uri, NoPlaintext: true})
			return err
		},
		"create with escrow": func(ctx context.Context, c *Catalogue, uri string) error {
			_, err := c.Create(ctx, CreateOptions{Name: "new", SizeBytes: diskSize, EscrowKey: uri})
			return err
		},
		"re-wrap": func(ctx context.Context, c *Catalogue, uri string) error {
			_, err := c.Rewrap(ctx, "db", RewrapOptions{Key: uri})
			return err
		},
		"set escrow": func(ctx context.Context, c *Catalogue, uri string) error {
			_, err := c.SetEscrow(ctx, "db", uri)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { wantGuarded(t, put) })
	}
}

func wantGuarded(t *testing.T, put func(ctx context.Context, c *Catalogue, uri string) error) {
	c := newCatalogue(t)
	operator := guardedBy(t, c)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	before := files(t, c.dir)
	saw := map[string]int{}
	for n, more := 1, true; more; n++ {
		uri := newCMK(t, operator)
		id := strings.TrimPrefix(uri, "local:")
		if err := operator.CreateAlias(t.Context(), "alias/"+id, id); err != nil {
			t.Fatal(err)
		}
		var scheduled, done error
		more = meddle(c, n,
			func() { _, scheduled = operator.ScheduleKeyDeletion(t.Context(), id, local.MinDeletionDays, false) },
			func() { done = put(t.Context(), c, uri) })
		left := differ(before, files(t, c.dir))
		switch {
		case !more:
		case scheduled == nil && done == nil:
			t.Errorf("moment %d: both succeeded: the key of a disk is to be deleted", n)
		case scheduled == nil:
			saw["operation refused"]++
			if !errors.Is(done, keymgr.ErrPendingDeletion) || len(left) > 0 {
				t.Errorf("moment %d: operation: %v, left %v", n, done, left)
			}
		default:
			saw["deletion refused"]++
			if !errors.Is(scheduled, keymgr.ErrState) || done != nil {
				t.Errorf("moment %d: deletion: %v; operation: %v", n, scheduled, done)
			}
		}
		restore(t, c)
		before = files(t, c.dir)
	}
	if len(saw) != 2 {
		t.Errorf("saw %v", saw)
	}
}

// restore has no disk but db, under the service key and without escrow.
func restore(t *testing.T, c *Catalogue) {
	t.Helper()
	if err := c.Delete("new"); err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	mustRewrap(t, c, "db", keymgr.DefaultURI)
	if _, err := c.SetEscrow(t.Context(), "db", ""); err != nil {
		t.Fatal(err)
	}
}

// TestKilledCreateUsesNoKey: it will never be a disk.
func TestKilledCreateUsesNoKey(t *testing.T) {
	c := newCatalogue(t)
	bystander(t, c)
	if !killedAt(t, c.dir, 1, "create encrypted") || len(c.pending()) != 1 {
		t.Fatalf("not killed half-way: %v", c.pending())
	}
	wantUsers(t, c, must(c.Get("other")).KeyURI, "other")
}

// TestRewrapWhileDiskGrows: a resize leaves what a re-wrap announced; another re-wrap
// that comes in between is ended first, and the CMK of neither is without guard.
func TestRewrapWhileDiskGrows(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	dk, operator := keyOf(t, c, "db"), c.operator(t, "")
	set, mine, others := c.keys.(*keymgr.Set), newCMK(t, operator), newCMK(t, operator)
	announced := 0
	c.keys = meddled{set, func() {
		if r := must(c.Get("db")); r.RewrappingTo != mine || announced > 0 {
			return
		}
		announced++
		if _, _, err := c.Resize(t.Context(), "db", 2*diskSize); err != nil {
			t.Error(err)
		}
		wantUsers(t, c, mine, "db")
		again, err := OpenCatalogue(c.dir, set)
		if err != nil {
			t.Error(err)
		}
		mustRewrap(t, again, "db", others)
	}}
	mustRewrap(t, c, "db", mine)
	c.keys = set
	if announced != 1 {
		t.Errorf("announced %d times", announced)
	}
	wantKey(t, c, "db", dk, mine, "1")
	wantUsers(t, c, others)
	wantWhole(t, c, "db")
}

// TestRewrapWhileEscrowEnds: a key that is taken out of escrow needs no wrapping any more,
// and the rest is done all the same.
func TestRewrapWhileEscrowEnds(t *testing.T) {
	for what, run := range map[string]func(c *Catalogue, escrow string) error{
		"one": func(c *Catalogue, _ string) error {
			_, err := c.Rewrap(t.Context(), "db", RewrapOptions{})
			return err
		},
		"all under the key in escrow": func(c *Catalogue, escrow string) (err error) {
			all := c.RewrapAll(t.Context(), RewrapAllOptions{From: escrow, Done: func(o Outcome) { err = o.Err }})
			return errors.Join(all, err)
		},
	} {
		for n, more := 1, true; more; n++ {
			c := newCatalogue(t)
			operator, set := c.operator(t, ""), c.keys
			escrow := newCMK(t, operator)
			r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true, EscrowKey: escrow})
			rotate(t, operator, r.KeyURI)
			rotate(t, operator, escrow)
			var taken error
			at := n
			c.keys = meddled{set.(*keymgr.Set), func() {
				if at--; at == 0 {
					_, taken = c.SetEscrow(t.Context(), "db", "")
				}
			}}
			err := run(c, escrow)
			c.keys, more = set, at <= 0
			if err != nil || taken != nil {
				t.Errorf("%s, moment %d: %v; taken out: %v", what, n, err, taken)
			}
			if r := must(c.Get("db")); more && r.EscrowKeyURI != "" || what == "one" && r.KeyVersion != "2" {
				t.Errorf("%s, moment %d: %+v", what, n, r)
			}
		}
	}
}

// TestKeyOfImportIsGuarded: at every moment of an import, either the deletion of the
// disk's CMK is refused, or the import is.
func TestKeyOfImportIsGuarded(t *testing.T) {
	c := newCatalogue(t)
	operator := guardedBy(t, c)
	refused := 0
	for n, more := 1, true; more; n++ {
		uri := newCMK(t, operator)
		id := strings.TrimPrefix(uri, "local:")
		r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true, Key: uri, Backend: fmt.Sprintf("file:%s/%d.img", c.dir, n)})
		forget(t, c, "db")
		var scheduled, done error
		more = meddle(c, n,
			func() { _, scheduled = operator.ScheduleKeyDeletion(t.Context(), id, local.MinDeletionDays, false) },
			func() { _, done = c.Import(t.Context(), "db", r.Backend) })
		switch {
		case !more:
		case scheduled == nil && done == nil:
			t.Errorf("moment %d: both succeeded: the key of a disk is to be deleted", n)
		case scheduled == nil && !errors.Is(done, keymgr.ErrPendingDeletion):
			t.Errorf("moment %d: import: %v", n, done)
		case scheduled != nil:
			refused++
			if !errors.Is(scheduled, keymgr.ErrState) || done != nil {
				t.Errorf("moment %d: deletion: %v; import: %v", n, scheduled, done)
			}
		}
		if found, err := filepath.Glob(filepath.Join(c.dir, "disks", "db.*")); err != nil || len(found) > 2 {
			t.Errorf("moment %d: left %v, %v", n, found, err) // its record and its lock
		}
		if done != nil {
			continue
		}
		if err := c.Delete("db"); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no deletion was refused")
	}
}

// TestKilledImportUsesNoKey, and its disk is left alone.
func TestKilledImportUsesNoKey(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true, Backend: "file:" + c.dir + "/db.img"})
	forget(t, c, "db")
	if !killedAt(t, c.dir, 1, "import") || c.registered("db") {
		t.Fatal("not killed half-way")
	}
	wantUsers(t, c, r.KeyURI)
	mustCreate(t, c, CreateOptions{Name: "other"})
	if left := c.ahead(importSuffix); len(left) > 0 {
		t.Errorf("left for %v", left)
	}
	if _, err := c.Import(t.Context(), "db", r.Backend); err != nil {
		t.Error(err)
	}
	wantWhole(t, c, "db")
}

// TestKilledAtTheLastMoment: what was written ahead of a disk that is there guards none of
// the CMKs that the disk has had, also while it is in use.
func TestKilledAtTheLastMoment(t *testing.T) {
	for _, suffix := range []string{pendingSuffix, importSuffix} {
		c := newCatalogue(t)
		r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
		if err := os.WriteFile(c.aheadPath("db", suffix), r.encode(), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := c.Open(t.Context(), "db", OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, d, os.Getpid())
		to := newCMK(t, c.operator(t, ""))
		mustRewrap(t, c, "db", to)
		wantUsers(t, c, r.KeyURI)
		wantUsers(t, c, to, "db")
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// forget loses the record of a disk.
func forget(t *testing.T, c *Catalogue, name string) {
	t.Helper()
	if err := os.Remove(c.recordPath(name)); err != nil {
		t.Fatal(err)
	}
}
