package bench

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"sealblk/bench/explain"
	"sealblk/vhost/frontend"
	"sealblk/vhost/virtqueue"
)

// Endpoint is a server that listens.
type Endpoint struct {
	// Name of the target in results.
	Name string
	// Socket is the path of its vhost-user socket.
	Socket string
	// PID of the server's process; 0: whoever listens on the socket.
	PID int
	// SectorSize of the encryption, in bytes; 0 for none, or not known.
	SectorSize int
}

// patience is how long a server may take over one answer or request.
const patience = 20 * time.Second

// Run drives a server with a workload. While it runs the process collects no garbage.
// With Verify all blocks are written first, and read once more at the end.
func Run(ctx context.Context, e Endpoint, w Workload, p Placement) (*Result, error) {
	return runOnce(ctx, e, w, p, false)
}

func runOnce(ctx context.Context, e Endpoint, w Workload, p Placement, watched bool) (*Result, error) {
	if err := w.Check(); err != nil {
		return nil, err
	}
	r, err := newRig(ctx, e, &w, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Name, err)
	}
	r.explain = watched
	result, err := r.run(ctx)
	if err := errors.Join(err, r.close()); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", e.Name, w.Name(), err)
	}
	return result, nil
}

// Fill writes pseudo-random bytes to the first size bytes of a device, or to all of
// it: where nothing was written a server may read zeros without any work.
func Fill(ctx context.Context, e Endpoint, size int64, p Placement) error {
	w := Workload{RW: Write, BlockSize: 128 << 10, IODepth: 8, Queues: 1, Runtime: 1, Size: size, Polling: true}
	r, err := newRig(ctx, e, &w, p)
	if err == nil {
		err = errors.Join(r.each(ctx, func(g *generator) error { return g.sweep(frontend.TypeOut) }), r.close())
	}
	if err != nil {
		return fmt.Errorf("%s: fill device: %w", e.Name, err)
	}
	return nil
}

// rig is a front-end ready to run.
type rig struct {
	endpoint   Endpoint
	workload   *Workload
	placement  Placement
	disk       *frontend.Disk
	generators []*generator
	restore    func()

	explain     bool
	collector   *explain.Collector // while it is attached
	explanation *Explanation
}

