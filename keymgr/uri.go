package keymgr

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SchemeLocal is the scheme of the embedded KMS, and of every URI without one.
const SchemeLocal = "local"

// DefaultURI names the service key: what encrypts a disk for which no key was
// chosen.
const DefaultURI = "local:alias/acs/ecs"

// maxURI is the longest URI, in bytes.
const maxURI = 1024

// URI names a key: the scheme says which KMS, the rest is that KMS's own name for
// the key.
type URI struct {
	Scheme string
	Key    string
}

func (u URI) String() string { return u.Scheme + ":" + u.Key }

// ParseURI splits "scheme:key". A name without a scheme belongs to the embedded KMS.
// The key is printable text without spaces at its ends; the scheme is a lower-case
// letter and then lower-case letters, digits, "+", "-" and ".".
func ParseURI(s string) (URI, error) {
	if err := checkText(s); err != nil {
		return URI{}, &Error{Code: CodeInvalid, Err: fmt.Errorf("parse key URI %q: %w", clip(s), err)}
	}
	scheme, key, found := strings.Cut(s, ":")
	if !found {
		return URI{SchemeLocal, s}, nil
	}
	if !validScheme(scheme) || checkText(key) != nil {
		return URI{}, &Error{
			Code: CodeInvalid,
			Hint: "a key is named SCHEME:KEY, for example " + DefaultURI,
			Err:  fmt.Errorf("parse key URI %q: %w", s, ErrInvalid),
		}
	}
	return URI{scheme, key}, nil
}

// clip keeps an error line short when what is wrong is the length.
func clip(s string) string { return s[:min(len(s), 80)] }

func validScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}

func checkText(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("it is empty: %w", ErrInvalid)
	case len(s) > maxURI:
		return fmt.Errorf("it is longer than %d bytes: %w", maxURI, ErrInvalid)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("it holds a character that does not print: %w", ErrInvalid)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("it begins or ends with a space: %w", ErrInvalid)
	}
	return nil
}
