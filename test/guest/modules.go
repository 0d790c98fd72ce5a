package guest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is a kernel module, uncompressed.
type module struct {
	name string
	data []byte
}

// moduleSet finds modules and what they depend on, in the order of loading.
type moduleSet struct {
	files   map[string]string // name -> path
	builtin map[string]bool
	done    map[string]bool
	loaded  []module
}

func newModuleSet(dir string) (*moduleSet, error) {
	s := &moduleSet{files: map[string]string{}, builtin: map[string]bool{}, done: map[string]bool{}}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".ko") {
			s.files[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	for _, path := range strings.Fields(string(list)) {
		s.builtin[moduleName(path)] = true
	}
	return s, nil
}

// moduleName is the name in a path, as the kernel writes it.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// add appends a module after those it needs, unless the kernel has it built in.
func (s *moduleSet) add(name string) error {
	name = strings.ReplaceAll(name, "-", "_")
	if s.done[name] || s.builtin[name] {
		return nil
	}
	s.done[name] = true
	path, ok := s.files[name]
	if !ok {
		return fmt.Errorf("%w: the kernel has no module %s", ErrNoAssets, name)
	}
	data, err := readModule(path)
	if err != nil {
		return fmt.Errorf("read module %s: %w", name, err)
	}
	needs, err := moduleNeeds(data)
	if err != nil {
		return fmt.Errorf("read module %s: %w", name, err)
	}
	for _, n := range needs {
		if err := s.add(n); err != nil {
			return err
		}
	}
	s.loaded = append(s.loaded, module{name, data})
	return nil
}

// readModule also reads the compressed modules of newer Debian kernels.
func readModule(path string) ([]byte, error) {
	if strings.HasSuffix(path, ".xz") {
		return exec.Command("xz", "-dc", path).Output()
	}
	return os.ReadFile(path)
}

// moduleNeeds reads the dependencies that a module states.
func moduleNeeds(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
