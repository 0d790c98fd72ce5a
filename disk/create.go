package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/luks"
	"sealblk/internal/atomicfile"
	"sealblk/keymgr"
)

// CreateOptions say what disk to make. Zero values are defaults.
type CreateOptions struct {
	Name      string
	SizeBytes int64
	Encrypted bool
	// Key is the URI of the CMK; empty is the service key.
	Key        string
	Role       Role
	Category   Category
	SectorSize int
	// Backend is a URI; empty is a new file under the state directory.
	Backend string
	Serial  string
}

// Create makes a disk. Either it is there in the end, whole, or nothing is.
func (c *Catalogue) Create(ctx context.Context, o CreateOptions) (Record, error) {
	r, err := c.newRecord(o)
	if err != nil {
		return Record{}, err
	}
	l, err := c.register(r.Name)
	if err != nil {
		return Record{}, err
	}
	defer l.release()
	b, err := c.vacant(r)
	if err != nil {
		return Record{}, err
	}
	undo, err := c.build(ctx, &r, b, o.Key)
	if err == nil {
		err = c.save(r)
	}
	if err != nil {
		undo()
		return Record{}, fmt.Errorf("create disk %s: %w", r.Name, err)
	}
	return r, nil
}

// newRecord fills in the defaults and checks all that can be checked without
// touching anything.
func (c *Catalogue) newRecord(o CreateOptions) (Record, error) {
	if err := CheckName(o.Name); err != nil {
		return Record{}, err
	}
	r := Record{
		Format: recordFormat, Name: o.Name, ID: newID(), SizeBytes: o.SizeBytes,
		Encrypted:  o.Encrypted || o.Key != "",
		SectorSize: orDefault(o.SectorSize, 512),
		Category:   orDefault(o.Category, Cloud),
		Role:       orDefault(o.Role, Data),
		Created:    time.Now().UTC().Truncate(time.Second),
	}
	r.Lineage = r.ID
	r.Serial = orDefault(o.Serial, r.ID)
	backend, err := normalise(orDefault(o.Backend, "file:"+filepath.Join(c.dir, "volumes", o.Name+".img")))
	if err != nil {
		return Record{}, err
	}
	r.Backend = backend
	return r, r.validateShape()
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// vacant checks that neither the name nor the backend is taken.
func (c *Catalogue) vacant(r Record) (backend, error) {
	if _, err := os.Lstat(c.recordPath(r.Name)); err == nil {
		return backend{}, withHint(fmt.Errorf("disk %s: %w", r.Name, ErrExists), "choose another name, or delete that disk first")
	}
	b, err := parseBackend(r.Backend)
	if err != nil {
		return backend{}, err
	}
	if name, taken := c.holder(b); taken {
		return backend{}, withHint(fmt.Errorf("backend %s: %w as the backend of disk %s", r.Backend, ErrExists, name), "choose another file")
	}
	return b, nil
}

// build makes the backing store and the header of a new disk. The returned function
// takes back what was made.
func (c *Catalogue) build(ctx context.Context, r *Record, b backend, key string) (undo func(), err error) {
	undo = func() {}
	var dk dataKey
	if r.Encrypted {
		if dk, err = c.generate(ctx, r, key); err != nil {
			return undo, err
		}
		defer dk.plain.Destroy()
	}
	store, err := c.createStore(*r, b)
	if err != nil {
		return undo, err
	}
	defer store.Close()
	if r.Encrypted {
		_, err = luks.Format(store.header, params(*r, dk.wrapped, store.dataOffset == 0), dk.plain.Bytes())
	}
	if err == nil {
		err = store.sync()
	}
	return store.remove, err
}

// generate gets a data key for a new disk and notes in the record which CMK wraps it.
func (c *Catalogue) generate(ctx context.Context, r *Record, uri string) (dataKey, error) {
	plain, wrapped, err := c.keys.GenerateDataKey(ctx, orDefault(uri, keymgr.DefaultURI), contextOf(r.Lineage))
	if err != nil {
		return dataKey{}, fmt.Errorf("generate data key: %w", err)
	}
	r.KeyURI = wrapped.URI
	r.KeyID = keyID(wrapped.URI)
	return dataKey{plain, wrapped}, nil
}

// store is the backing store of a disk that is being created.
type store struct {
	data       *os.File // nil for memory: and null:
	header     *os.File // nil for a plain disk; the same as data when in front of it
	dataOffset int64
	created    []string
}

// createStore makes the backing file, and the file of a detached header where the
// backend cannot hold one. Existing files are never overwritten.
func (c *Catalogue) createStore(r Record, b backend) (*store, error) {
	s := &store{}
	if b.kind != "file" {
		if !r.Encrypted {
			return s, nil
		}
		f, err := s.create(c.headerPath(r.Name))
		s.header = f
		return s, err
	}
	if r.Encrypted {
		s.dataOffset = luks.DataOffset
	}
	f, err := s.openData(b.path, s.dataOffset+r.SizeBytes)
	if err != nil {
		s.remove()
		return nil, err
	}
	s.data = f
	if r.Encrypted {
		s.header = f
	}
	return s, nil
}

func (s *store) openData(path string, size int64) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeDevice != 0 {
		return openBlankDevice(path, size)
	}
	f, err := s.create(path)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, withHint(fmt.Errorf("size backing file: %w", err), "check the file system's limits and the user's quota")
	}
	return f, nil
}

