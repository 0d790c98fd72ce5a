// Package credential finds and reads the files that hold credentials of a service:
// access keys, tokens, private keys of certificates.
//
// A configuration names such a file by its path, or, by a name without a slash, a
// credential that systemd hands to the service (LoadCredential=, in the folder
// $CREDENTIALS_DIRECTORY). Refused are a file that others than its owner may read, and one
// whose owner is neither this user nor root.
// systemd's folder is private as a whole, and its files carry access lists that look
// like wider modes: there neither is looked at.
//
// Source: systemd.exec(5), Credentials.
package credential

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

var (
	// ErrExposed: others than the owner may read the file.
	ErrExposed = errors.New("credential can be read by others")
	// ErrForeign: the file belongs to another user, who can read it whatever its mode.
	ErrForeign = errors.New("it belongs to another user")
	// ErrNoDirectory: a credential of systemd is asked for, and there are none.
	ErrNoDirectory = errors.New("no credentials were handed to this process")
)

// maxSize of a credential, in bytes; systemd's own limit.
const maxSize = 1 << 20

// Path is where the credential of that name is. It checks that the file is private,
// not what is in it.
func Path(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, private(name)
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if name == "" || name == "." || name == ".." || dir == "" {
		return "", fmt.Errorf("find credential %q: %w: give the path of a file, with a slash in it, or LoadCredential= in the unit", name, ErrNoDirectory)
	}
	return filepath.Join(dir, name), nil
}

func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("find credential: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("credential %s has mode %04o: %w: chmod 600 it", path, info.Mode().Perm(), ErrExposed)
	}
	if owner, foreign := ForeignOwner(info); info.Mode().IsRegular() && foreign {
		return fmt.Errorf("credential %s, of user %d: %w: replace what is in it, and chown %d it", path, owner, ErrForeign, os.Geteuid())
	}
	return nil
}

// ForeignOwner tells whose a file or folder is, and whether that is neither the user of
// this process nor root.
func ForeignOwner(info fs.FileInfo) (uid int, foreign bool) {
	uid = int(info.Sys().(*syscall.Stat_t).Uid)
	return uid, uid != 0 && uid != os.Geteuid()
}
