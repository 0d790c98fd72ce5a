package luks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sealblk/internal/leaktest"
)

// cryptsetup runs the independent implementation. None of what is used here needs
// device-mapper.
func cryptsetup(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path := leaktest.Tool(t, "cryptsetup")
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--batch-mode"}, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustCryptsetup(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cryptsetup(t, args...)
	if err != nil {
		t.Fatalf("cryptsetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// formatFile makes a container with 1 MiB of data in a real file.
func formatFile(t *testing.T, sector int, detached bool) (*os.File, *Header) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p := testParams()
	p.Detached = detached
	p.Token.Disk.Size = 1 << 20
	p.Token.Disk.SectorSize = sector
	if !detached {
		if err := f.Truncate(DataOffset + p.Token.Disk.Size); err != nil {
			t.Fatal(err)
		}
	}
	h, err := Format(f, p, testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	return f, h
}

func TestCryptsetupAcceptsOurs(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, detached := range []bool{false, true} {
			t.Run(fmt.Sprintf("sector %d detached %v", sector, detached), func(t *testing.T) {
				f, h := formatFile(t, sector, detached)
				mustCryptsetup(t, "isLuks", "--type", "luks2", f.Name())
				if got := strings.TrimSpace(mustCryptsetup(t, "luksUUID", f.Name())); got != h.UUID() {
					t.Errorf("UUID %q, want %q", got, h.UUID())
				}
				dump := mustCryptsetup(t, "luksDump", f.Name())
				offset := DataOffset
				if detached {
					offset = 0
				}
				for _, want := range []string{
					fmt.Sprintf("offset: %d [bytes]", offset), "length: 1048576 [bytes]", "cipher: aes-xts-plain64",
					fmt.Sprintf("sector: %d [bytes]", sector), "0: sealblk", "0: pbkdf2", "Iterations: 1000", "Label:         \tvm1",
				} {
					if !strings.Contains(dump, want) {
						t.Errorf("luksDump does not say %q:\n%s", want, dump)
					}
				}
				checkKeyByCryptsetup(t, f.Name(), detached)
			})
		}
	}
}

// checkKeyByCryptsetup: our digest lets the right volume key in and no other, and
// the right one can be given a passphrase.
func checkKeyByCryptsetup(t *testing.T, path string, detached bool) {
	t.Helper()
	right, wrong := writeFile(t, "right", testKey(1)), writeFile(t, "wrong", testKey(2))
	pass := writeFile(t, "pass", []byte("secret"))
	args := []string{path}
	if detached {
		args = []string{"--header", path, writeFile(t, "data", make([]byte, 1<<20))}
	}
	open := append([]string{"open", "--type", "luks2", "--test-passphrase", "--key-size", "512"}, args...)
	if out, err := cryptsetup(t, append(open, "--volume-key-file", wrong)...); err == nil {
		t.Errorf("a wrong volume key was accepted: %s", out)
	}
	mustCryptsetup(t, append(open, "--volume-key-file", right)...)
	add := []string{"luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-size", "512", path, pass}
	if out, err := cryptsetup(t, append(add, "--volume-key-file", wrong)...); err == nil {
		t.Errorf("a wrong volume key got a passphrase: %s", out)
	}
	mustCryptsetup(t, append(add, "--volume-key-file", right)...)
	mustCryptsetup(t, append([]string{"open", "--type", "luks2", "--test-passphrase", "--key-file", pass}, args...)...)
}

// TestUpdateKeepsOperatorsPassphrase: a key slot and a token that cryptsetup added
// work after our update, which is based on an older state.
func TestUpdateKeepsOperatorsPassphrase(t *testing.T) {
	f, h := formatFile(t, 512, false)
	key, pass := writeFile(t, "key", testKey(1)), writeFile(t, "pass", []byte("secret"))
	mustCryptsetup(t, "luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-size", "512", "--volume-key-file", key, f.Name(), pass)
	mustCryptsetup(t, "token", "add", "--key-description", "vm:1", "--key-slot", "0", f.Name())
	tok := mustToken(t, h)
	tok.KeyVersion = "77"
	if err := Update(f, h, func(h *Header) error { return h.SetToken(tok) }); err != nil {
		t.Fatal(err)
	}
	mustCryptsetup(t, "open", "--type", "luks2", "--test-passphrase", "--key-file", pass, f.Name())
	if dump := mustCryptsetup(t, "luksDump", f.Name()); !strings.Contains(dump, "luks2-keyring") || !strings.Contains(dump, "0: sealblk") {
		t.Errorf("a token is missing:\n%s", dump)
	}
	if d := cmp.Diff(tok, mustToken(t, h)); d != "" || len(h.Keyslots()) != 1 {
		t.Errorf("%s\nkey slots %q", d, h.Keyslots())
	}
}

// TestOpenCryptsetups: we open what cryptsetup formats, at every size of the header.
func TestOpenCryptsetups(t *testing.T) {
	key, pass := writeFile(t, "key", testKey(3)), writeFile(t, "pass", []byte("secret"))
	for _, args := range [][]string{
		{"--sector-size", "512"},
		{"--sector-size", "4096", "--label", "big"},
		{"--luks2-metadata-size", "4m", "--luks2-keyslots-size", "4m"},
		{"--luks2-metadata-size", "64k", "--offset", "65536"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			path := writeFile(t, "disk", make([]byte, 40<<20))
			format := []string{"luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--volume-key-file", key, path, pass}
			mustCryptsetup(t, append(format, args...)...)
			checkCryptsetups(t, path, pass)
		})
	}
}

func checkCryptsetups(t *testing.T, path, pass string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	if h.Warnings() != nil || h.VerifyKey(testKey(3)) != nil || !errors.Is(h.VerifyKey(testKey(4)), ErrWrongKey) {
		t.Errorf("warnings %q, right key %v, wrong key %v", h.Warnings(), h.VerifyKey(testKey(3)), h.VerifyKey(testKey(4)))
	}
	if _, err := h.Token(); !errors.Is(err, ErrNoToken) {
		t.Errorf("token: %v", err)
	}
	e, err := h.Data(40 << 20)
	if err != nil || e.Offset+e.Size != 40<<20 {
		t.Fatalf("data at %v, %v", e, err)
	}
	tok := testToken()
	tok.Disk.Size, tok.Disk.SectorSize = e.Size, e.SectorSize
	if err := Update(f, h, func(h *Header) error { return h.SetToken(tok) }); err != nil {
		t.Fatal(err)
	}
	mustCryptsetup(t, "open", "--type", "luks2", "--test-passphrase", "--key-file", pass, path)
	mustCryptsetup(t, "luksDump", path)
}

// TestCryptsetupSeesTheSameDamage: each copy alone is enough for cryptsetup too, and
// what our update mends it finds whole.
func TestCryptsetupSeesTheSameDamage(t *testing.T) {
	for i, off := range []int64{0, defaultHdrSize} {
		t.Run(ordinal(i), func(t *testing.T) {
			f, h := formatFile(t, 512, false)
			if _, err := f.WriteAt(make([]byte, binarySize), off); err != nil {
				t.Fatal(err)
			}
			before := readAll(t, f)
			if _, err := Open(f); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, readAll(t, f)) {
				t.Fatal("Open wrote")
			}
			if err := Update(f, h, nil); err != nil {
				t.Fatal(err)
			}
			// Only one copy is left for cryptsetup: the one we mended.
			if _, err := f.WriteAt(make([]byte, binarySize), defaultHdrSize-off); err != nil {
				t.Fatal(err)
			}
			mustCryptsetup(t, "luksDump", f.Name())
			mustCryptsetup(t, "repair", f.Name())
			if h, err := Open(f); err != nil || h.Warnings() != nil {
				t.Errorf("after cryptsetup repair: %v, %v", err, h)
			}
		})
	}
}

func readAll(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCryptsetupSeesNothingAfterErase(t *testing.T) {
	f, _ := formatFile(t, 512, false)
	if err := Erase(f); err != nil {
		t.Fatal(err)
	}
	if out, err := cryptsetup(t, "isLuks", f.Name()); err == nil {
		t.Errorf("it is still LUKS: %s", out)
	}
}
