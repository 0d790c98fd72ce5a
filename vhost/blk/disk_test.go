package blk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/memory"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

const capacity = 8 << 20

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// newFault is a device in memory that can be told to misbehave.
func newFault(t testing.TB, o memory.Options, fo blockdevtest.FaultOptions) *blockdevtest.Fault {
	t.Helper()
	mem, err := memory.New(capacity, o)
	if err != nil {
		t.Fatal(err)
	}
	f := blockdevtest.NewFault(mem, fo)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close device: %v", err)
		}
	})
	return f
}

// export serves a device until the test ends.
func export(t testing.TB, dev blockdev.Device, o blk.Options) (d *blk.Device, socket string) {
	t.Helper()
	o.Logger = quiet
	d, err := blk.New(dev, o)
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := vhost.Serve(ctx, ln, d, vhost.Options{Logger: quiet}); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); ln.Close() })
	return d, socket
}

// dial opens a disk that the test closes.
func dial(t testing.TB, socket string, o frontend.Options) *frontend.Disk {
	t.Helper()
	o.Timeout = 10 * time.Second
	d, err := frontend.Open(context.Background(), socket, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closeDisk(t testing.TB, d *frontend.Disk) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Errorf("close disk: %v", err)
	}
}

func open(t testing.TB, socket string, o frontend.Options) *frontend.Disk {
	t.Helper()
	d := dial(t, socket, o)
	t.Cleanup(func() { closeDisk(t, d) })
	return d
}

func request(t testing.TB, q *frontend.Queue, typ uint32, sector uint64, n int) *frontend.Request {
	t.Helper()
	r, err := q.NewRequest(n)
	if err != nil {
		t.Fatal(err)
	}
	r.Type, r.Sector = typ, sector
	return r
}

func TestReadsBackWhatWasWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, o := range map[string]frontend.Options{
		"all features":        {},
		"no event index":      {Without: 1 << virtqueue.FeatureEventIdx},
		"no indirect":         {Without: 1 << virtqueue.FeatureIndirectDesc},
		"no protocol":         {Without: 1 << protocol.FeatureProtocolFeatures},
		"memory slots":        {MemorySlots: true},
		"polling driver":      {Polling: true},
		"four queues":         {Queues: 4},
		"merged descriptors":  {Framing: frontend.FrameMerged},
		"random descriptors":  {Framing: frontend.FrameRandom(rng, 20)},
		"empty descriptors":   {Framing: frontend.FrameWithEmpty(rng, frontend.FrameAtMost(40000))},
		"tiny descriptors":    {Framing: frontend.FrameAtMost(5000), QueueSize: 1024, Indirect: 1000},
		"big queue":           {QueueSize: 1024},
		"two regions":         {Layout: []frontend.RegionLayout{{Size: 2 << 20}, {GuestAddr: 2 << 20, Size: 32 << 20}}},
		"regions of one file": {Layout: []frontend.RegionLayout{{Size: 1 << 20}, {GuestAddr: 1 << 32, Size: 32 << 20}}},
	} {
		for _, async := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{Async: async, Order: blockdevtest.Shuffled, Seed: 7})
				d, socket := export(t, dev, blk.Options{NumQueues: 4})
				disk := open(t, socket, o)
				if disk.Has(protocol.FeatureProtocolFeatures) && disk.Capacity() != capacity {
					t.Fatalf("capacity %d", disk.Capacity())
				}
				want := make([]byte, capacity)
				r := rand.NewChaCha8([32]byte{1})
				r.Read(want)
				for i, q := range disk.Queues() {
					part := capacity / len(disk.Queues())
					if _, err := q.WriteAt(want[i*part:(i+1)*part], int64(i*part)); err != nil {
						t.Fatal(err)
					}
				}
				got := make([]byte, capacity)
				if _, err := disk.Queue(0).ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatal("read other bytes than were written")
				}
				if err := disk.Queue(0).Flush(); err != nil {
					t.Fatal(err)
				}
				var total blk.QueueStats
				for _, s := range d.Stats() {
					total.BytesRead += s.BytesRead
					total.BytesWritten += s.BytesWritten
					total.Flushes += s.Flushes
				}
				if (total != blk.QueueStats{BytesRead: capacity, BytesWritten: capacity, Flushes: 1}) {
					t.Fatalf("stats %+v", total)
				}
			})
		}
	}
}

