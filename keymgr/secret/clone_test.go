package secret

import (
	"errors"
	"testing"
)

func TestClone(t *testing.T) {
	a, err := Random(64)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	if !a.Equal(b) || address(a) == address(b) {
		t.Error("the clone is not the same secret in other memory")
	}
	c, _ := a.Clone()
	defer c.Destroy()
	a.Destroy()
	if b.Len() != 64 || !b.Equal(c) {
		t.Error("the clone went with its original")
	}
	if got, err := a.Clone(); got != nil || !errors.Is(err, ErrDestroyed) {
		t.Errorf("clone of a destroyed secret: %v", err)
	}
}
