package vhost

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/eventfd"
	"sealblk/internal/prefetch"
	"sealblk/internal/sigmask"
	"sealblk/vhost/inflight"
	"sealblk/vhost/memory"
	"sealblk/vhost/virtqueue"
)

const (
	// typicalPieces is the room for pieces of guest memory that a slot starts with:
	// header, status and the 126 segments that a driver keeps to by itself.
	typicalPieces = 128
	// maxPace bounds the numbers of a pace.
	maxPace = 64
	// A ring without a kick descriptor is looked at again after a pause that
	// doubles between these bounds while nothing comes.
	minPause = 20 * time.Microsecond
	maxPause = time.Millisecond
)

// pace is how much a worker does of one thing before it turns to the next.
type pace struct {
	first int // requests that are taken for a device with nothing to do
	take  int // requests that are taken before completions are looked at
	show  int // completions that are taken before the driver sees them
}

// A device that is done at once is given more at a time, which costs less for each; what
// it did is shown to the driver while that prepares more. A device that works on its own
// finishes many at once and then stands idle: it is given work again with the first of
// them, and not only when the last is decrypted, and with the first request that comes of
// it, while the others are prepared. docs/performance.md has the figures.
var (
	paceOfPrompt = pace{first: 16, take: 16, show: maxPace}
	paceOfQueued = pace{first: 1, take: 4, show: 1}
)

func paceOf(dev Queue) pace {
	if dev.WaitFD() < 0 {
		return paceOfPrompt
	}
	return paceOfQueued
}

// workerConfig is what a worker is born with.
type workerConfig struct {
	ring    virtqueue.Config
	queue   QueueConfig
	table   *memory.Table
	region  *inflight.Region // nil for none
	device  Device
	kick    *notifier
	call    *notifier
	err     *notifier
	dirty   dirty
	pollMax time.Duration
	log     *slog.Logger
	onFault func(error) // called on the worker's goroutine
}

// worker serves one ring. Everything in it but control, calls and exited belongs
// to its goroutine.
type worker struct {
	workerConfig

	ring     *virtqueue.Queue
	dev      Queue
	track    *inflight.Queue // nil without a region
	again    []uint16        // heads that a predecessor took and did not return
	free     []*Request
	batch    []*Request // taken, and not yet the device's
	done     [maxPace]*Request
	pace     pace
	inFlight int
	stopping bool
	broken   bool
	next     uint16 // where the ring goes on

	poller  poller
	polls   [3]unix.PollFd
	pause   time.Duration
	kickBuf [64]byte

	control *eventfd.FD
	calls   chan func()
	exited  chan struct{}
}

// startWorker returns when the worker runs or has failed to.
func startWorker(cfg workerConfig) (*worker, error) {
	control, err := eventfd.New()
	if err != nil {
		return nil, err
	}
	w := &worker{workerConfig: cfg, control: control, calls: make(chan func(), 1), exited: make(chan struct{})}
	ready := make(chan error)
	go w.main(ready)
	if err := <-ready; err != nil {
		<-w.exited
		return nil, joinClose(err, control)
	}
	return w, nil
}

// do runs f on the worker's goroutine, between two requests. Requests in flight
// go on.
func (w *worker) do(f func()) {
	done := make(chan struct{})
	w.calls <- func() { f(); close(done) }
	_ = w.control.Signal()
	<-done
}

// stop takes no more requests, waits until those in flight are completed and
// published, and ends the worker. It returns the next avail index.
func (w *worker) stop() (next uint16, err error) {
	w.do(func() { w.stopping = true })
	<-w.exited
	return w.next, w.control.Close()
}

func (w *worker) main(ready chan<- error) {
	defer close(w.exited)
	restore, err := sigmask.Block() // the device below may have keys in registers
	if err != nil {
		ready <- err
		return
	}
	defer restore()
	debug.SetPanicOnFault(true)
	if fault := w.guard(func() { err = w.open() }); fault != nil {
		err = fault
	}
	ready <- err
	if err != nil {
		return
	}
	if fault := w.guard(w.serve); fault != nil {
		w.survive(fault)
		return
	}
	w.close()
}

func (w *worker) open() error {
	ring, err := virtqueue.New(w.workerConfig.ring, w.table)
	if err != nil {
		return err
	}
	w.ring = ring
	owed := ring.NotifyAtStart(w.region.Served(w.queue.Index))
	if err := w.recover(); err != nil {
		return err
	}
	dev, err := w.device.OpenQueue(w.queue)
	if err != nil {
		return fmt.Errorf("open queue of the device: %w", err)
	}
	w.dev, w.pace, w.next, w.pause, w.poller.limit = dev, paceOf(dev), ring.NextAvail(), minPause, w.pollMax
	requests := make([]Request, w.queue.Size)
	w.free = make([]*Request, w.queue.Size)
	w.batch = make([]*Request, 0, w.pace.take)
	for i := range requests {
		requests[i] = Request{Chain: *virtqueue.NewChain(typicalPieces), Slot: i}
		w.free[len(w.free)-1-i] = &requests[i]
	}
	if owed {
		w.call.signal()
	}
	return nil
}

func (w *worker) close() {
	if err := w.dev.Close(); err != nil {
		w.log.Warn("closing the queue of the device failed", "err", err)
	}
}

