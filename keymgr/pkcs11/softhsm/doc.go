// Package softhsm sets up a token of SoftHSM, a software HSM, for tests. It has C in it
// and is built with -tags pkcs11 only.
package softhsm
