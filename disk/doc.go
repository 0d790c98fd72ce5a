// Package disk is the catalogue of disks and the life of each: create, open, check,
// import, delete.
//
// # On disk
//
// A state directory holds, for a disk NAME:
//
//	disks/NAME.json      the record: what the disk is (format 1, see [Record])
//	disks/NAME.lock      locked while the disk is open or being changed
//	disks/NAME.new       the record of a disk that is being made, written ahead
//	disks/NAME.import    that of a disk that is being imported
//	volumes/NAME.img     the default backing file
//	headers/NAME.luks    the LUKS2 header of an encrypted disk whose backend is not a file
//	events.log           what was done to data keys (deleted with their disk, exported,
//	                     taken out of escrow) whose KMS keeps no such record for others
//	run/NAME.json        who exports it now ([Runtime]); valid only while the lock is held
//
// Records are replaced by atomic rename and fsync. A record names its backing file
// and caches facts; the truth about an encrypted disk's key is the token in its
// LUKS2 header, so that a backing file describes itself ([Catalogue.Import]). The
// header's size counts too if it is the larger one: the disk was resized through another
// state directory that knows it, and the next open brings the record up to date.
//
// # Interrupted
//
// Create, Delete and Import may end at any point, by kill -9 or a power cut. A disk
// whose create was interrupted is there and whole, or it is not there: what is left of
// it is recognised without a doubt and removed by the next create or import. An
// interrupted delete has destroyed the key or nothing, and is finished by another.
// A re-wrap that was interrupted has the old wrapping in the header or the new one; the
// record names both CMKs till the next re-wrap or export.
// No file is removed, and no byte overwritten, that a disk's record or header does not
// prove to be that disk's.
//
// # Fail closed
//
// A disk recorded as encrypted opens only through a crypt layer, with a data key
// that the header's digest has proved right. A record and a header that disagree, a
// key that cannot be unwrapped, a backing file that is too short: each is an error
// and nothing is served, written or repaired. A plain disk that turns out to hold
// one of our containers is refused as well.
//
// # Life of a data key
//
// It is made by the KMS, and wrapped under a CMK, bound to the disk's lineage. The
// header's token holds the wrapped key, and perhaps the same key wrapped under a CMK of
// another KMS (escrow), which opens the disk only for who says so (UseEscrow): a key
// that was disabled is not got round by itself, and each use is recorded. A disk that
// was made without the key being seen has no digest till it is first opened (first.go).
//
// [Catalogue.Rewrap] changes the CMK or its version; the key stays the same. Within one
// KMS it never leaves it; between two it passes through locked memory. The new wrapping
// is proved first: it is opened and held against the digest, or, for a principal that
// may not decrypt, opened by the KMS.
//
// [Catalogue.Destroy] overwrites the header, reads it back past the cache, records that
// and then removes the file. Copies of the file, and blocks that a file system or an
// SSD keeps, are out of reach: what they hold opens as long as the CMK exists.
//
// One key covers at most 2^44 blocks of 16 bytes (IEEE 1619-2025): a disk that is made,
// resized or imported beyond that is refused. How many it covers is in token and record.
//
// # A key that is lost
//
// What becomes of a disk in use whose CMK cannot be used any more is [KeyLossPolicy]; who
// serves the disk watches the CMK and acts. [Disk.Lock] wipes the data key, [Disk.Unlock]
// unwraps it again from the header, which may name another CMK by then, with the same proof
// as at the start. A locked disk fails all that is asked of it; it keeps its lock.
//
// # Concurrency
//
// What changes the header or the record of a disk that exists, its size among them,
// has the catalogue's lock meanwhile, and may do so while the disk is exported: the
// worker that has the disk's own lock writes neither.
//
// A disk is open, or being changed, in one process at a time: the lock file says
// so. To migrate a VM, a second process opens its disk with OpenOptions.Standby, reads
// what does not change and holds a claim; the first gives the disk away ([Disk.Release])
// and the second takes it ([Disk.Take]), or the first takes it back. Nobody without a
// claim can come in between, on this host or on another one that locks the same
// backing file. Disks are added one at a time. Listing and showing take no lock. A [Catalogue]
// may be used from any goroutine.
package disk
