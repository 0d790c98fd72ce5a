package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/internal/eventfd"
	"sealblk/internal/uring"
	"sealblk/keymgr/secret"
)

// threads is how many threads the helper starts before, and as many more after.
const threads = 4

// findings is what the helper tells the test. An empty string is an attempt that
// succeeded.
type findings struct {
	Report   Report
	Refused  map[string]string
	Possible map[string]string
	Ring     map[string]string // operations by io_uring; nil without io_uring
	// Threads is filled in by the test: the status of each thread of the helper.
	Threads map[string]map[string]string `json:"-"`
}

func asNobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// helper goes into the sandbox, tries, tells, and waits until its stdin is closed.
func helper(user string) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
	}
	file, err := os.CreateTemp("", "sandbox")
	must(err)
	must(os.Remove(file.Name()))
	startThreads()
	var f findings
	f.Report, err = Apply(Policy{User: user})
	must(err)
	startThreads()
	f.Refused, f.Possible, f.Ring = refused(), possible(file), ring()
	must(json.NewEncoder(os.Stdout).Encode(f))
	io.Copy(io.Discard, os.Stdin)
}

// startThreads makes goroutines that keep a thread each.
func startThreads() {
	var started sync.WaitGroup
	for range threads {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			select {}
		}()
	}
	started.Wait()
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func errnoOf(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// attempts are what a process that was broken into would try.
var attempts = map[string]func() error{
	"open a file":       func() error { _, err := os.Open("/etc/passwd"); return err },
	"make a file":       func() error { return os.WriteFile("/tmp/sandbox-was-here", nil, 0o600) },
	"remove a file":     func() error { return os.Remove("/tmp/sandbox-is-not-here") },
	"list a directory":  func() error { _, err := os.ReadDir("/"); return err },
	"read own memory":   func() error { _, err := os.Open("/proc/self/mem"); return err },
	"read other memory": func() error { _, err := os.Open(fmt.Sprintf("/proc/%d/mem", os.Getppid())); return err },
	"exec":              func() error { return exec.Command("/bin/true").Run() },
	"exec in place":     func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
	"fork": func() error {
		_, _, e := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		return errnoOf(e)
	},
	"fork by clone3":     func() error { _, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); return errnoOf(e) },
	"ptrace":             func() error { return unix.PtraceAttach(os.Getppid()) },
	"become root":        func() error { _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); return errnoOf(e) },
	"gain a group":       func() error { _, _, e := unix.RawSyscall(unix.SYS_SETGID, 0, 0, 0); return errnoOf(e) },
	"mount":              func() error { return unix.Mount("none", "/mnt", "tmpfs", 0, "") },
	"unshare":            func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"chroot":             func() error { return unix.Chroot("/") },
	"load a module":      func() error { return unix.InitModule([]byte{0}, "") },
	"use bpf":            func() error { _, _, e := unix.RawSyscall(unix.SYS_BPF, 0, 0, 0); return errnoOf(e) },
	"trace events":       func() error { _, err := unix.PerfEventOpen(&unix.PerfEventAttr{}, 0, -1, -1, 0); return err },
	"use the keyring":    func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err },
	"signal others":      func() error { return unix.Kill(os.Getppid(), 0) },
	"signal a thread":    func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) },
	"make a TCP socket":  func() error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err },
	"make a UDP socket":  func() error { _, err := net.Dial("udp", "127.0.0.1:1"); return err },
	"make a unix socket": func() error { _, err := net.Dial("unix", "/run/sealblk"); return err },
	"make a raw socket":  func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err },
	"listen": func() error {
		_, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@sandbox", Net: "unix"})
		return err
	},
	"map code": func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		return err
	},
	"make memory code": func() error {
		mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil
		}
		return unix.Mprotect(mem, unix.PROT_READ|unix.PROT_EXEC)
	},
	"read another process": func() error {
		local, remote := make([]byte, 8), unix.RemoteIovec{Base: 0x400000, Len: 8}
		iov := unix.Iovec{Base: &local[0], Len: 8}
		_, err := unix.ProcessVMReadv(os.Getppid(), []unix.Iovec{iov}, []unix.RemoteIovec{remote}, 0)
		return err
	},
	"take a descriptor": func() error {
		_, err := unix.PidfdGetfd(0, 0, 0)
		return err
	},
	"dump core again":  func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"raise a limit":    func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}) },
	"type at terminal": func() error { return unix.IoctlSetInt(0, unix.TIOCSTI, 0) },
}

