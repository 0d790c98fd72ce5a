// Package crypt encrypts a block device with AES-256-XTS.
//
// A [Device] is a layer over a lower device. What is written to it is encrypted
// on its way to the lower device, what is read is decrypted on its way back; the
// lower device never sees plaintext, and the memory of the submitter never holds
// ciphertext. The layout is that of dm-crypt's aes-xts-plain64: one data unit of
// ciphertext for one of plaintext at the same place, under the number of its first
// 512-byte sector, which is 0 for the first one of the lower device. The logical
// block size of the layer is at least the data unit. There is no mode in which data
// passes in the clear: without a cipher there is no Device.
//
// # Zeros
//
// A data unit whose stored bytes are all zero reads as zeros; it is a hole, was
// discarded or has never been written. Written data that encrypts to such a unit
// would be lost: for a given write the chance is 2^-4096 with units of 512 bytes and
// less with larger ones, and nobody can aim at it who does not hold the key, since
// the only plaintext that does it is the decryption of zeros, which this layer gives
// out to nobody, but to a guest that reads a unit while it discards it, and in parts
// where a power failure tore a unit (below); and that guest could deceive itself only.
// Stock dm-crypt reads noise where this layer reads zeros. The
// encryption is not authenticated: who can change the stored bytes can turn units
// into zeros here, as they can turn them into noise anywhere.
//
// WriteZeroes stores the ciphertext of zeros, so that every reader of the format
// agrees. With [ZeroesUnmap] a WriteZeroes that may unmap is passed on instead:
// thin, but zeros only through this layer. Discard is passed on, if the lower
// device supports it, and the range reads as zeros; or it is ignored with
// [DiscardIgnore].
//
// # Torn writes
//
// XTS keeps what a medium does: a part of a data unit that is old or new on the medium is
// old or new plaintext, in steps of 16 bytes. So a write that a power failure cut short
// leaves each sector old, new, or torn as it would be without this layer. There is one
// exception. The test for zeros is made on whole data units, so a unit of 4096 bytes in a
// hole, whose first write was cut short between two sectors of 512 bytes, has sectors that
// read as noise where they had read as zeros: the decryption of zeros. With units of 512
// bytes there is none. A guest may not count on either: the unit is the layer's logical
// block, and a device promises nothing about a block that was being written
// (VIRTIO 1.3, clause 5.2.6.2: data is stable after a flush). Blocks whose write had
// completed and was flushed, and all blocks beside the one that was being written, are
// what they were.
//
// # Memory
//
// Data goes through the bounce memory of package bounce, or is worked on where it is
// stored if that is memory; the documentation of that package
// states the bounds, the progress of large requests and the rules for untrusted
// memory: a write's plaintext is read once, by the cipher or by the copy that joins
// a data unit whose bytes lie in several buffers, and a read's buffers get
// plaintext only.
//
// # Locking
//
// [Device.Lock] takes the cipher away, whose owner can wipe it then. A queue that is
// opened afterwards fails every request with [ErrLocked], flushes too; those that are
// opened after [Device.Unlock] work. No queue may be open for either: a queue that works
// never looks whether it has a cipher.
//
// # Threading and failure
//
// As package blockdev says. All queues share the cipher, which does not change while any
// is open. It stays the caller's, who destroys it after Close or Lock. A request fails with the error of
// the lower device; what it has then written or read is undefined, but never
// plaintext below or ciphertext above.
//
// # Sources
//
// IEEE Std 1619-2018, clause 5; the tweak is plain64 of dm-crypt's documentation
// (Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst).
package crypt
