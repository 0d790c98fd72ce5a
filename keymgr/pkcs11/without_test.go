//go:build !pkcs11

package pkcs11

import (
	"errors"
	"testing"
)

// TestWithoutTheTag: a build without C says so, and how to get another.
func TestWithoutTheTag(t *testing.T) {
	_, err := Open(Config{})
	_, wrap := Root{}.Wrap(nil)
	_, unwrap := Root{}.Unwrap(nil)
	for _, err := range []error{err, wrap, unwrap} {
		if !errors.Is(err, ErrNotBuilt) || err.Error() != "this build has no PKCS#11 (build with -tags pkcs11)" {
			t.Errorf("got %v", err)
		}
	}
}
