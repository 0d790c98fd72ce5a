package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"sealblk/internal/credential"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// rootPassphrase asks for the passphrase of the root key, once in a process however
// often the KMS is opened in it.
var rootPassphrase passphraseKeeper

type passphraseKeeper struct {
	ctx    context.Context
	prompt io.Writer
	// unattended: this process has no user, and none of the descriptors of who does.
	unattended bool

	mu    sync.Mutex
	known *secret.Buffer
}

const rootPassphraseName = "passphrase of the root key"

// asker is what the KMS asks.
func (k *passphraseKeeper) asker(r rootConfig) func(new bool) (*secret.Buffer, error) {
	return func(new bool) (*secret.Buffer, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.known == nil {
			p, err := k.ask(r, new)
			if err != nil {
				return nil, err
			}
			k.known = p
		}
		return k.known.Clone()
	}
}

// fresh is the passphrase that a root key shall be under from now on.
func (k *passphraseKeeper) fresh(r rootConfig, file string) (*secret.Buffer, error) {
	if file != "" {
		if err := private(file); err != nil {
			return nil, err
		}
		return passphrase(k.ctx, file, k.prompt, false)
	}
	return k.ask(r, true)
}

// private refuses a file that others may read, as it will be refused when it is to open
// the KMS.
func private(file string) error {
	path, err := filepath.Abs(file)
	if err == nil {
		_, err = credential.Path(path)
	}
	return err
}

func (k *passphraseKeeper) ask(r rootConfig, new bool) (*secret.Buffer, error) {
	switch {
	case r.PassphraseFile != "":
		return secret.ReadTextFile(k.ctx, r.PassphraseFile, maxPassphrase)
	case k.unattended:
		return nil, unasked("an export cannot ask for the " + rootPassphraseName)
	case r.PassphraseFD != nil:
		return k.readFD(*r.PassphraseFD)
	}
	what := rootPassphraseName
	if new {
		what = "new " + what
	}
	p, err := askTerminal(k.ctx, k.prompt, what, new)
	if errors.Is(err, errNoTerminal) {
		err = unasked("there is no terminal to ask for the " + what)
	}
	return p, err
}

func unasked(why string) error {
	return &keymgr.Error{
		Code: local.CodeRootLocked, Err: errors.New(why),
		Hint: "name a passphrase_file in [kms.local.root]: a systemd credential, or a file below /run",
	}
}

// readFD reads a descriptor that who started this process gave it. It stays open.
func (k *passphraseKeeper) readFD(fd int) (*secret.Buffer, error) {
	// What this process opened itself closes on exec.
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err == nil && flags&unix.FD_CLOEXEC != 0 {
		err = unix.EBADF
	}
	own := -1
	if err == nil {
		own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s from descriptor %d: %w", rootPassphraseName, fd, err)
	}
	f := os.NewFile(uintptr(own), "passphrase")
	defer f.Close()
	return readPassphrase(k.ctx, f, false)
}

func (k *passphraseKeeper) forget() {
	k.known.Destroy()
	k.known = nil
}

// copies hands out copies of a passphrase.
func copies(p *secret.Buffer) func(bool) (*secret.Buffer, error) {
	return func(bool) (*secret.Buffer, error) { return p.Clone() }
}
