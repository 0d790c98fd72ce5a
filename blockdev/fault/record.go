package fault

import (
	"io"
	"slices"

	"sealblk/blockdev"
)

// recorder logs the writes and flushes of a device.
type recorder struct {
	blockdev.Device
	log  *Log
	base int64
}

// Record makes a layer over lower that logs its writes, discards and flushes. Byte 0
// of lower is byte base of the log's medium. Its Close closes lower.
func Record(lower blockdev.Device, log *Log, base int64) blockdev.Device {
	return &recorder{lower, log, base}
}

// Grow makes the device below larger. That is not logged.
func (d *recorder) Grow(capacity int64) error { return blockdev.Grow(d.Device, capacity) }

func (d *recorder) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	q, err := d.Device.OpenQueue(cfg)
	if err != nil {
		return nil, err
	}
	return &recorderQueue{Queue: q, dev: d, open: make(map[*blockdev.Request]func(error))}, nil
}

type recorderQueue struct {
	blockdev.Queue
	dev  *recorder
	open map[*blockdev.Request]func(error)
}

func (q *recorderQueue) Submit(reqs ...*blockdev.Request) {
	info := q.dev.Info()
	for _, r := range reqs {
		if r.Check(&info) == nil {
			q.note(r)
		}
	}
	q.Queue.Submit(reqs...)
}

func (q *recorderQueue) note(r *blockdev.Request) {
	log, at := q.dev.log, q.dev.base+r.Offset
	switch r.Op {
	case blockdev.Write:
		w := log.Write(at, slices.Concat(r.Buffers...), r.FUA)
		q.open[r] = func(err error) { log.Wrote(w, err) }
	case blockdev.Discard, blockdev.WriteZeroes:
		w := log.Zero(at, r.Length, r.FUA)
		q.open[r] = func(err error) { log.Wrote(w, err) }
	case blockdev.Flush:
		s := log.Sync()
		q.open[r] = func(err error) { log.Synced(s, err) }
	}
}

func (q *recorderQueue) Poll(done []*blockdev.Request) int {
	n := q.Queue.Poll(done)
	for _, r := range done[:n] {
		if end := q.open[r]; end != nil {
			delete(q.open, r)
			end(r.Err)
		}
	}
	return n
}

// Storage is what a File lies over.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// File logs what is written as a file is: by offset, durable after Sync.
type File struct {
	Storage
	Log *Log
}

// WriteAt writes whole sectors.
func (f File) WriteAt(p []byte, off int64) (int, error) {
	w := f.Log.Write(off, p, false)
	n, err := f.Storage.WriteAt(p, off)
	f.Log.Wrote(w, err)
	return n, err
}

// Sync makes what was written durable.
func (f File) Sync() error {
	s := f.Log.Sync()
	err := f.Storage.Sync()
	f.Log.Synced(s, err)
	return err
}
