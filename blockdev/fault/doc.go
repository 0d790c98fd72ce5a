// Package fault is a block device that misbehaves as told, for tests, and a record of
// what reached a medium, for power cuts.
//
// # Faults
//
// A [Device] is an ordinary layer over another device. [Rule]s choose requests by
// operation, range, count and probability, and say what becomes of them: an error
// (EIO, ENOSPC, blockdev.ErrShort or any other) before the request had an effect,
// after a part of it had (a torn write, a short read), or after all of it had; a
// delay; no completion until Unstick. [Options] shuffle and defer completions. All
// that is random comes from Options.Seed; with several queues the order in which
// they come to draw is theirs.
//
// # Power cuts
//
// A [Log] holds the writes to a medium and the syncs, each with the moments at which
// it was submitted and completed; [Record] is the layer that fills it, and [File] the
// same for what is written as a file (a LUKS header). [Log.Versions] tells what each
// sector may hold when the power fails at any of these moments. A sector that was
// written since it was last made durable holds the durable value or any later one,
// whatever its neighbours hold: caches write back in any order and requests are torn
// between sectors, never within one. Made durable are a write with FUA that
// succeeded, and each write that had succeeded before a flush was submitted that
// succeeded later. A write that failed may have had its effect, in part, at any time
// until the sector is durably written again.
//
// Logs with a common [Clock] share their moments: one at the medium and one of what
// a guest did and was told make a test of the stack between them.
//
// Requests in flight at the same time must not overlap; no order of them is known.
//
// # Threading
//
// As package blockdev says. Rules, Unstick and the like may be called from any
// goroutine while requests are in flight. A Log is safe for concurrent use. A Device
// allocates and locks; it is not for production.
package fault
