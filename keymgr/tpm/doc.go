// Package tpm keeps the root key of the embedded KMS sealed to a TPM 2.0.
//
// # Contract
//
// A [Source] wraps a root key into a sealed data object below the TPM's storage root
// key (the ECC primary key of the TCG's template in the owner hierarchy, made anew for
// each call). The object stays in the KMS's folder; only this TPM loads it, and clearing
// the owner hierarchy makes it useless for good. Keep a backup of the KMS.
//
// With PCRs the object opens only while those registers of the SHA-256 bank have the
// values that they had when it was sealed: the same firmware, boot loader or kernel,
// depending on the register. Before an update that changes them, move the root key to
// another source, and back afterwards. Without PCRs whoever may use the TPM of this host
// opens it: the key does not leave with a disk or a backup, but root on the host has it.
//
// What goes to and from the TPM in secret is encrypted on the bus, in sessions that are
// salted under the storage root key. When a key is opened that has to be the storage
// root key under which it was sealed, by its name, so that nobody on the bus can put his
// own in its place then; when one is sealed, the TPM that answers is trusted.
//
// # Secrets in memory
//
// An unsealed key is copied into locked memory and wiped where it can be reached: the
// answer of the TPM and what go-tpm parsed of it. go-tpm marshals a key that is to be
// sealed on the Go heap, and derives the keys of its sessions there; what the collector
// leaves of that is out of reach. HardenProcess keeps it out of core dumps.
//
// # Failure
//
// Errors are *keymgr.Error: ErrUnreachable when there is no TPM, ErrAccessDenied when it
// refuses (other boot state, other TPM), each with a hint.
//
// Sources: TCG TPM 2.0 Library Specification, Parts 1 (sessions, 19 and 21) and 3; TCG
// EK Credential Profile (template of the storage root key); swtpm(8), for sockets.
package tpm
