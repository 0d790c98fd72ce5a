package uring

// Numbers and layouts of linux/io_uring.h.

const (
	setupCQSize      = 1 << 3
	setupClamp       = 1 << 4
	setupSubmitAll   = 1 << 7
	setupCoopTaskrun = 1 << 8
	setupTaskrunFlag = 1 << 9

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1

	enterGetEvents = 1 << 0

	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2

	registerBuffers = 0
	registerFiles   = 2
	unregisterFiles = 3
	registerProbe   = 8

	offSQRing = 0
	offSQEs   = 0x10000000

	sqeFixedFile = 1 << 0
	sqeAsync     = 1 << 4

	fsyncDatasync = 1 << 0

	probeSupported = 1 << 0
)

const (
	opNop        = 0
	opReadv      = 1
	opWritev     = 2
	opFsync      = 3
	opReadFixed  = 4
	opWriteFixed = 5
	opPollAdd    = 6
	opTimeout    = 11
	opFallocate  = 17
	opRead       = 22
	opWrite      = 23
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sqOff                                                                  sqOffsets
	cqOff                                                                  cqOffsets
}

// sqOffsets is struct io_sqring_offsets.
type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

// SQE is struct io_uring_sqe, a submission queue entry.
type SQE struct {
	opcode      uint8
	flags       uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	len         uint32
	opFlags     uint32
	userData    uint64
	bufIndex    uint16
	personality uint16
	spliceFD    int32
	addr3       uint64
	_           uint64
}

// CQE is struct io_uring_cqe, a completion.
type CQE struct {
	// UserData is what the entry was prepared with.
	UserData uint64
	// Res is the operation's result, or the negative errno.
	Res int32
	// Flags are the IORING_CQE_F_ flags.
	Flags uint32
}

// probe is struct io_uring_probe with room for every opcode.
type probe struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [256]probeOp
}

// probeOp is struct io_uring_probe_op.
type probeOp struct {
	op, _ uint8
	flags uint16
	_     uint32
}
