package inflight

// Queue notes what one worker takes from and returns to its ring.
type Queue struct {
	words   []uint64
	size    int
	counter uint64 // of the next chain to be taken
	last    uint16 // the head of the list, once it is sealed
	used    uint16 // the region's copy of the used index
	batch   []link // done and not yet published

	stored func() // see Region.OnStore
}

// link is a member of the list of a batch.
type link struct{ head, next uint16 }

// Take notes a chain that was taken from the avail ring. It comes before anything that
// could return the chain.
func (q *Queue) Take(head uint16) {
	if q == nil {
		return
	}
	e := entry(head)
	q.store(e+1, q.counter)
	q.counter++
	q.store(e, uint64(newMark(true, 0)))
}

// Done notes a chain whose used element is stored and not yet visible.
func (q *Queue) Done(head uint16) {
	if q == nil {
		return
	}
	q.store(entry(head), uint64(newMark(true, q.last)))
	q.batch = append(q.batch, link{head, q.last})
	q.last = head
}

// Seal closes the batch: the used index may be stored.
func (q *Queue) Seal() {
	if q == nil {
		return
	}
	q.storeHeader()
}

// Published notes that the driver has the batch: the used index that it sees.
func (q *Queue) Published(used uint16) {
	if q == nil {
		return
	}
	// The list is kept while the marks go, for whoever has to go on with this.
	for _, l := range q.batch {
		q.store(entry(l.head), uint64(newMark(false, l.next)))
	}
	q.batch = q.batch[:0]
	q.used = used
	q.storeHeader()
}

func (q *Queue) storeHeader() { q.store(headerWord, uint64(newHeader(q.size, q.last, q.used))) }

// store keeps its order: after all stores before it, before all that follow.
func (q *Queue) store(i int, v uint64) {
	storeRelease(&q.words[i], v)
	if q.stored != nil {
		q.stored()
	}
}
