package inflight

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
)

// taken is an entry as it was read.
type taken struct {
	mark    mark
	counter uint64
}

// lastCounter is beyond what any back-end can have counted to. Nothing is taken up from
// there on, since a counter that comes to its end would put new chains before old ones.
const lastCounter = 1<<63 - 1

// Recover begins to note what is taken from a ring of ringSize descriptors whose used
// index is used, and returns the chains that are in flight, by their heads, in the
// order in which they were taken. A queue that was never served has none. The queue's
// Queue before, if there was one, must not be used any more.
func (r *Region) Recover(queue, ringSize int, used uint16) (*Queue, []uint16, error) {
	if queue >= r.queues || ringSize > r.size {
		return nil, nil, fmt.Errorf("queue %d of %d descriptors in a region of %d queues of %d: %w", queue, ringSize, r.queues, r.size, ErrShape)
	}
	h, err := r.header(queue)
	if err != nil {
		return nil, nil, err
	}
	q := &Queue{words: r.part(queue), size: r.size, last: h.last(), used: h.used(), batch: make([]link, 0, r.size), stored: r.stored}
	if h.version() == 0 {
		q.begin(used)
		return q, nil, nil
	}
	entries, err := q.read()
	if err != nil {
		return nil, nil, fmt.Errorf("queue %d: %w", queue, err)
	}
	if err := q.settle(entries, used); err != nil {
		return nil, nil, fmt.Errorf("queue %d: %w", queue, err)
	}
	heads, err := q.inFlight(entries, ringSize)
	if err != nil {
		return nil, nil, fmt.Errorf("queue %d: %w", queue, err)
	}
	return q, heads, nil
}

// begin makes an empty region of one whose version is zero. The version comes last.
func (q *Queue) begin(used uint16) {
	q.last, q.used = 0, used
	q.store(featuresWord, 0)
	for i := range q.size {
		q.store(entry(uint16(i)), 0)
		q.store(entry(uint16(i))+1, 0)
	}
	q.storeHeader()
}

// read copies the entries, each word once.
func (q *Queue) read() ([]taken, error) {
	entries := make([]taken, q.size)
	for i := range entries {
		e := entry(uint16(i))
		entries[i] = taken{mark(atomic.LoadUint64(&q.words[e])), atomic.LoadUint64(&q.words[e+1])}
		if !entries[i].mark.valid() {
			return nil, fmt.Errorf("mark of descriptor %d is %#x: %w", i, uint8(entries[i].mark), ErrContent)
		}
	}
	return entries, nil
}

// settle takes the marks of the last batch away, if the driver has it already.
func (q *Queue) settle(entries []taken, used uint16) error {
	marked := slices.ContainsFunc(entries, func(t taken) bool { return t.mark.inFlight() })
	n := int(used - q.used)
	if marked && n > q.size {
		return fmt.Errorf("used index %d after %d: %w", used, q.used, ErrContent)
	}
	// With nothing in flight there is nothing to settle, whatever the indexes say: the
	// driver may have set up its ring anew.
	for head := q.last; marked && n > 0; n-- {
		if int(head) >= q.size {
			return fmt.Errorf("last batch leads to descriptor %d: %w", head, ErrContent)
		}
		next := entries[head].mark.next()
		entries[head].mark = newMark(false, next)
		q.store(entry(head), uint64(entries[head].mark))
		head = next
	}
	if q.used != used {
		q.used = used
		q.storeHeader()
	}
	return nil
}

// inFlight lists what is marked, and counts on from there.
func (q *Queue) inFlight(entries []taken, ringSize int) (heads []uint16, err error) {
	for i, t := range entries {
		if !t.mark.inFlight() {
			continue
		}
		if i >= ringSize {
			return nil, fmt.Errorf("descriptor %d of a ring of %d is in flight: %w", i, ringSize, ErrContent)
		}
		if t.counter > lastCounter {
			return nil, fmt.Errorf("descriptor %d was taken as number %d: %w", i, t.counter, ErrContent)
		}
		heads = append(heads, uint16(i))
	}
	slices.SortStableFunc(heads, func(a, b uint16) int { return cmp.Compare(entries[a].counter, entries[b].counter) })
	q.renumber(heads)
	return heads, nil
}

// renumber begins to count anew, so that no number of restarts leads beyond lastCounter.
// Of numbers that a back-end gave, which are all different, none rises, and the first
// changes first: the order is the same after each store.
func (q *Queue) renumber(heads []uint16) {
	for i, head := range heads {
		q.store(entry(head)+1, uint64(i))
	}
	q.counter = uint64(len(heads))
}
