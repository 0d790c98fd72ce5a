// Package memory is the guest memory that a front-end shares with us.
//
// A [Table] is an immutable set of mapped regions. Changing it makes a new table
// that shares the mappings that stay, so that whoever reads the old one goes on
// undisturbed. Who owns the mappings says when one goes: nothing unmaps by itself,
// and a mapping must not be closed before the last I/O into it has ended.
//
// Two address spaces lead into a region: guest-physical addresses, which
// descriptors hold, and addresses in the front-end's process ("user addresses"),
// which name the rings. A buffer may span regions that follow each other in
// guest-physical memory; a ring lies in one region.
//
// A Table may be used from any goroutine. A [View] is one goroutine's way into a
// table; it remembers the region of its last hit and does not allocate.
//
// # Failure
//
// Every function that takes a file descriptor owns it from the call on, also when
// it fails. Regions that are empty, wrap around, overlap another one in either
// address space, or reach beyond the end of their file are refused. The file can
// still be truncated later: an access then raises SIGBUS, which is the affair of
// the goroutine that makes it.
//
// The mappings are left out of core dumps: guest memory holds the guest's secrets.
//
// Source: vhost-user protocol, "Memory region description" and "Multiple memory
// regions".
package memory
