package guest

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	programDirs = []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"}
	libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
)

// findProgram finds a program of this machine, also one that a user's PATH lacks.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path, ok := findIn(programDirs, name)
	if !ok {
		return "", fmt.Errorf("%w: this machine lacks the program %s; run make setup", ErrNoAssets, name)
	}
	return path, nil
}

func findIn(dirs []string, name string) (string, bool) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

// addLibraries adds to files, by their paths, the loader and the libraries that a
// program or library needs. A static program needs none.
func addLibraries(files map[string]bool, path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	needs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if loader := interpreter(f); loader != "" {
		files[loader] = true
	}
	dirs := append(ownLibraryDirs(f, path), libraryDirs...)
	for _, name := range needs {
		lib, ok := findIn(dirs, name)
		if !ok {
			return fmt.Errorf("%w: %s needs the library %s", ErrNoAssets, path, name)
		}
		if files[lib] {
			continue
		}
		files[lib] = true
		if err := addLibraries(files, lib); err != nil {
			return err
		}
	}
	return nil
}

// ownLibraryDirs are the folders that a program or library itself names for what it
// needs.
func ownLibraryDirs(f *elf.File, path string) (dirs []string) {
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		lists, _ := f.DynString(tag) // most have none
		for _, list := range lists {
			for _, dir := range filepath.SplitList(list) {
				dirs = append(dirs, strings.ReplaceAll(dir, "$ORIGIN", filepath.Dir(path)))
			}
		}
	}
	return dirs
}

// interpreter is the loader that a dynamic program names.
func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz < 2 {
			continue
		}
		name := make([]byte, p.Filesz-1) // without the final zero
		if _, err := p.ReadAt(name, 0); err == nil {
			return string(name)
		}
	}
	return ""
}

// isStatic tells whether a program runs without a loader.
func isStatic(path string) (bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	return interpreter(f) == "", nil
}
