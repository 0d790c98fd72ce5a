package conformance

import (
	"errors"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// peer is what a back-end says about itself.
type peer struct {
	features, protocol uint64
	config             frontend.Config
	queues             int
	slots              int
	maxQueueSize       int
	// block is the unit of requests, in bytes.
	block int
}

func (p *peer) has(feature uint) bool         { return p.features&(1<<feature) != 0 }
func (p *peer) hasProtocol(feature uint) bool { return p.protocol&(1<<feature) != 0 }
func (p *peer) readOnly() bool                { return p.has(frontend.FeatureReadOnly) }
func (p *peer) capacity() int64               { return int64(p.config.Capacity) * frontend.SectorSize }

// identify asks in the order in which QEMU does.
func (p *peer) identify(x *rig) {
	s := x.session()
	var err error
	p.features, err = s.GetFeatures()
	x.must(err)
	if p.has(protocol.FeatureProtocolFeatures) {
		p.protocol, err = s.GetProtocolFeatures()
		x.must(err)
		x.must(s.SetProtocolFeatures(p.protocol & (1<<protocol.ProtocolMQ | 1<<protocol.ProtocolReplyAck |
			1<<protocol.ProtocolConfig | 1<<protocol.ProtocolConfigureMemSlots)))
	}
	if !p.hasProtocol(protocol.ProtocolConfig) {
		x.fatalf("it does not offer CONFIG, without which no front-end learns its capacity")
	}
	p.queues = 1
	if p.hasProtocol(protocol.ProtocolMQ) {
		n, err := s.GetQueueNum()
		x.must(err)
		p.queues = int(min(n, 256))
	}
	if p.hasProtocol(protocol.ProtocolConfigureMemSlots) {
		n, err := s.GetMaxMemSlots()
		x.must(err)
		p.slots = int(min(n, 1<<16))
	}
	x.must(s.SetOwner())
	p.readConfig(x, s)
	p.findQueueSize(x, s)
}

func (p *peer) readConfig(x *rig, s *frontend.Session) {
	var b [frontend.ConfigSize]byte
	x.must(s.GetConfig(0, b[:]))
	x.must(p.config.Decode(b[:]))
	p.block = frontend.SectorSize
	if p.has(frontend.FeatureBlkSize) && p.config.BlkSize > frontend.SectorSize && p.config.BlkSize <= 4096 {
		p.block = int(p.config.BlkSize)
	}
	if p.capacity() < MinCapacity {
		x.fatalf("the disk has %d bytes, the suite needs %d", p.capacity(), int64(MinCapacity))
	}
}

// findQueueSize looks for the largest queue that is accepted. Without REPLY_ACK
// nobody can tell; 128 is what QEMU uses.
func (p *peer) findQueueSize(x *rig, s *frontend.Session) {
	p.maxQueueSize = 128
	if !p.hasProtocol(protocol.ProtocolReplyAck) {
		return
	}
	for p.maxQueueSize = 1024; p.maxQueueSize > 4; p.maxQueueSize /= 2 {
		err := s.SetVringNum(0, uint32(p.maxQueueSize))
		if err == nil {
			return
		}
		if !errors.Is(err, frontend.ErrRefused) {
			p.maxQueueSize = 128 // it ends sessions; so do not ask
			return
		}
	}
}

// needs skips a case whose feature is not offered.
func (x *rig) needs(feature uint, name string) {
	if !x.peer.has(feature) {
		x.skipf("%s is not offered", name)
	}
}

func (x *rig) needsProtocol(feature uint, name string) {
	if !x.peer.hasProtocol(feature) {
		x.skipf("%s is not offered", name)
	}
}

func (x *rig) needsWritable() {
	if x.peer.readOnly() {
		x.skipf("the disk is read-only")
	}
}

// needsIndirect is for cases that put indirect tables into the ring by hand.
func (x *rig) needsIndirect() { x.needs(virtqueue.FeatureIndirectDesc, "INDIRECT_DESC") }
