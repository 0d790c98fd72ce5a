package bounce

import (
	"errors"
	"slices"

	"sealblk/blockdev"
	"sealblk/blockdev/internal/ready"
	"sealblk/internal/prefetch"
)

// burst is how many requests go to or come from the lower queue in one call.
const burst = 64

// flowBytes is how much is prepared before the kernel is told of it: what takes about
// ten times as long to encrypt as the system call takes.
const flowBytes = 128 << 10

// ownTag marks a parent's own request below; the rest of the tag is its slot. The
// tag of a chunk's request is the index of the chunk.
const ownTag = 1 << 63

// queue splits requests in chunks.
//
//	           Submit                     room                    all parts are back
//	submitter ───────▶ refused ──────────────────────────────────▶ done ──▶ Poll
//	                   direct (in the stored bytes) ───────────────▶ done
//	                   whole (own request below) ─────────────────▶ done
//	                   parts ──▶ waits (line) ──▶ chunks below ───▶ done
//	                     └───────── room ────────▶
type queue struct {
	dev       *Device
	lower     blockdev.Queue
	viewer    blockdev.Viewer // the lower queue, if its bytes can be reached
	prompt    bool            // the lower queue is done when Push returns
	transform Transform
	unit      int
	smallSize int64

	arena  arena
	chunks []chunk
	small  stack // free chunks
	large  stack

	parents []parent
	slots   stack // free parents
	waiting line  // parents that need a chunk

	coming []coming // the requests that are being submitted

	batch []*blockdev.Request // on the way to the lower queue
	came  []*blockdev.Request // on the way from it
	next  []*blockdev.Request // those of came whose turn has not come
	sent  bool                // the lower queue has requests that were not pushed
	ahead int64               // bytes that were prepared and not pushed
	done  ready.List
	cut   bool // a fault in the submitter's memory ended what no parent stands for
}

func newQueue(d *Device, lower blockdev.Queue, arena arena, depth int) *queue {
	q := &queue{
		dev:       d,
		lower:     lower,
		transform: d.cfg.Transform,
		unit:      d.cfg.Unit,
		smallSize: int64(d.cfg.SmallChunk),
		arena:     arena,
		parents:   make([]parent, depth),
		slots:     newStack(0, depth),
		waiting:   line{ring: make([]int32, depth)},
		coming:    make([]coming, burst),
		batch:     make([]*blockdev.Request, 0, burst),
		came:      make([]*blockdev.Request, burst),
		done:      ready.New(depth),
	}
	q.viewer, _ = lower.(blockdev.Viewer)
	q.prompt = lower.WaitFD() < 0
	q.newChunks(depth, &d.cfg)
	return q
}

// Submit takes requests and starts as much of them as there are chunks for.
func (q *queue) Submit(reqs ...*blockdev.Request) {
	if len(reqs) == 1 {
		info := q.dev.Info()
		q.take(reqs[0], reqs[0].Check(&info), nil)
	} else {
		for batch := range slices.Chunk(reqs, burst) {
			q.takeAll(batch)
		}
	}
	q.send()
}

func (q *queue) takeAll(reqs []*blockdev.Request) {
	q.foresee(reqs)
	for i, r := range reqs {
		var next []byte
		if i+1 < len(reqs) {
			next = q.soon(reqs[i+1], &q.coming[i+1])
		}
		q.take(r, q.coming[i].err, next)
	}
}

// take starts a request, unless its check found an error. A read asks for next meanwhile.
func (q *queue) take(r *blockdev.Request, err error, next []byte) {
	if r.Op != blockdev.Read {
		prefetch.Read(next)
	}
	if err != nil {
		q.done.Push(r, err)
		return
	}
	q.start(r, next)
}

// Push hands what was submitted to the lower queue's kernel side.
func (q *queue) Push() {
	q.sent, q.ahead = false, 0
	q.lower.Push()
}

// Poll takes what came back from below, goes on with the requests that wait for
// chunks, and stores what is complete.
func (q *queue) Poll(done []*blockdev.Request) int {
	for len(done) > 0 {
		n := q.collect(len(done))
		q.resume()
		q.send()
		moved := n > 0 || q.sent
		if q.sent {
			q.Push()
		}
		// With nothing to give and something moved, what was just started may be
		// complete already.
		if !moved || q.done.Len() > 0 {
			break
		}
	}
	return q.done.Pop(done)
}

// collect takes at most so many of those that came back from below: each is transformed
// here, and who waits for few of them is not to wait for the others.
func (q *queue) collect(most int) int {
	if len(q.next) == 0 {
		q.next = q.came[:q.lower.Poll(q.came)]
	}
	n := min(most, len(q.next))
	for range n {
		r := q.next[0]
		q.next = q.next[1:]
		q.returned(r, q.following())
	}
	return n
}

// flow keeps the lower device busy while more is prepared, and the memory that is used
// for it in the processor's caches.
func (q *queue) flow() {
	if q.ahead >= flowBytes {
		q.send()
		q.Push()
		q.collect(burst)
	}
}

// WaitFD is that of the lower queue.
func (q *queue) WaitFD() int { return q.lower.WaitFD() }

// Close closes the lower queue, which has no more to do with the bounce memory then,
// and frees that.
func (q *queue) Close() error {
	var err error
	if t, ok := q.transform.(Interruptible); ok && (q.cut || len(q.slots) < len(q.parents)) {
		err = t.Interrupted()
	}
	return errors.Join(err, q.lower.Close(), q.arena.free())
}

// below puts a request on its way to the lower queue.
func (q *queue) below(r *blockdev.Request) {
	if len(q.batch) == cap(q.batch) {
		q.send()
	}
	q.batch = append(q.batch, r)
}

func (q *queue) send() {
	if len(q.batch) > 0 {
		q.lower.Submit(q.batch...)
		q.batch = q.batch[:0]
		q.sent = true
	}
}

// finish completes a parent.
func (q *queue) finish(slot int32, err error) {
	p := &q.parents[slot]
	r := p.req
	*p = parent{}
	q.slots.push(slot)
	q.done.Push(r, err)
}