// serve is the worker's loop. It ends when it is told to stop and nothing is in
// flight. The driver is left with the wish for a kick: whoever serves the ring next
// may start only by one.
func (w *worker) serve() {
	w.disableKicks()
	for {
		w.obey()
		if w.stopping && w.inFlight == 0 && !w.taking() {
			_, _ = w.enableKicks() // what is in the ring stays there
			return
		}
		if w.take()+w.complete() == 0 {
			w.rest()
		}
	}
}

// obey runs what the session asked for.
func (w *worker) obey() {
	select {
	case f := <-w.calls:
		f()
	default:
	}
}

// take is the only place where requests leave the avail ring. Those that a
// predecessor left come first, in its order. The chains of a batch are read before the
// first request is, so that what the others are about comes from the driver's processor
// meanwhile.
func (w *worker) take() (n int) {
	w.batch = w.batch[:0]
	old := w.retake()
	w.pop()
	for n < len(w.batch) && w.submit(w.batch[n], n >= old) {
		n++
	}
	w.free = append(w.free, w.batch[n:]...)
	w.inFlight += n
	if n > 0 {
		w.dev.Push()
	}
	return n
}

// pop fills the batch from the avail ring.
func (w *worker) pop() {
	for w.room() {
		ok, err := w.ring.Pop(&w.slot().Chain)
		if err != nil {
			w.breakRing(err)
		}
		if !ok || err != nil {
			return
		}
		w.enlist()
	}
}

// submit gives a request to the device. It is noted once the device has it: before the
// device is told to start, and so before anything can complete.
func (w *worker) submit(r *Request, fresh bool) bool {
	if err := w.dev.Submit(r); err != nil {
		w.breakRing(err)
		return false
	}
	if fresh {
		w.track.Take(r.Head)
		w.next++
	}
	return true
}

// room tells whether another request may join the batch; slot is the one it gets, and
// enlist makes it join.
func (w *worker) room() bool {
	most := w.pace.take
	if w.inFlight == 0 {
		most = w.pace.first
	}
	return len(w.batch) < most && len(w.free) > 0 && w.taking()
}

func (w *worker) slot() *Request { return w.free[len(w.free)-1] }

func (w *worker) enlist() {
	r := w.slot()
	w.free = w.free[:len(w.free)-1]
	w.batch = append(w.batch, r)
	if len(r.Readable) > 0 {
		prefetch.Line(r.Readable[0])
	}
}

// complete is the only place where requests enter the used ring.
func (w *worker) complete() (n int) {
	n = w.dev.Poll(w.done[:w.pace.show])
	for _, r := range w.done[:n] {
		if w.markData(r) {
			w.ring.PushUsed(r.Head, r.Written)
			w.track.Done(r.Head)
		}
		w.free = append(w.free, r)
	}
	w.inFlight -= n
	if n > 0 && w.publish() {
		w.call.signal()
	}
	return n
}

// publish, enableKicks and disableKicks are what writes to the used ring.
func (w *worker) publish() (notify bool) {
	w.track.Seal()
	notify = w.ring.Publish()
	w.track.Published(w.ring.UsedIndex())
	w.markUsed()
	return notify
}

func (w *worker) enableKicks() (pending bool, err error) {
	pending, err = w.ring.EnableKicks()
	w.markUsed()
	return pending, err
}

func (w *worker) disableKicks() {
	w.ring.DisableKicks()
	w.markUsed()
}

// taking tells whether requests may be taken. What a predecessor took is beyond
// leaving in the ring: it is finished even by a worker that is to stop.
func (w *worker) taking() bool { return !w.broken && (!w.stopping || len(w.again) > 0) }

// breakRing ends the taking of requests from a ring that makes no sense.
func (w *worker) breakRing(err error) {
	w.broken = true
	w.err.signal()
	w.log.Warn("ring is broken", "err", err)
}

// sleep waits for whatever comes next, unless a request came in before the driver
// knew that we want a kick for it.
func (w *worker) sleep() {
	if !w.taking() {
		w.wait(nil)
		return
	}
	pending, err := w.enableKicks()
	if err != nil {
		w.breakRing(err)
		return
	}
	if !pending || len(w.free) == 0 {
		w.wait(w.kick)
	}
	w.disableKicks()
}

// wait is the only place where the worker sleeps.
func (w *worker) wait(kick *notifier) {
	w.polls = [3]unix.PollFd{
		{Fd: int32(w.control.FD()), Events: unix.POLLIN},
		{Fd: int32(w.dev.WaitFD()), Events: unix.POLLIN},
		{Fd: kick.waitFD(), Events: unix.POLLIN},
	}
	var timeout *unix.Timespec
	if w.taking() && w.kick == nil {
		t := unix.NsecToTimespec(int64(w.pause))
		timeout, w.pause = &t, min(2*w.pause, maxPause)
	}
	n, err := unix.Ppoll(w.polls[:], timeout, nil)
	if err != nil || n == 0 {
		return // EINTR, or time to look at the ring
	}
	w.pause = minPause
	if w.polls[0].Revents != 0 {
		_, _ = w.control.Clear()
	}
	if w.polls[2].Revents != 0 && !kick.clear(w.kickBuf[:]) {
		w.kick = &notifier{fd: -1} // closed by the front-end: nothing will come
	}
}

// setMemory runs on the worker's goroutine.
func (w *worker) setMemory(t *memory.Table) {
	w.table = t
	w.ring.SetMemory(t)
}
