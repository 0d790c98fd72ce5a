package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/internal/linkname"
	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// The descriptors that the broker inherits.
const (
	requestFD = 3 // a stream socket: requests and replies
	keyFD     = 4 // a pipe: data keys, from the broker to the worker
)

// Operations.
const (
	opDecrypt = "decrypt"
	opSeal    = "seal"
	opShow    = "show"
	opFinish  = "finish"
)

type request struct {
	Op      string            `json:"op"`
	Key     keymgr.WrappedKey `json:"key"`
	Context keymgr.Context    `json:"context,omitempty"`
	Files   []string          `json:"files,omitempty"`
	Names   []linkname.Name   `json:"names,omitempty"`
}

type reply struct {
	Failure *failure `json:"failure,omitempty"`
	// KeySize is the number of bytes that stand in the pipe.
	KeySize int `json:"key_size,omitempty"`
}

// server is the broker of one worker.
type server struct {
	kms    keymgr.KMS
	keys   *os.File
	sealed bool
	files  []ours
	names  []linkname.Name
}

// ours is a file to remove: the one that was at the path when the worker was sealed.
type ours struct {
	path string
	info fs.FileInfo
}

// Serve answers the worker that started this process, until it ends.
func Serve(ctx context.Context, kms keymgr.KMS) error {
	if !isType(requestFD, unix.S_IFSOCK) || !isType(keyFD, unix.S_IFIFO) {
		return fmt.Errorf("start broker: %w", errNotStarted)
	}
	requests := os.NewFile(requestFD, "requests")
	keys := os.NewFile(keyFD, "keys")
	defer requests.Close()
	defer keys.Close()
	return serve(ctx, requests, keys, kms)
}

// isType looks before a descriptor is taken over: in a process that was started
// otherwise it is the Go runtime's.
func isType(fd int, want uint32) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == want
}

func serve(ctx context.Context, conn io.ReadWriter, keys *os.File, kms keymgr.KMS) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{kms: kms, keys: keys}
	incoming, done := make(chan request), make(chan error, 1)
	go func() { // reads on while a request is served, to see the worker's end at once
		defer close(incoming)
		defer cancel()
		done <- receive(ctx, conn, incoming)
	}()
	out := json.NewEncoder(conn)
	for r := range incoming {
		if err := out.Encode(s.handle(ctx, r)); err != nil {
			cancel()
			break
		}
	}
	return <-done
}

func receive(ctx context.Context, conn io.Reader, incoming chan<- request) error {
	in := json.NewDecoder(conn)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			return ended(err)
		}
		select {
		case incoming <- r:
		case <-ctx.Done():
			return nil
		}
	}
}

// ended is nil if that is how a worker goes: a socket that a killed process held with
// unread data is reset.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("read request: %w", err)
}

func (s *server) handle(ctx context.Context, r request) reply {
	size, err := s.do(ctx, r)
	if err != nil {
		return reply{Failure: pack(err)}
	}
	return reply{KeySize: size}
}

func (s *server) do(ctx context.Context, r request) (keySize int, err error) {
	switch {
	case r.Op == opFinish:
		return 0, s.finish()
	case s.sealed && r.Op == opShow:
		return 0, s.show()
	case s.sealed:
		return 0, ErrSealed
	case r.Op == opDecrypt:
		return s.decrypt(ctx, r)
	case r.Op == opSeal:
		s.seal(r.Files)
		s.names = r.Names
		return 0, nil
	}
	return 0, fmt.Errorf("%w %q", errRequest, r.Op)
}

// decrypt puts the data key into the pipe, which has room for it, and wipes it.
func (s *server) decrypt(ctx context.Context, r request) (int, error) {
	var dk *secret.Buffer
	err := sigmask.Do(func() (err error) {
		dk, err = s.kms.Decrypt(ctx, r.Key, r.Context)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer dk.Destroy()
	return dk.Len(), dk.WritePipe(s.keys)
}

func (s *server) seal(files []string) {
	s.sealed = true
	for _, path := range files {
		if info, err := os.Lstat(path); err == nil {
			s.files = append(s.files, ours{path, info})
		}
	}
}

func (s *server) show() error {
	var errs []error
	for _, n := range s.names {
		errs = append(errs, n.Put())
	}
	return errors.Join(errs...)
}

// finish removes the files that are still those of the worker.
func (s *server) finish() error {
	var errs []error
	for _, n := range s.names {
		errs = append(errs, n.Remove())
	}
	for _, f := range s.files {
		info, err := os.Lstat(f.path)
		if err != nil || !os.SameFile(info, f.info) {
			continue
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	s.files, s.names = nil, nil
	return errors.Join(errs...)
}
