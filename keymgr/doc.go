// Package keymgr says what a key management service (KMS) is and how a disk's
// data key lives.
//
// Envelope encryption has three storeys: a customer master key (CMK) that never
// leaves the KMS, a data key (DK) per disk that the KMS generates and wraps under
// the CMK, and the data, encrypted under the DK. A disk stores the wrapped DK
// only. The plaintext DK exists in locked memory ([sealblk/keymgr/secret]) of the
// host that serves the disk, and nowhere else.
//
// Every call that makes or opens a wrapped key carries an encryption context: a
// map of strings that the KMS binds to the blob as additional authenticated data.
// A blob does not open under another context, so a wrapped key moved to another
// disk is useless.
//
// A caller that knows URIs asks a [Set]: it routes each call to the KMS that the
// URI's scheme names and retries what is worth it ([Retry]). Calls for the same blob at
// the same time become one, and calls of a host go through a [Gate].
//
// A data key changes the CMK that wraps it by ReEncrypt, inside the KMS. To move to
// another KMS, or to be wrapped by a second one, it is unwrapped into locked memory
// and given to the other KMS, which must be a [Wrapper].
//
// One folder below this one holds each KMS; the embedded one, [sealblk/keymgr/local],
// is the default and needs no set-up.
package keymgr
