package luks

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func encodedToken(t testing.TB) []byte {
	t.Helper()
	tok := testToken()
	raw, err := tok.encode([]byte("[]"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTokenRoundTrip(t *testing.T) {
	tok, err := ParseToken(encodedToken(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(testToken(), tok); d != "" {
		t.Error(d)
	}
}

// TestTokenIsStrict: nothing that we would drop or misread is accepted.
func TestTokenIsStrict(t *testing.T) {
	good := string(encodedToken(t))
	for _, c := range []struct {
		from, to string
		want     error
	}{
		{`"version":1`, `"version":2`, ErrToken},
		{`"version":1`, `"version":3`, ErrTokenVersion},
		{`"version":1`, `"version":3,"new":{}`, ErrTokenVersion},
		{`"version":1`, `"version":0`, ErrTokenVersion},
		{`"version":1`, `"version":1,"key_scope_blocks":"67108864"`, ErrToken},
		{`"version":1`, `"version":"1"`, ErrToken},
		{`"version":1`, `"version":1.0`, ErrToken},
		{`"version":1`, `"Version":1`, ErrToken},
		{`"version":1`, `"version":1,"new":{}`, ErrToken},
		{`"version":1`, `"version":1,"version":1`, ErrToken},
		{`"type":"sealblk"`, `"type":"sealblk2"`, ErrToken},
		{`"key_uri"`, `"Key_uri"`, ErrToken},
		{`"key_uri":"local:3f0c"`, `"key_uri":null`, ErrToken},
		{`"key_uri":"local:3f0c"`, `"key_uri":""`, ErrToken},
		{`"key_uri":"local:3f0c"`, `"key_uri":"\u001b"`, ErrToken},
		{`"key_uri":"local:3f0c"`, "\"key_uri\":\"\xff\"", ErrToken},
		{`"owner"`, `"sealblk:disk"`, ErrToken},
		{`"sealblk:disk":"lin-1"`, `"sealblk:disk":1`, ErrToken},
		{`"wrapped_key":"AAEC/w=="`, `"wrapped_key":"AAEC/w="`, ErrToken},
		{`"wrapped_key":"AAEC/w=="`, `"wrapped_key":"AAEC/x=="`, ErrToken},
		{`"wrapped_key":"AAEC/w=="`, `"wrapped_key":"AAEC\n/w=="`, ErrToken},
		{`"wrapped_key":"AAEC/w=="`, `"wrapped_key":""`, ErrToken},
		{`"size":"1073741824"`, `"size":1073741824`, ErrToken},
		{`"size":"1073741824"`, `"size":"0"`, ErrToken},
		{`"sector_size":512`, `"sector_size":4294967808`, ErrToken},
		{`"created":"2025-11-23T`, `"created":"2025-11-43T`, ErrToken},
		{`"role":"data",`, ``, ErrToken},
		{`"keyslots":[]`, `"keyslots":{}`, ErrToken},
		{`{"type"`, `{{"type"`, ErrToken},
	} {
		if !strings.Contains(good, c.from) {
			t.Fatalf("%q is not in %s", c.from, good)
		}
		if _, err := ParseToken([]byte(strings.Replace(good, c.from, c.to, 1))); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.to, err, c.want)
		}
	}
}

// edit puts tokens into a good header's JSON, as another program can.
func edit(t *testing.T, change func(tokens object) object) *Header {
	t.Helper()
	doc := mustOpen(t, headOf(t, testParams(), testKey(1))).doc
	tokens, err := doc.section("tokens")
	if err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, seal(doc.with("tokens", change(tokens).encode()).encode()))
}

func TestTokenOfHeader(t *testing.T) {
	raw := encodedToken(t)
	longer := bytes.Replace(raw, []byte("1073741824"), []byte("2147483648"), 1)
	wider := bytes.Replace(raw, []byte(`"sector_size":512`), []byte(`"sector_size":4096`), 1)
	newer := bytes.Replace(raw, []byte(`"version":1`), []byte(`"version":3`), 1)
	pending := testToken()
	pending.DigestPending = true
	pendingRaw, err := pending.encode([]byte("[]"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(object) object
		want   error
	}{
		"none":              {func(object) object { return nil }, ErrNoToken},
		"two":               {func(o object) object { return o.with("5", raw) }, ErrToken},
		"other size":        {func(o object) object { return o.with("0", longer) }, ErrToken},
		"other sector size": {func(o object) object { return o.with("0", wider) }, ErrToken},
		"newer":             {func(o object) object { return o.with("0", newer) }, ErrTokenVersion},
		"pending again":     {func(o object) object { return o.with("0", pendingRaw) }, ErrToken},
		"beside others":     {func(o object) object { return o.with("1", []byte("7")).with("2", []byte(`{"type":7}`)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := edit(t, c.change)
			if _, err := h.Token(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := h.VerifyKey(testKey(1)); err != nil {
				t.Errorf("the disk itself: %v", err)
			}
		})
	}
}

// TestSetTokenFindsItsPlace: the old place with the old list of key slots, else the
// first free one.
func TestSetTokenFindsItsPlace(t *testing.T) {
	other := []byte(`{"type":"other","keyslots":[]}`)
	assigned := bytes.Replace(encodedToken(t), []byte(`"keyslots":[]`), []byte(`"keyslots":[ "4" ]`), 1)
	for name, c := range map[string]struct {
		tokens object
		id     string
		slots  string
	}{
		"old place":  {object(nil).with("0", other).with("9", assigned), "9", `[ "4" ]`},
		"free place": {object(nil).with("0", other).with("2", other), "1", `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			h := edit(t, func(object) object { return c.tokens })
			tok := testToken()
			tok.KeyVersion = "changed"
			if err := h.SetToken(tok); err != nil {
				t.Fatal(err)
			}
			tokens, _ := h.doc.section("tokens")
			set, err := tokens.section(c.id)
			if err != nil {
				t.Fatal(err)
			}
			if slots, _ := set.get("keyslots"); string(slots) != c.slots || mustToken(t, h).KeyVersion != "changed" {
				t.Errorf("token is %s", set.encode())
			}
		})
	}
}

func TestSetTokenWithAllPlacesTaken(t *testing.T) {
	h := edit(t, func(object) object {
		var o object
		for i := range maxTokens {
			o = o.with(strconv.Itoa(i), []byte(`{"type":"other"}`))
		}
		return o
	})
	if err := h.SetToken(testToken()); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
}
