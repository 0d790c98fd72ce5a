package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Target is a server that can be started for a measurement, or that runs already.
type Target struct {
	// Name on the command line and in results.
	Name string
	// About is one line for a user.
	About string
	// Encrypted tells whether it encrypts.
	Encrypted bool

	backend string // of our own server: a URI, without the path of a file
	where   where
	start   starter
	program string // our own server's program; empty: Host.Program
	socket  string // of a server that runs already
}

// where a target's data lies.
type where int

const (
	inProcess where = iota
	inSharedMemory
	inDirectory
	inPeerDirectory
)

type starter func(ctx context.Context, t *Target, h *Host, s *Server) error

// Host is what a run has at hand to start servers with.
type Host struct {
	// Program is sealblk's own executable.
	Program string
	// Directory for files with direct I/O, and PeerDirectory for those of other
	// servers; empty: shared memory.
	Directory, PeerDirectory string
	// Size of the devices, in bytes.
	Size int64
	// SectorSize of the encryption of our own servers: 512 or 4096.
	SectorSize int
	// Queues that the servers offer.
	Queues int
	// CPUs that the servers may use; none: any.
	CPUs []int
	// PollMaxNs is how long a server polls before it sleeps; negative: its default.
	PollMaxNs int64
}

const sharedMemory = "/dev/shm"

var targets = []Target{
	{Name: "null", About: "our server; reads and writes nothing", backend: "null:", start: startExport},
	{Name: "memory", About: "our server; anonymous memory", backend: "memory:", start: startExport},
	{Name: "memory-encrypted", About: "the same, encrypted", backend: "memory:", Encrypted: true, start: startExport},
	{Name: "tmpfs", About: "our server; a file in /dev/shm", backend: "file:", where: inSharedMemory, start: startExport},
	{Name: "tmpfs-encrypted", About: "the same, encrypted", backend: "file:", where: inSharedMemory, Encrypted: true, start: startExport},
	{Name: "file", About: "our server; a file with direct I/O in --dir", backend: "file:", where: inDirectory, start: startExport},
	{Name: "file-encrypted", About: "the same, encrypted", backend: "file:", where: inDirectory, Encrypted: true, start: startExport},
	{Name: "qsd-raw", About: "qemu-storage-daemon; a raw file in --peer-dir", where: inPeerDirectory, start: startQSD},
	{Name: "qsd-luks", About: "the same with its LUKS1 driver, AES-256-XTS", where: inPeerDirectory, Encrypted: true, start: startQSD},
}

// Targets are those that need no more than a name.
func Targets() []Target { return slices.Clone(targets) }

// FindTarget is the target that a user named: NAME, NAME@PROGRAM for another build of
// our server, or socket:PATH for a server that runs already.
func FindTarget(name string) (*Target, error) {
	if path, ok := strings.CutPrefix(name, "socket:"); ok && path != "" {
		return &Target{Name: name, About: "a server that runs already", socket: path}, nil
	}
	plain, program, other := strings.Cut(name, "@")
	for _, t := range targets {
		if t.Name != plain || other && (program == "" || t.where == inPeerDirectory) {
			continue
		}
		t.Name, t.program = name, program
		return &t, nil
	}
	return nil, fmt.Errorf("%q: %w", name, ErrTarget)
}

// Missing tells why the target cannot be started on this host; nil if it can.
func (t *Target) Missing(h *Host) error {
	switch t.where {
	case inPeerDirectory:
		return needPrograms("qemu-storage-daemon", "qemu-img")
	case inDirectory:
		return checkDirect(h.Directory)
	}
	if t.backend == "memory:" || t.where == inSharedMemory {
		return needMemory(h.Size)
	}
	return nil
}

func needPrograms(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is not installed: %w", name, ErrTarget)
		}
	}
	return nil
}

// External tells whether the server is not started by us: its data is a user's.
func (t *Target) External() bool { return t.socket != "" }

// Start starts the target's server, which waits for a front-end when Start returns. It
// writes nothing to the device.
func (t *Target) Start(ctx context.Context, h *Host) (*Server, error) {
	s := &Server{Endpoint: Endpoint{Name: t.Name, Socket: t.socket}, External: t.External()}
	if s.External {
		return s, nil
	}
	err := t.Missing(h)
	if err == nil {
		err = s.prepare(t, h)
	}
	if err == nil {
		err = t.start(ctx, t, h, s)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", t.Name, errors.Join(err, s.Close()))
	}
	return s, nil
}

// prepare makes the directories of a server.
func (s *Server) prepare(t *Target, h *Host) error {
	dir, err := os.MkdirTemp("", "sealblk-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	s.dirs = append(s.dirs, dir)
	s.Socket = filepath.Join(dir, "socket")
	parent := t.dataDirectory(h)
	if parent == "" {
		return nil
	}
	if s.data, err = os.MkdirTemp(parent, "sealblk-bench-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if s.data, err = filepath.Abs(s.data); err != nil {
		return err
	}
	s.dirs = append(s.dirs, s.data)
	return nil
}

// dataDirectory is where a directory for the target's file is to be made.
func (t *Target) dataDirectory(h *Host) string {
	switch {
	case t.where == inSharedMemory, t.where == inPeerDirectory && h.PeerDirectory == "":
		return sharedMemory
	case t.where == inPeerDirectory:
		return h.PeerDirectory
	case t.where == inDirectory:
		return h.Directory
	}
	return ""
}
