package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestArchiveHoldsTheTree(t *testing.T) {
	tr := tree{}
	tr.file("/a/b/c", 0o644, []byte("content"))
	tr.link("a/d", "b/c")
	archive, err := tr.pack()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := cpio.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		got = append(got, fmt.Sprintf("%o %s %s%s", h.Mode, h.Name, data, h.Linkname))
	}
	want := "40755 a ,40755 a/b ,100644 a/b/c content,120777 a/d b/c"
	if s := strings.Join(got, ","); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if again, _ := tr.pack(); !bytes.Equal(again, archive) {
		t.Error("the same tree gives another archive")
	}
}

func TestModulesThatTheKernelHasAndLacks(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "kernel", "drivers"), 0o755)
	os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/fs/ext4/ext4.ko\nkernel/crypto/crc-t10dif.ko\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "kernel", "drivers", "broken.ko"), []byte("no ELF"), 0o644)
	set, err := newModuleSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ext4", "crc_t10dif", "crc-t10dif"} {
		if err := set.add(name); err != nil || len(set.loaded) != 0 {
			t.Errorf("built-in %s: %v", name, err)
		}
	}
	if err := set.add("none"); !errors.Is(err, ErrNoAssets) {
		t.Errorf("absent: got %v", err)
	}
	if err := set.add("broken"); err == nil {
		t.Error("a broken module was accepted")
	}
}

func TestLibrariesOfADynamicProgram(t *testing.T) {
	sh := leaktest.Tool(t, "sh")
	files := map[string]bool{}
	if err := addLibraries(files, sh); err != nil {
		t.Fatal(err)
	}
	var names []string
	for f := range files {
		names = append(names, filepath.Base(f))
	}
	all := strings.Join(names, " ")
	if !strings.Contains(all, "libc.so") || !strings.Contains(all, "ld-linux") {
		t.Errorf("got %s", all)
	}
	if static, err := isStatic(sh); static || err != nil {
		t.Errorf("%s: static %v, %v", sh, static, err)
	}
}

func TestCacheIsWhereItIsSaid(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/var/tmp/x")
	if dir, err := CacheDir(); err != nil || dir != "/var/tmp/x/sealblk/guest" {
		t.Errorf("got %s, %v", dir, err)
	}
	t.Setenv("XDG_CACHE_HOME", "")
	if dir, err := CacheDir(); err != nil || !strings.HasSuffix(dir, "/.cache/guest") {
		t.Errorf("got %s, %v", dir, err)
	}
	t.Chdir(t.TempDir())
	if _, err := CacheDir(); !errors.Is(err, ErrNoAssets) {
		t.Errorf("outside of the repository: got %v", err)
	}
}

func TestKernelFromCacheNeedsNoNetwork(t *testing.T) {
	cache := t.TempDir()
	top := filepath.Join(cache, "linux-image-6.1.0-1-cloud-amd64_6.1.1_amd64")
	for _, dir := range []string{"boot", "lib/modules/6.1.0-1-cloud-amd64/kernel"} {
		os.MkdirAll(filepath.Join(top, dir), 0o755)
	}
	os.WriteFile(filepath.Join(top, "boot/vmlinuz-6.1.0-1-cloud-amd64"), nil, 0o644)
	k, err := findKernel(t.Context(), cache)
	want := kernel{top + "/boot/vmlinuz-6.1.0-1-cloud-amd64", top + "/lib/modules/6.1.0-1-cloud-amd64"}
	if err != nil || k != want {
		t.Errorf("got %+v, %v", k, err)
	}
}

func TestKernelThatCannotBeHadIsExplained(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no apt-get
	_, err := findKernel(t.Context(), t.TempDir())
	if !errors.Is(err, ErrNoAssets) || !strings.Contains(err.Error(), "put a linux-image-*-cloud-amd64_*_amd64.deb into") {
		t.Errorf("got %v", err)
	}
}

// talk is an agent and the guest's end of its port.
func talk(t *testing.T) (*agent, *bufio.ReadWriter, net.Conn) {
	host, guest := net.Pipe()
	a := newAgent(host)
	t.Cleanup(a.close)
	t.Cleanup(func() { guest.Close() })
	fmt.Fprintln(guest, "ready 6.1")
	<-a.ready
	return a, bufio.NewReadWriter(bufio.NewReader(guest), bufio.NewWriter(guest)), guest
}

func TestAnswersFindTheirCallers(t *testing.T) {
	a, port, guest := talk(t)
	type outcome struct {
		Result
		error
	}
	first := make(chan outcome, 1)
	go func() { r, err := a.run(t.Context(), "one"); first <- outcome{r, err} }()
	line, _ := port.ReadString('\n')
	if line != "run 1 b25l\n" {
		t.Fatalf("got %q", line)
	}
	fmt.Fprint(guest, "99 0 3\nabc1 3 4\nx\n\x00y") // one that nobody waits for comes first
	if got := <-first; got.error != nil || got.Result != (Result{"x\n\x00y", 3}) {
		t.Errorf("got %+v", got)
	}
}

func TestScriptIsKilledWhenNobodyWaits(t *testing.T) {
	a, port, _ := talk(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := a.run(ctx, "one"); done <- err }()
	port.ReadString('\n')
	cancel()
	if line, _ := port.ReadString('\n'); line != "kill 1\n" {
		t.Errorf("got %q", line)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestBadAnswerEndsTheTalk(t *testing.T) {
	for _, bad := range []string{"hello\n", "1 0 -1\n", "1 0 999999999\n", "1 0"} {
		a, port, guest := talk(t)
		done := make(chan error, 1)
		go func() { _, err := a.run(t.Context(), "one"); done <- err }()
		port.ReadString('\n')
		fmt.Fprint(guest, bad)
		guest.Close()
		if err := <-done; !errors.Is(err, errHungUp) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestConsoleKeepsTheEnd(t *testing.T) {
	var all bytes.Buffer
	c := console{also: &all}
	for range 3 {
		c.Write(bytes.Repeat([]byte("x"), maxConsole/2))
	}
	fmt.Fprint(&c, "\nlast\r\n\n")
	if got := c.String(); len(got) != maxConsole || !strings.HasSuffix(got, "last\r\n\n") || c.last() != "last" {
		t.Errorf("%d bytes, last %q", len(got), c.last())
	}
	if all.Len() != 3*maxConsole/2+8 {
		t.Errorf("%d bytes passed on", all.Len())
	}
}
