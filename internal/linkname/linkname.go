// Package linkname gives files public names that pass from one process to another: a
// file has a name of its own as long as its process lives, and who has the right to it
// puts the public name on top, in one step, whoever had it before.
package linkname

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Name is a file under its own name, and the public name that it may have.
type Name struct {
	Own    string `json:"own"`
	Public string `json:"public"`
}

// Put gives the file its public name, in the place of any other file.
func (n Name) Put() error {
	if n.has() {
		return nil
	}
	tmp := n.Own + ".public"
	if err := os.Link(n.Own, tmp); err != nil {
		return fmt.Errorf("name %s: %w", n.Public, err)
	}
	if err := os.Rename(tmp, n.Public); err != nil {
		return errors.Join(fmt.Errorf("name %s: %w", n.Public, err), os.Remove(tmp))
	}
	return nil
}

// Remove removes the file under both names; the public one only if it is still this
// file's.
func (n Name) Remove() error {
	var err error
	if n.has() {
		err = os.Remove(n.Public)
	}
	err = errors.Join(err, os.Remove(n.Own))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (n Name) has() bool {
	own, err := os.Lstat(n.Own)
	if err != nil {
		return false
	}
	public, err := os.Lstat(n.Public)
	return err == nil && os.SameFile(own, public)
}
