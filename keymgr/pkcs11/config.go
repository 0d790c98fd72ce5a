package pkcs11

import (
	"fmt"
	"path/filepath"
	"time"

	"sealblk/keymgr"
)

// Scheme of the URIs.
const Scheme = "pkcs11"

// Config says where the token is: [kms.pkcs11] of the configuration.
type Config struct {
	// Module is the path of the HSM's PKCS#11 library.
	Module string `toml:"module"`
	// Token is the label of the token. Slot is the number of its slot, for tokens without
	// one of their own.
	Token string `toml:"token"`
	Slot  *uint  `toml:"slot"`
	// PINFile holds the user's PIN: a path, or, without a slash, the name of a systemd
	// credential. A token that asks for none needs none.
	PINFile string `toml:"pin_file"`
	// Sessions is how many calls are made at a time; 0 is 4.
	Sessions int `toml:"sessions"`
	// Timeout of a call; 0 is 10 s.
	Timeout time.Duration `toml:"timeout"`
}

const (
	usualSessions = 4
	mostSessions  = 256
	usualTimeout  = 10 * time.Second
	maxPIN        = 256
)

// withDefaults checks a configuration and fills it.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Module == "":
		return c, badConfig("name the HSM's library: module = \"/usr/lib/…/lib….so\" in [kms.pkcs11]", "no module")
	case !filepath.IsAbs(c.Module):
		return c, badConfig("give the whole path", "module %q", c.Module)
	case (c.Token == "") == (c.Slot == nil):
		return c, badConfig("name the token by token = \"LABEL\", or by slot = NUMBER, in [kms.pkcs11]", "no token, or two of them")
	case c.Sessions < 0 || c.Sessions > mostSessions:
		return c, badConfig(fmt.Sprintf("choose 1 to %d", mostSessions), "%d sessions", c.Sessions)
	case c.Timeout < 0:
		return c, badConfig("choose a positive one", "time-out of %s", c.Timeout)
	}
	if c.Sessions == 0 {
		c.Sessions = usualSessions
	}
	if c.Timeout == 0 {
		c.Timeout = usualTimeout
	}
	return c, nil
}

func badConfig(hint, format string, args ...any) error {
	return &keymgr.Error{
		Code: keymgr.CodeInvalid, Hint: hint,
		Err: fmt.Errorf("configure PKCS#11: %s: %w", fmt.Sprintf(format, args...), keymgr.ErrInvalid),
	}
}
