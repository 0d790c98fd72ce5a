// Package cipher is AES-256-XTS over runs of data units.
//
// It is the cipher of a disk: a disk is cut into data units of 512, 1024, 2048 or
// 4096 bytes, and each unit is encrypted on its own under a tweak that is its
// place on the disk. The package knows no disks and no key management; it is
// given 64 bytes of key, a unit size and a sector number.
//
// # Layout
//
// The tweak of a data unit is the number of its first 512-byte sector, as a
// 64-bit little-endian integer padded with zeros to 128 bits. That is what
// dm-crypt calls aes-xts-plain64 (without its iv_large_sectors option), so the
// next unit's tweak is greater by unitSize/512. The sector count is taken modulo
// 2^64, as there.
//
// # Threading
//
// An [XTS] does not change after it was made: any number of goroutines may use
// one at the same time. Destroy is the exception: the caller sees to it that
// nothing else uses the XTS then or afterwards.
//
// # Memory
//
// Round keys lie in the memory that [NewXTSIn] was given and nowhere else; the
// caller locks that memory and keeps it mapped until Destroy. Encrypt and Decrypt
// allocate nothing. They read each byte of the source exactly once and write each
// byte of the destination exactly once, with its final value: source and
// destination may be memory that a hostile guest changes meanwhile, and no
// plaintext is ever written by Encrypt nor ciphertext by Decrypt.
//
// Temporaries that depend on the key are wiped from the stack before a function
// returns, and vector registers are cleared. Beyond the reach of this package are
// what the kernel saves when it stops a thread in the midst of the cipher, and the
// registers that the portable implementation used where there is no assembly.
//
// # Constant time
//
// No implementation looks a table up or takes a branch that depends on the key,
// the plaintext or the tweak. The assembly uses the processor's AES instructions;
// the portable implementation is bitsliced.
//
// # Failure model
//
// Making an XTS fails with an error: wrong sizes, a key with equal halves, memory
// that is too small, a self-test that does not give the known answers. Encrypt and
// Decrypt cannot fail; breaking their contract (lengths, overlap, use after
// Destroy) is a bug of the caller and panics, as in the crypto packages of the
// standard library.
//
// # Sources
//
// IEEE Std 1619-2018, clause 5 (XTS-AES) and annex B (test vectors); NIST SP
// 800-38E; FIPS 197 (AES); FIPS 140-3 Implementation Guidance C.I (the two halves
// of the key differ). The bitsliced S-box is the circuit of J. Boyar and R.
// Peralta, "A depth-16 circuit for the AES S-box" (2011).
package cipher
