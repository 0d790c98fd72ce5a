package memory

import (
	"os"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/internal/ready"
	"sealblk/internal/prefetch"
)

type queue struct {
	dev  *Device
	done ready.List
}

func newQueue(d *Device, depth int) *queue {
	return &queue{dev: d, done: ready.New(depth)}
}

func (q *queue) Submit(reqs ...*blockdev.Request) {
	info := q.dev.Info()
	var next error
	for i, r := range reqs {
		err := next
		if i == 0 {
			err = r.Check(&info)
		}
		if i+1 < len(reqs) {
			next = q.lookAhead(reqs[i+1], &info)
		}
		if err == nil {
			q.dev.do(r)
		}
		q.done.Push(r, err)
	}
}

// lookAhead checks a request that comes next, and has the bytes to read on their way
// when its turn comes.
func (q *queue) lookAhead(r *blockdev.Request, info *blockdev.Info) error {
	err := r.Check(info)
	if err == nil && r.Op == blockdev.Read {
		prefetch.Read(q.dev.mem[r.Offset:][:r.Length])
	}
	return err
}

func (q *queue) Push() {}

func (q *queue) Poll(done []*blockdev.Request) int { return q.done.Pop(done) }

func (q *queue) WaitFD() int { return -1 }

func (q *queue) Close() error { return nil }

func (d *Device) do(r *blockdev.Request) {
	if r.Op == blockdev.Flush {
		return
	}
	part := d.mem[r.Offset : r.Offset+r.Length]
	switch r.Op {
	case blockdev.Read:
		for _, b := range r.Buffers {
			part = part[copy(b, part):]
		}
	case blockdev.Write:
		for _, b := range r.Buffers {
			part = part[copy(part, b):]
		}
	case blockdev.Discard:
		d.zero(r.Offset, r.Length, true)
	case blockdev.WriteZeroes:
		d.zero(r.Offset, r.Length, r.MayUnmap)
	}
}

// zero clears a range. With unmap, whole pages in it go back to the system; an
// anonymous private mapping reads as zeros there afterwards.
func (d *Device) zero(offset, length int64, unmap bool) {
	end := offset + length
	page := int64(os.Getpagesize())
	first, last := (offset+page-1)&^(page-1), end&^(page-1)
	if !unmap || first >= last || unix.Madvise(d.mem[first:last], unix.MADV_DONTNEED) != nil {
		clear(d.mem[offset:end])
		return
	}
	clear(d.mem[offset:first])
	clear(d.mem[last:end])
}
