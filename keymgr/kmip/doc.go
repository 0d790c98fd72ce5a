// Package kmip is a server that speaks KMIP 1.x as a keymgr.KMS.
//
// # Contract
//
// A key is named kmip:UID by the server's identifier, or kmip:NAME by a name that one
// active key has. It is an AES key of 256 bits in the state Active. A wrapped key names
// the identifier of the key that wraps it, which is its version too: in KMIP another
// version of a key is another object. A key that was replaced (Re-key) has a link to its
// replacement: what is wrapped anew under the old key is wrapped under the newest
// active one, and what the old one wraps goes on opening as long as the old one is
// active. Where the server has no Re-key or leaves no link, rotation is a new key, under
// its identifier or under the name that was taken from the old one.
//
// There are two ways to wrap, and blobs of both are alike, so that a configuration may
// change from one to the other:
//
//   - encrypt: the server encrypts and decrypts, AES-GCM with the encryption context as
//     additional authenticated data. Its key never leaves it. It needs KMIP 1.4.
//   - get: the server hands out its key, and the same is done here, in locked memory; the
//     key is wiped before the call returns.
//
// KMIP makes no data keys: they come from this host's random number generator, and
// GenerateDataKeyWithoutPlaintext makes one and wipes it. ReEncrypt opens and wraps here.
// So neither keeps the plaintext from this process; both keep it from the caller.
//
// # Wrapped keys
//
// A blob is 132 bytes; numbers are big-endian.
//
//	0    4  "SBM" and the format, 1
//	4   32  SHA-256 of the encryption context (label, then its canonical encoding)
//	36  12  nonce, random
//	48  64  data key, AES-256-GCM under the key of the server
//	112 16  tag
//	128  4  CRC-32 (IEEE) of all before it
//
// The additional authenticated data is the canonical encoding of the encryption context
// (keymgr.Context.Encode), nothing else. The digest and the checksum protect nothing.
// They tell a blob of another context (ErrContextMismatch) and a damaged one (ErrCorrupt)
// before the server is asked, which says the same to both.
//
// # Failure
//
// Errors are *keymgr.Error, with the server's own result reason as code where there is
// one. A key in another state than Active is ErrDisabled: its state is asked for in each
// call, since a server may hand out keys that were revoked. A destroyed key is
// ErrNotFound, and with some servers so is a key of somebody else. KMIP 1.x has no word
// for throttling. A lost connection, and no answer within Config.Timeout, is
// ErrUnreachable; the next call connects again. A server that refuses the client
// certificate, or a question that names no key, is ErrCredentials: it says nothing of a
// key. Nor does a replacement that is gone, or somebody else's, of the key that it was to
// replace: the chain of replacements ends before it.
//
// # Secrets in memory
//
// Keys travel in messages, on the Go heap. Wiped at once are: the message that was sent,
// the message that was received, the copies that it was decoded to. Not reached are: what
// the library's encoder outgrew while it wrote a request with a
// data key (mode encrypt), the record buffers of crypto/tls, and the round keys of a key
// that was fetched (mode get), which crypto/aes keeps until the collector reuses their
// memory. Only processes that ask a KMS have those, and HardenProcess keeps them out of
// core dumps; a process that serves a disk asks its broker.
//
// # Threading
//
// A KMS may be used from any goroutine; calls share one connection, one after the other.
// Of the library only the messages are used: its client races when a connection is lost,
// and can panic then.
//
// Sources: OASIS KMIP Specification 1.4 (3.22 State, 4.4 Re-key, 4.9 Locate, 4.11 Get,
// 4.29 Encrypt, 4.30 Decrypt) and Profiles 1.4 (TLS), NIST SP 800-38D (GCM, random 96-bit
// nonces: at most 2^32 seals per key).
package kmip
