package local

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"sealblk/keymgr"
)

const (
	idPrefix    = "key-"
	aliasPrefix = "alias/"
	// ServiceAlias is the alias of the service key of each region.
	ServiceAlias = "alias/acs/ecs"
	// reservedAliases are the provider's own.
	reservedAliases = "alias/acs/"
	// DefaultRegion is the region of a host that names none.
	DefaultRegion = "local"

	maxDescription = 8192
)

var (
	idForm        = regexp.MustCompile(`^key-[0-9a-f]{32}$`)
	aliasForm     = regexp.MustCompile(`^alias/[A-Za-z0-9_][A-Za-z0-9/_-]{0,254}$`)
	regionForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	principalForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

func newID() string {
	var raw [16]byte
	rand.Read(raw[:]) // never fails
	return idPrefix + hex.EncodeToString(raw[:])
}

func validID(s string) bool { return idForm.MatchString(s) }

// aliasOf is the full name of an alias, "" if the text is none. No name at all means
// the service key.
func aliasOf(name string) string {
	switch name {
	case "", strings.TrimPrefix(ServiceAlias, aliasPrefix):
		return ServiceAlias
	}
	if aliasForm.MatchString(name) {
		return name
	}
	return ""
}

// checkNewAlias refuses an alias that a user may not give.
func checkNewAlias(name string) error {
	if strings.HasPrefix(name, reservedAliases) || aliasOf(name) == ServiceAlias {
		return &keymgr.Error{
			Code: CodeServiceKey, Key: name, Hint: "aliases below " + reservedAliases + " belong to service keys",
			Err: keymgr.ErrServiceKey,
		}
	}
	if !aliasForm.MatchString(name) {
		return invalid("", "an alias is alias/NAME, NAME of letters, digits, /, _ and -, at most 255", "alias %q", name)
	}
	return nil
}

func checkRegion(s string) error {
	if !regionForm.MatchString(s) {
		return invalid("", "a region is lower-case letters, digits and -, at most 63", "region %q", s)
	}
	return nil
}

// CheckPrincipal refuses what cannot be the name of a principal.
func CheckPrincipal(s string) error { return checkPrincipal(s) }

func checkPrincipal(s string) error {
	if !principalForm.MatchString(s) {
		return invalid("", "a principal is lower-case letters, digits, ., _ and -, at most 63", "principal %q", s)
	}
	return nil
}

func checkDescription(s string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(s) > maxDescription || !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable) {
		return invalid("", "a description is one line of text of at most 8192 bytes", "description")
	}
	return nil
}
