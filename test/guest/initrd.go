package guest

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
)

//go:embed init.sh
var initScript string

// tree is the content of an initramfs: what is at each path.
type tree map[string]entry

type entry struct {
	mode cpio.FileMode
	data []byte // of a symbolic link: its target
}

// file adds a file and the folders it lies in.
func (t tree) file(name string, perm cpio.FileMode, data []byte) {
	t.put(name, entry{cpio.TypeReg | perm, data})
}

func (t tree) link(name, target string) {
	t.put(name, entry{cpio.TypeSymlink | 0o777, []byte(target)})
}

func (t tree) dir(name string) {
	t.put(name, entry{cpio.TypeDir | 0o755, nil})
}

func (t tree) put(name string, e entry) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return
	}
	if dir := path.Dir(name); dir != "." {
		if _, ok := t[dir]; !ok {
			t.dir(dir)
		}
	}
	t[name] = e
}

// copyFrom adds a file of this machine.
func (t tree) copyFrom(source, name string, perm cpio.FileMode) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("copy into initramfs: %w", err)
	}
	t.file(name, perm, data)
	return nil
}

// pack is the tree as an archive, the same bytes for the same tree.
func (t tree) pack() ([]byte, error) {
	var names []string
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names) // a folder comes before what is in it
	var buf bytes.Buffer
	w := cpio.NewWriter(&buf)
	for i, name := range names {
		e := t[name]
		h := &cpio.Header{Name: name, Mode: e.mode, Size: int64(len(e.data)), Inode: int64(i + 1), Links: 1}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack initramfs: %w", err)
	}
	return buf.Bytes(), nil
}
