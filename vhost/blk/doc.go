// Package blk is a virtio block device: it makes a [sealblk/vhost.Device] of a
// [sealblk/blockdev.Device].
//
// Reading a request out of a descriptor chain is apart from carrying it out. The
// header is copied once and the copy is checked; data is handed on as the pieces of
// guest memory that it lies in. Header, data and status may be cut into descriptors
// in any way; the status is the last byte that the device may write.
//
// # Requests
//
// IN, OUT, FLUSH and GET_ID; DISCARD and WRITE_ZEROES where the block device has
// them and the driver accepted them. Others are answered UNSUPP. Requests outside
// the capacity, not aligned to the logical block size, or writing to a read-only
// disk are answered IOERR without reaching the block device, and so is what the
// block device fails. A chain without room for a status breaks its ring, because it
// has no answer.
//
// The used length is what was written to the guest: data and status of a read, the
// id and status of GET_ID, else the status.
//
// DISCARD and WRITE_ZEROES name up to 16 ranges. All are copied and checked before
// anything is done: a flag that is not known there (unmap, for DISCARD) is answered
// UNSUPP; no range, part of one, too many, or one that is too long, outside the
// device or not aligned is IOERR. A range of no sectors is legal. The ranges are
// carried out one after the other; the first that fails ends the request.
//
// # Durability
//
// A write, DISCARD or WRITE_ZEROES is durable when it completes (FUA) if the driver
// did not negotiate FLUSH, or has turned the write cache off by CONFIG_WCE. That
// setting outlives a session: a front-end that reconnects does not tell it again. What
// was written before the cache was turned off is durable when that succeeds. A
// driver with CONFIG_WCE and without FLUSH finds the write cache off.
//
// # Pause
//
// [Device.Pause] drains and closes all queues, and keeps them closed until
// [Device.Resume]: whatever the block device stands on can be exchanged meanwhile.
// Requests wait in their rings, and a driver notices nothing but that they take long.
//
// # Threading
//
// A Device may be used from any goroutine. Its queues are owned by the workers of
// the session. Counters are per queue, written by its worker and read by anyone.
//
// Source: VIRTIO 1.3, clause 5.2.
package blk
