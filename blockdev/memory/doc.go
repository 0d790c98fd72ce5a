// Package memory is a block device in RAM.
//
// The bytes live in an anonymous mapping outside the Go heap, so that a device
// costs memory only for what was written to it. Discard and WriteZeroes give whole
// pages back; both leave zeros. What is written is gone when the device is closed.
//
// # Threading
//
// Requests run inside Submit and are complete when it returns: WaitFD is -1. A
// device has no lock. Requests in flight at the same time, on any queues, may
// overlap; then a byte that two of them write has the value of either.
//
// # Failure
//
// A request that [blockdev.Request.Check] refuses completes with that error. There
// is no other.
package memory
