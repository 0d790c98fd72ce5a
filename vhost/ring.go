package vhost

import (
	"errors"
	"fmt"
	"log/slog"

	"sealblk/vhost/memory"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// ring is a virtqueue as the session sees it. Two states are independent of each
// other: started or stopped, enabled or disabled. Only a ring that is both has a
// worker.
//
//	             size, addresses, memory            first kick, no kick
//	               and a kick descriptor            descriptor at all, or
//	┌─────────┐                      ┌───────┐     served by another ┌─────────┐
//	│ stopped │─────────────────────▶│ armed │──────────────────────▶│ started │
//	└─────────┘                      └───────┘                       └─────────┘
//	     ▲                               │                             │     │
//	     └───────────────────────────────┴──────── GET_VRING_BASE ─────┘     │
//	                                            (drains, drops the kick)     │
//	                                                                         ▼
//	             SET_VRING_ENABLE 1,                          ┌──────────────────────────┐
//	             or features without bit 30                   │ enabled: worker runs     │
//	┌──────────┐─────────────────────────────▶┌─────────┐     │   malformed: worker only │
//	│ disabled │                              │ enabled │     │   drains ("broken")      │
//	└──────────┘◀─────────────────────────────└─────────┘     │ disabled: no worker,     │
//	             SET_VRING_ENABLE 0 (drains)                  │   requests stay in the   │
//	                                                          │   avail ring             │
//	                                                          └──────────────────────────┘
//
// While the device is paused ([Pausing]) a ring goes through the same states, and no ring
// has a worker, as if each of them were disabled.
//
// A worker that starts looks at the avail ring before it sleeps, so a kick that
// came while there was none is not lost. The session leaves the first kick in its
// descriptor.
type ring struct {
	index   int
	size    int
	addr    protocol.VringAddr
	hasAddr bool
	next    uint16 // where the ring goes on, while there is no worker

	kick, call, err *notifier
	hasKick         bool // SET_VRING_KICK came; without a descriptor the ring is polled
	started         bool
	enabled         bool
	served          bool // by another back-end, which may have taken the first kick with it
	worker          *worker
}

// armed tells whether the ring starts with the next kick.
func (r *ring) armed() bool { return !r.started && r.hasKick && r.size > 0 && r.hasAddr }

// parts finds the parts of the ring in shared memory.
func (r *ring) parts(t *memory.Table) (c virtqueue.Config, err error) {
	find := func(name string, addr uint64, n int) []byte {
		b, e := t.TranslateUser(addr, uint64(n))
		if e != nil && err == nil {
			err = fmt.Errorf("find %s of ring %d: %w", name, r.index, e)
		}
		return b
	}
	c = virtqueue.Config{
		Size:      r.size,
		Desc:      find("descriptor table", r.addr.Descriptor, virtqueue.DescTableSize(r.size)),
		Avail:     find("avail ring", r.addr.Available, virtqueue.AvailSize(r.size)),
		Used:      find("used ring", r.addr.Used, virtqueue.UsedSize(r.size)),
		NextAvail: r.next,
	}
	return c, err
}

// advance starts what may run: a ring whose time has come, and its worker.
func (s *session) advance(r *ring) error {
	if r.armed() && (r.kick == nil || r.served && s.table.Len() > 0) {
		r.started, r.served = true, false
	}
	if !r.started || !r.enabled || r.worker != nil || !s.mayLaunch() {
		return nil
	}
	err := s.launch(r)
	if errors.Is(err, ErrPaused) { // since a moment ago
		s.paused = true
		return nil
	}
	if err != nil {
		r.err.signal()
		return fmt.Errorf("start ring %d: %w", r.index, err)
	}
	return nil
}

func (s *session) launch(r *ring) error {
	parts, err := r.parts(s.table)
	if err != nil {
		return err
	}
	parts.Indirect = s.features&(1<<virtqueue.FeatureIndirectDesc) != 0
	parts.Writes = s.features&(1<<protocol.FeatureLogAll) != 0
	parts.EventIdx = s.features&(1<<virtqueue.FeatureEventIdx) != 0
	r.worker, err = startWorker(workerConfig{
		ring:    parts,
		queue:   QueueConfig{Index: r.index, Size: r.size, Features: s.features},
		table:   s.table,
		region:  s.region,
		device:  s.dev,
		kick:    r.kick,
		call:    r.call,
		err:     r.err,
		dirty:   s.dirty(r),
		pollMax: s.pollMax,
		log:     s.log.With(slog.Int("ring", r.index)),
		onFault: s.fail,
	})
	return err
}

// halt drains the ring and ends its worker; the ring stays started.
func (s *session) halt(r *ring) error {
	if r.worker == nil {
		return nil
	}
	next, err := r.worker.stop()
	r.next, r.worker = next, nil
	if err != nil {
		return fmt.Errorf("stop ring %d: %w", r.index, err)
	}
	return nil
}

// swap puts another descriptor in the place of one of the ring's. The function
// shows it to the worker, which may be about to use the old one.
func (r *ring) swap(place **notifier, n *notifier, show func(*worker)) {
	if w := r.worker; w != nil {
		w.do(func() { show(w) })
	}
	(*place).close()
	*place = n
}

func (r *ring) close() {
	r.kick.close()
	r.call.close()
	r.err.close()
	r.kick, r.call, r.err = nil, nil, nil
}