func TestManyRequestsInFlight(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{Async: true, Order: blockdevtest.Shuffled, Seed: 3})
	_, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{QueueSize: 64})
	q := disk.Queue(0)
	requests := make([]*frontend.Request, 64)
	for i := range requests {
		requests[i] = request(t, q, frontend.TypeOut, uint64(i), 512)
		for j := range requests[i].Data {
			requests[i].Data[j] = byte(i)
		}
	}
	for _, typ := range []uint32{frontend.TypeOut, frontend.TypeIn} {
		for i, r := range requests {
			if r.Type = typ; typ == frontend.TypeIn {
				clear(r.Data)
			}
			if err := q.Submit(r); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
		}
		if err := q.Notify(); err != nil {
			t.Fatal(err)
		}
		done := make([]*frontend.Request, 64)
		for n := 0; n < len(requests); {
			k, err := q.Wait(done)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range done[:k] {
				if err := r.Err(); err != nil {
					t.Fatal(err)
				}
			}
			n += k
		}
	}
	for i, r := range requests {
		if r.Data[0] != byte(i) || r.Data[511] != byte(i) {
			t.Errorf("request %d read %d", i, r.Data[0])
		}
	}
}

func TestAnswers(t *testing.T) {
	const (
		ok     = frontend.StatusOK
		ioErr  = frontend.StatusIOErr
		unsupp = frontend.StatusUnsupp
		end    = capacity / 512
	)
	cases := []struct {
		name     string
		typ      uint32
		sector   uint64
		n        int
		status   byte
		written  uint32
		readOnly byte
	}{
		{"read", frontend.TypeIn, 0, 4096, ok, 4097, ok},
		{"read the last block", frontend.TypeIn, end - 1, 512, ok, 513, ok},
		{"read nothing", frontend.TypeIn, 0, 0, ok, 1, ok},
		{"write", frontend.TypeOut, 8, 4096, ok, 1, ioErr},
		{"flush", frontend.TypeFlush, 0, 0, ok, 1, ok},
		{"id", frontend.TypeGetID, 0, 20, ok, 21, ok},
		{"id, long buffer", frontend.TypeGetID, 0, 64, ok, 21, ok},
		{"id without a buffer", frontend.TypeGetID, 0, 0, ioErr, 1, ioErr},
		{"id, short buffer", frontend.TypeGetID, 0, 19, ioErr, 1, ioErr},
		{"read past the end", frontend.TypeIn, end - 1, 1024, ioErr, 1, ioErr},
		{"read at the end", frontend.TypeIn, end, 512, ioErr, 1, ioErr},
		{"read far away", frontend.TypeIn, 1<<64 - 1, 512, ioErr, 1, ioErr},
		{"read where the offset wraps", frontend.TypeIn, 1 << 55, 512, ioErr, 1, ioErr},
		{"read half a sector", frontend.TypeIn, 0, 256, ioErr, 1, ioErr},
		{"read a byte", frontend.TypeIn, 0, 1, ioErr, 1, ioErr},
		{"write past the end", frontend.TypeOut, end - 1, 1024, ioErr, 1, ioErr},
		{"write half a sector", frontend.TypeOut, 0, 513, ioErr, 1, ioErr},
		{"discard", frontend.TypeDiscard, 0, 16, ok, 1, unsupp},
		{"write zeroes", frontend.TypeWriteZeroes, 0, 16, ok, 1, unsupp},
		{"secure erase", 14, 0, 16, unsupp, 1, unsupp},
		{"unknown", 0xffffffff, 0, 512, unsupp, 1, unsupp},
	}
	for _, readOnly := range []bool{false, true} {
		dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
		_, socket := export(t, dev, blk.Options{Serial: "serial", ReadOnly: readOnly})
		disk := open(t, socket, frontend.Options{})
		if disk.Has(frontend.FeatureReadOnly) != readOnly {
			t.Errorf("read-only feature %v, want %v", !readOnly, readOnly)
		}
		for _, c := range cases {
			r := request(t, disk.Queue(0), c.typ, c.sector, c.n)
			if err := disk.Queue(0).Do(r); errors.Is(err, frontend.ErrBackend) {
				t.Fatalf("%s: %v", c.name, err)
			}
			want, written := c.status, c.written
			if readOnly {
				if want = c.readOnly; want != c.status {
					written = 1
				}
			}
			if r.Status != want || r.Written != written {
				t.Errorf("%s, read-only %v: status %d, %d bytes, want %d, %d", c.name, readOnly, r.Status, r.Written, want, written)
			}
		}
		if id, err := disk.Queue(0).GetID(); id != "serial" || err != nil {
			t.Errorf("id %q, %v", id, err)
		}
	}
}

