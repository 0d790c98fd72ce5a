package protocol

// Bits of GET_FEATURES and SET_FEATURES that vhost-user adds to those of virtio,
// as bit numbers. Those of rings are in package virtqueue.
const (
	// FeatureLogAll (VHOST_F_LOG_ALL) asks the back-end to mark the pages it writes.
	FeatureLogAll = 26
	// FeatureProtocolFeatures (VHOST_USER_F_PROTOCOL_FEATURES) opens
	// GET_PROTOCOL_FEATURES, and makes rings start disabled.
	FeatureProtocolFeatures = 30
)

// Protocol features (VHOST_USER_PROTOCOL_F_*), as bit numbers.
const (
	ProtocolMQ                   = 0
	ProtocolLogShmFD             = 1
	ProtocolRARP                 = 2
	ProtocolReplyAck             = 3
	ProtocolMTU                  = 4
	ProtocolBackendReq           = 5
	ProtocolCrossEndian          = 6
	ProtocolCryptoSession        = 7
	ProtocolPagefault            = 8
	ProtocolConfig               = 9
	ProtocolBackendSendFD        = 10
	ProtocolHostNotifier         = 11
	ProtocolInflightShmFD        = 12
	ProtocolResetDevice          = 13
	ProtocolInbandNotifications  = 14
	ProtocolConfigureMemSlots    = 15
	ProtocolStatus               = 16
	ProtocolXenMmap              = 17
	ProtocolSharedObject         = 18
	ProtocolDeviceState          = 19
	ProtocolGetVringBaseInflight = 20
	ProtocolGPAAddresses         = 21
	ProtocolShmemMap             = 22
)
