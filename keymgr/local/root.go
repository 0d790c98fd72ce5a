package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"sealblk/internal/credential"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

const (
	rootFile    = "root.key"
	rootWrapped = "root.json"
	// rootRetired is root.key after the root key was moved, until it is overwritten.
	rootRetired = "root.key.old"
)

// RootFile is the source of a root key that stands in the folder in plain.
const RootFile = "file"

// RootSource keeps root keys: it wraps them under something that is not in the KMS's
// folder. Methods may be called from any goroutine.
type RootSource interface {
	// Wrap makes of a root key what the folder holds in its place. It is no secret.
	Wrap(root *secret.Buffer) (json.RawMessage, error)
	// Unwrap opens what Wrap made, also where the settings of the source are other ones
	// by now. The caller destroys the root key.
	Unwrap(wrapped json.RawMessage) (*secret.Buffer, error)
}

// RootSourceOf tells where the root key of the KMS in a folder is kept, "" if there is
// none. It opens nothing, so the answer is that of whoever can write to the folder.
func RootSourceOf(dir string) (string, error) {
	s := &store{files: files{dir: dir}}
	w, err := s.readWrapped()
	if err != nil {
		return "", err
	}
	if w != nil {
		return w.Source, nil
	}
	there, err := s.exists(rootFile)
	if err != nil || !there {
		return "", err
	}
	return RootFile, nil
}

// source finds a source that this program was given.
func (s *store) source(name string) (RootSource, error) {
	if source := s.sources[name]; source != nil {
		return source, nil
	}
	known := append([]string{RootFile}, slices.Sorted(maps.Keys(s.sources))...)
	return nil, invalid("", "known are: "+strings.Join(known, ", "), "no source of root keys is called %q", name)
}

// unwrapRoot sets root from root.json, if there is one. It does without the lock: a
// source may have to ask the user. Where a move was interrupted root.key is there too,
// and will do.
func (s *store) unwrapRoot() error {
	w, err := s.readWrapped()
	if w != nil {
		s.root, err = s.unwrap(w)
	}
	if err == nil {
		return nil
	}
	if there, e := s.exists(rootFile); e == nil && there {
		return nil
	}
	return err
}

func (s *store) unwrap(w *wrappedRoot) (*secret.Buffer, error) {
	source, err := s.source(w.Source)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path(rootWrapped), err)
	}
	root, err := source.Unwrap(w.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("open root key (%s, %s): %w", w.Source, s.path(rootWrapped), err)
	}
	ok, err := w.document.authentic(root)
	if err == nil && (!ok || root.Len() != keySize) {
		err = damaged(s.path(rootWrapped), "it was altered")
	}
	if err != nil {
		root.Destroy()
		return nil, err
	}
	return root, nil
}

// openRoot sets root, unless root.json did. The caller holds the lock.
func (s *store) openRoot() (err error) {
	if s.root != nil {
		return s.finishMove()
	}
	s.root, err = s.readRoot()
	if err == nil {
		return s.tidyFile()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Another process may have been quicker since unwrapRoot looked.
	if err := s.unwrapRoot(); err != nil || s.root != nil {
		return err
	}
	used, err := s.used()
	if err != nil {
		return err
	}
	if used {
		return &keymgr.Error{
			Code: CodeDamaged,
			Hint: "restore the file from a backup; without it no disk of this KMS can be opened",
			Err:  fmt.Errorf("read %s: it is missing, but keys are stored under it: %w", s.path(rootFile), keymgr.ErrCorrupt),
		}
	}
	return s.makeRoot()
}

// readRoot reads the root key straight into locked memory.
func (s *store) readRoot() (*secret.Buffer, error) {
	f, err := os.Open(s.path(rootFile))
	if err != nil {
		return nil, fmt.Errorf("open root key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("examine root key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, &keymgr.Error{
			Code: CodeAccessDenied,
			Hint: "chmod 600 " + f.Name() + ", if you are sure that nobody else has read it",
			Err:  fmt.Errorf("read %s: mode %04o lets others read it: %w", f.Name(), mode, fs.ErrPermission),
		}
	}
	if owner, foreign := credential.ForeignOwner(info); foreign {
		return nil, &keymgr.Error{
			Code: CodeAccessDenied,
			Hint: fmt.Sprintf("chown %d %s, if you are sure that this user has not read it", os.Geteuid(), f.Name()),
			Err:  fmt.Errorf("read %s: it belongs to user %d: %w", f.Name(), owner, fs.ErrPermission),
		}
	}
	if !info.Mode().IsRegular() || info.Size() != keySize {
		return nil, damaged(f.Name(), fmt.Sprintf("it is not a file of %d bytes", keySize))
	}
	return secret.ReadPipe(f, keySize)
}

// makeRoot makes a root key where the options want it. It is in no file before it is
// wrapped.
func (s *store) makeRoot() (err error) {
	if s.root, err = s.random(keySize); err == nil {
		err = s.saveRoot(s.wantedRoot())
	}
	if err != nil {
		return fmt.Errorf("make root key: %w", err)
	}
	return nil
}

func (s *store) wantedRoot() string { return orDefault(s.rootSource, RootFile) }

// saveRoot stores the root key by a source, beside what else is there.
func (s *store) saveRoot(name string) error {
	if name == RootFile {
		return s.replace(rootFile, s.root.WritePipe)
	}
	source, err := s.source(name)
	if err != nil {
		return err
	}
	return s.wrapRoot(name, source)
}

// rootName is what to call the file that holds the root key.
func (s *store) rootName() string {
	if there, err := s.exists(rootWrapped); err == nil && there {
		return s.path(rootWrapped)
	}
	return s.path(rootFile)
}
