package luks

import (
	"io"
	"slices"
	"testing"
)

// memFile is a File in memory that records what is done to it.
type memFile struct {
	b      []byte
	events []event
	// fail, when set, decides the fate of each write.
	fail func(off int64) error
	// lost: writes are acknowledged and dropped.
	lost bool
}

// event is a write, or a sync when data is nil.
type event struct {
	off  int64
	data []byte
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fail != nil {
		if err := f.fail(off); err != nil {
			return 0, err
		}
	}
	f.events = append(f.events, event{off: off, data: slices.Clone(p)})
	if !f.lost {
		f.b = apply(f.b, off, p)
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.events = append(f.events, event{})
	return nil
}

func apply(b []byte, off int64, p []byte) []byte {
	if grow := int(off) + len(p) - len(b); grow > 0 {
		b = append(b, make([]byte, grow)...)
	}
	copy(b[off:], p)
	return b
}

// head is a copy of the file's first bytes, both header copies of ours.
func (f *memFile) head() *memFile {
	return &memFile{b: slices.Clone(f.b[:2*defaultHdrSize])}
}

// headOf drops what a test does not need of a 16 MiB file.
func headOf(t *testing.T, p Params, dk []byte) *memFile {
	t.Helper()
	f := &memFile{}
	if _, err := Format(f, p, dk); err != nil {
		t.Fatal(err)
	}
	return f.head()
}
