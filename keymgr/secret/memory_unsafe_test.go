package secret

import (
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
)

func address(b *Buffer) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes()))) }

func TestMemoryIsLockedUndumpableAndNotInherited(t *testing.T) {
	onEach(t, 100, func(t *testing.T, b *Buffer) {
		m, ok := mappingAt(t, address(b))
		if !ok {
			t.Fatal("buffer is not in /proc/self/smaps")
		}
		for _, flag := range []string{"lo", "dd", "dc"} {
			if !slices.Contains(m.flags, flag) {
				t.Errorf("VmFlags %v: no %q", m.flags, flag)
			}
		}
		if got, want := strings.Contains(m.line, "secretmem"), b.Backing() == MemfdSecret; got != want {
			t.Errorf("mapping %q: is secretmem %v, want %v", m.line, got, want)
		}
	})
}

func TestGuardPagesOnBothSides(t *testing.T) {
	page := uintptr(os.Getpagesize())
	for _, size := range []int{1, 64, 100, 4096, 5000} {
		onEach(t, size, func(t *testing.T, b *Buffer) {
			end := address(b) + alignUp(uintptr(size))
			before := address(b)&^(page-1) - 1
			if end%page != 0 {
				t.Errorf("data ends at %#x, not at a page", end)
			}
			for _, addr := range []uintptr{before, end} {
				m, ok := mappingAt(t, addr)
				if !ok || !strings.Contains(m.line, " ---p ") {
					t.Errorf("no guard page at %#x: %q", addr, m.line)
				}
			}
			if got := faultAt(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b.Bytes())), alignUp(uintptr(size)))); got != end {
				t.Errorf("write behind the end faulted at %#x, want %#x", got, end)
			}
			b.Bytes()[0], b.Bytes()[size-1] = 1, 1
		})
	}
}

// faultAt writes to p and returns the address of the fault, 0 for none.
func faultAt(p unsafe.Pointer) (addr uintptr) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if f, ok := recover().(interface{ Addr() uintptr }); ok {
			addr = f.Addr()
		}
	}()
	*(*byte)(p) = 1
	return 0
}

func TestDestroyWipesBeforeItUnmaps(t *testing.T) {
	defer func() { munmap = unix.MunmapPtr }()
	onEach(t, 100, func(t *testing.T, b *Buffer) {
		for i := range b.Bytes() {
			b.Bytes()[i] = 0xa5
		}
		addr, seen := address(b), false
		munmap = func(base unsafe.Pointer, length uintptr) error {
			page := uintptr(os.Getpagesize())
			seen = true
			for i, c := range unsafe.Slice((*byte)(unsafe.Add(base, page)), length-2*page) {
				if c != 0 {
					t.Fatalf("byte %d of the mapping is %#x when it is unmapped", i, c)
				}
			}
			return unix.MunmapPtr(base, length)
		}
		b.Destroy()
		if !seen {
			t.Fatal("Destroy did not unmap")
		}
		if m, ok := mappingAt(t, addr); ok && strings.Contains(m.line, "secretmem") {
			t.Errorf("still mapped after Destroy: %s", m.line)
		}
		munmap = unix.MunmapPtr
	})
}

func TestMemfdSecretIsInvisibleToDebuggers(t *testing.T) {
	m, err := allocate(64, MemfdSecret)
	if err != nil {
		leaktest.Missing(t, "memfd_secret (Linux 6.5, or secretmem.enable=1): "+err.Error())
	}
	b := newBuffer(m)
	defer b.Destroy()
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 64), int64(address(b))); !errors.Is(err, syscall.EIO) {
		t.Errorf("read of /proc/self/mem: %v, want EIO", err)
	}
}

func TestForkedChildDoesNotInherit(t *testing.T) {
	onEach(t, 64, func(t *testing.T, b *Buffer) {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		pid := forkAndWrite(uintptr(pipe[1]), address(b), 64)
		if pid < 0 {
			t.Fatalf("fork: %v", syscall.Errno(-pid))
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
		if got := syscall.Errno(status.ExitStatus()); !status.Exited() || got != unix.EFAULT {
			t.Errorf("child that reads the buffer ended with %v (%v), want EFAULT", status, got)
		}
	})
}

// forkAndWrite forks a child that lets the kernel read memory at addr and exits with
// the errno. The child is one thread of a Go program: it makes raw system calls only.
//
//go:norace
func forkAndWrite(fd, addr, size uintptr) int {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	if pid == 0 {
		_, _, errno = syscall.RawSyscall(syscall.SYS_WRITE, fd, addr, size)
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
		}
	}
	return int(pid)
}
