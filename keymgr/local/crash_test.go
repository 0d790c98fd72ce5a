package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// changes are the calls that write. Each runs on a KMS with the enabled keys
// alias/a and alias/b and the deletion-scheduled key alias/c.
var changes = map[string]func(ctx context.Context, k *KMS) error{
	"create": func(ctx context.Context, k *KMS) error {
		_, err := k.CreateKey(ctx, CreateOptions{Alias: "alias/new", Description: "new"})
		return err
	},
	"service key": func(ctx context.Context, k *KMS) error {
		_, err := k.As(DiskService).GenerateDataKeyWithoutPlaintext(ctx, "", nil)
		return err
	},
	"disable": func(ctx context.Context, k *KMS) error { return k.DisableKey(ctx, "alias/a") },
	"rotate":  func(ctx context.Context, k *KMS) error { _, err := k.RotateKey(ctx, "alias/a"); return err },
	"schedule": func(ctx context.Context, k *KMS) error {
		_, err := k.ScheduleKeyDeletion(ctx, "alias/a", 30, false)
		return err
	},
	"cancel":     func(ctx context.Context, k *KMS) error { return k.CancelKeyDeletion(ctx, "alias/c") },
	"describe":   func(ctx context.Context, k *KMS) error { return k.UpdateKeyDescription(ctx, "alias/a", "other") },
	"authorize":  func(ctx context.Context, k *KMS) error { return k.Authorize(ctx, "alias/a", "p", permissions) },
	"revoke":     func(ctx context.Context, k *KMS) error { return k.Revoke(ctx, "alias/a", DiskService) },
	"move alias": func(ctx context.Context, k *KMS) error { return k.SetAlias(ctx, "alias/a", "alias/b") },
	"import": func(ctx context.Context, k *KMS) error {
		m, err := secret.New(MaterialSize)
		if err != nil {
			return err
		}
		defer m.Destroy()
		return k.ImportKeyMaterial(ctx, "alias/x", m, time.Time{})
	},
	"protect":      func(ctx context.Context, k *KMS) error { return k.SetDeletionProtection(ctx, "alias/a", true) },
	"set rotation": func(ctx context.Context, k *KMS) error { return k.SetRotation(ctx, "alias/a", 30) },
	"destruction that is due": func(ctx context.Context, k *KMS) error {
		k.now = func() time.Time { return noon.AddDate(0, 0, 7) }
		_, err := k.ListKeys(ctx)
		return err
	},
	"delete alias": func(ctx context.Context, k *KMS) error { return k.DeleteAlias(ctx, "alias/b") },
}

// populated is the folder that changes are made to, and a data key under alias/b.
func populated(t *testing.T) (dir string, w keymgr.WrappedKey, dk *secret.Buffer) {
	t.Helper()
	k := newKMS(t)
	for _, alias := range []string{"alias/a", "alias/b", "alias/c"} {
		if _, err := k.CreateKey(t.Context(), CreateOptions{Alias: alias, Description: alias}); err != nil {
			t.Fatal(err)
		}
		if err := k.Authorize(t.Context(), alias, DiskService, []Permission{Generate, Decrypt}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.ScheduleKeyDeletion(t.Context(), "alias/c", 7, false); err != nil {
		t.Fatal(err)
	}
	if _, err := k.CreateKey(t.Context(), CreateOptions{Alias: "alias/x", External: true}); err != nil {
		t.Fatal(err)
	}
	dk, w = generate(t, k, "alias/b")
	k.Close()
	return k.store.dir, w, dk
}

// view is all that a user sees of a KMS, without the random key ids.
func view(t *testing.T, k *KMS) string {
	t.Helper()
	list, err := k.ListKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, info := range list {
		policy, err := k.Policy(t.Context(), info.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		info.URI, info.KeyID = "", ""
		line, err := json.Marshal([]any{info, policy})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := newFolder(t)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		if d.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

var (
	errCrash = errors.New("crash")
	errDisk  = errors.New("no space left on device")
)

// faultAt makes the n-th operation on files fail, or crash the call there: a panic
// leaves all as it is on disk. Counting starts when armed.
func faultAt(n int, fault error, armed *bool, hit *bool) func(string, string) error {
	return func(string, string) error {
		if !*armed {
			return nil
		}
		if n--; n != 0 {
			return nil
		}
		*hit = true
		if errors.Is(fault, errCrash) {
			panic(fault)
		}
		return fault
	}
}

// interrupted makes a change that meets a fault at its n-th operation.
func interrupted(t *testing.T, dir string, n int, fault error, change func(context.Context, *KMS) error) (hit bool, err error) {
	t.Helper()
	armed := false
	k, err := open(files{dir: dir, step: faultAt(n, fault, &armed, &hit)}, Options{Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	armed = true
	defer func() {
		if r := recover(); r != nil && r != any(errCrash) {
			panic(r)
		}
	}()
	return hit, change(t.Context(), k)
}

func TestFaultAtEveryWriteLeavesOldOrNewState(t *testing.T) {
	base, w, dk := populated(t)
	before := view(t, openAt(t, base))
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			done := copyFolder(t, base)
			if _, err := interrupted(t, done, 0, nil, change); err != nil {
				t.Fatal(err)
			}
			after := view(t, openAt(t, done))
			if after == before {
				t.Fatal("the change changes nothing")
			}
			for _, fault := range []error{errCrash, errDisk} {
				sawOld, sawNew := false, false
				for n, hit := 1, true; hit; n++ {
					dir := copyFolder(t, base)
					var err error
					if hit, err = interrupted(t, dir, n, fault, change); hit && errors.Is(fault, errDisk) && !errors.Is(err, errDisk) {
						t.Errorf("fault %d: the call returned %v", n, err)
					}
					k := openAt(t, dir)
					now := view(t, k)
					sawOld, sawNew = sawOld || now == before, sawNew || now == after
					if now != before && now != after || !hit && now != after {
						t.Fatalf("%v at operation %d:\n%s\nis neither old\n%s\nnor new\n%s", fault, n, now, before, after)
					}
					wantOpens(t, k, w, dk)
					if _, err := k.VerifyAudit(t.Context()); err != nil {
						t.Errorf("%v at operation %d: %v", fault, n, err)
					}
					if err := change(t.Context(), k); now == before && err != nil {
						t.Errorf("%v at operation %d, then again: %v", fault, n, err)
					}
					k.Close()
				}
				if !sawOld || !sawNew {
					t.Errorf("%v: saw old state %v, new state %v", fault, sawOld, sawNew)
				}
			}
		})
	}
}

func TestFaultAtEveryWriteOfTheFirstKey(t *testing.T) {
	for _, fault := range []error{errCrash, errDisk} {
		steps := 0
		for hit := true; hit; steps++ {
			dir := newFolder(t)
			hit = false
			armed := true
			func() {
				defer func() {
					if r := recover(); r != nil && r != any(errCrash) {
						panic(r)
					}
				}()
				k, err := open(files{dir: dir, step: faultAt(steps+1, fault, &armed, &hit)}, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				defer k.Close()
				if _, err := k.CreateKey(t.Context(), CreateOptions{}); err != nil && !errors.Is(err, errDisk) {
					t.Error(err)
				}
			}()
			k := openAt(t, dir)
			dk, w := generate(t, k, "")
			k.Close()
			wantOpens(t, openAt(t, dir), w, dk)
		}
		if steps < 12 {
			t.Errorf("%v: only %d operations met it", fault, steps)
		}
	}
}
