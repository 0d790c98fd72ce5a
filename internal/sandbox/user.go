package sandbox

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// DefaultUser is who workers run as where such a user exists.
const DefaultUser = "sealblk"

// fallback is nobody, as every distribution numbers it.
var fallback = account{name: "nobody", uid: 65534, gid: 65534}

// account is a user to become.
type account struct {
	name     string
	uid, gid int
}

// lookup finds the user by name or number; the default one if name is empty.
func lookup(name string) (account, error) {
	if name == "" {
		a, err := find(DefaultUser)
		if err != nil {
			return fallback, nil
		}
		return a, nil
	}
	return find(name)
}

func find(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return account{}, fmt.Errorf("user %q: %w", name, ErrUser)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("user %q: %w", name, ErrUser)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil || uid == 0 || gid == 0 {
		return account{}, fmt.Errorf("user %q: %w", name, ErrUser)
	}
	return account{u.Username, uid, gid}, nil
}

// become changes to the user, for good: real, effective and saved ids. The syscall
// package does it on every thread.
func (a account) become() error {
	if err := syscall.Setgroups([]int{}); err != nil {
		return fmt.Errorf("drop supplementary groups: %w", err)
	}
	if err := syscall.Setresgid(a.gid, a.gid, a.gid); err != nil {
		return fmt.Errorf("change group to %d: %w", a.gid, err)
	}
	if err := syscall.Setresuid(a.uid, a.uid, a.uid); err != nil {
		return fmt.Errorf("change user to %s: %w", a.name, err)
	}
	return nil
}

func isRoot() bool { return os.Geteuid() == 0 }