func refused() map[string]string {
	m := make(map[string]string)
	for what, try := range attempts {
		m[what] = text(try())
	}
	return m
}

// possible does what the data path and the runtime do.
func possible(file *os.File) map[string]string {
	m := make(map[string]string)
	for what, try := range map[string]func() error{
		"write, sync, read, punch, resize": func() error { return useFile(file) },
		"shared memory":                    shareMemory,
		"collect garbage":                  func() error { _ = make([]byte, 64<<20); runtime.GC(); debug.FreeOSMemory(); return nil },
		"recover from a fault":             fault,
		"wake another thread":              wake,
		"locked memory for a key":          func() error { b, err := secret.New(64); b.Destroy(); return err },
	} {
		m[what] = text(try())
	}
	return m
}

func useFile(f *os.File) error {
	if _, err := f.WriteAt([]byte("sealed"), 8192); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); err != nil {
		return err
	}
	if err := f.Truncate(1 << 20); err != nil {
		return err
	}
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, 8192); err != nil || string(got) != "sealed" {
		return fmt.Errorf("read %q: %w", got, err)
	}
	_, err := f.Stat()
	return err
}

func shareMemory() error {
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	mem[0] = 1
	return unix.Munmap(mem)
}

func fault() (err error) {
	defer func() {
		if recover() == nil {
			err = errors.New("no fault")
		}
	}()
	*nowhere() = 1
	return nil
}

func nowhere() *int { return nil }

func wake() error {
	e, err := eventfd.New()
	if err != nil {
		return err
	}
	defer e.Close()
	done := make(chan error)
	go func() {
		fds := []unix.PollFd{{Fd: int32(e.FD()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		done <- err
	}()
	return errors.Join(e.Signal(), <-done)
}

// ring tries by io_uring what seccomp forbids as a system call.
func ring() map[string]string {
	r, err := uring.New(uring.Config{Entries: 8})
	if err != nil {
		return nil
	}
	defer r.Close()
	path := []byte("/etc/passwd\x00")
	atCWD := unix.AT_FDCWD
	m := map[string]string{"open a file": text(operate(r, 18, int32(atCWD), 0, unsafe.Pointer(&path[0]), 0))}
	if os.Getenv(rootEnv) == "" {
		return m // only root gets a network namespace
	}
	fd := operateFD(r, 45, unix.AF_INET, unix.SOCK_DGRAM)
	if fd < 0 {
		m["reach the network"] = unix.Errno(-fd).Error()
		return m
	}
	addr := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte{127, 0, 0, 1}, Port: 0x3500}
	m["reach the network"] = text(operate(r, 16, int32(fd), uint64(unsafe.Sizeof(addr)), unsafe.Pointer(&addr), 0))
	return m
}

// operate runs one operation of io_uring_enter(2), by its number.
func operate(r *uring.Ring, op byte, fd int32, off uint64, addr unsafe.Pointer, length uint32) error {
	e := (*[64]byte)(unsafe.Pointer(r.SQE()))
	clear(e[:])
	e[0] = op
	binary.NativeEndian.PutUint32(e[4:], uint32(fd))
	binary.NativeEndian.PutUint64(e[8:], off)
	binary.NativeEndian.PutUint64(e[16:], uint64(uintptr(addr)))
	binary.NativeEndian.PutUint32(e[24:], length)
	if n := await(r); n < 0 {
		return unix.Errno(-n)
	}
	return nil
}

func operateFD(r *uring.Ring, op byte, domain int32, kind uint64) int {
	e := (*[64]byte)(unsafe.Pointer(r.SQE()))
	clear(e[:])
	e[0] = op
	binary.NativeEndian.PutUint32(e[4:], uint32(domain))
	binary.NativeEndian.PutUint64(e[8:], kind)
	return int(await(r))
}

func await(r *uring.Ring) int32 {
	if err := r.Submit(); err != nil {
		return -int32(unix.EIO)
	}
	var c [1]uring.CQE
	for {
		n, err := r.Peek(c[:])
		if err != nil {
			return -int32(unix.EIO)
		}
		if n == 1 {
			return c[0].Res
		}
		runtime.Gosched()
	}
}
