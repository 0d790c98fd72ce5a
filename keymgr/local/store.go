package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"sealblk/keymgr/secret"
)

// maxFile is the size that no index or record reaches. The audit log has no such limit: it
// grows with every call, and is never held in memory.
const maxFile = 64 << 20

// store is the folder of a KMS.
type store struct {
	files
	random func(size int) (*secret.Buffer, error)
	// rootSource is where a new root key goes; sources are all but RootFile.
	rootSource string
	sources    map[string]RootSource

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
	for _, name := range []string{rootFile, rootWrapped} {
		if there, err := s.exists(name); err != nil || there {
			return there, err
		}
	}
	return s.used()
}

// prepare leaves root key and index in the folder.
func (s *store) prepare() error {
	held, err := s.prepareAndLock()
	if err == nil {
		held.Close()
	}
	return err
}

// prepareAndLock is prepare for a caller that goes on with what it found: between the
// two a restore could take the place of a KMS without keys.
func (s *store) prepareAndLock() (*os.File, error) {
	for {
		held, err := s.prepareOnce()
		if !errors.Is(err, errReplaced) {
			return held, err
		}
	}
}

func (s *store) prepareOnce() (*os.File, error) {
	prepared := false
	defer func() {
		if !prepared {
			s.root.Destroy()
			s.root = nil
		}
	}()
	if err := s.make(""); err != nil {
		return nil, err
	}
	if err := s.make("keys"); err != nil {
		return nil, err
	}
	if err := s.unwrapRoot(); err != nil {
		return nil, err
	}
	held, err := s.lockOnce()
	if err != nil {
		return nil, err
	}
	defer func() {
		if !prepared {
			held.Close()
		}
	}()
	if err := s.openUnderLock(); err != nil {
		return nil, err
	}
	prepared = true
	return held, nil
}

func (s *store) openUnderLock() (err error) {
	if err := s.openRoot(); err != nil {
		return err
	}
	if s.auditKey, err = auditKey(s.root); err != nil {
		return err
	}
	return s.openIndex()
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
		return nil, damaged(s.path(name), "it was altered, or "+s.rootName()+" is another one")
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
