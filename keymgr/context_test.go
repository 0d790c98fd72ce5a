package keymgr

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestContextEncoding(t *testing.T) {
	got, err := Context{"b": "", "a": "xy"}.Encode()
	want := "\x00\x00\x00\x02" + "\x00\x00\x00\x01a" + "\x00\x00\x00\x02xy" + "\x00\x00\x00\x01b" + "\x00\x00\x00\x00"
	if err != nil || string(got) != want {
		t.Errorf("encoding %q, %v, want %q", got, err, want)
	}
}

func TestContextEncodingRefuses(t *testing.T) {
	many := Context{}
	for i := range MaxContextEntries + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for name, c := range map[string]Context{
		"empty name": {"": "x"}, "not UTF-8": {"a": "\xff"}, "too many": many,
		"too long":          {"a": strings.Repeat("x", MaxContextBytes+1)},
		"too long as a sum": {"a": strings.Repeat("x", MaxContextBytes/2), "b": strings.Repeat("x", MaxContextBytes/2)},
	} {
		if _, err := c.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// contexts draws from few letters, and from those that encodings stumble over, so
// that contexts which differ only in where an entry ends are likely.
func contexts() *rapid.Generator[Context] {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab=,\x00\x01\"")), 0, 4, -1)
	name := rapid.StringOfN(rapid.RuneFrom([]rune("ab=,\x00\x01\"")), 1, 4, -1)
	return rapid.Custom(func(t *rapid.T) Context {
		return rapid.MapOfN(name, text, 0, 4).Draw(t, "context")
	})
}

func TestContextEncodingIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := contexts().Draw(t, "a"), contexts().Draw(t, "b")
		x, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(x, y) != maps.Equal(a, b) {
			t.Fatalf("%q and %q have encodings %q and %q", a, b, x, y)
		}
		if again, _ := maps.Clone(a).Encode(); !bytes.Equal(x, again) {
			t.Fatalf("%q has two encodings", a)
		}
	})
}
