package explain

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
)

func TestGroups(t *testing.T) {
	for function, want := range map[string]string{
		"sealblk/cipher.vaesEncrypt.abi0":                         CodeCrypto,
		"sealblk/cipher/internal/xts.(*Cipher).Encrypt":           CodeCrypto,
		"crypto/internal/fips140/aes.encryptBlockAsm":             CodeCrypto,
		"golang.org/x/crypto/xts.(*Cipher).Decrypt":               CodeCrypto,
		"sealblk/ciphers.F":                                       "ciphers",
		"sealblk/vhost/virtqueue.(*Queue).Pop":                    "vhost/virtqueue",
		"sealblk/vhost.Serve.func1.2":                             "vhost",
		"sealblk/blockdev/bounce.New[go.shape.*sealblk/cipher.X]": "blockdev/bounce",
		"runtime.mallocgc":                                        "runtime",
		"internal/runtime/syscall.Syscall6":                       "runtime",
		"runtime.memmove":                                         CodeMemory,
		"runtime.memclrNoHeapPointers":                            CodeMemory,
		"type:.eq.sealblk/cipher.X":                               "runtime",
		"gcWriteBarrier":                                          "runtime",
		"main.main":                                               "main",
		"gopkg.in/yaml%2ev3.Marshal":                              "gopkg.in/yaml.v3",
		"syscall.Syscall":                                         "syscall",
	} {
		if got := goPlace(function); got.code != want || got.function != function {
			t.Errorf("%s is of %q, not %q", function, got.code, want)
		}
	}
	for path, want := range map[string]string{
		"/usr/bin/qemu-storage-daemon": "qemu-storage-daemon", "/usr/lib/libnettle.so.8.4": CodeCrypto,
		"/usr/lib/libgcrypt.so.20": CodeCrypto, "/lib/libc.so.6": "libc.so.6",
	} {
		if got := filePlace(path, ""); got.code != want || got.function != filepath.Base(path) {
			t.Errorf("%s is %+v, not %q", path, got, want)
		}
	}
}

// here finds a function of this process as the collector would.
func here(t *testing.T, f any) place {
	t.Helper()
	p := &processes{}
	if err := p.add(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	return p.symbol(os.Getpid(), uint64(reflect.ValueOf(f).Pointer()))
}

func TestSymbolsOfThisProcess(t *testing.T) {
	if got, want := here(t, packageOf), (place{"bench/explain", "sealblk/bench/explain.packageOf"}); got != want {
		t.Errorf("found %+v, not %+v", got, want)
	}
	if got := here(t, strings.Cut); got.code != "strings" {
		t.Errorf("found %+v", got)
	}
	p := &processes{}
	if err := p.add(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if got := p.symbol(os.Getpid(), 8); got.code != CodeUnknown {
		t.Errorf("found %+v at 8", got)
	}
	if got := p.symbol(1<<30, 8); got.code != CodeUnknown {
		t.Errorf("found %+v in no thread", got)
	}
}

// A Go program without its symbol table has another.
func TestSymbolsOfAStrippedProgram(t *testing.T) {
	strip := leaktest.Tool(t, "strip")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "stripped")
	if out, err := exec.Command(strip, "-o", path, self).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	full, err := openImage(self)
	if err != nil {
		t.Fatal(err)
	}
	stripped, err := openImage(path)
	if err != nil {
		t.Fatal(err)
	}
	pc := uint64(reflect.ValueOf(goPlace).Pointer()) + 8
	if got := stripped.at(pc); !stripped.goProgram || got != full.at(pc) || got != "sealblk/bench/explain.goPlace" {
		t.Errorf("found %q and %q", got, full.at(pc))
	}
}

func TestSymbolsOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openImage(path); err == nil {
		t.Error("read symbols from a text")
	}
	p := &processes{images: map[string]*image{}}
	if got := p.place(&mapping{path: "/x/lib.so", file: path}, 1); got != (place{"lib.so", "lib.so"}) {
		t.Errorf("found %+v", got)
	}
	if got := p.place(&mapping{path: "[vdso]"}, 1); got != (place{"[vdso]", "[vdso]"}) {
		t.Errorf("found %+v", got)
	}
}

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]mapping{
		"00400000-00452000 r-xp 00001000 08:02 173521                    /usr/bin/a b": {0x400000, 0x452000, 0x1000, "/usr/bin/a b", ""},
		"7ffd0000-7ffd2000 r-xp 00000000 00:00 0                          [vdso]":      {0x7ffd0000, 0x7ffd2000, 0, "[vdso]", ""},
		"7f000000-7f001000 r-xp 00000000 00:00 0 ":                                     {0x7f000000, 0x7f001000, 0, "", ""},
		"7f000000-7f001000 r-xp 00000000 08:02 4 /x (deleted)":                         {0x7f000000, 0x7f001000, 0, "/x", ""},
	} {
		if m, code, err := parseMapping(line); err != nil || !code || m != want {
			t.Errorf("%q: %+v, %v, %v", line, m, code, err)
		}
	}
	if _, code, err := parseMapping("00400000-00452000 rw-p 00000000 08:02 4 /x"); code || err != nil {
		t.Errorf("data: code %v, %v", code, err)
	}
	for _, line := range []string{"", "x", "1 2 3 4", "1-x r-xp 0 0 0", "1 r-xp 0 0 0"} {
		if _, _, err := parseMapping(line); !errors.Is(err, errMapping) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzParseMapping(f *testing.F) {
	f.Add("00400000-00452000 r-xp 00001000 08:02 173521                    /usr/bin/a b (deleted)")
	f.Fuzz(func(t *testing.T, line string) {
		m, _, err := parseMapping(line)
		if err == nil && !strings.Contains(line, m.path) {
			t.Errorf("%q has path %q", line, m.path)
		}
	})
}

func TestCallNames(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("numbers of amd64")
	}
	for nr, want := range map[int32]string{0: "read", 426: "io_uring_enter", 100000: "system call 100000", inWorker: "(kernel thread)", inUser: "(page fault)"} {
		if got := callName(nr); got != want {
			t.Errorf("%d is %q, not %q", nr, got, want)
		}
	}
}
