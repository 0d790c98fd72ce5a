package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealblk/internal/credential"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// asks is a source under a passphrase that a test knows.
func asks(t *testing.T, text string) PassphraseSource {
	t.Helper()
	p := passphraseOf(t, text)
	return PassphraseSource{Ask: func(bool) (*secret.Buffer, error) { return p.Clone() }}
}

// withCredential puts a credential where systemd would.
func withCredential(t *testing.T, name, content string) CredentialSource {
	t.Helper()
	dir := os.Getenv(credentialsDirectory)
	if dir == "" || !strings.HasPrefix(dir, os.TempDir()) {
		dir = t.TempDir()
		t.Setenv(credentialsDirectory, dir)
	}
	writeFile(t, filepath.Join(dir, name), []byte(content))
	return CredentialSource{Name: name}
}

const credentialsDirectory = "CREDENTIALS_DIRECTORY"

const randomEnough = "0123456789abcdef0123456789abcdef"

// rooted are the options of a KMS with its root key in one of several sources.
func rooted(name string, sources map[string]RootSource) Options {
	return Options{Root: name, Sources: sources, Now: atNoon}
}

// sourcesOf are the sources that need no machine for them.
func sourcesOf(t *testing.T) map[string]RootSource {
	t.Helper()
	return map[string]RootSource{
		RootPassphrase: asks(t, "correct horse"),
		RootCredential: withCredential(t, "root", randomEnough),
	}
}

func openWith(t *testing.T, dir string, opts Options) *KMS {
	t.Helper()
	k, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// wantKept checks where the root key of a folder is, and that a copy of it is in no
// file but root.key.
func wantKept(t *testing.T, dir, source string, root []byte) {
	t.Helper()
	if got, err := RootSourceOf(dir); err != nil || got != source {
		t.Errorf("the root key is kept by %q, %v, want %q", got, err, source)
	}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		plain := bytes.Contains(readFile(t, path), root)
		if plain != (source == RootFile && d.Name() == rootFile) {
			t.Errorf("%s holds the root key: %v", path, plain)
		}
		if strings.HasPrefix(d.Name(), "root.key.") {
			t.Errorf("%s was left behind", path)
		}
		return nil
	})
}

func rootOf(k *KMS) []byte { return bytes.Clone(k.store.root.Bytes()) }