func newRig(ctx context.Context, e Endpoint, w *Workload, p Placement) (*rig, error) {
	s, err := frontend.Dial(ctx, e.Socket)
	if err := ctx.Err(); err != nil { // which the dialler words in another way
		return nil, errors.Join(err, closeSession(s))
	}
	if err != nil {
		return nil, err
	}
	if e.PID == 0 {
		if e.PID, err = s.Peer(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	d, err := frontend.OpenSession(s, diskOptions(w))
	if err != nil {
		return nil, err
	}
	r := &rig{endpoint: e, workload: w, placement: p, disk: d, restore: func() {}}
	if err := r.build(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.restore = quiet(w.Queues)
	return r, nil
}

func closeSession(s *frontend.Session) error {
	if s == nil {
		return nil
	}
	return s.Close()
}

func diskOptions(w *Workload) frontend.Options {
	descriptors := 3 * w.IODepth
	o := frontend.Options{Queues: w.Queues, Indirect: -1, Polling: w.Polling, Timeout: patience}
	if w.Indirect {
		descriptors = w.IODepth
		o.Require = 1 << virtqueue.FeatureIndirectDesc
	}
	o.QueueSize = max(64, 1<<bits.Len(uint(descriptors-1)))
	// What the slots take for each request is its data, in whole pages, and less than
	// another page; the rings take less than the rest.
	const page, spare = 4096, 2 << 20
	perSlot := (w.BlockSize+page-1)/page*page + page
	size := w.Queues*(w.IODepth*perSlot+spare) + spare
	const huge = 2 << 20
	o.Layout = []frontend.RegionLayout{{Size: uint64(size+huge-1) / huge * huge, HugePages: true}}
	return o
}

func (r *rig) build() error {
	w := r.workload
	if err := r.checkDevice(); err != nil {
		return err
	}
	blocks, err := w.blocks(r.disk.Capacity())
	if err != nil {
		return err
	}
	polls := 0 // as the front-end likes it
	if crowded(r.placement, w.Queues) {
		polls = crowdedPolls
	}
	for i, q := range r.disk.Queues() {
		g, err := newGenerator(q, w, i, blocks, polls)
		if err != nil {
			return err
		}
		r.generators = append(r.generators, g)
	}
	return nil
}

// crowdedPolls is how often the front-end looks before it lets others run, where they
// have no CPU of their own.
const crowdedPolls = 64

func (r *rig) checkDevice() error {
	c, w := &r.disk.Config, r.workload
	switch {
	case r.disk.Has(frontend.FeatureBlkSize) && w.BlockSize%int(c.BlkSize) != 0:
		return fmt.Errorf("block size %d on a device with blocks of %d: %w", w.BlockSize, c.BlkSize, ErrWorkload)
	// Some servers offer the limit and set none.
	case r.disk.Has(frontend.FeatureSizeMax) && c.SizeMax > 0 && uint32(w.BlockSize) > c.SizeMax:
		return fmt.Errorf("block size %d on a device that takes segments of %d: %w", w.BlockSize, c.SizeMax, ErrWorkload)
	case r.disk.Has(frontend.FeatureReadOnly) && w.Writes():
		return fmt.Errorf("the device is read-only: %w", ErrWorkload)
	}
	return nil
}

// quiet keeps the Go runtime out of the way: no collections, and a processor for each
// queue beside those for the rest.
func quiet(queues int) (restore func()) {
	runtime.GC()
	percent := debug.SetGCPercent(-1)
	procs := runtime.GOMAXPROCS(0)
	if procs < queues+2 {
		runtime.GOMAXPROCS(queues + 2)
	}
	return func() {
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	}
}

func (r *rig) close() error {
	r.restore()
	return errors.Join(r.endCollector(), r.disk.Close())
}

// each runs f for all generators side by side, each on a thread of its own. When the
// context ends, or one fails, all stop.
func (r *rig) each(ctx context.Context, f func(*generator) error) error {
	errs := make([]error, len(r.generators))
	var all sync.WaitGroup
	for i, g := range r.generators {
		all.Go(func() {
			errs[i] = onCPUs(r.placement.pick(i), func() error { return f(g) })
			if errs[i] != nil {
				r.stop()
			}
		})
	}
	finished := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { r.interrupt(ctx, finished) })
	all.Wait()
	close(finished)
	watch.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// grace is how long requests in flight may take after an interrupt.
const grace = time.Second

// interrupt stops the generators when the context ends, and the session of a server
// that does not answer.
func (r *rig) interrupt(ctx context.Context, finished <-chan struct{}) {
	select {
	case <-finished:
		return
	case <-ctx.Done():
	}
	r.stop()
	select {
	case <-finished:
	case <-time.After(grace):
		r.disk.Session.Interrupt()
	}
}

func (r *rig) stop() {
	for _, g := range r.generators {
		g.stop.Store(true)
	}
}

func (r *rig) run(ctx context.Context) (*Result, error) {
	if err := r.sweep(ctx, frontend.TypeOut); err != nil {
		return nil, err
	}
	use, err := r.measure(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.sweep(ctx, frontend.TypeIn); err != nil {
		return nil, err
	}
	return r.result(use), nil
}

// sweep writes or reads all blocks, to verify them.
func (r *rig) sweep(ctx context.Context, typ uint32) error {
	if !r.workload.Verify {
		return nil
	}
	return r.each(ctx, func(g *generator) error { return g.sweep(typ) })
}

// mark is how far a run is: what the server has used, in nanoseconds, when so many
// requests were complete.
type mark struct {
	cpu       int64
	completed uint64
}

// measure runs the workload, and tells what the server used meanwhile. CPU time is
// read by the first generator, just when it begins and ends to measure: the goroutine
// that counts the rest may come late where all CPUs are busy.
func (r *rig) measure(ctx context.Context) (serverUse, error) {
	pids, err := processTree(r.endpoint.PID)
	if err != nil {
		return serverUse{}, err
	}
	if err := r.collect(pids); err != nil {
		return serverUse{}, err
	}
	first := r.generators[0]
	first.mark = func() mark { return mark{cpuTimes(pids), r.completed()} }
	start := time.Now()
	ramp, runtime := r.workload.Ramp, r.workload.Runtime
	if err := r.collectBetween(start.Add(ramp), runtime); err != nil {
		return serverUse{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	var use serverUse
	var useErr error
	watch.Go(func() { use.counts, useErr = watchServer(ctx, pids, start.Add(ramp), runtime) })
	err = r.each(ctx, func(g *generator) error { return g.run(start, ramp, runtime) })
	if err != nil {
		cancel()
	}
	watch.Wait()
	use.cpu = first.end.cpu - first.begun.cpu
	use.completed = first.end.completed - first.begun.completed
	if err := errors.Join(err, useErr); err != nil {
		return use, err
	}
	return use, r.collected()
}

func (r *rig) completed() (n uint64) {
	for _, g := range r.generators {
		n += g.completed.Load()
	}
	return n
}

// serverUse is what a server used: CPU time, in nanoseconds, while it completed so many
// requests, and the rest.
type serverUse struct {
	cpu       int64
	completed uint64
	counts    Usage
}

// watchServer compares what processes have used at two times.
func watchServer(ctx context.Context, pids []int, from time.Time, d time.Duration) (Usage, error) {
	before, err := sampleAt(ctx, from, pids)
	if err != nil {
		return Usage{}, err
	}
	after, err := sampleAt(ctx, from.Add(d), pids)
	return after.since(before), err
}

func sampleAt(ctx context.Context, at time.Time, pids []int) (Usage, error) {
	select {
	case <-ctx.Done():
		return Usage{}, nil
	case <-time.After(time.Until(at)):
		return usage(pids)
	}
}
