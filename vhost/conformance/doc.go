// Package conformance holds a vhost-user-blk back-end to the specification. It runs
// against any socket: it knows nothing of the implementation behind it.
//
// [Run] runs every [Case] on one back-end. A case is named after the rule that it
// checks, cites the clause that the rule comes from, and says by its [Kind] whether
// a back-end that fails it breaks the specification or only expectations of this
// project that go beyond it. After each case a plain session writes and reads back,
// because a back-end has to serve the next front-end whatever the last one did.
//
// # Contract
//
// The content of the disk is lost. A run takes a few seconds, and ends within
// [Options].Budget whatever the back-end does: each answer, each case and the run
// have deadlines, a back-end that is gone is restarted or its remaining cases are
// reported as not run. A report has one [Result] for each case in every event.
//
// # Threading
//
// Run uses one connection at a time. Different runs need different back-ends.
//
// # Sources
//
// "vhost-user" is QEMU docs/interop/vhost-user.rst, "virtio" is Virtual I/O Device
// (VIRTIO) Version 1.3, both with the name or number of the clause.
package conformance
