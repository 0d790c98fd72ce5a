// Package local is the embedded KMS: customer master keys (CMKs) in a folder of the
// host, used without any set-up.
//
// # Contract
//
// [Open] makes the folder and its root key at first use. A [KMS] is used as one
// principal; [KMS.As] is the same KMS for another one. The disk service is the
// principal [DiskService], an administrator is [Operator].
//
// The service key is made by the first call that generates under, or re-encrypts to,
// the alias acs/ecs (or under no name at all), one per region. It can be neither disabled nor deleted, and its
// aliases and its policy cannot be changed. Every other key is made by CreateKey and
// grants DiskService nothing until it is authorised.
//
// What a key in each state allows is in state.go, one table.
//
// # Life of a key
//
// There is no daemon. What has become due since the last call, the destruction of a
// key, the expiry of imported material, a rotation, is done by the next call of any
// kind before anything else, and recorded in the name of the principal kms. Of a
// destroyed key a record without material stays, so that errors can say what happened.
// Imported material is known again by a block that it sealed, itself sealed under the
// root key.
//
// # Storage
//
//	root.key         32 random bytes, mode 0600; or, in its place,
//	root.json        the root key, wrapped by a source that is elsewhere
//	index.json       generation of every key, all aliases, the change in progress
//	keys/ID.json     one key: state, policy, versions with their sealed material
//	audit.log        one line for every call
//	lock             held (flock) during every call
//
// Everything but root.key and the lock is authenticated with AES-256-GCM under the root key,
// together with its format and version. Material is sealed under the root key too,
// bound to key id and version number. The index holds the generation of every record,
// and every change raises one, so a record that was replaced by an older one of its
// own, taken away, or added, is detected and named when it is used, as is an index
// older than a record. A folder that is put
// back to an earlier state as a whole cannot be told from that state.
//
// A change is written to the index first, whole: this write commits it. Then the
// records are written, then the change is taken out of the index. Whoever opens an
// index with a change in it finishes it first. Every write is a new file, fsynced,
// renamed over the old one, and the folder fsynced: after a crash at any point the
// state is the old or the new one. A call that fails on a write may have taken
// effect.
//
// Losing the root key loses every disk. When it is missing and anything is stored under
// it, Open fails and never makes another one. Where the whole folder is missing, whoever uses
// its keys has to tell ([Options].Wrapped).
//
// # Root key
//
// The source of the root key is [RootFile], or a [RootSource] of the options: under a
// passphrase ([PassphraseSource], Argon2id), under a key in a systemd credential or in
// a file elsewhere ([CredentialSource]), or one of another package (a TPM, an HSM).
// Then root.json stands in the place of root.key. It says which source, and holds what
// the source made of the root key and needs to open it (salt, stretching, PCRs, names
// of keys): these parameters are authenticated by the source, and all of the file under
// the root key itself, once it is open. A checksum tells a damaged file from a wrong
// passphrase before. An older root.json that is put back opens by what it was wrapped
// under then, as an older copy of root.key would: the root key never changes.
//
// What opens an existing KMS is what is in its folder; Options.Root is where a new or
// restored one puts its root key, which is in no file before it is wrapped.
// [KMS.SetRootSource] moves it: root.json is written first, after the new source has
// shown that it opens it, then root.key is renamed to root.key.old, overwritten and
// removed; to a file, root.key is written, then root.json removed. Until that is done,
// root.json is what counts, but for one that does not open while root.key is there.
// The next opening finishes what a crash interrupted.
//
// A source may take its time, or ask the user: root.json is opened without the lock.
//
// # Audit
//
// Every call is recorded, whatever its result, unless the store cannot be opened; a
// call that cannot be recorded fails. A record never holds key material. Each carries
// an HMAC-SHA256 over the record before and itself, under a key derived from the root
// key by HKDF; the number of records and the last one's HMAC are in the index. So a
// record that was altered, added, moved or taken away is named by VerifyAudit, at the
// end of the log too. A damaged log does not stop the KMS; a log that is longer than
// the index says does: the index was put back. Backups and restores take a damaged log
// along as it is, and say so.
//
// Usable is the one call that is not recorded: brokers look at the keys of their disks
// with it, again and again, and what changes an answer is recorded already.
//
// The last records stand in the index too, which is synced with every call: the record
// of a change is stored with it, all or nothing, and what a crash tears off the log is
// mended. A call that changes nothing costs one synced file. The log is synced when
// the index has 16 records, which it then forgets. It is never shortened, and has no
// limit but the disk's: a record dropped would be a call unseen. Who reads it holds a record
// at a time, and does not keep the KMS from others, KeyUsage apart.
//
// # Backup
//
// A backup is one file; numbers are big-endian.
//
//	0    8  "SBKMSB", 0 and the format, 2
//	8   12  Argon2id: passes, KiB of memory, threads, of 32 bits each
//	20  16  salt, random
//	36  60  root key, AES-256-GCM under the stretched passphrase: nonce, text, tag
//	96      the folder's other files, in chunks: nonce, 64 KiB, tag; under the same key
//
// A file stands there as the length of its name in one byte, its name, its size in 64
// bits and its content. The root key is bound to all before it, each chunk to the first 96
// bytes and its number. Only the last chunk is shorter than the others, if need be empty,
// so a backup that was cut, or one that goes on behind its end, is noticed. Format 1, of
// earlier versions, has the files from byte 96 as one JSON object, sealed as a whole; it
// is still restored.
//
// So a backup takes as long as the audit log is, but not its memory: index and records
// are read at one moment, under the lock, and the log up to where it ended then, without
// it. Calls go on meanwhile. The backup is recorded when it is saved, or has failed.
//
// A restore opens the root key first: a file of somebody who does not have the passphrase
// is read no further. It unpacks into a folder beside the place, with limits for all
// but the log, opens everything there, and exchanges the two. The lock of the place is held
// from the look whether there are keys until then; whoever gets the lock of a folder that
// was replaced meanwhile asks for the new one's. Both folders of a KMS that was
// restored elsewhere count on by themselves.
//
// # Wrapped keys
//
// The blob of a disk's data key is 148 bytes; numbers are big-endian. Encrypt and
// GenerateSecret make blobs of the same form around another number of bytes; as a data
// key they do not open.
//
//	0    4  "SBK" and the format, 1
//	4   16  key id
//	20   4  version of the CMK
//	24  32  SHA-256 of the encryption context (label, then its canonical encoding)
//	56  12  nonce, random
//	68  64  data key, AES-256-GCM under the CMK's version
//	132 16  tag
//
// The first 56 bytes are the additional authenticated data, so every bit of a blob
// is authenticated and the context is bound through its digest. That also makes two
// failures distinct: a whole blob under another context is ErrContextMismatch, a
// damaged one is ErrCorrupt. The context itself is not secret.
//
// # Secrets in memory
//
// The root key, CMK material, passphrases and data keys are only ever in locked memory
// (package secret), read from files and decrypted straight into it. Two exceptions
// remain: Argon2 keeps its work in ordinary memory, and crypto/aes keeps the expanded
// round keys of a cipher on the Go heap, as crypto/hkdf does for the moment of a
// derivation. Ciphers therefore live for one operation each; what the collector leaves
// of them until it reuses the memory is round keys of the root key and of the CMK, never
// a data key, and HardenProcess keeps it out of core dumps.
//
// # Threading
//
// A KMS may be used from any goroutine and the folder from any number of processes.
// Calls exclude each other, within the process and between processes. A context is
// looked at when a call begins; the wait for the lock is not bounded by it.
//
// # Failure
//
// Errors are *keymgr.Error with the codes of errors.go. No error, log line or file
// holds key material in the clear, but for root.key itself.
//
// Sources: RFC 9106 (Argon2), RFC 5869 (HKDF), RFC 2104 (HMAC), NIST SP 800-38D (GCM, random 96-bit nonces: at most 2^32 seals per key),
// flock(2), rename(2), fsync(2).
package local
