// Package pkcs11 is a KMS whose customer master keys are in a hardware security module
// that is reached through PKCS#11.
//
// The package needs C: it is built with CGO_ENABLED=1 and -tags pkcs11. Without the tag
// [Open] and [Root] answer that this build has no PKCS#11.
//
// # Keys
//
// A key is named pkcs11:LABEL, all AES-256 secret keys of the token with that CKA_LABEL,
// or pkcs11:id=HEX, the one with that CKA_ID. It has to be sensitive and not extractable;
// another one is refused, and as long as it is there the key wraps nothing, while its
// other versions open what they wrapped. Objects with one label are versions of one key:
// each has a CKA_ID of 1 to 64 bytes, and the one with the highest CKA_ID, read as a
// big-endian number, that may encrypt is the primary version. What CKA_START_DATE and
// CKA_END_DATE say is kept: outside of the two a version wraps nothing; it still opens. To
// rotate, make a key with the same label and a higher CKA_ID. To keep a version from
// wrapping, set CKA_ENCRYPT to false; to disable what is wrapped under it, CKA_DECRYPT.
// Who administers keys does it by the tools of the HSM, or pkcs11-tool; this package
// makes, changes and deletes none.
//
// # Wrapped keys
//
// [Root] keeps the root key of the embedded KMS in the same form, under a digest that no
// context has. Data keys are encrypted inside the HSM with AES-256-GCM (CKM_AES_GCM).
//
//	0    4  "SBP" and the format, 1
//	4    1  length of the CKA_ID, n
//	5    n  CKA_ID of the version
//	     32 SHA-256 of the encryption context (label, then its canonical encoding)
//	     1  length of the nonce
//	     .. nonce, 12 bytes, or what the HSM chose in its place
//	     80 data key and tag
//
// The first 37+n bytes are the additional authenticated data, which binds the context by
// its digest: HSMs limit the length of these data, and so a damaged blob (ErrCorrupt) is
// told from a whole one under another context (ErrContextMismatch).
//
// Nonces are random: a version is for at most 2^32 wraps (NIST SP 800-38D, 8.3).
//
// # What the host sees
//
// A data key is made by the host, of the HSM's random number generator and the kernel's
// together (the exclusive or of both, so that it is as good as the better one), in locked
// memory. PKCS#11 has no call that makes a key and gives out nothing but its ciphertext
// under AES-GCM which all modules offer. So GenerateDataKeyWithoutPlaintext, too, has the
// plaintext in locked memory of this process for the moment of the call, and ReEncrypt
// has it between the two versions; neither hands it out. The customer master key never
// leaves the HSM.
//
// PIN, random bytes and plaintext go between locked memory and the module directly. What
// the module itself, a library in this process, does with them is its own affair:
// SoftHSM computes in this process's memory; clients of network HSMs send them through
// an encrypted channel.
//
// # Sessions
//
// A KMS keeps up to Config.Sessions sessions, logged in with the PIN, and gives each call
// one of its own. A session that the token has forgotten (taken out, restarted, logged out)
// is replaced, with a new start of the module if need be, and the call is made once more;
// when that fails too it is ErrUnreachable. A PIN that the token refused is not tried
// again by the same KMS: three wrong ones would lock the token.
//
// A module is started once in a process, however many users it has here. All
// users of a token in one process share its login.
//
// # Threading and time
//
// Methods may be called from any goroutine. PKCS#11 cannot call off what it has begun: a
// call returns when its context or Config.Timeout ends, with ErrUnreachable for the
// latter, and leaves a thread and a session to the module until the module answers. What
// comes then is destroyed.
//
// Sources: OASIS PKCS #11 Cryptographic Token Interface Base Specification 2.40 (order of
// CK_FUNCTION_LIST, sessions, return values) and Current Mechanisms 2.40, section 2.12
// (AES-GCM); RFC 7512 for the idea of the names.
package pkcs11
