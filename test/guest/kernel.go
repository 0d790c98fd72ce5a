package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	metaPackage   = "linux-image-cloud-amd64"
	kernelPattern = "linux-image-*-cloud-amd64_*_amd64"
)

// kernel is an unpacked kernel package.
type kernel struct {
	image   string
	modules string // the folder that holds kernel/ and modules.builtin
}

// findKernel takes the kernel from the cache; the first time it gets it there from
// a package in the cache folder or else from Debian.
func findKernel(ctx context.Context, cache string) (kernel, error) {
	if runtime.GOARCH != "amd64" {
		return kernel{}, fmt.Errorf("%w: guests are amd64, this machine is %s", ErrNoAssets, runtime.GOARCH)
	}
	if k, err := unpacked(cache); err == nil {
		return k, nil
	}
	deb, err := lastMatch(filepath.Join(cache, kernelPattern+".deb"))
	if err != nil {
		if deb, err = refreshAndDownload(ctx, cache); err != nil {
			return kernel{}, fmt.Errorf("%w: get the kernel: %w; run make setup, or put a %s.deb into %s",
				ErrNoAssets, err, kernelPattern, cache)
		}
	}
	if err := unpack(ctx, deb); err != nil {
		return kernel{}, fmt.Errorf("%w: unpack the kernel: %w", ErrNoAssets, err)
	}
	return unpacked(cache)
}

// unpacked finds a kernel that was unpacked before.
func unpacked(cache string) (kernel, error) {
	var k kernel
	var err error
	if k.image, err = lastMatch(filepath.Join(cache, kernelPattern, "boot", "vmlinuz-*")); err != nil {
		return k, err
	}
	top := filepath.Dir(filepath.Dir(k.image))
	release := strings.TrimPrefix(filepath.Base(k.image), "vmlinuz-")
	for _, lib := range []string{"lib", "usr/lib"} {
		k.modules = filepath.Join(top, lib, "modules", release)
		if _, err = os.Stat(filepath.Join(k.modules, "kernel")); err == nil {
			return k, nil
		}
	}
	return k, fmt.Errorf("kernel without modules: %w; remove %s", err, top)
}

func lastMatch(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("find %s: %w", pattern, os.ErrNotExist)
	}
	return found[len(found)-1], nil
}

// refreshAndDownload is download, with the package lists brought up to date if that
// fails and this user may.
func refreshAndDownload(ctx context.Context, cache string) (string, error) {
	deb, err := download(ctx, cache)
	if err == nil || os.Geteuid() != 0 {
		return deb, err
	}
	if _, err := command(ctx, cache, "apt-get", "-qq", "update"); err != nil {
		return "", err
	}
	return download(ctx, cache)
}

// download gets the package behind the meta package into the cache.
func download(ctx context.Context, cache string) (string, error) {
	out, err := command(ctx, cache, "apt-cache", "depends", "--no-suggests", metaPackage)
	if err != nil {
		return "", err
	}
	name := ""
	for line := range strings.Lines(out) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(dep, "linux-image-") {
			name = dep
		}
	}
	if name == "" {
		return "", fmt.Errorf("package %s is unknown; run apt-get update", metaPackage)
	}
	// Root's downloads are made by another user, who may not write here.
	if _, err := command(ctx, cache, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name); err != nil {
		return "", err
	}
	return lastMatch(filepath.Join(cache, kernelPattern+".deb"))
}

// unpack leaves the whole package beside its file, or nothing.
func unpack(ctx context.Context, deb string) error {
	final := strings.TrimSuffix(deb, ".deb")
	tmp := final + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if _, err := command(ctx, filepath.Dir(deb), "dpkg-deb", "-x", deb, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, final)
}

// command runs a program and returns its output; what it said on stderr is in the error.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
