package bounce

import "sealblk/blockdev"

// stack holds the indices of what is free; the last one that came back is hot.
type stack []int32

func (s *stack) push(i int32) { *s = append(*s, i) }

func (s *stack) pop() (int32, bool) {
	n := len(*s)
	if n == 0 {
		return 0, false
	}
	i := (*s)[n-1]
	*s = (*s)[:n-1]
	return i, true
}

// newStack holds first to first+n-1; the first comes out first.
func newStack(first, n int) stack {
	s := make(stack, n)
	for i := range s {
		s[i] = int32(first + n - 1 - i)
	}
	return s
}

// line is a first-in first-out ring of indices, with room for all there are.
type line struct {
	ring      []int32
	head, len int
}

func (l *line) push(i int32) {
	l.ring[(l.head+l.len)%len(l.ring)] = i
	l.len++
}

func (l *line) first() int32 { return l.ring[l.head] }

func (l *line) drop() {
	l.head = (l.head + 1) % len(l.ring)
	l.len--
}

// chunk is a piece of bounce memory and the request that moves it.
type chunk struct {
	req    blockdev.Request
	iov    [1][]byte
	mem    []byte
	home   *stack
	parent int32
	at     cursor // in the parent's buffers, for a read
}

// parent is a request of the submitter that is in flight.
type parent struct {
	req  *blockdev.Request
	own  blockdev.Request // what is below, for a request without chunks
	next int64            // bytes for which chunks were taken
	at   cursor           // the place of next in the buffers
	out  int              // chunks below
	err  error            // of the first chunk that failed
	// waits: it is taking chunks, or in the line for them.
	waits bool
}

// left is the number of bytes for which there is no chunk yet.
func (p *parent) left() int64 { return p.req.Length - p.next }

// newChunks cuts the arena. The chunks of both sizes that are used first lie in its first
// huge page: a queue that is not used much has no other.
func (q *queue) newChunks(depth int, cfg *Config) {
	q.chunks = make([]chunk, depth+cfg.LargeChunks)
	q.small, q.large = newStack(0, depth), newStack(depth, cfg.LargeChunks)
	mem := q.arena.mem
	cut := func(first, last, size int, home *stack) {
		for i := first; i < last; i++ {
			c := &q.chunks[i]
			c.home = home
			c.mem, mem = mem[:size:size], mem[size:]
			c.req.Buffers = c.iov[:]
			c.req.Tag = uint64(i)
		}
	}
	hotSmall, hotLarge := cfg.hot(depth)
	cut(0, hotSmall, cfg.SmallChunk, &q.small)
	cut(depth, depth+hotLarge, cfg.LargeChunk, &q.large)
	cut(hotSmall, depth, cfg.SmallChunk, &q.small)
	cut(depth+hotLarge, depth+cfg.LargeChunks, cfg.LargeChunk, &q.large)
}