// TestFirstUseWithASource: the root key of a new KMS is in no file in plain, and all
// that a KMS does it does with each source.
func TestFirstUseWithASource(t *testing.T) {
	sources := sourcesOf(t)
	for name := range sources {
		t.Run(name, func(t *testing.T) {
			dir := newFolder(t)
			k := openWith(t, dir, rooted(name, sources))
			if got, err := RootSourceOf(dir); err != nil || got != "" {
				t.Errorf("before first use: %q, %v", got, err)
			}
			dk, w := generate(t, k, newKey(t, k))
			wantKept(t, dir, name, rootOf(k))
			k.Close()
			again := openWith(t, dir, rooted("", sources))
			wantOpens(t, again, w, dk)
			if _, err := again.VerifyAudit(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMoveBetweenSources goes from each source to each, itself included, while another
// program has the KMS open.
func TestMoveBetweenSources(t *testing.T) {
	sources := sourcesOf(t)
	base, w, dk := populated(t)
	for from, first := range withFile(sources) {
		for to, second := range withFile(sources) {
			dir := copyFolder(t, base)
			k := openWith(t, dir, rooted("", sources))
			root := rootOf(k)
			inUse := openWith(t, dir, rooted("", sources))
			if err := k.SetRootSource(t.Context(), from, first); err != nil {
				t.Fatalf("to %s: %v", from, err)
			}
			wantKept(t, dir, from, root)
			if err := k.SetRootSource(t.Context(), to, second); err != nil {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			wantKept(t, dir, to, root)
			wantOpens(t, inUse, w, dk)
			wantOpens(t, openWith(t, dir, rooted("", sources)), w, dk)
			if _, err := k.VerifyAudit(t.Context()); err != nil {
				t.Error(err)
			}
			k.Close()
			inUse.Close()
		}
	}
}

func withFile(sources map[string]RootSource) map[string]RootSource {
	all := map[string]RootSource{RootFile: nil}
	for name, s := range sources {
		all[name] = s
	}
	return all
}

func TestMoveIsForTheOperator(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	for _, to := range []string{RootFile, RootPassphrase} {
		err := k.As(DiskService).SetRootSource(t.Context(), to, asks(t, "correct horse"))
		wantError(t, to, err, keymgr.ErrAccessDenied, CodeAccessDenied)
	}
	for _, bad := range []struct {
		name   string
		source RootSource
	}{{"", asks(t, "correct horse")}, {"tpm", nil}} {
		wantError(t, bad.name, k.SetRootSource(t.Context(), bad.name, bad.source), keymgr.ErrInvalid, keymgr.CodeInvalid)
	}
	wantKept(t, k.store.dir, RootFile, rootOf(k))
}

// fickle is a source that does not open what it wrapped.
type fickle struct{ other bool }

func (fickle) Wrap(*secret.Buffer) (json.RawMessage, error) { return json.RawMessage(`{}`), nil }

func (f fickle) Unwrap(json.RawMessage) (*secret.Buffer, error) {
	if f.other {
		return secret.Random(keySize)
	}
	return nil, errDisk
}

// TestMoveToASourceThatFails leaves the KMS where it was.
func TestMoveToASourceThatFails(t *testing.T) {
	base, w, dk := populated(t)
	refuses := PassphraseSource{Ask: func(bool) (*secret.Buffer, error) { return nil, errDisk }}
	for i, source := range []RootSource{refuses, asks(t, "short"), fickle{}, fickle{true}, CredentialSource{Name: "none"}} {
		dir := copyFolder(t, base)
		k := openAt(t, dir)
		if err := k.SetRootSource(t.Context(), "some", source); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("source %d: %v", i, err)
		}
		wantKept(t, dir, RootFile, rootOf(k))
		k.Close()
		wantOpens(t, openAt(t, dir), w, dk)
	}
}

// TestRootKeyThatIsALink: what is elsewhere would stay there.
func TestRootKeyThatIsALink(t *testing.T) {
	base, _, _ := populated(t)
	path, elsewhere := filepath.Join(base, rootFile), filepath.Join(t.TempDir(), "root")
	if err := errors.Join(os.WriteFile(elsewhere, readFile(t, path), 0o600), os.Remove(path), os.Symlink(elsewhere, path)); err != nil {
		t.Fatal(err)
	}
	k := openAt(t, base)
	err := k.SetRootSource(t.Context(), RootPassphrase, asks(t, "correct horse"))
	wantError(t, "link", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
}

// TestFaultAtEveryWriteOfAMove: the KMS opens afterwards by the old source or by the
// new one, and trying again finishes what was begun.
func TestFaultAtEveryWriteOfAMove(t *testing.T) {
	sources := withFile(sourcesOf(t))
	base, w, dk := populated(t)
	for from, first := range sources {
		prepared := copyFolder(t, base)
		k := openWith(t, prepared, rooted("", sources))
		root := rootOf(k)
		if err := k.SetRootSource(t.Context(), from, first); err != nil {
			t.Fatal(err)
		}
		k.Close()
		for to, second := range sources {
			for _, fault := range []error{errCrash, errDisk} {
				seen := map[string]int{}
				for n, hit := 1, true; hit; n++ {
					dir := copyFolder(t, prepared)
					what := fmt.Sprintf("%s to %s, %v at operation %d", from, to, fault, n)
					hit = interruptedMove(t, dir, n, fault, rooted("", sources), to, second)
					again := openWith(t, dir, rooted("", sources))
					kept, err := RootSourceOf(dir)
					if err != nil || kept != from && kept != to || !hit && kept != to {
						t.Fatalf("%s: the root key is kept by %q, %v", what, kept, err)
					}
					seen[kept]++
					wantOpens(t, again, w, dk)
					wantKept(t, dir, kept, root)
					if _, err := again.VerifyAudit(t.Context()); err != nil {
						t.Errorf("%s: %v", what, err)
					}
					if err := again.SetRootSource(t.Context(), to, second); err != nil {
						t.Errorf("%s, then again: %v", what, err)
					}
					wantKept(t, dir, to, root)
					again.Close()
				}
				if seen[from] == 0 || seen[to] == 0 {
					t.Errorf("%s to %s, %v: saw %v", from, to, fault, seen)
				}
			}
		}
	}
}

// interruptedMove moves a root key and meets a fault at the n-th operation.
func interruptedMove(t *testing.T, dir string, n int, fault error, opts Options, to string, source RootSource) (hit bool) {
	t.Helper()
	armed := false
	k, err := open(files{dir: dir, step: faultAt(n, fault, &armed, &hit)}, opts)
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
	if err := k.SetRootSource(t.Context(), to, source); hit && !errors.Is(err, errDisk) {
		t.Errorf("fault %d: the call returned %v", n, err)
	}
	return hit
}

// TestInterruptedMoveAndALostSource: while root.key is there, it will do.
func TestInterruptedMoveAndALostSource(t *testing.T) {
	base, w, dk := populated(t)
	root := readFile(t, filepath.Join(base, rootFile))
	k := openAt(t, base)
	if err := k.SetRootSource(t.Context(), RootPassphrase, asks(t, "correct horse")); err != nil {
		t.Fatal(err)
	}
	k.Close()
	writeFile(t, filepath.Join(base, rootFile), root)
	lost := rooted("", map[string]RootSource{RootPassphrase: asks(t, "wrong horse")})
	k = openWith(t, base, lost)
	wantOpens(t, k, w, dk)
	if err := k.SetRootSource(t.Context(), RootFile, nil); err != nil {
		t.Fatal(err)
	}
	wantKept(t, base, RootFile, root)
}

// TestForeignRootKeyIsLeftAlone: only the root key itself is taken away.
func TestForeignRootKeyIsLeftAlone(t *testing.T) {
	base, w, dk := populated(t)
	k := openAt(t, base)
	opts := rooted("", map[string]RootSource{RootPassphrase: asks(t, "correct horse")})
	if err := k.SetRootSource(t.Context(), RootPassphrase, opts.Sources[RootPassphrase]); err != nil {
		t.Fatal(err)
	}
	k.Close()
	other := bytes.Repeat([]byte{7}, keySize)
	writeFile(t, filepath.Join(base, rootFile), other)
	wantOpens(t, openWith(t, base, opts), w, dk)
	if !bytes.Equal(readFile(t, filepath.Join(base, rootFile)), other) {
		t.Error("the file was altered")
	}
}

// TestLockedSources: each failure is one line that says what to do, and makes nothing.
func TestLockedSources(t *testing.T) {
	base, _, _ := populated(t)
	good := withCredential(t, "root", randomEnough)
	cases := map[string]struct {
		set      RootSource
		name     string
		have     RootSource
		spoil    func()
		sentinel error
		want     string
	}{
		"wrong passphrase":   {asks(t, "correct horse"), RootPassphrase, asks(t, "wrong horse"), nil, keymgr.ErrAccessDenied, "passphrase is wrong"},
		"nobody to ask":      {asks(t, "correct horse"), RootPassphrase, PassphraseSource{Ask: func(bool) (*secret.Buffer, error) { return nil, errDisk }}, nil, errDisk, errDisk.Error()},
		"source not known":   {asks(t, "correct horse"), RootPassphrase, nil, nil, keymgr.ErrInvalid, "passphrase"},
		"other credential":   {good, RootCredential, good, func() { withCredential(t, "root", strings.ToUpper(randomEnough)) }, keymgr.ErrAccessDenied, "another one"},
		"credential missing": {good, RootCredential, good, func() { os.Remove(filepath.Join(os.Getenv(credentialsDirectory), "root")) }, fs.ErrNotExist, "root"},
		"not a service":      {good, RootCredential, good, func() { t.Setenv(credentialsDirectory, "") }, credential.ErrNoDirectory, "no credentials"},
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) { // "not a service" comes last
		c := cases[name]
		dir := copyFolder(t, base)
		withCredential(t, "root", randomEnough)
		k := openAt(t, dir)
		if err := k.SetRootSource(t.Context(), c.name, c.set); err != nil {
			t.Fatal(err)
		}
		k.Close()
		if c.spoil != nil {
			c.spoil()
		}
		sources := map[string]RootSource{}
		if c.have != nil {
			sources[c.name] = c.have
		}
		before := filesIn(t, dir)
		_, err := Open(dir, rooted("", sources))
		var e *keymgr.Error
		if !errors.Is(err, c.sentinel) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if !errors.Is(err, errDisk) && (!errors.As(err, &e) || e.Hint == "") {
			t.Errorf("%s: no hint in %v", name, err)
		}
		if after := filesIn(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s: files %v, before %v", name, after, before)
		}
	}
	short := withCredential(t, "short", randomEnough[1:])
	if err := openAt(t, base).SetRootSource(t.Context(), RootCredential, short); !errors.Is(err, keymgr.ErrInvalid) {
		t.Errorf("short credential: %v", err)
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	return names
}

// TestRestoreIntoASource: a restored root key goes where the options want it, and the
// source of the KMS that was saved does not matter.
func TestRestoreIntoASource(t *testing.T) {
	sources := withFile(sourcesOf(t))
	base, w, dk := populated(t)
	for from, source := range sources {
		dir := copyFolder(t, base)
		k := openWith(t, dir, rooted("", sources))
		if err := k.SetRootSource(t.Context(), from, source); err != nil {
			t.Fatal(err)
		}
		data := backupOf(t, k, "backup passphrase")
		root := rootOf(k)
		k.Close()
		for to := range sources {
			into := newFolder(t)
			if _, err := Restore(t.Context(), into, rooted(to, sources), passphraseOf(t, "backup passphrase"), bytes.NewReader(data)); err != nil {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			wantKept(t, into, to, root)
			wantOpens(t, openWith(t, into, rooted("", sources)), w, dk)
		}
	}
	into := newFolder(t)
	k := openAt(t, base)
	data := backupOf(t, k, "backup passphrase")
	if _, err := Restore(t.Context(), into, rooted("tpm", sources), passphraseOf(t, "backup passphrase"), bytes.NewReader(data)); !errors.Is(err, keymgr.ErrInvalid) {
		t.Errorf("into a source that is not there: %v", err)
	}
	if _, err := os.Stat(into); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was restored")
	}
}

func FuzzParseWrappedRoot(f *testing.F) {
	root, err := secret.Random(keySize)
	if err != nil {
		f.Fatal(err)
	}
	defer root.Destroy()
	w := &wrappedRoot{Source: RootPassphrase, Wrapped: json.RawMessage(`{"salt":"AA=="}`)}
	w.Sum = w.sum()
	data, err := encodeDocument(root, rootFormat, w)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"passes":1,"memory_kib":64,"threads":1,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","key":""}`))
	never := PassphraseSource{Ask: func(bool) (*secret.Buffer, error) { return nil, errDisk }}
	f.Fuzz(func(t *testing.T, data []byte) {
		if w, wrong := parseWrappedRoot(data); wrong == "" {
			again, err := json.Marshal(w.document)
			if err != nil || !bytes.Equal(append(again, '\n'), data) {
				t.Fatalf("accepted a file that it would not write: %q", data)
			}
		}
		if _, err := never.Unwrap(data); !errors.Is(err, keymgr.ErrCorrupt) && !errors.Is(err, errDisk) {
			t.Fatalf("Unwrap: %v", err)
		}
	})
}
