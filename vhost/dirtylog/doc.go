// Package dirtylog is the dirty log of vhost-user: a bitmap in memory that the
// front-end shares, in which the back-end marks the pages of guest memory that it
// wrote, so that a live migration copies them again.
//
// Bit n stands for the page of [PageSize] bytes at guest-physical address n *
// PageSize. Bits are set by atomic operations, so that no mark is lost while the
// front-end takes marks out. A mark is a full barrier: what was written before it is
// visible to whoever sees it.
//
// # Contract
//
// A [Log] may be used from any goroutine; only Close needs that nobody does. Mark
// neither allocates nor locks, and changes no bit outside the log. The front-end can
// truncate the log's file at any time: a Mark then raises SIGBUS, which is the affair
// of the goroutine that makes it ([Log.Contains] tells whose fault a fault is).
//
// Source: vhost-user protocol, "Migration".
package dirtylog
