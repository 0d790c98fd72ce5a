package vhost

// This is the worker's part in surviving its own end: what it takes and returns is
// noted in the in-flight region, and what a predecessor left there is done again.

// recover finds out what is in flight in a ring that is about to start. Where the
// avail ring goes on follows from that; what the front-end said (SET_VRING_BASE) can
// only be the used index if the back-end that knew better has died.
func (w *worker) recover() (err error) {
	if w.region == nil {
		return nil
	}
	w.track, w.again, err = w.region.Recover(w.queue.Index, w.queue.Size, w.ring.UsedIndex())
	if err != nil {
		return err
	}
	if n := len(w.again); n > 0 {
		w.log.Info("taking up requests in flight", "count", n)
	}
	w.ring.Seek(w.ring.UsedIndex() + uint16(len(w.again)))
	return nil
}

// retake puts what a predecessor took and did not return into the batch, in its order.
// They were noted then, and keep their places.
func (w *worker) retake() (n int) {
	for ; len(w.again) > 0 && w.room(); n++ {
		if err := w.ring.Retake(&w.slot().Chain, w.again[0]); err != nil {
			w.breakRing(err)
			break
		}
		w.again = w.again[1:]
		w.enlist()
	}
	return n
}
