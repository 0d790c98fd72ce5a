package secret

import (
	"crypto/subtle"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sealblk/internal/sigmask"
)

const (
	// Align is the alignment of a buffer's first byte: a cache line, and more than
	// any vector load asks for.
	Align = 64
	// MaxSize of a buffer, in bytes. Keys are small; a larger request is a mistake.
	MaxSize = 1 << 20
)

// Backing is the kind of memory behind a buffer.
type Backing uint8

const (
	// MemfdSecret is memory of memfd_secret(2): locked, and not in the kernel's map.
	MemfdSecret Backing = iota
	// Mlock is anonymous memory locked by mlock(2).
	Mlock
)

func (k Backing) String() string {
	if k == MemfdSecret {
		return "memfd_secret"
	}
	return "mlock"
}

var liveBuffers, liveBytes atomic.Int64

// Live counts the buffers that are not destroyed, and the bytes in them.
func Live() (buffers, bytes int64) { return liveBuffers.Load(), liveBytes.Load() }

// Buffer is a piece of locked memory. The zero Buffer is a destroyed one.
type Buffer struct{ s *shared }

// shared keeps the lock out of Buffer, so that the methods which hide it from
// printers can have value receivers and also cover a copy.
type shared struct {
	mu  sync.Mutex
	mem *memory // nil when destroyed
}

// New returns size bytes of zeros, 1 to MaxSize.
func New(size int) (*Buffer, error) {
	if size < 1 || size > MaxSize {
		return nil, fmt.Errorf("allocate secret of %d bytes: %w", size, ErrSize)
	}
	m, err := allocate(size, MemfdSecret)
	if err != nil {
		// No such call, forbidden by a sandbox, or at the limit: the plain kind
		// tells which.
		m, err = allocate(size, Mlock)
	}
	if err != nil {
		return nil, fmt.Errorf("allocate secret: %w", err)
	}
	return newBuffer(m), nil
}

func newBuffer(m *memory) *Buffer {
	liveBuffers.Add(1)
	liveBytes.Add(int64(m.size))
	return &Buffer{&shared{mem: m}}
}

// Random returns size bytes from the kernel's random number generator, which writes
// them straight into the locked memory.
func Random(size int) (*Buffer, error) {
	b, err := New(size)
	if err != nil {
		return nil, err
	}
	for p := b.Bytes(); len(p) > 0; {
		n, err := unix.Getrandom(p, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			b.Destroy()
			return nil, fmt.Errorf("get random bytes: %w", err)
		}
		p = p[n:]
	}
	return b, nil
}

// Bytes is the buffer's memory, valid until Destroy. It is nil afterwards.
func (b *Buffer) Bytes() []byte {
	if m := b.memory(); m != nil {
		return m.bytes()
	}
	return nil
}

// Len is the size in bytes, 0 after Destroy.
func (b *Buffer) Len() int {
	if m := b.memory(); m != nil {
		return m.size
	}
	return 0
}

// Backing tells what kind of memory the buffer is in.
func (b *Buffer) Backing() Backing {
	if m := b.memory(); m != nil {
		return m.backing
	}
	return Mlock
}

// Equal compares two buffers in a time that depends on their lengths only. A
// destroyed buffer equals nothing.
func (b *Buffer) Equal(o *Buffer) bool {
	x, y := b.Bytes(), o.Bytes()
	return x != nil && y != nil && subtle.ConstantTimeCompare(x, y) == 1
}

// First is a second buffer with the first n bytes of this one.
func (b *Buffer) First(n int) (*Buffer, error) {
	if n > b.Len() {
		return nil, fmt.Errorf("take %d bytes of a secret: %w", n, ErrSize)
	}
	out, err := New(n)
	if err != nil {
		return nil, err
	}
	// The copy goes through registers.
	if err := sigmask.Do(func() error { copy(out.Bytes(), b.Bytes()); return nil }); err != nil {
		out.Destroy()
		return nil, fmt.Errorf("copy secret: %w", err)
	}
	return out, nil
}

// Destroy wipes the memory and unmaps it. It may be called more than once, and on
// nil.
func (b *Buffer) Destroy() {
	if b == nil || b.s == nil {
		return
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	m := b.s.mem
	if m == nil {
		return
	}
	b.s.mem = nil
	liveBuffers.Add(-1)
	liveBytes.Add(-int64(m.size))
	if err := m.free(); err != nil {
		// Only a mapping that is not ours fails here; the memory is wiped already.
		panic("secret: unmap: " + err.Error())
	}
}

func (b *Buffer) memory() *memory {
	if b == nil || b.s == nil {
		return nil
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.s.mem
}
