// Package blockdev says what a block device is.
//
// A [Device] is an array of bytes, read and written in whole logical blocks. It
// is used through queues: one [Queue] per virtqueue, each owned by exactly one
// goroutine, so that a queue takes no lock. Devices are stacked: a layer (crypt,
// cow, throttle) is a Device that holds another Device and opens one queue of it
// for each queue of its own. One folder below this one holds each device and each
// layer.
//
// # Life of a request
//
// The submitter owns a fixed set of [Request] slots. It fills a slot, passes it to
// Queue.Submit, calls Queue.Push after the last one of a batch, and gets the slot
// back from Queue.Poll. Between Submit and Poll the slot and the memory that its
// buffers name belong to the queue. Nothing on this way allocates or locks.
//
// A request completes exactly once, with all of its bytes or with an error: a
// layer that sees a short read or write goes on with the rest of it. Requests
// complete in any order. A submitter that needs an order waits for the
// completions: a Flush covers the writes that had completed, on any queue of the
// device, before it was submitted, and no others.
//
// # Units
//
// Offsets, lengths and capacities are bytes, as int64. They are multiples of the
// device's logical block size. Buffers may have any length and any alignment in
// memory as long as their sum is the request's length; a layer that needs aligned
// memory brings its own.
//
// # Errors
//
// The error of a request is one of the sentinels of this package or an errno. The
// data path compares with ==, so errors are not wrapped there.
package blockdev
