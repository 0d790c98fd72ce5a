package frontend

import (
	"fmt"

	"sealblk/vhost/protocol"
)

// negotiate follows the order in which QEMU sends its messages when the device is
// realised: features, protocol features, what they open, owner.
func (d *Disk) negotiate() error {
	offered, err := d.Session.GetFeatures()
	if err != nil {
		return err
	}
	if d.Features, err = choose("feature", offered, known&^d.options.Without, d.options.Require); err != nil {
		return err
	}
	if d.Has(protocol.FeatureProtocolFeatures) {
		if err := d.negotiateProtocol(); err != nil {
			return err
		}
	}
	if err := d.checkLimits(); err != nil {
		return err
	}
	if d.HasProtocol(protocol.ProtocolBackendReq) {
		if err := d.Session.ServeBackendChannel(d.backendMessage); err != nil {
			return err
		}
	}
	return d.Session.SetOwner()
}

func choose(what string, offered, wanted, required uint64) (uint64, error) {
	if missing := required &^ offered; missing != 0 {
		return 0, fmt.Errorf("%ss %#x: %w", what, missing, ErrNotOffered)
	}
	return offered & wanted, nil
}

func (d *Disk) negotiateProtocol() error {
	offered, err := d.Session.GetProtocolFeatures()
	if err != nil {
		return err
	}
	wanted := knownProtocol &^ d.options.WithoutProtocol
	if d.ProtocolFeatures, err = choose("protocol feature", offered, wanted, d.options.RequireProtocol); err != nil {
		return err
	}
	return d.Session.SetProtocolFeatures(d.ProtocolFeatures)
}

// checkLimits compares the options with what the back-end can do.
func (d *Disk) checkLimits() error {
	queues := uint64(1)
	if d.HasProtocol(protocol.ProtocolMQ) {
		var err error
		if queues, err = d.Session.GetQueueNum(); err != nil {
			return err
		}
	}
	if uint64(d.options.Queues) > queues {
		return fmt.Errorf("%d queues of %d: %w", d.options.Queues, queues, ErrNotOffered)
	}
	if !d.options.MemorySlots {
		return nil
	}
	if !d.HasProtocol(protocol.ProtocolConfigureMemSlots) {
		return fmt.Errorf("memory slots: %w", ErrNotOffered)
	}
	slots, err := d.Session.GetMaxMemSlots()
	if err != nil {
		return err
	}
	if uint64(len(d.options.Layout)) > slots {
		return fmt.Errorf("%d memory slots of %d: %w", len(d.options.Layout), slots, ErrNotOffered)
	}
	return nil
}

func (d *Disk) readFirstConfig() (err error) {
	if d.HasProtocol(protocol.ProtocolConfig) {
		d.Config, err = d.ReadConfig()
	}
	return err
}

// backendMessage answers the back-end channel. Like QEMU it reads the
// configuration space before it answers.
func (d *Disk) backendMessage(r protocol.BackendRequest, payload []byte) error {
	if r != protocol.BackendConfigChangeMsg {
		return fmt.Errorf("%v: %w", r, ErrUnsupported)
	}
	if err := protocol.DecodeEmpty(payload); err != nil {
		return err
	}
	c, err := d.ReadConfig()
	if err != nil {
		return err
	}
	if d.options.ConfigChanged != nil {
		d.options.ConfigChanged(c)
	}
	return nil
}

// Start hands over memory and rings and enables them, in QEMU's order. After a
// Stop it goes on where the rings stopped.
func (d *Disk) Start() error {
	if err := d.Session.SetFeatures(d.Features); err != nil {
		return err
	}
	if err := d.shareInflight(); err != nil {
		return err
	}
	if err := d.shareMemory(); err != nil {
		return err
	}
	d.started = true
	for _, q := range d.queues {
		if err := d.startRing(q); err != nil {
			return fmt.Errorf("start queue %d: %w", q.index, err)
		}
	}
	return d.enable(true)
}

func (d *Disk) shareMemory() error {
	if d.options.MemorySlots {
		return d.addRegions()
	}
	table, fds, err := d.Memory.Table()
	if err != nil {
		return err
	}
	return d.Session.SetMemTable(table, fds...)
}

func (d *Disk) addRegions() error {
	for i := range d.Memory.Regions {
		r := &d.Memory.Regions[i]
		if err := d.Session.AddMemReg(r.MemoryRegion, r.FD); err != nil {
			return fmt.Errorf("add region %d: %w", i, err)
		}
	}
	return nil
}

func (d *Disk) startRing(q *Queue) error {
	s := d.Session
	if err := s.SetVringNum(q.index, uint32(q.Ring.Size())); err != nil {
		return err
	}
	if err := s.SetVringBase(q.index, uint32(q.base)); err != nil {
		return err
	}
	if err := s.SetVringAddr(q.Ring.Addr(q.index)); err != nil {
		return err
	}
	if err := s.SetVringErr(uint8(q.index), q.Err.FD()); err != nil {
		return err
	}
	if err := s.SetVringCall(uint8(q.index), q.Call.FD()); err != nil {
		return err
	}
	if err := s.SetVringKick(uint8(q.index), q.Kick.FD()); err != nil {
		return err
	}
	// A ring starts with its first kick, and there may be requests in it already.
	return q.Kick.Signal()
}

// enable is for sessions with protocol features; without, rings are enabled from
// the start.
func (d *Disk) enable(on bool) error {
	if !d.Has(protocol.FeatureProtocolFeatures) {
		return nil
	}
	for _, q := range d.queues {
		if err := d.Session.SetVringEnable(q.index, on); err != nil {
			return fmt.Errorf("enable queue %d: %w", q.index, err)
		}
	}
	return nil
}

// Stop stops all rings (GET_VRING_BASE). What the back-end has taken completes
// first and can be polled; what it has not stays in the ring for the next Start.
func (d *Disk) Stop() error {
	d.started = false
	if err := d.enable(false); err != nil {
		return err
	}
	for _, q := range d.queues {
		base, err := d.Session.GetVringBase(q.index)
		if err != nil {
			return err
		}
		if taken := uint16(base) - q.Ring.used; base > 0xffff || int(taken) > q.Ring.Size() || uint16(base) != q.Ring.deviceIndex() {
			return fmt.Errorf("queue %d stopped at %d with used index %d: %w", q.index, base, q.Ring.deviceIndex(), ErrBackend)
		}
		q.base = uint16(base)
	}
	if d.options.MemorySlots {
		return d.removeRegions()
	}
	return nil
}

func (d *Disk) removeRegions() error {
	for i := range d.Memory.Regions {
		if err := d.Session.RemMemReg(d.Memory.Regions[i].MemoryRegion); err != nil {
			return fmt.Errorf("remove region %d: %w", i, err)
		}
	}
	return nil
}
