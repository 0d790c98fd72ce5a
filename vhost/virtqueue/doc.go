// Package virtqueue is the device side of a split virtqueue: it takes descriptor
// chains from the avail ring, checks them, and publishes used elements.
//
// The rings lie in memory that a guest changes at any time. Every value of it is
// copied once and only the copy is checked and used. A chain becomes two lists of
// byte slices, one to read from and one to write to, in memory that the caller
// allocated before; what the bytes mean is the caller's affair.
//
// The offsets, sizes and descriptor format are exported for the driver side.
//
// Source: Virtual I/O Device (VIRTIO) Version 1.3, clauses 2.6 and 2.7.
package virtqueue
