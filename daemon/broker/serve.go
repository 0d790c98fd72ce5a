package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/linkname"
	"sealblk/keymgr"
)

// The descriptors that the broker inherits.
const (
	requestFD = 3 // a stream socket: requests and replies
	keyFD     = 4 // a pipe: data keys, from the broker to the worker
	stateFD   = 5 // a pipe: states of the disk's key, from the broker to the worker
)

// Operations.
const (
	opDecrypt = "decrypt"
	opWatch   = "watch"
	opSeal    = "seal"
	opShow    = "show"
	opFinish  = "finish"
)

type request struct {
	// Seq numbers the requests. One that comes while another is being served says that
	// nobody waits for that any more.
	Seq     uint64            `json:"seq"`
	Op      string            `json:"op"`
	Key     keymgr.WrappedKey `json:"key"`
	Context keymgr.Context    `json:"context,omitempty"`
	Files   []string          `json:"files,omitempty"`
	Names   []linkname.Name   `json:"names,omitempty"`
}

type reply struct {
	Seq     uint64   `json:"seq"`
	Failure *failure `json:"failure,omitempty"`
	// KeySize is the number of bytes that stand in the pipe.
	KeySize int `json:"key_size,omitempty"`
}

// Options of a broker. The zero Options are good.
type Options struct {
	// Deadline bounds the time that an unwrap may take, with all its attempts, for a KMS
	// that does not keep to its context; 0 is DefaultDeadline.
	Deadline time.Duration
	// Interval is how often a KMS is asked for the state of the disk's key that does not
	// tell of changes; 0 is DefaultInterval. The times are scattered, so that the brokers
	// of many disks do not ask at once.
	Interval time.Duration
	// Disk reads what the disk's record says now; nil: nothing. It is trusted, unlike the
	// header of the disk, which the worker can write. It is called twice a second, from
	// more than one goroutine.
	Disk func() (Disk, error)
	// Version reads which version of a CMK wraps the disk's data key by now, from the disk's
	// header, for it may be wrapped anew while it is served, and by another host; empty: it
	// is not known. It is called before each question to the KMS. nil: it is the version
	// of what was unwrapped.
	Version func(uri string) string
}

// Disk is what a broker wants to know of its worker's disk.
type Disk struct {
	// KeyURI is the CMK that wraps its data key.
	KeyURI string
	// Urgent: something follows from the loss of the key. Else the KMS is asked a fortieth
	// as often.
	Urgent bool
}

const (
	// DefaultDeadline is longer than any policy of attempts.
	DefaultDeadline = 15 * time.Minute
	// DefaultInterval makes four calls a minute for each disk.
	DefaultInterval = 15 * time.Second
)

// server is the broker of one worker.
type server struct {
	kms    keymgr.KMS
	opts   Options
	keys   *os.File
	states *os.File
	watch  *watch // nil until there is a disk's key to watch
	disk   binding
	again  time.Time // when a sealed worker may have its key unwrapped again
	sealed bool
	files  []ours
	names  []linkname.Name

	serving serving
}

// ours is a file to remove: the one that was at the path when the worker was sealed.
type ours struct {
	path string
	info fs.FileInfo
}

// Serve answers the worker that started this process, until it ends.
func Serve(ctx context.Context, kms keymgr.KMS, o Options) error {
	if !isType(requestFD, unix.S_IFSOCK) || !isType(keyFD, unix.S_IFIFO) || !isType(stateFD, unix.S_IFIFO) {
		return fmt.Errorf("start broker: %w", errNotStarted)
	}
	requests := os.NewFile(requestFD, "requests")
	keys, states := os.NewFile(keyFD, "keys"), os.NewFile(stateFD, "states")
	defer requests.Close()
	defer keys.Close()
	return newServer(kms, o, keys, states).serve(ctx, requests)
}

func newServer(kms keymgr.KMS, o Options, keys, states *os.File) *server {
	o.Deadline = cmp.Or(o.Deadline, DefaultDeadline)
	o.Interval = cmp.Or(o.Interval, DefaultInterval)
	return &server{kms: kms, opts: o, keys: keys, states: states}
}

// isType looks before a descriptor is taken over: in a process that was started
// otherwise it is the Go runtime's.
func isType(fd int, want uint32) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == want
}

func (s *server) serve(ctx context.Context, conn io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.end(cancel)
	incoming, done := make(chan request), make(chan error, 1)
	go func() { // reads on while a request is served, to see the worker's end at once
		defer close(incoming)
		defer cancel()
		done <- s.receive(ctx, conn, incoming)
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

// end ends what runs beside the requests.
func (s *server) end(cancel func()) {
	cancel()
	s.states.Close()
	if s.watch != nil {
		<-s.watch.done
	}
}

// maxRequest is more bytes than any worker has to say at once, if it is no other's.
const maxRequest = 1 << 20

// bounded ends a stream where more is read than is left.
type bounded struct {
	io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("%w: it is longer than %d bytes", errRequest, maxRequest)
	}
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (s *server) receive(ctx context.Context, conn io.Reader, incoming chan<- request) error {
	b := &bounded{Reader: conn}
	for in := json.NewDecoder(b); ; {
		var r request
		b.left = maxRequest
		if err := in.Decode(&r); err != nil {
			return ended(err)
		}
		s.serving.giveUp()
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
		return reply{Seq: r.Seq, Failure: pack(err)}
	}
	return reply{Seq: r.Seq, KeySize: size}
}

func (s *server) do(ctx context.Context, r request) (keySize int, err error) {
	switch {
	case r.Op == opFinish:
		return 0, s.finish()
	case r.Op == opDecrypt:
		return s.decrypt(ctx, r)
	case r.Op == opWatch:
		return 0, s.startWatch(ctx)
	case s.sealed && r.Op == opShow:
		return 0, s.show()
	case s.sealed:
		return 0, ErrSealed
	case r.Op == opSeal:
		s.seal(r.Files)
		s.names = r.Names
		return 0, nil
	}
	return 0, fmt.Errorf("%w %q", errRequest, r.Op)
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
