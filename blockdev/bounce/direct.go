package bounce

import (
	"sealblk/blockdev"
	"sealblk/internal/prefetch"
)

// view returns the stored bytes of a request that needs no bounce memory: those that
// the lower queue lets us reach, if no unit lies across the submitter's buffers. Such
// a unit would have to be put together where it is stored.
func (q *queue) view(r *blockdev.Request) []byte {
	if q.viewer == nil || r.Op != blockdev.Read && (r.Op != blockdev.Write || r.FUA) || !q.wholeUnits(r.Buffers) {
		return nil
	}
	return q.viewer.View(r.Op, r.Offset, r.Length)
}

func (q *queue) wholeUnits(buffers [][]byte) bool {
	for _, b := range buffers {
		if len(b)&(q.unit-1) != 0 {
			return false
		}
	}
	return true
}

// direct moves the data of a request between the submitter's memory and the stored
// bytes, in one go. next is what is read after them.
func (q *queue) direct(r *blockdev.Request, stored, next []byte) (err error) {
	defer q.caught(&err)
	pos := 0
	for _, b := range r.Buffers {
		if len(b) == 0 {
			continue
		}
		part, offset := stored[pos:pos+len(b)], r.Offset+int64(pos)
		pos += len(b)
		if r.Op == blockdev.Read {
			q.transform.Incoming(b, part, offset, or(stored[pos:], next))
		} else {
			q.transform.Outgoing(part, b, offset)
		}
	}
	return nil
}

// caught makes an error of a fault in the stored bytes. A fault in the submitter's
// memory is the submitter's affair, and goes on.
func (q *queue) caught(err *error) {
	p := recover()
	if p == nil {
		return
	}
	q.cut = true
	if fault, ok := p.(interface{ Addr() uintptr }); ok && q.viewer.Viewed(fault.Addr()) {
		*err = blockdev.ErrShort
		return
	}
	panic(p)
}

// coming is a request whose turn will come.
type coming struct {
	err    error  // of its check
	stored []byte // its stored bytes, if they can be reached
}

// foresee checks requests and asks for the first line of what each is stored in: the
// processor finds the addresses of several pages at the same time, but waits, and so
// would the cipher, for that of each page if they are asked for one after the other.
func (q *queue) foresee(reqs []*blockdev.Request) {
	info := q.dev.Info()
	for i, r := range reqs {
		c := coming{err: r.Check(&info)}
		if c.err == nil {
			c.stored = q.view(r)
			prefetch.Line(c.stored)
		}
		q.coming[i] = c
	}
}

// soon returns the stored bytes that a request will read, and has those that it will
// write on their way.
func (q *queue) soon(r *blockdev.Request, c *coming) []byte {
	if r.Op == blockdev.Read {
		return c.stored
	}
	prefetch.Write(c.stored)
	return nil
}

// or returns b, or c if b is empty.
func or(b, c []byte) []byte {
	if len(b) > 0 {
		return b
	}
	return c
}
