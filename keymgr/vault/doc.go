// Package vault is a KMS on the transit engine of OpenBao or HashiCorp Vault.
//
// # Contract
//
// A key is named MOUNT/KEY ("vault:transit/disks"): the path of a transit engine and a
// key in it. The key must be derived:
//
//	bao write -f transit/keys/disks derived=true
//
// The engine then derives, for each encryption context, a key of its own, from its key
// and the context (its canonical encoding), and every call that makes, opens or
// re-wraps a data key honours it. Of a key that is not derived the engine ignores the
// context, so that blobs could be moved between disks: such a key is refused before
// anything is done under it, as is a type that is not an AEAD of 256 bits. That needs
// the right to read the key, and one request more for each key that a process uses. The least policy for the disk service is
//
//	path "transit/keys/disks"       { capabilities = ["read"] }
//	path "transit/datakey/+/disks"  { capabilities = ["update"] }
//	path "transit/decrypt/disks"    { capabilities = ["update"] }
//	path "transit/rewrap/disks"     { capabilities = ["update"] }
//	path "transit/encrypt/disks"    { capabilities = ["update"] }   # to move keys here
//
// A blob is the engine's own text, "vault:vN:...", N being the version of the key:
//
//	bao write transit/decrypt/disks ciphertext=BLOB context=BASE64
//
// opens it without this program; BASE64 is [keymgr.Context.Encode] in base64. A blob
// that is not exactly what the engine writes is refused here. The engine cannot tell
// another context from damage: both are ErrContextMismatch.
//
// Re-wrapping under the same key happens inside the engine. It cannot move a data key
// to another of its keys; ReEncrypt then opens it into locked memory here and has it
// wrapped anew, as Wrap does with a data key of another KMS.
//
// # States
//
//	soft-deleted (OpenBao)                      ErrDisabled; "soft-delete-restore" enables it
//	version below min_decryption_version        ErrDisabled: old versions are revoked so
//	deleted, or never made; mount not there     ErrNotFound
//	policy denies it, token revoked             ErrAccessDenied
//	rate limit quota                            ErrThrottled
//	sealed, standby, 5xx, time-out, no network  ErrUnreachable
//
// # Authentication
//
// By a token in a file, or by AppRole: a role id and a secret id in a file. Tokens are
// renewed by a goroutine when two thirds of their time are over. When one has ended in
// spite of that, AppRole logs in again, and a token file is read again: an agent may
// have put another one there.
//
// # Secrets in memory
//
// Package wire reads plaintext data keys from the connection into locked memory and
// decodes them there. Three copies cannot be helped: net/http and crypto/tls have buffers on the Go
// heap through which a plaintext data key passes, and which they use again for what
// comes next; a data key that is moved between two keys is in the body of one request,
// which is wiped when the answer is there, and left to the collector when none comes.
// Token and secret id are Go strings in the client library.
//
// # Threading
//
// A KMS may be used from any goroutine. Close ends the renewal.
//
// Sources: OpenBao's API documentation, "Transit secrets engine", "AppRole auth
// method", "Token auth method"; its behaviour was tried with OpenBao 2.7.
package vault
