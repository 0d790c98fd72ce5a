//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
)

// readableEnv makes the test program a sealblk whose locked memory root can read: it has
// no memfd_secret, and uses mlock instead. Only so can a test see that a key was there
// before, and is not any more.
const readableEnv = "E2E_READABLE"

func execReadable() error {
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: []string{"memfd_secret"}, Action: seccomp.ActionErrno}},
	}})
	if err != nil {
		return err
	}
	path := os.Getenv(readableEnv)
	if err := os.Unsetenv(readableEnv); err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ())
}

// exportReadable is export with secrets in memory that root can read.
func (h *host) exportReadable(disk string, args ...string) *export {
	h.t.Helper()
	return h.exportBy(func(args ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", append([]string{"--state-dir", h.dir}, args...)...)
		cmd.Env = append(os.Environ(), readableEnv+"="+program)
		return cmd
	}, filepath.Join(h.dir, disk+".sock"), disk, args...)
}

// mustFail waits for an export that ends by itself, and says why in the end.
func (e *export) mustFail(why string) {
	e.t.Helper()
	e.ended = true
	kill := time.AfterFunc(20*time.Second, func() { e.cmd.Process.Kill() })
	defer kill.Stop()
	log, _ := io.ReadAll(e.rest)
	err := e.cmd.Wait()
	var exit *exec.ExitError
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(lines[len(lines)-1], why) {
		e.t.Errorf("the export ended with %v, want exit code 1 and %q, saying\n%s", err, why, log)
	}
}

// dataKey is all that must not be in memory without need: the data key in pieces, and the
// round keys of both of its halves, for encryption and for decryption.
type dataKey struct{ pieces [][]byte }

func (h *host) dataKey(disk string) dataKey {
	h.t.Helper()
	path := filepath.Join(h.dir, "key")
	h.run("disk", "export-key", disk, "--out", path, "--yes-i-know")
	key, err := os.ReadFile(path)
	if err != nil || len(key) != 64 {
		h.t.Fatalf("key of %d bytes, %v", len(key), err)
	}
	if err := os.Remove(path); err != nil {
		h.t.Fatal(err)
	}
	var d dataKey
	for _, half := range [][]byte{key[:32], key[32:]} {
		d.pieces = append(d.pieces, roundKeys(half)...)
	}
	return d
}

// found counts the pieces that are in the memory of a process.
func (d dataKey) found(t *testing.T, pid int) (n int) {
	t.Helper()
	memory := memoryOf(t, pid)
	for _, p := range d.pieces {
		for _, m := range memory {
			if bytes.Contains(m, p) {
				n++
				break
			}
		}
	}
	return n
}

// mustBe checks whether the worker has the key. The broker never has.
func (d dataKey) mustBe(t *testing.T, when string, e *export, there bool) {
	t.Helper()
	worker, broker := d.found(t, e.cmd.Process.Pid), d.found(t, brokerOf(t, e.cmd.Process.Pid))
	t.Logf("%s: %d of %d pieces of the key in the worker's memory, %d in the broker's", when, worker, len(d.pieces), broker)
	switch {
	case there && worker < len(d.pieces)/2:
		t.Errorf("%s: %d of %d pieces of the key are found: the search proves nothing", when, worker, len(d.pieces))
	case !there && worker != 0:
		t.Errorf("%s: %d of %d pieces of the key are in the worker's memory", when, worker, len(d.pieces))
	}
	if broker != 0 {
		t.Errorf("%s: %d of %d pieces of the key are in the broker's memory", when, broker, len(d.pieces))
	}
}

// memoryOf reads all memory of a process but the guest's, which it shares.
func memoryOf(t *testing.T, pid int) (regions [][]byte) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || strings.Contains(line, "memory-backend") || strings.Contains(line, "[v") {
			continue
		}
		// Address space that the runtime has reserved is long and empty.
		for ; from < to; from += 1 << 20 {
			data := make([]byte, min(to-from, 1<<20))
			if n, err := mem.ReadAt(data, from); err == nil || n > 0 {
				regions = append(regions, data[:n])
			}
		}
	}
	if len(regions) == 0 {
		t.Fatalf("process %d has no memory to read", pid)
	}
	return regions
}

// roundKeys expands an AES-256 key (FIPS 197, 5.2), and adds what the equivalent inverse
// cipher uses (5.3.5): both lie in memory while a disk is served.
func roundKeys(key []byte) (keys [][]byte) {
	var w [60][4]byte
	for i := range w {
		if i < 8 {
			copy(w[i][:], key[4*i:])
			continue
		}
		v := w[i-1]
		switch i % 8 {
		case 0:
			v = [4]byte{sbox(v[1]) ^ 1<<(i/8-1), sbox(v[2]), sbox(v[3]), sbox(v[0])}
		case 4:
			v = [4]byte{sbox(v[0]), sbox(v[1]), sbox(v[2]), sbox(v[3])}
		}
		for j := range v {
			w[i][j] = w[i-8][j] ^ v[j]
		}
	}
	for i := 0; i < 60; i += 4 {
		var plain, inverse []byte
		for _, word := range w[i : i+4] {
			plain = append(plain, word[:]...)
			mixed := inverseMix(word)
			inverse = append(inverse, mixed[:]...)
		}
		keys = append(keys, plain)
		if i > 0 && i < 56 {
			keys = append(keys, inverse)
		}
	}
	return keys
}

func times(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		a = a<<1 ^ a>>7*0x1b
	}
	return p
}

func sbox(x byte) byte {
	inverse := byte(1)
	for range 254 { // x^254 is 1/x
		inverse = times(inverse, x)
	}
	s := inverse
	for i := range 4 {
		s ^= bits.RotateLeft8(inverse, i+1)
	}
	return s ^ 0x63
}

func inverseMix(w [4]byte) (out [4]byte) {
	for i := range out {
		out[i] = times(w[i], 14) ^ times(w[(i+1)%4], 11) ^ times(w[(i+2)%4], 13) ^ times(w[(i+3)%4], 9)
	}
	return out
}