func TestLargeBlocks(t *testing.T) {
	dev := newFault(t, memory.Options{LogicalBlockSize: 4096, PhysicalBlockSize: 16384}, blockdevtest.FaultOptions{})
	_, socket := export(t, dev, blk.Options{MaxQueueSize: 64})
	disk := open(t, socket, frontend.Options{QueueSize: 64})
	c := disk.Config
	if c.BlkSize != 4096 || c.PhysicalBlockExp != 2 || c.MinIOSize != 4 || c.SegMax != 62 || c.Capacity != capacity/512 || c.NumQueues != 1 {
		t.Errorf("config %+v", c)
	}
	for sector, want := range map[uint64]byte{0: frontend.StatusOK, 8: frontend.StatusOK, 1: frontend.StatusIOErr, 4: frontend.StatusIOErr} {
		r := request(t, disk.Queue(0), frontend.TypeIn, sector, 4096)
		disk.Queue(0).Do(r)
		if r.Status != want {
			t.Errorf("read at sector %d: status %d", sector, r.Status)
		}
	}
	r := request(t, disk.Queue(0), frontend.TypeIn, 0, 512)
	if disk.Queue(0).Do(r); r.Status != frontend.StatusIOErr {
		t.Errorf("read of 512 bytes: status %d", r.Status)
	}
}

