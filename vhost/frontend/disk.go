package frontend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"

	"golang.org/x/sys/unix"
)

// Disk is a negotiated vhost-user-blk device.
type Disk struct {
	Session *Session
	Memory  *Memory
	// Features and ProtocolFeatures are what was offered and acknowledged, as masks.
	Features         uint64
	ProtocolFeatures uint64
	// Config is the configuration space at the start; ReadConfig reads it anew.
	Config Config

	options Options
	queues  []*Queue
	region  *inflightRegion // nil for none
	hangup  int
	started bool
}

// Open connects to a back-end's socket, negotiates and starts all queues.
func Open(ctx context.Context, path string, o Options) (*Disk, error) {
	s, err := Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return OpenSession(s, o)
}

// OpenSession is Open on a connection that exists. It takes ownership of s, also
// when it fails.
func OpenSession(s *Session, o Options) (*Disk, error) {
	d, err := Connect(s, o)
	if err != nil {
		return nil, err
	}
	if err := d.Start(); err != nil {
		return nil, errors.Join(err, d.free())
	}
	return d, nil
}

// Connect negotiates, reads the configuration space and prepares memory and rings,
// without starting the device. It takes ownership of s, also when it fails.
func Connect(s *Session, o Options) (*Disk, error) {
	d := &Disk{Session: s, options: o, hangup: -1}
	if err := d.connect(); err != nil {
		return nil, errors.Join(err, d.free())
	}
	return d, nil
}

func (d *Disk) connect() error {
	if err := d.options.complete(); err != nil {
		return err
	}
	d.Session.SetTimeout(d.options.Timeout)
	if err := d.negotiate(); err != nil {
		return err
	}
	if err := d.readFirstConfig(); err != nil {
		return err
	}
	return d.allocate()
}

func (d *Disk) allocate() (err error) {
	if err := d.watch(); err != nil {
		return err
	}
	if d.Memory, err = NewMemory(d.options.Layout...); err != nil {
		return err
	}
	rc := RingConfig{Size: d.options.QueueSize, EventIdx: d.Has(virtqueue.FeatureEventIdx)}
	if d.Has(virtqueue.FeatureIndirectDesc) {
		rc.Indirect = max(d.options.Indirect, 0)
	}
	for i := range d.options.Queues {
		q, err := newQueue(i, d.Memory, rc, &d.options, d.hangup)
		if err != nil {
			return err
		}
		d.queues = append(d.queues, q)
	}
	return nil
}

// Reattach puts the disk on another connection, as a front-end does whose back-end
// died. Memory and rings stay as they are, with what is in flight in them; nothing
// is negotiated or started. It closes the session before and takes ownership of s.
func (d *Disk) Reattach(s *Session) error {
	old, hangup := d.Session, d.hangup
	d.Session, d.started = s, false
	var err error
	if d.hangup, err = s.dup(); err != nil {
		d.hangup = -1
		err = fmt.Errorf("watch connection: %w", err)
	}
	for _, q := range d.queues {
		q.hangup = d.hangup
	}
	return errors.Join(err, old.Close(), unix.Close(hangup))
}

// Has tells whether a feature, by its bit number, was negotiated.
func (d *Disk) Has(feature uint) bool { return d.Features&(1<<feature) != 0 }

// HasProtocol tells the same of a protocol feature.
func (d *Disk) HasProtocol(feature uint) bool { return d.ProtocolFeatures&(1<<feature) != 0 }

// Queues are the disk's queues.
func (d *Disk) Queues() []*Queue { return d.queues }

// Queue is one of them.
func (d *Disk) Queue(i int) *Queue { return d.queues[i] }

// Capacity is the size of the disk in bytes, at the start.
func (d *Disk) Capacity() int64 { return int64(d.Config.Capacity * SectorSize) }

// ReadConfig reads the configuration space.
func (d *Disk) ReadConfig() (Config, error) {
	var (
		c Config
		b [ConfigSize]byte
	)
	if err := d.Session.GetConfig(0, b[:]); err != nil {
		return c, err
	}
	return c, c.Decode(b[:])
}

// SetWriteCache switches the write cache (CONFIG_WCE): on, writes are durable
// after a flush; off, when they complete.
func (d *Disk) SetWriteCache(on bool) error {
	wce := []byte{0}
	if on {
		wce[0] = 1
	}
	return d.Session.SetConfig(writebackOffset, protocol.ConfigWritable, wce)
}

// leavePatience is how long Close waits for a back-end that answers to end the session.
const leavePatience = 2 * time.Second

// Close stops the queues if they run and the back-end still answers, leaves it, and frees
// everything.
func (d *Disk) Close() error {
	var err error
	if d.started {
		err = d.Stop()
	}
	if err == nil {
		_ = d.Session.Leave(leavePatience) // who needs to know calls it before
	}
	if errors.Is(err, ErrDisconnected) {
		err = nil
	}
	return errors.Join(err, d.free())
}

func (d *Disk) free() error {
	errs := []error{d.Session.Close()}
	if d.hangup >= 0 {
		errs = append(errs, unix.Close(d.hangup))
	}
	for _, q := range d.queues {
		errs = append(errs, q.close())
	}
	if d.Memory != nil {
		errs = append(errs, d.Memory.Close())
	}
	if d.region != nil {
		errs = append(errs, unix.Close(d.region.fd))
	}
	d.queues, d.Memory, d.hangup, d.region = nil, nil, -1, nil
	return errors.Join(errs...)
}
