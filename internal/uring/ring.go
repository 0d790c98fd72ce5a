package uring

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Config is what a ring is made for.
type Config struct {
	// Entries is the number of submission entries, 1 to 32768; the kernel rounds it
	// up to a power of two, and larger numbers down to the largest.
	Entries int
	// Completions is the number of completion entries; at least twice Entries.
	Completions int
}

// Ring is an io_uring instance.
type Ring struct {
	fd int
	sq sq
	cq cq
	// enter is the system call; tests put faults there.
	enter func(fd int, submit, flags uint32) (int, unix.Errno)

	rings, entries []byte
}

// sq is the submission ring: the kernel moves head, we move tail.
type sq struct {
	head, tail, flags *uint32
	mask, size        uint32
	sqes              []SQE
	// next is the tail with the entries that were filled but not yet published.
	next uint32
}

// cq is the completion ring: the kernel moves tail, we move head.
type cq struct {
	head, tail *uint32
	mask       uint32
	cqes       []CQE
}

// New makes a ring, with as many of the flags that spare interruptions as the
// kernel knows.
func New(c Config) (*Ring, error) {
	p, fd, err := open(c)
	if err != nil {
		return nil, err
	}
	r := &Ring{fd: fd, enter: enter}
	if p.features&(featSingleMmap|featNoDrop) != featSingleMmap|featNoDrop {
		return nil, errors.Join(fmt.Errorf("set up ring: %w: kernel older than 5.5", ErrUnavailable), r.Close())
	}
	if err := r.mapRings(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("map ring: %w", err), r.Close())
	}
	return r, nil
}

func open(c Config) (params, int, error) {
	const base = setupCQSize | setupClamp
	var errno unix.Errno
	for _, flags := range []uint32{base | setupSubmitAll | setupCoopTaskrun | setupTaskrunFlag, base} {
		p := params{flags: flags, cqEntries: uint32(max(c.Completions, 2*c.Entries))}
		var fd int
		if fd, errno = setup(uint32(c.Entries), &p); errno == 0 {
			return p, fd, nil
		}
		if errno != unix.EINVAL { // what a kernel says to flags that it does not know
			break
		}
	}
	return params{}, -1, fmt.Errorf("set up ring: %w", unavailable(errno))
}

// FD polls readable while Peek has something to do. It stays the ring's.
func (r *Ring) FD() int { return r.fd }

// Entries is the number of entries that fit between two Submits.
func (r *Ring) Entries() int { return int(r.sq.size) }

// RegisterFiles makes files known to the ring, for Fixed. The ring holds them until
// Close. Called once.
func (r *Ring) RegisterFiles(fds ...int32) error {
	if errno := r.registerFiles(fds); errno != 0 {
		return fmt.Errorf("register files: %w", errno)
	}
	return nil
}

// RegisterBuffers pins buffers for ReadFixed and WriteFixed until Close. The caller
// keeps them referenced that long. Called once.
func (r *Ring) RegisterBuffers(bufs []unix.Iovec) error {
	if errno := r.registerBuffers(bufs); errno != 0 {
		return fmt.Errorf("register buffers: %w", errno)
	}
	return nil
}

// SQE returns the next free entry for the caller to fill, or nil when the ring is
// full until the next Submit.
func (r *Ring) SQE() *SQE {
	if r.Pending() == int(r.sq.size) {
		return nil
	}
	s := &r.sq.sqes[r.sq.next&r.sq.mask]
	r.sq.next++
	return s
}

// Pending is the number of entries that the kernel has not taken yet.
func (r *Ring) Pending() int { return int(r.sq.next - atomic.LoadUint32(r.sq.head)) }

// Submit hands all filled entries to the kernel, in one system call unless the
// kernel takes them in parts.
func (r *Ring) Submit() error {
	// The store releases the entries' contents to the kernel.
	atomic.StoreUint32(r.sq.tail, r.sq.next)
	for {
		left := r.Pending()
		if left == 0 {
			return nil
		}
		n, errno := r.enter(r.fd, uint32(left), r.wanted())
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN, errno == unix.EBUSY, errno == 0 && n == 0:
			return nil
		case errno != 0:
			return fmt.Errorf("submit: %w", errno)
		}
	}
}

// wanted asks the kernel, along with a submission, for what it holds back.
func (r *Ring) wanted() uint32 {
	if atomic.LoadUint32(r.sq.flags)&(sqCQOverflow|sqTaskrun) != 0 {
		return enterGetEvents
	}
	return 0
}

// Peek copies completions to dst and returns how many. It does not wait.
func (r *Ring) Peek(dst []CQE) (int, error) {
	n := r.take(dst)
	if n > 0 || len(dst) == 0 || r.wanted() == 0 {
		return n, nil
	}
	for {
		_, errno := r.enter(r.fd, 0, enterGetEvents)
		switch errno {
		case unix.EINTR:
			continue
		case 0, unix.EAGAIN, unix.EBUSY:
			return r.take(dst), nil
		}
		return 0, fmt.Errorf("get completions: %w", errno)
	}
}

func (r *Ring) take(dst []CQE) int {
	// We alone write head. The load of tail acquires the completions before it, the
	// store of head releases their places to the kernel after they were copied.
	head := *r.cq.head
	n := min(int(atomic.LoadUint32(r.cq.tail)-head), len(dst))
	if n == 0 {
		return 0
	}
	for i := range dst[:n] {
		dst[i] = r.cq.cqes[(head+uint32(i))&r.cq.mask]
	}
	atomic.StoreUint32(r.cq.head, head+uint32(n))
	return n
}

// Close frees the ring. No operation may be in flight.
func (r *Ring) Close() error {
	// Closing the ring drops its files some time later, this at once. That there are
	// none is no error.
	_ = r.unregisterFiles()
	errs := []error{unix.Close(r.fd)}
	for _, m := range [][]byte{r.rings, r.entries} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	*r = Ring{fd: -1}
	return errors.Join(errs...)
}
