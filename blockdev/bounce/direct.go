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
// bytes, in one go.
func (q *queue) direct(r *blockdev.Request, stored []byte) (err error) {
	defer q.caught(&err)
	pos := 0
	for _, b := range r.Buffers {
		if len(b) == 0 {
			continue
		}
		part := stored[pos : pos+len(b)]
		if r.Op == blockdev.Read {
			q.transform.Incoming(b, part, r.Offset+int64(pos))
		} else {
			q.transform.Outgoing(part, b, r.Offset+int64(pos))
		}
		pos += len(b)
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

// lookAhead checks a request that comes next, and has its stored bytes on their way
// from memory when its turn comes.
func (q *queue) lookAhead(r *blockdev.Request, info *blockdev.Info) error {
	if err := r.Check(info); err != nil {
		return err
	}
	switch stored := q.view(r); {
	case stored == nil:
	case r.Op == blockdev.Read:
		prefetch.Read(stored)
	default:
		prefetch.Write(stored)
	}
	return nil
}
