// Package frontend is the driver side of vhost-user-blk: what QEMU and a guest's
// virtio-blk driver are together. Tests, the benchmark and the conformance suite
// drive a back-end with it.
//
// Its layers stand alone, from the bottom:
//
//	Session  one method for each protocol message, and raw sends to break the rules
//	Memory   guest memory: memfds at guest-physical places that the caller chooses
//	Ring     the driver side of a split virtqueue, raw access included
//	Queue    a Ring and its notifiers, carrying block requests
//	Disk     negotiation as QEMU does it, queues, configuration space, orderly stop
//
// # Contract
//
// A back-end is not trusted: what it writes into the used ring and what it answers
// is checked, and a breach of the specification is an error that wraps
// [ErrBackend]. It is therefore fit to judge a back-end with.
//
// Guest memory that a [Request] names belongs to the back-end from Submit until
// Poll returns the request.
//
// # Threading
//
// A Session may be used by several goroutines: messages go one after another. Ring
// and Queue are each owned by one goroutine at a time; different queues of a Disk
// run side by side. Open, Start, Stop and Close of a Disk are called while no
// queue is in use.
//
// # Costs
//
// Submit, Kick and Poll neither allocate nor lock. With [Options].Polling no
// system call is made but the kicks that the back-end asks for.
//
// # Failure model
//
// A back-end that goes away is [ErrDisconnected] from the next wait; one that does
// not answer in [Options].Timeout is [ErrTimeout]. After the first, [Disk.Reconnect]
// goes on with another back-end; after the others, and after ErrBackend, the only use
// of a Disk is Close, which always frees everything.
//
// # Sources
//
// QEMU docs/interop/vhost-user.rst; Virtual I/O Device (VIRTIO) Version 1.3,
// clauses 2.7 (split virtqueues) and 5.2 (block device).
package frontend
