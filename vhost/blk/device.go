package blk

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/bits"
	"sync/atomic"

	"sealblk/blockdev"
	"sealblk/vhost"
	"sealblk/vhost/virtqueue"
)

const (
	// MaxQueues is the largest Options.NumQueues.
	MaxQueues = 16

	defaultQueueSize = 1024
	// segMax is how many pieces the data of a request may have, by what is
	// announced: the most that fit a queue of 128 with header and status.
	segMax = 126
)

// Options of a Device. The zero Options are a writable disk with one queue.
type Options struct {
	// Serial is what GET_ID answers, up to 20 bytes.
	Serial string
	// NumQueues is 1 to MaxQueues; 0 is 1.
	NumQueues int
	// MaxQueueSize is a power of two, at least 4; 0 is 1024.
	MaxQueueSize int
	// ReadOnly makes a read-only disk also of a writable device.
	ReadOnly bool
	// Logger takes a line for the first request of a queue that the block device
	// fails; the rest is counted. Nil is slog.Default().
	Logger *slog.Logger
}

func (o *Options) complete() error {
	if o.NumQueues == 0 {
		o.NumQueues = 1
	}
	if o.MaxQueueSize == 0 {
		o.MaxQueueSize = defaultQueueSize
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case o.NumQueues < 1 || o.NumQueues > MaxQueues:
		return fmt.Errorf("%d queues, not 1 to %d: %w", o.NumQueues, MaxQueues, ErrOptions)
	case o.MaxQueueSize < 4 || !virtqueue.ValidSize(o.MaxQueueSize):
		return fmt.Errorf("queue size %d, not a power of two from 4 to %d: %w", o.MaxQueueSize, virtqueue.MaxSize, ErrOptions)
	case len(o.Serial) > idSize:
		return fmt.Errorf("serial of %d bytes, more than %d: %w", len(o.Serial), idSize, ErrOptions)
	}
	return nil
}

// Device is a virtio block device.
type Device struct {
	dev      blockdev.Device
	opts     Options
	readOnly bool
	id       [idSize]byte
	// writeback is the write cache field, on at the start.
	writeback atomic.Bool
	counters  []counters // by queue
	watchers  watchers
	gate      gate
}

// memoWriteback of a memo: the write cache is on.
const memoWriteback = 1 << 0

var (
	_ vhost.Device      = (*Device)(nil)
	_ vhost.Remembering = (*Device)(nil)
	_ vhost.Negotiating = (*Device)(nil)
)

// New makes a virtio block device of dev, which stays the caller's and must be open
// while the Device is served.
func New(dev blockdev.Device, o Options) (*Device, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	d := &Device{dev: dev, opts: o, readOnly: o.ReadOnly || dev.Info().ReadOnly, counters: make([]counters, o.NumQueues)}
	copy(d.id[:], o.Serial)
	d.writeback.Store(true)
	d.gate.left.L = &d.gate.mu
	return d, nil
}

// Features are the features that it offers.
func (d *Device) Features() uint64 {
	f := uint64(1)<<virtqueue.FeatureVersion1 | 1<<virtqueue.FeatureIndirectDesc | 1<<virtqueue.FeatureEventIdx |
		1<<featureSegMax | 1<<featureBlkSize | 1<<featureFlush | 1<<featureTopology | 1<<featureConfigWCE | 1<<featureMQ
	if d.readOnly {
		return f | 1<<featureReadOnly
	}
	can := d.dev.Info().Features
	if can.Discard {
		f |= 1 << featureDiscard
	}
	if can.WriteZeroes {
		f |= 1 << featureWriteZeroes
	}
	return f
}

// NumQueues is Options.NumQueues.
func (d *Device) NumQueues() int { return d.opts.NumQueues }

// MaxQueueSize is Options.MaxQueueSize.
func (d *Device) MaxQueueSize() int { return d.opts.MaxQueueSize }

// ReadConfig copies the configuration space.
func (d *Device) ReadConfig(p []byte, offset int) {
	clear(p)
	config := d.config()
	if offset < len(config) {
		copy(p, config[offset:])
	}
}

