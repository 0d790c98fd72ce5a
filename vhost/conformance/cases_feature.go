package conformance

import (
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// Features that QEMU does not pass to a guest.
const (
	featureLifetime    = 15
	featureSecureErase = 16
	featureZoned       = 17
)

var featureCases = []Case{
	{Kind: Must, Rule: "VERSION_1 is offered", Spec: "virtio 6.1", run: offers(virtqueue.FeatureVersion1, "VERSION_1")},
	{Kind: House, Rule: "INDIRECT_DESC is offered", Spec: "virtio 2.7.5.3", run: offers(virtqueue.FeatureIndirectDesc, "INDIRECT_DESC")},
	{Kind: House, Rule: "EVENT_IDX is offered", Spec: "virtio 2.7.7", run: offers(virtqueue.FeatureEventIdx, "EVENT_IDX")},
	{Kind: House, Rule: "FLUSH is offered", Spec: "virtio 5.2.3", run: offers(frontend.FeatureFlush, "FLUSH")},
	{Kind: House, Rule: "REPLY_ACK is offered", Spec: "vhost-user, Protocol features; libblkio needs it", run: offersProtocol(protocol.ProtocolReplyAck, "REPLY_ACK")},
	{Kind: House, Rule: "CONFIG is offered", Spec: "vhost-user, Protocol features; libblkio needs it", run: offersProtocol(protocol.ProtocolConfig, "CONFIG")},
	{Kind: House, Rule: "CONFIGURE_MEM_SLOTS is offered", Spec: "vhost-user, Protocol features; libblkio needs it", run: offersProtocol(protocol.ProtocolConfigureMemSlots, "CONFIGURE_MEM_SLOTS")},
	{Kind: House, Rule: "nothing is offered that QEMU cannot pass on", Spec: "virtio 5.2.3; QEMU user_feature_bits", run: notPassable},
	{Kind: Must, Rule: "the features on offer do not change", Spec: "virtio 2.2", run: stableFeatures},
	{Kind: Must, Rule: "the smallest set of features is served", Spec: "virtio 2.2.1", run: leastFeatures},
	{Kind: Must, Rule: "a session without REPLY_ACK is served", Spec: "vhost-user, Protocol features", run: negotiated(frontend.Options{WithoutProtocol: 1 << protocol.ProtocolReplyAck})},
	{Kind: Must, Rule: "a session without MQ is served", Spec: "vhost-user, Multiple queue support", run: negotiated(frontend.Options{WithoutProtocol: 1 << protocol.ProtocolMQ, Without: 1 << frontend.FeatureMQ})},
	{Kind: Must, Rule: "a session without back-end channel is served", Spec: "vhost-user, Backend communication", run: negotiated(frontend.Options{WithoutProtocol: 1 << protocol.ProtocolBackendReq})},
	{Kind: Must, Rule: "a session without FLUSH is served", Spec: "virtio 5.2.5", run: negotiated(frontend.Options{Without: 1<<frontend.FeatureFlush | 1<<frontend.FeatureConfigWCE})},
	{Kind: House, Rule: "features may be set twice", Spec: "vhost-user, SET_FEATURES", run: featuresTwice},
}

func offers(feature uint, name string) func(*rig) {
	return func(x *rig) {
		if !x.peer.has(feature) {
			x.errorf("%s is missing from %#x", name, x.peer.features)
		}
	}
}

func offersProtocol(feature uint, name string) func(*rig) {
	return func(x *rig) {
		if !x.peer.hasProtocol(feature) {
			x.errorf("%s is missing from %#x", name, x.peer.protocol)
		}
	}
}

func notPassable(x *rig) {
	for feature, name := range map[uint]string{featureLifetime: "LIFETIME", featureSecureErase: "SECURE_ERASE", featureZoned: "ZONED"} {
		if x.peer.has(feature) {
			x.errorf("%s is offered", name)
		}
	}
}

func stableFeatures(x *rig) {
	s := x.session()
	for range 3 {
		f, err := s.GetFeatures()
		x.must(err)
		p, err := s.GetProtocolFeatures()
		x.must(err)
		if f != x.peer.features || p != x.peer.protocol {
			x.errorf("features went from %#x and %#x to %#x and %#x", x.peer.features, x.peer.protocol, f, p)
		}
		x.must(s.SetFeatures(f & (1<<virtqueue.FeatureVersion1 | 1<<protocol.FeatureProtocolFeatures)))
	}
}

func leastFeatures(x *rig) {
	const least = 1<<virtqueue.FeatureVersion1 | 1<<protocol.FeatureProtocolFeatures | 1<<frontend.FeatureReadOnly
	x.used(x.open(frontend.Options{Without: ^uint64(least)}))
}

// used checks that a disk reads and writes.
func (x *rig) used(d *frontend.Disk) {
	for i, q := range d.Queues() {
		x.verify(q, int64(i)<<20, random(40+i, 64<<10))
	}
	x.must(d.Stop())
}

func negotiated(o frontend.Options) func(*rig) {
	return func(x *rig) { x.used(x.open(o)) }
}

func featuresTwice(x *rig) {
	d := x.open(frontend.Options{})
	x.must(d.Session.SetFeatures(d.Features))
	x.used(d)
}
