// Package luks reads and writes the header of an encrypted disk: a LUKS2
// container that stock cryptsetup opens, with a token of our own that says where
// the disk's key is.
//
// # What a container looks like
//
//	0x0000000  first copy:  binary header (4096 bytes), JSON area (12 KiB)
//	0x0004000  second copy: the same, other magic, other salt
//	0x0008000  key slot area, empty unless an operator adds a passphrase
//	0x1000000  data (16 MiB), or byte 0 of another file when the header is detached
//
// The volume key is the disk's data key (DK), 64 bytes, for aes-xts-plain64. No
// key slot holds it. One digest proves a key that comes back from the KMS; one
// segment of a fixed size says where the data is, so that the size is known when
// the catalogue is lost; one [Token] carries the wrapped DK and the disk's facts. A
// token of version 2 adds how much data the DK covers, and may add the DK wrapped by a
// second KMS (escrow), and that the digest is pending.
// Everything that others put into the header, key slots and tokens included,
// survives an update byte for byte.
//
// # Reading
//
// [Open] never writes. It takes the valid copy with the higher sequence number. A
// copy that is unreadable, damaged or older is a warning ([Header.Warnings]), and
// the next [Update] rewrites it. When both are bad the error says what is wrong
// with each. Nothing in a header is trusted: sizes, nesting, offsets and numbers
// are bounded before they are used, and whatever this program would not serve
// exactly as dm-crypt does (another cipher, a mandatory requirement such as an
// unfinished re-encryption, several segments) is refused.
//
// The checksum finds accidents. It does not stop an attacker who can write to the
// header; what stops them is the encryption context that binds the wrapped DK to
// the disk, and [Header.VerifyKey].
//
// # Creation without the key
//
// A digest cannot be made without the DK. A host that must not see it makes the header
// with [FormatPending]: a digest of zeros, which no key has, and a token that says
// "pending". It is a valid header that nothing opens. Who first has the DK from the KMS
// makes the digest ([Header.BindDigest]); from then on it is a header as any other. The
// two marks must agree; a digest of zeros, for whatever reason it is there, verifies no
// key. Whether a header may still be pending is for the caller to know, who keeps a
// record of the disk.
//
// # Writing
//
// [Update] writes the copy that is not in use, syncs, writes the other, syncs; a copy
// that is bad loses its head first, so that no earlier, interrupted update comes back.
// A crash at any moment, with any of the sectors written, leaves the old header or the
// new one. [Format] and [Erase] leave the old header, none that opens, or (Format)
// the new one. All three need the file to themselves: the caller holds the disk's lock.
// File is written by offset only; its directory entry is the caller's to sync.
//
// # The key in memory
//
// Format and VerifyKey get the DK in the caller's locked memory and make no copy of
// it on the Go heap. PBKDF2 needs the key XORed with two constants, which is as
// secret as the key: those blocks live in a locked page of their own, outside the
// heap and core dumps, wiped before it is unmapped. SHA-256 of the standard library
// reads a whole block where it lies and keeps only the chaining value; what its
// block function leaves on the stack (the message schedule, on CPUs without SHA
// instructions) is overwritten by the thousand or more blocks that follow, at the
// same depth. A test scans the process for all three forms. Not covered: registers
// saved by a signal that arrives while the key block is hashed, until the
// stack is used again.
//
// # Threading
//
// A Header is not safe for concurrent use while it changes; its reading methods are
// safe together.
//
// # Sources
//
// LUKS2 On-Disk Format Specification, version 1.1 (Brož): binary header, JSON area,
// metadata recovery, mandatory requirements, and the JSON objects. RFC 8018 section 5.2
// (PBKDF2), RFC 2104 (HMAC), RFC 8259 (JSON). What the text leaves open was settled by
// trying cryptsetup 2.6.1.
package luks