func (s *store) create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, withHint(fmt.Errorf("backing file %s: %w", path, ErrExists),
			"choose another with --backend; if it is a disk of ours, register it with sealblk disk import")
	}
	if err != nil {
		return nil, fmt.Errorf("create backing file: %w", err)
	}
	s.created = append(s.created, path)
	return f, nil
}

// blankSize is how much of a block device must be zeros before it is taken for empty.
const blankSize = 1 << 20

// openBlankDevice opens a block device that holds nothing.
func openBlankDevice(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("open block device: %w", err)
	}
	if err := checkBlank(f, size); err != nil {
		f.Close()
		return nil, fmt.Errorf("block device %s: %w", path, err)
	}
	return f, nil
}

func checkBlank(f *os.File, size int64) error {
	end, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	if end < size {
		return fmt.Errorf("%w: it has %d bytes, the disk needs %d", ErrTooShort, end, size)
	}
	head := make([]byte, min(blankSize, end))
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	for _, b := range head {
		if b != 0 {
			return withHint(fmt.Errorf("%w: it holds data", ErrExists), "if that data is not needed, clear it first: wipefs --all, or blkdiscard")
		}
	}
	return nil
}

func (s *store) sync() error {
	for _, f := range []*os.File{s.data, s.header} {
		if f == nil {
			continue
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	for _, path := range s.created {
		if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) Close() {
	if s.data != nil {
		s.data.Close()
	}
	if s.header != nil && s.header != s.data {
		s.header.Close()
	}
}

// remove takes back the files that createStore made.
func (s *store) remove() {
	for _, path := range s.created {
		os.Remove(path)
	}
}

func contextOf(lineage string) keymgr.Context {
	return keymgr.Context{keymgr.ContextDisk: lineage}
}

// params are what the header of a new disk says.
func params(r Record, w keymgr.WrappedKey, detached bool) luks.Params {
	return luks.Params{
		Label:    r.Name,
		Detached: detached,
		Token: luks.Token{
			KeyURI: w.URI, KeyVersion: w.Version, WrappedKey: w.Blob, Context: contextOf(r.Lineage),
			Disk: luks.Disk{
				ID: r.ID, Lineage: r.Lineage, Name: r.Name, Size: r.SizeBytes, SectorSize: r.SectorSize,
				Role: string(r.Role), Serial: r.Serial, Created: r.Created,
			},
		},
	}
}