func TestFeaturesOffered(t *testing.T) {
	for _, c := range []struct {
		lower memory.Options
		opts  blk.Options
		want  []int
	}{
		{memory.Options{}, blk.Options{}, []int{2, 6, 9, 10, 11, 12, 13, 14, 28, 29, 32}},
		{memory.Options{NoDiscard: true}, blk.Options{}, []int{2, 6, 9, 10, 11, 12, 14, 28, 29, 32}},
		{memory.Options{NoWriteZeroes: true}, blk.Options{}, []int{2, 6, 9, 10, 11, 12, 13, 28, 29, 32}},
		{memory.Options{ReadOnly: true}, blk.Options{}, []int{2, 5, 6, 9, 10, 11, 12, 28, 29, 32}},
		{memory.Options{}, blk.Options{ReadOnly: true}, []int{2, 5, 6, 9, 10, 11, 12, 28, 29, 32}},
	} {
		mem, err := memory.New(capacity, c.lower)
		if err != nil {
			t.Fatal(err)
		}
		d, err := blk.New(mem, c.opts)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for i := range 64 {
			if d.Features()&(1<<i) != 0 {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v, %+v: features %v, want %v", c.lower, c.opts, got, c.want)
		}
		mem.Close()
	}
}

func TestOptions(t *testing.T) {
	mem, err := memory.New(capacity, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for _, o := range []blk.Options{
		{NumQueues: -1}, {NumQueues: 17}, {MaxQueueSize: 100}, {MaxQueueSize: 2}, {MaxQueueSize: 65536},
		{Serial: "twenty-one characters"},
	} {
		if _, err := blk.New(mem, o); !errors.Is(err, blk.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := blk.New(mem, blk.Options{NumQueues: 16, MaxQueueSize: 32768, Serial: "20 characters exactly"[:20]}); err != nil {
		t.Error(err)
	}
}

func TestBackendErrors(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
	d, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{})
	q := disk.Queue(0)
	for _, e := range []error{unix.EIO, unix.ENOSPC, blockdev.ErrShort} {
		for _, typ := range []uint32{frontend.TypeIn, frontend.TypeOut, frontend.TypeFlush} {
			dev.FailNth(1, e)
			n := 512
			if typ == frontend.TypeFlush {
				n = 0
			}
			r := request(t, q, typ, 0, n)
			if err := q.Do(r); !errors.Is(err, frontend.ErrIO) || r.Written != 1 {
				t.Errorf("%v, type %d: %v, %d bytes", e, typ, err, r.Written)
			}
		}
	}
	if s := d.Stats()[0]; s.NoSpace != 3 || s.Failed != 6 || s.Reads+s.Writes+s.Flushes != 0 {
		t.Errorf("stats %+v", s)
	}
	if err := q.Do(request(t, q, frontend.TypeIn, 0, 512)); err != nil {
		t.Errorf("after the errors: %v", err)
	}
}

func TestWriteThrough(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
	_, socket := export(t, dev, blk.Options{})
	var fua, writes atomic.Int64
	dev.OnSubmit(func(r *blockdev.Request) error {
		if r.Op == blockdev.Write {
			writes.Add(1)
		}
		if r.FUA {
			fua.Add(1)
		}
		return nil
	})
	check := func(disk *frontend.Disk, want bool) {
		t.Helper()
		fua.Store(0)
		writes.Store(0)
		if err := disk.Queue(0).Do(request(t, disk.Queue(0), frontend.TypeOut, 0, 512)); err != nil {
			t.Fatal(err)
		}
		if err := disk.Queue(0).Do(request(t, disk.Queue(0), frontend.TypeIn, 0, 512)); err != nil {
			t.Fatal(err)
		}
		if writes.Load() != 1 || (fua.Load() == 1) != want {
			t.Errorf("%d writes, %d write-through, want %v", writes.Load(), fua.Load(), want)
		}
	}
	wce := func(disk *frontend.Disk, want uint8) {
		t.Helper()
		c, err := disk.ReadConfig()
		if err != nil || c.Writeback != want {
			t.Errorf("write cache %d, %v, want %d", c.Writeback, err, want)
		}
	}
	disk := dial(t, socket, frontend.Options{})
	wce(disk, 1)
	check(disk, false)
	if err := disk.SetWriteCache(false); err != nil {
		t.Fatal(err)
	}
	wce(disk, 0)
	check(disk, true)
	if err := disk.Session.SetConfig(32, 0, []byte{2}); !errors.Is(err, frontend.ErrRefused) {
		t.Errorf("write cache set to 2: %v", err)
	}
	if err := disk.Session.SetConfig(0, 0, []byte{1}); !errors.Is(err, frontend.ErrRefused) {
		t.Errorf("capacity set: %v", err)
	}
	closeDisk(t, disk)
	disk = dial(t, socket, frontend.Options{})
	wce(disk, 0) // the guest behind a front-end that reconnects still relies on it
	check(disk, true)
	if err := disk.SetWriteCache(true); err != nil {
		t.Fatal(err)
	}
	check(disk, false)
	closeDisk(t, disk)
	disk = dial(t, socket, frontend.Options{Without: 1<<frontend.FeatureFlush | 1<<frontend.FeatureConfigWCE})
	check(disk, true)
	closeDisk(t, disk)
	disk = dial(t, socket, frontend.Options{Without: 1 << frontend.FeatureFlush})
	wce(disk, 0)
	check(disk, true)
	if err := disk.SetWriteCache(true); err != nil {
		t.Fatal(err)
	}
	check(disk, true) // it still cannot flush
	closeDisk(t, disk)
}

// TestCacheIsEmptyWhenOff: a driver that turns the write cache off sends no flush for what
// it wrote before, be that complete or in flight.
func TestCacheIsEmptyWhenOff(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{Async: true})
	var clock fault.Clock
	log := fault.NewLog(&clock, 512)
	_, socket := export(t, fault.Record(dev, log, 0), blk.Options{})
	disk := open(t, socket, frontend.Options{})
	q := disk.Queue(0)
	if err := q.Do(request(t, q, frontend.TypeOut, 0, 512)); err != nil {
		t.Fatal(err)
	}
	if may := log.Versions(clock.Now())[0]; len(may) != 2 {
		t.Fatalf("with the cache on a sector holds one of %d", len(may))
	}
	taken := make(chan bool, 1)
	dev.OnSubmit(func(r *blockdev.Request) error {
		if r.Op == blockdev.Write {
			taken <- true
		}
		return nil
	})
	dev.Add(fault.Rule{Ops: []blockdev.Op{blockdev.Write}, Delay: 50 * time.Millisecond})
	late := request(t, q, frontend.TypeOut, 1, 512)
	if err := errors.Join(q.Submit(late), q.Notify()); err != nil {
		t.Fatal(err)
	}
	<-taken
	if err := disk.SetWriteCache(false); err != nil {
		t.Fatal(err)
	}
	for offset, may := range log.Versions(clock.Now()) {
		if len(may) != 1 {
			t.Errorf("the sector at %d holds one of %d when the power fails", offset, len(may))
		}
	}
	if n, err := q.Wait(make([]*frontend.Request, 1)); n != 1 || err != nil || late.Err() != nil {
		t.Errorf("the write in flight: %d, %v, %v", n, err, late.Err())
	}
}

// TestCacheStaysOnUnlessEmpty: a driver that knows that the cache is on goes on to flush.
func TestCacheStaysOnUnlessEmpty(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
	d, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{})
	wantOn := func(want uint8) {
		t.Helper()
		if c, err := disk.ReadConfig(); err != nil || c.Writeback != want {
			t.Errorf("write cache %d, %v, want %d", c.Writeback, err, want)
		}
		if err := disk.Queue(0).Do(request(t, disk.Queue(0), frontend.TypeIn, 0, 512)); err != nil {
			t.Error(err)
		}
	}
	dev.Add(fault.Rule{Ops: []blockdev.Op{blockdev.Flush}, Count: 1, Err: unix.EIO})
	if err := disk.SetWriteCache(false); !errors.Is(err, frontend.ErrRefused) {
		t.Errorf("turned off, and the flush failed: %v", err)
	}
	wantOn(1)
	d.Pause()
	if err := disk.SetWriteCache(false); !errors.Is(err, frontend.ErrRefused) {
		t.Errorf("turned off while paused: %v", err)
	}
	d.Resume()
	wantOn(1)
	if err := disk.SetWriteCache(false); err != nil {
		t.Error(err)
	}
	wantOn(0)
}

// TestCacheModeOutlivesTheDriver: QEMU may have read the field while a driver without
// FLUSH ran, and tells the next driver what it read. That one then sends no flush.
func TestCacheModeOutlivesTheDriver(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
	_, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{Without: 1 << frontend.FeatureFlush})
	first, err := disk.ReadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Session.SetFeatures(disk.Features | 1<<frontend.FeatureFlush); err != nil {
		t.Fatal(err)
	}
	durable := make(chan bool, 1)
	dev.OnSubmit(func(r *blockdev.Request) error { durable <- r.FUA; return nil })
	if err := disk.Queue(0).Do(request(t, disk.Queue(0), frontend.TypeOut, 0, 512)); err != nil {
		t.Fatal(err)
	}
	if on := first.Writeback == 1; on || !<-durable {
		t.Errorf("write cache on: %v, and then a write is volatile", on)
	}
}

// TestNoAllocation drives the real path, socket and worker included, and counts
// what the whole process allocates.
func TestNoAllocation(t *testing.T) {
	dev, err := memory.New(capacity, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	_, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{})
	q := disk.Queue(0)
	read, write := request(t, q, frontend.TypeIn, 0, 4096), request(t, q, frontend.TypeOut, 8, 4096)
	flush, id := request(t, q, frontend.TypeFlush, 0, 0), request(t, q, frontend.TypeGetID, 0, 20)
	discard, zero := eraseRequest(t, q, frontend.TypeDiscard), eraseRequest(t, q, frontend.TypeWriteZeroes)
	n := testing.AllocsPerRun(200, func() {
		for _, r := range []*frontend.Request{read, write, flush, id, discard, zero} {
			if err := q.Do(r); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations in 6 requests", n)
	}
}
