package local

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"sealblk/keymgr"
)

// namedCalls makes calls in which a name of the caller's is in every field of the log.
func namedCalls(t *testing.T, k *KMS, name string) {
	t.Helper()
	ctx := t.Context()
	_, w := generate(t, k, "")
	k.DescribeKey(ctx, name)
	k.As(name).DescribeKey(ctx, name)
	k.CreateKey(ctx, CreateOptions{Alias: name})
	k.SetAlias(ctx, name, name)
	k.Revoke(ctx, name, name)
	k.Authorize(ctx, name, name, []Permission{Permission(name)})
	k.Decrypt(ctx, keymgr.WrappedKey{URI: name}, keymgr.Context{name: name})
	k.As(DiskService).GenerateDataKeyWithoutPlaintext(ctx, "", keymgr.Context{name: name})
	k.As(DiskService).ReEncrypt(ctx, w, disk("1"), name)
	k.SetRootSource(ctx, name, nil)
	k.Record(ctx, keymgr.Event{Operation: keymgr.EventErase, URI: "local:" + name, Detail: name})
}

// oddNames are names that JSON writes in a way of its own, or not at all.
var oddNames = map[string]string{
	"cut in a character":  strings.Repeat("a", maxAuditText-1) + "é",
	"not UTF-8":           "alias/\xff",
	"nothing but that":    strings.Repeat("\xff", 2*maxAuditText),
	"half a surrogate":    "\xed\xa0\x80",
	"line separators":     "a\u2028b\u2029c",
	"control characters":  "\x00\x01\b\f\n\r\t\x1b\x7f\u0085",
	"HTML":                `<a href="&">'\`,
	"looks like a MAC":    `","mac":"` + strings.Repeat("A", 43) + `="}`,
	"replacement":         "\uFFFD",
	"outside of a plane":  "\U0001F511\U0010FFFF",
	"a byte order mark":   "\uFEFF",
	"characters to spare": strings.Repeat("\U0001F511", maxAuditText),
}

func TestLogVerifiesWhateverTheNames(t *testing.T) {
	for what, name := range oddNames {
		t.Run(what, func(t *testing.T) {
			k := newKMS(t)
			namedCalls(t, k, name)
			for _, e := range auditOf(t, k) {
				for _, s := range []string{e.Principal, e.Key, e.ToKey, e.Detail} {
					if len(s) > maxAuditText || !utf8.ValidString(s) {
						t.Errorf("record %d has %q", e.Number, s)
					}
				}
			}
			if _, err := k.KeyUsage(t.Context(), ServiceAlias); err != nil {
				t.Error(err)
			}
			backupOf(t, k, "correct horse")
		})
	}
}

func FuzzLogVerifies(f *testing.F) {
	for _, name := range oddNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		key := []byte("key")
		e := Entry{Time: noon, Principal: name, Operation: name, Key: name, ToKey: name, Detail: name, Result: name}
		if utf8.ValidString(name) { // another context is refused before
			e.Context = keymgr.Context{name: name}
		}
		var h auditHead
		if err := h.add(key, e); err != nil {
			t.Fatalf("add %q: %v", name, err)
		}
		c := chain{key: key}
		if _, wrong := c.next(h.Tail[0]); wrong != "" {
			t.Fatalf("the record of %q %s", name, wrong)
		}
	})
}

func TestClippedKeepsWholeCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"a\xffb":                          "a\uFFFDb",
		"\xc3":                            "\uFFFD",
		"\u00e9x":                         "\u00e9x",
		strings.Repeat("a", maxAuditText): strings.Repeat("a", maxAuditText),
		strings.Repeat("a", maxAuditText-1) + "\u00e9": strings.Repeat("a", maxAuditText-1),
		strings.Repeat("a", maxAuditText-1) + "\xff":   strings.Repeat("a", maxAuditText-1),
	} {
		if got := clipped(in); got != want {
			t.Errorf("clipped(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestLogWithAnEscapedNameIsRead: earlier versions wrote bytes that are not UTF-8 as an
// escape, under a MAC that covers the escape.
func TestLogWithAnEscapedNameIsRead(t *testing.T) {
	key := []byte("key")
	body, err := json.Marshal(Entry{Number: 1, Time: noon, Operation: "DescribeKey", Key: "\xff", Result: ResultOK})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), `\ufffd`) {
		t.Fatalf("no escape in %s", body)
	}
	line := append(body[:len(body)-1:len(body)-1], auditEnd(auditMAC(key, nil, body))...)
	c := chain{key: key}
	if e, wrong := c.next(line); wrong != "" || e.Key != "\uFFFD" {
		t.Fatalf("the record %s: key %q", wrong, e.Key)
	}
	for _, other := range []string{
		strings.Replace(string(line), `\ufffd`, "\uFFFD", 1),
		strings.Replace(string(line), `\ufffd`, `\uFFFD`, 1),
		strings.Replace(string(line), `,"mac"`, `, "mac"`, 1),
		" " + string(line),
		string(line) + " ",
	} {
		c := chain{key: key}
		if _, wrong := c.next([]byte(other)); wrong == "" {
			t.Errorf("accepted: %s", other)
		}
	}
}

// TestDamagedLogIsBackedUpAndRestored: the keys come back, and the log is as damaged as
// it was.
func TestDamagedLogIsBackedUpAndRestored(t *testing.T) {
	base, w, dk := populated(t)
	path := filepath.Join(base, auditFile)
	k := openAt(t, base)
	for range 2 * maxTail { // what is in the index would be mended
		k.DescribeKey(t.Context(), "alias/a")
	}
	damagedLog := readFile(t, path)
	damagedLog[20] ^= 1
	writeFile(t, path, damagedLog)
	warnings := 0
	warn := func(err error) {
		warnings++
		wantDamage(t, "warning", err, "record 1 ")
	}
	k.warn = warn
	data := backupOf(t, k, "correct horse")
	dir := newFolder(t)
	if n, err := Restore(t.Context(), dir, Options{Now: atNoon, Warn: warn}, passphraseOf(t, "correct horse"), bytes.NewReader(data)); err != nil || n != 4 {
		t.Fatalf("Restore: %d keys, %v", n, err)
	}
	if warnings != 2 {
		t.Errorf("%d warnings, want one of the backup and one of the restore", warnings)
	}
	restored := openAt(t, dir)
	wantOpens(t, restored, w, dk)
	_, err := restored.VerifyAudit(t.Context())
	wantError(t, "restored log", err, keymgr.ErrCorrupt, CodeAudit)
}
