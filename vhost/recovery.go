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

// takeOne gives the next request to the device, if there is one. A request is noted
// once the device has it: before the device is told to start, and so before anything
// can complete. One that was noted before keeps its place in the order.
func (w *worker) takeOne(r *Request) (bool, error) {
	if len(w.again) > 0 {
		err := w.ring.Retake(&r.Chain, w.again[0])
		if err == nil {
			err = w.dev.Submit(r)
		}
		if err != nil {
			return false, err
		}
		w.again = w.again[1:]
		return true, nil
	}
	ok, err := w.ring.Pop(&r.Chain)
	if !ok || err != nil {
		return false, err
	}
	if err := w.dev.Submit(r); err != nil {
		return false, err
	}
	w.track.Take(r.Head)
	w.next = w.ring.NextAvail()
	return true, nil
}
