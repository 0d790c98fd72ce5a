package blk

import "sync/atomic"

// counters of a queue. They live as long as the device; the padding keeps the
// workers of two queues out of each other's cache lines.
type counters struct {
	_                       [64]byte
	reads, writes, flushes  atomic.Uint64
	ids                     atomic.Uint64
	discards, zeroes        atomic.Uint64
	bytesRead, bytesWritten atomic.Uint64
	failed, noSpace         atomic.Uint64
	invalid, unsupported    atomic.Uint64
	_                       [64]byte
}

// QueueStats are the counts of a queue since the device was made.
type QueueStats struct {
	// Requests that succeeded.
	Reads, Writes, Flushes, GetIDs, Discards, WriteZeroes uint64
	// Bytes of reads and writes that succeeded.
	BytesRead, BytesWritten uint64
	// Failed requests were failed by the block device, those in NoSpace because it
	// had none left.
	Failed, NoSpace uint64
	// Invalid requests were outside the device, misaligned, incomplete, or writes to
	// a read-only disk.
	Invalid uint64
	// Unsupported requests were of a type, or had a flag, that is not served.
	Unsupported uint64
}

// Stats returns the counts of each queue. Counts of one queue may belong to
// slightly different moments.
func (d *Device) Stats() []QueueStats {
	stats := make([]QueueStats, len(d.counters))
	for i := range d.counters {
		c := &d.counters[i]
		stats[i] = QueueStats{
			Reads: c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(), GetIDs: c.ids.Load(),
			Discards: c.discards.Load(), WriteZeroes: c.zeroes.Load(),
			BytesRead: c.bytesRead.Load(), BytesWritten: c.bytesWritten.Load(),
			Failed: c.failed.Load(), NoSpace: c.noSpace.Load(),
			Invalid: c.invalid.Load(), Unsupported: c.unsupported.Load(),
		}
	}
	return stats
}
