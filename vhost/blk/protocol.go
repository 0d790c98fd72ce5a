package blk

// Feature bits (clause 5.2.3).
const (
	featureSegMax      = 2
	featureReadOnly    = 5
	featureBlkSize     = 6
	featureFlush       = 9
	featureTopology    = 10
	featureConfigWCE   = 11
	featureMQ          = 12
	featureDiscard     = 13
	featureWriteZeroes = 14
)

// Types of requests (clause 5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
)

// Status values (clause 5.2.6).
const (
	statusOK     = 0
	statusIOErr  = 1
	statusUnsupp = 2
)

const (
	headerSize = 16
	statusSize = 1
	// idSize is the length of the id string, padded with zeros, which it need not
	// end in.
	idSize = 20

	sectorShift = 9
	sectorSize  = 1 << sectorShift
)

// Offsets in the configuration space (clause 5.2.4), in bytes.
const (
	configCapacity    = 0
	configSegMax      = 12
	configBlkSize     = 20
	configPhysicalExp = 24
	configMinIO       = 26
	configWriteback   = 32
	configNumQueues   = 34

	configMaxDiscardSectors     = 36
	configMaxDiscardSeg         = 40
	configDiscardAlignment      = 44
	configMaxWriteZeroesSectors = 48
	configMaxWriteZeroesSeg     = 52
	configWriteZeroesMayUnmap   = 56

	configSize = 96
)