func (d *Device) config() (c [configSize]byte) {
	info := d.dev.Info()
	le := binary.LittleEndian
	blocks := info.PhysicalBlockSize / info.LogicalBlockSize
	le.PutUint64(c[configCapacity:], uint64(info.Capacity)>>sectorShift)
	le.PutUint32(c[configSegMax:], uint32(min(segMax, d.opts.MaxQueueSize-2)))
	le.PutUint32(c[configBlkSize:], uint32(info.LogicalBlockSize))
	c[configPhysicalExp] = uint8(bits.Len(uint(blocks)) - 1)
	le.PutUint16(c[configMinIO:], uint16(blocks))
	if d.writeback.Load() {
		c[configWriteback] = 1
	}
	le.PutUint16(c[configNumQueues:], uint16(d.opts.NumQueues))
	d.eraseLimits(c[:], &info)
	return c
}

// eraseLimits are the fields that only mean something with DISCARD or WRITE_ZEROES.
func (d *Device) eraseLimits(c []byte, info *blockdev.Info) {
	le := binary.LittleEndian
	offered := d.Features()
	if offered&(1<<featureDiscard) != 0 {
		le.PutUint32(c[configMaxDiscardSectors:], maxDiscardSectors)
		le.PutUint32(c[configMaxDiscardSeg:], maxSegments)
		le.PutUint32(c[configDiscardAlignment:], uint32(info.PhysicalBlockSize>>sectorShift))
	}
	if offered&(1<<featureWriteZeroes) != 0 {
		le.PutUint32(c[configMaxWriteZeroesSectors:], maxWriteZeroesSectors)
		le.PutUint32(c[configMaxWriteZeroesSeg:], maxSegments)
		if info.Features.ZeroesUnmap {
			c[configWriteZeroesMayUnmap] = 1
		}
	}
}

// WriteConfig changes the write cache field; no other is writable. The cache is off once it
// is empty: a driver that turned it off sends no flush for what it wrote before. (Clause
// 5.2.6.2 would have such writes stay volatile. But Linux counts them as durable from then
// on.) If it cannot be emptied it stays on, and the driver goes on to flush.
func (d *Device) WriteConfig(p []byte, offset int) error {
	if offset != configWriteback || len(p) != 1 || p[0] > 1 {
		return fmt.Errorf("write %d bytes at %d: %w", len(p), offset, ErrConfig)
	}
	on := p[0] == 1
	if !on {
		if err := d.flush(); err != nil {
			return fmt.Errorf("turn the write cache off: %w", err)
		}
	}
	d.writeback.Store(on)
	return nil
}

// Negotiated turns the write cache off for a driver that can read and set the field and
// cannot flush, as clause 5.2.5.2 has it. It stays off for the driver after that one: QEMU
// may have read the field meanwhile and go on with what it read, and a driver that is told
// of no write cache sends no flush.
func (d *Device) Negotiated(features uint64) {
	if features&(1<<featureConfigWCE) != 0 && features&(1<<featureFlush) == 0 {
		d.writeback.Store(false)
	}
}

// Memo is the write cache field.
func (d *Device) Memo() uint16 {
	if d.writeback.Load() {
		return memoWriteback
	}
	return 0
}

// Remember sets the write cache field to what it was. Where that is not known, a driver
// that turned the write cache off, and so sends no flush, is served too.
func (d *Device) Remember(memo uint16, known bool) {
	d.writeback.Store(known && memo&memoWriteback != 0)
}

// OpenQueue opens a queue of the block device.
func (d *Device) OpenQueue(c vhost.QueueConfig) (vhost.Queue, error) {
	if err := d.gate.enter(); err != nil {
		return nil, err
	}
	bq, err := d.dev.OpenQueue(blockdev.QueueConfig{Depth: c.Size})
	if err != nil {
		d.gate.leave()
		return nil, err
	}
	return newQueue(d, bq, c), nil
}
