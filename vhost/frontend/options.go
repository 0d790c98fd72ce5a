package frontend

import (
	"fmt"
	"time"

	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// Options say how a Disk is negotiated and driven. The zero value is a plain
// driver: all that both sides know, one queue of 128.
type Options struct {
	// Queues is the number of queues; 0 is 1. More than the back-end offers is
	// ErrNotOffered.
	Queues int
	// QueueSize in descriptors; 0 is 128.
	QueueSize int
	// Without are features that are not acknowledged although they are offered.
	Without uint64
	// Require are features that the back-end has to offer.
	Require uint64
	// WithoutProtocol and RequireProtocol are the same for protocol features.
	WithoutProtocol uint64
	RequireProtocol uint64
	// Layout is guest memory; nil is one region of 256 MiB at address 0, of which
	// only what is used takes real memory.
	Layout []RegionLayout
	// MemorySlots passes memory by ADD_MEM_REG and not in a table.
	MemorySlots bool
	// Indirect is the largest number of segments in an indirect table, where the
	// feature is negotiated; 0 is 130.
	Indirect int
	// Framing cuts requests into descriptors; nil is FrameParts.
	Framing Framing
	// Polling spins for completions and asks for no notification.
	Polling bool
	// Timeout bounds each answer and each wait for a completion; 0 is 30 s,
	// negative is none.
	Timeout time.Duration
	// ConfigChanged is called on a goroutine of the session when the back-end says
	// that its configuration space changed.
	ConfigChanged func(Config)
}

// known are the features that this driver acts upon.
const known = 1<<FeatureSizeMax | 1<<FeatureSegMax | 1<<FeatureGeometry | 1<<FeatureReadOnly | 1<<FeatureBlkSize | 1<<FeatureFlush |
	1<<FeatureTopology | 1<<FeatureConfigWCE | 1<<FeatureMQ | 1<<FeatureDiscard | 1<<FeatureWriteZeroes |
	1<<virtqueue.FeatureIndirectDesc | 1<<virtqueue.FeatureEventIdx | 1<<virtqueue.FeatureVersion1 |
	1<<protocol.FeatureProtocolFeatures

const knownProtocol = 1<<protocol.ProtocolMQ | 1<<protocol.ProtocolReplyAck | 1<<protocol.ProtocolBackendReq |
	1<<protocol.ProtocolConfig | 1<<protocol.ProtocolConfigureMemSlots | 1<<protocol.ProtocolLogShmFD |
	1<<protocol.ProtocolInflightShmFD

const (
	defaultQueueSize = 128
	// defaultIndirect is what a Linux driver may send with 128 data segments.
	defaultIndirect = 130
	defaultMemory   = 256 << 20
	defaultTimeout  = 30 * time.Second
)

// complete fills in the defaults.
func (o *Options) complete() error {
	setDefault(&o.Queues, 1)
	setDefault(&o.QueueSize, defaultQueueSize)
	setDefault(&o.Indirect, defaultIndirect)
	setDefault(&o.Timeout, defaultTimeout)
	o.Timeout = max(o.Timeout, 0)
	if o.Layout == nil {
		o.Layout = []RegionLayout{{Size: defaultMemory}}
	}
	if o.Framing == nil {
		o.Framing = FrameParts
	}
	if o.Queues < 0 || o.Queues > 256 || !virtqueue.ValidSize(o.QueueSize) {
		return fmt.Errorf("%d queues of %d descriptors: %w", o.Queues, o.QueueSize, ErrConfig)
	}
	return nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
