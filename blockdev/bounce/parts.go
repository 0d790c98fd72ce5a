package bounce

import (
	"sealblk/blockdev"
	"sealblk/internal/prefetch"
)

// start takes a request that is valid. next is what is read after it where it is stored.
func (q *queue) start(r *blockdev.Request, next []byte) {
	if r.Op != blockdev.Flush && r.Length == 0 || q.ignores(r) {
		q.done.Push(r, nil)
		return
	}
	if stored := q.view(r); stored != nil {
		q.done.Push(r, q.direct(r, stored, next))
		return
	}
	slot, ok := q.slots.pop()
	if !ok {
		q.done.Push(r, ErrDepth)
		return
	}
	p := &q.parents[slot]
	p.req = r
	if q.whole(r) {
		q.pass(slot)
		return
	}
	// Only those that need large chunks queue up: the end of a request that stands
	// in the line may take the parent's own small one and nobody else's.
	overtakes := r.Length <= q.smallSize
	p.waits = true
	if !overtakes && q.waiting.len > 0 || !q.advance(slot) {
		q.waiting.push(slot)
		return
	}
	q.loaded(slot)
}

// loaded is for a parent that wants no chunk any more.
func (q *queue) loaded(slot int32) {
	p := &q.parents[slot]
	p.waits = false
	if p.out == 0 {
		q.finish(slot, p.err)
	}
}

func (q *queue) ignores(r *blockdev.Request) bool {
	return r.Op == blockdev.Discard && q.dev.cfg.Discard == Ignore
}

// whole reports whether a request goes below as it is.
func (q *queue) whole(r *blockdev.Request) bool {
	cfg := &q.dev.cfg
	switch r.Op {
	case blockdev.Read, blockdev.Write:
		return cfg.Aligned > 0 && aligned(r.Buffers, cfg.Aligned)
	case blockdev.WriteZeroes:
		return cfg.WriteZeroes == Pass ||
			cfg.WriteZeroes == PassUnmap && r.MayUnmap && q.dev.lower.Info().Features.WriteZeroes
	default:
		return true
	}
}

// pass sends a parent's request below in a slot of our own: the submitter's tag is
// not ours to use. A Flush has nothing but its operation.
func (q *queue) pass(slot int32) {
	p := &q.parents[slot]
	if p.own.Op = p.req.Op; p.own.Op != blockdev.Flush {
		p.own = *p.req
	}
	p.own.Tag = ownTag | uint64(slot)
	q.below(&p.own)
}

// advance takes chunks for a parent as long as there are any, and reports whether
// none is wanted any more.
func (q *queue) advance(slot int32) bool {
	p := &q.parents[slot]
	for p.err == nil && p.left() > 0 {
		free := &q.large
		if p.left() <= q.smallSize {
			free = &q.small
		}
		i, ok := free.pop()
		if !ok {
			return false
		}
		q.load(&q.chunks[i], slot)
		q.flow()
	}
	return true
}

// load makes a chunk carry the next bytes of a parent.
func (q *queue) load(c *chunk, slot int32) {
	p := &q.parents[slot]
	n := min(p.left(), int64(len(c.mem)))
	mem := c.mem[:n]
	c.parent, c.at, c.iov[0] = slot, p.at, mem
	c.req.Op, c.req.FUA = blockdev.Write, p.req.FUA
	c.req.Offset, c.req.Length = p.req.Offset+p.next, n
	switch p.req.Op {
	case blockdev.Read:
		c.req.Op = blockdev.Read
		p.at.skip(p.req.Buffers, int(n))
	case blockdev.Write:
		gather(q.transform, q.unit, mem, p.req.Buffers, &p.at, c.req.Offset)
	case blockdev.WriteZeroes:
		clear(mem)
		q.transform.Outgoing(mem, mem, c.req.Offset)
	}
	if q.prompt || c.req.Op == blockdev.Write {
		q.ahead += n
	}
	p.next += n
	p.out++
	q.below(&c.req)
}

// following is what was read for the request that returns next.
func (q *queue) following() []byte {
	if len(q.next) == 0 {
		return nil
	}
	r := q.next[0]
	if r.Tag&ownTag != 0 || r.Op != blockdev.Read {
		return nil
	}
	return q.chunks[r.Tag].iov[0]
}

// returned takes a request that came back from below. next is what was read for the next
// one.
func (q *queue) returned(r *blockdev.Request, next []byte) {
	if r.Op != blockdev.Read {
		prefetch.Read(next)
	}
	if r.Tag&ownTag != 0 {
		q.finish(int32(r.Tag&^ownTag), r.Err)
		return
	}
	c := &q.chunks[r.Tag]
	p := &q.parents[c.parent]
	switch {
	case p.err != nil:
	case r.Err != nil:
		p.err = r.Err
	case r.Op == blockdev.Read:
		scatter(q.transform, q.unit, c.iov[0], p.req.Buffers, &c.at, r.Offset, next)
	}
	c.home.push(int32(r.Tag))
	p.out--
	if p.out == 0 && !p.waits {
		q.finish(c.parent, p.err)
	}
}

// resume goes on with the parents in the line, in their order.
func (q *queue) resume() {
	for q.waiting.len > 0 {
		slot := q.waiting.first()
		if !q.advance(slot) {
			return
		}
		q.waiting.drop()
		q.loaded(slot)
	}
}
