package file

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// forbidUring makes io_uring_setup fail with EPERM on this thread, as container
// run-times do.
func forbidUring() error {
	const numberOffset, allow, deny = 0, 0x7fff0000, 0x00050000
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: deny | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: allow},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
	runtime.KeepAlive(filter)
	return err
}

// noUringChild opens and uses a device where io_uring is forbidden.
func noUringChild() {
	runtime.LockOSThread()
	if err := forbidUring(); err != nil {
		fmt.Println("seccomp:", err)
		return
	}
	_, err := Open(os.Getenv(pathEnv), Options{Engine: EngineUring})
	fmt.Println(err)
	d, err := Open(os.Getenv(pathEnv), Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Describe())
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	blockdevtest.NewDriver(fatal{}, q, 4).Read(0, 4096)
	q.Close()
	fmt.Println(d.Close())
}

func TestHostWithoutUring(t *testing.T) {
	c := startChild(t, "nouring", pathEnv+"="+image(t, 1<<20))
	if got := c.line(t); !strings.Contains(got, "io_uring is not available") || !strings.Contains(got, "seccomp") {
		t.Errorf("io_uring demanded: %s", got)
	}
	if got := c.line(t); !strings.Contains(got, "threads (set up ring: io_uring is not available") {
		t.Errorf("describes itself as %s", got)
	}
	if got := c.line(t); got != "<nil>\n" {
		t.Errorf("use: %s", got)
	}
	c.end(t)
}
