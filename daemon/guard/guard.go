package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// DefaultDirectory is where the guard is pinned.
const DefaultDirectory = "/sys/fs/bpf/sealblk"

// Names of the pins.
const (
	pinMap  = "guarded"
	pinLink = "ptrace_access_check"
)

// patience is how long the kernel may take to let a program go.
const patience = 10 * time.Second

// Process is a registered process.
type Process struct {
	PID int `json:"pid"`
	// Refused counts the accesses that were refused.
	Refused uint64 `json:"refused"`
}

// Load puts the guard into the kernel and pins it in a directory, unless it is there.
func Load(dir string) error {
	if err := supported(); err != nil {
		return err
	}
	if Loaded(dir) == nil {
		return nil
	}
	if err := prepare(dir); err != nil {
		return err
	}
	var o guardObjects
	if err := loadGuardObjects(&o, nil); err != nil {
		return fmt.Errorf("load key guard: %w", err)
	}
	defer o.Close() // the kernel keeps what is pinned
	l, err := link.AttachLSM(link.LSMOptions{Program: o.PtraceAccessCheck})
	if err != nil {
		return fmt.Errorf("attach key guard: %w", err)
	}
	defer l.Close() // the kernel keeps what is pinned
	// The map first: where there is a link, processes can register.
	err = o.Guarded.Pin(filepath.Join(dir, pinMap))
	if err == nil {
		err = l.Pin(filepath.Join(dir, pinLink))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pin key guard: %w", err), Unload(dir))
	}
	return nil
}

// prepare makes an empty directory on a BPF file system. The usual one is mounted if
// nobody has.
func prepare(dir string) error {
	parent := filepath.Dir(dir)
	if !isBPFFS(parent) && dir == DefaultDirectory {
		_ = unix.Mount("bpf", parent, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
	}
	if !isBPFFS(parent) {
		return fmt.Errorf("pin key guard in %s: %w", dir, ErrNoBPFFS)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("pin key guard: %w", err)
	}
	return unpin(dir) // what a loader that was killed half-way has left
}

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// Unload takes the guard out of the kernel and waits until it refuses nothing any more.
// It is fine if there is none.
func Unload(dir string) error {
	program, err := pinned(dir)
	if err != nil && !errors.Is(err, ErrNotLoaded) {
		return err
	}
	if err := unpin(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unload key guard: %w", err)
	}
	if program == 0 {
		return nil
	}
	return gone(program)
}

// pinned is the kernel's number of the program that works, which is never 0.
func pinned(dir string) (ebpf.ProgramID, error) {
	l, err := link.LoadPinnedLink(filepath.Join(dir, pinLink), nil)
	if err != nil {
		return 0, explain(err)
	}
	defer l.Close() // only a descriptor goes
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for key guard: %w", err)
	}
	return info.Program, nil
}

// gone waits until the kernel has forgotten a program, which it does after it has taken
// it from the hook. It does both some time after the pin has gone, and tells nobody.
func gone(program ebpf.ProgramID) error {
	pause := time.Millisecond
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(pause) {
		p, err := ebpf.NewProgramFromID(program)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask for program %d of key guard: %w", program, err)
		}
		if err := p.Close(); err != nil {
			return fmt.Errorf("close program %d of key guard: %w", program, err)
		}
		pause = min(2*pause, 50*time.Millisecond)
	}
	return fmt.Errorf("%w: program %d is there after %v", ErrHeld, program, patience)
}

func unpin(dir string) error {
	for _, name := range []string{pinLink, pinMap} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("unload key guard: %w", err)
		}
	}
	return nil
}

// Loaded is nil if the guard works, else ErrNotLoaded or what keeps us from knowing.
func Loaded(dir string) error {
	l, err := link.LoadPinnedLink(filepath.Join(dir, pinLink), nil)
	if err != nil {
		return explain(err)
	}
	return l.Close()
}

// explain names the usual reasons.
func explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ErrNotLoaded
	case errors.Is(err, os.ErrPermission):
		return ErrNotRoot
	}
	return fmt.Errorf("open key guard: %w", err)
}

// Register has a process guarded until it ends.
func Register(dir string, pid int) error {
	if err := Loaded(dir); err != nil {
		return err
	}
	m, err := openMap(dir)
	if err != nil {
		return err
	}
	defer m.Close() // only a descriptor goes
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("register process %d with key guard: %w", pid, err)
	}
	defer unix.Close(fd)
	// A second registration keeps the count.
	if err := m.Update(uint32(fd), uint64(0), ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("register process %d with key guard: %w", pid, err)
	}
	return nil
}

func openMap(dir string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, pinMap), nil)
	if err != nil {
		return nil, explain(err)
	}
	return m, nil
}

// Guarded lists the registered processes that this process can see.
func Guarded(dir string) ([]Process, error) {
	m, err := openMap(dir)
	if err != nil {
		return nil, err
	}
	defer m.Close() // only a descriptor goes
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	list := []Process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if refused, ok := lookup(m, pid); ok {
			list = append(list, Process{pid, refused})
		}
	}
	return list, nil
}

func lookup(m *ebpf.Map, pid int) (refused uint64, ok bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, false // it has ended
	}
	defer unix.Close(fd)
	err = m.Lookup(uint32(fd), &refused)
	return refused, err == nil
}
