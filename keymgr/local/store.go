package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

const (
	rootFile = "root.key"
	// maxFile is the size that no index or record reaches.
	maxFile = 64 << 20
)

// store is the folder of a KMS.
type store struct {
	files
	random func(size int) (*secret.Buffer, error)

	mu       sync.Mutex     // held during a session
	root     *secret.Buffer // nil while there is no KMS, and when closed
	auditKey []byte         // derived from root
	closed   bool
}

// open opens the KMS that is in the folder. If there is none it changes nothing: only
// a call that makes a key makes a KMS, so that one that is missing is not mistaken
// for a new one.
func (s *store) open() error {
	there, err := s.there()
	if err != nil || !there {
		return err
	}
	return s.prepare()
}

// there tells whether the folder holds a KMS, whole or in part.
func (s *store) there() (bool, error) {
	there, err := s.exists(rootFile)
	if err != nil || there {
		return there, err
	}
	return s.used()
}

// prepare leaves root key and index in the folder.
func (s *store) prepare() error {
	if err := s.make(""); err != nil {
		return err
	}
	if err := s.make("keys"); err != nil {
		return err
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.openRoot(); err != nil {
		return err
	}
	if s.auditKey, err = auditKey(s.root); err != nil {
		return err
	}
	return s.openIndex()
}

// openRoot sets root, which stays the store's to destroy even on failure.
func (s *store) openRoot() (err error) {
	s.root, err = s.readRoot()
	if !errors.Is(err, fs.ErrNotExist) {
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
	if !info.Mode().IsRegular() || info.Size() != keySize {
		return nil, damaged(f.Name(), fmt.Sprintf("it is not a file of %d bytes", keySize))
	}
	return secret.ReadPipe(f, keySize)
}

func (s *store) makeRoot() (err error) {
	s.root, err = s.random(keySize)
	if err == nil {
		err = s.replace(rootFile, s.root.WritePipe)
	}
	if err != nil {
		return fmt.Errorf("make root key: %w", err)
	}
	return nil
}

// openIndex makes the index of an empty folder. Where keys are, it must be there.
func (s *store) openIndex() error {
	there, err := s.exists(indexFile)
	if err != nil || there {
		return err
	}
	used, err := s.used()
	if err != nil {
		return err
	}
	if used {
		return damaged(s.path(indexFile), "it is missing, but keys are there")
	}
	return s.writeDocument(indexFile, indexFormat, newIndex())
}

// used tells whether anything is stored that needs the root key.
func (s *store) used() (bool, error) {
	there, err := s.exists(indexFile)
	if err != nil || there {
		return there, err
	}
	stored, err := s.storedIDs()
	return len(stored) > 0, err
}

// storedIDs are the keys that have a file.
func (s *store) storedIDs() ([]string, error) {
	entries, err := os.ReadDir(s.path("keys"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), filepath.Ext(recordFile(""))); ok && validID(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (s *store) writeDocument(name, format string, body any) error {
	data, err := encodeDocument(s.root, format, body)
	if err != nil {
		return err
	}
	return s.replace(name, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// readDocument returns the authenticated body of a file.
func (s *store) readDocument(name, format string) ([]byte, error) {
	data, err := s.read(name, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(s.path(name), "it is missing")
	}
	if err != nil {
		return nil, err
	}
	d, wrong := parseDocument(data, format)
	if wrong != "" {
		return nil, damaged(s.path(name), wrong)
	}
	ok, err := d.authentic(s.root)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, damaged(s.path(name), "it was altered, or "+s.path(rootFile)+" is another one")
	}
	return d.Body, nil
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root.Destroy()
	s.root, s.closed = nil, true
	clear(s.auditKey)
}
