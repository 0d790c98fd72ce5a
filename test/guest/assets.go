package guest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
)

// Assets are what a guest boots from.
type Assets struct {
	Kernel string // the path of its image
	Initrd string // the path of the initramfs
}

// Options say what a guest has besides the usual.
type Options struct {
	// Programs of this machine to copy into the guest's /bin, with their libraries, by
	// name or path. The guest's shell prefers busybox's own of the same name: call
	// such a program by its path, /bin/NAME.
	Programs []string
	// Files to put into the guest, by path, executable.
	Files map[string][]byte
	// Modules of the kernel to load at boot, with those they need.
	Modules []string
}

// What every guest has.
var (
	usualModules  = []string{"virtio_pci", "virtio_console", "virtio_blk", "ext4"}
	usualPrograms = []string{"mke2fs", "e2fsck"}
	usualLinks    = map[string]string{"mkfs.ext4": "mke2fs", "fsck.ext4": "e2fsck"}
	usualConfig   = []string{"/etc/mke2fs.conf"}
)

// Prepare makes sure that the cache has a kernel and an initramfs for the options.
// The first call may download some 30 MB. Any number of processes may call it.
func Prepare(ctx context.Context, o Options) (*Assets, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(cache)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err := findKernel(ctx, cache)
	if err != nil {
		return nil, err
	}
	archive, err := buildInitrd(ctx, k, o)
	if err != nil {
		return nil, fmt.Errorf("build initramfs: %w", err)
	}
	name := fmt.Sprintf("initrd-%x.cpio", sha256.Sum256(archive))
	a := &Assets{Kernel: k.image, Initrd: filepath.Join(cache, name)}
	return a, store(a.Initrd, archive)
}

func buildInitrd(ctx context.Context, k kernel, o Options) ([]byte, error) {
	t := tree{}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "mnt"} {
		t.dir(dir)
	}
	if err := t.addBusybox(ctx); err != nil {
		return nil, err
	}
	if err := t.addModules(k, append(usualModules[:len(usualModules):len(usualModules)], o.Modules...)); err != nil {
		return nil, err
	}
	libraries, err := t.addPrograms(append(usualPrograms[:len(usualPrograms):len(usualPrograms)], o.Programs...))
	if err != nil {
		return nil, err
	}
	for name, target := range usualLinks {
		t.link("bin/"+name, target)
	}
	for _, path := range usualConfig {
		if err := t.copyFrom(path, path, 0o644); err != nil {
			return nil, err
		}
	}
	t.file("init", 0o755, []byte(strings.ReplaceAll(initScript, "@LIBRARIES@", libraries)))
	for name, data := range o.Files {
		t.file(name, 0o755, data)
	}
	return t.pack()
}

// addBusybox adds busybox under all its names.
func (t tree) addBusybox(ctx context.Context) error {
	path, err := findProgram("busybox")
	if err != nil {
		return err
	}
	if static, err := isStatic(path); err != nil || !static {
		return fmt.Errorf("%w: %s is not static; install the package busybox-static", ErrNoAssets, path)
	}
	names, err := command(ctx, "/", path, "--list")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(names) {
		t.link("bin/"+name, "busybox")
	}
	return t.copyFrom(path, "bin/busybox", 0o755)
}

// addModules adds modules, and their names in the order of loading.
func (t tree) addModules(k kernel, names []string) error {
	set, err := newModuleSet(k.modules)
	if err != nil {
		return err
	}
	var order strings.Builder
	for _, name := range names {
		if err := set.add(name); err != nil {
			return err
		}
	}
	for _, m := range set.loaded {
		t.file("modules/"+m.name+".ko", 0o644, m.data)
		fmt.Fprintln(&order, m.name)
	}
	t.file("etc/modules", 0o644, []byte(order.String()))
	return nil
}

// addPrograms adds programs with their libraries and returns where those are, as a
// search path.
func (t tree) addPrograms(names []string) (libraries string, err error) {
	files := map[string]bool{}
	for _, name := range names {
		path, err := findProgram(name)
		if err != nil {
			return "", err
		}
		if err := addLibraries(files, path); err != nil {
			return "", err
		}
		if err := t.copyFrom(path, "bin/"+filepath.Base(name), 0o755); err != nil {
			return "", err
		}
	}
	dirs := map[string]bool{}
	for lib := range files {
		dirs[filepath.Dir(lib)] = true
		if err := t.copyFrom(lib, lib, 0o755); err != nil {
			return "", err
		}
	}
	var list []string
	for dir := range dirs {
		list = append(list, dir)
	}
	sort.Strings(list)
	return strings.Join(list, ":"), nil
}
