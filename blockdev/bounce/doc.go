// Package bounce passes requests on through memory of our own.
//
// A [Device] is a layer over another device. Data of reads and writes goes through
// bounce memory, and a [Transform] changes it on the way: package crypt encrypts
// there; without a transform the layer copies, which gives a lower device that
// needs aligned memory what it needs. The transform is the copy: data that lies
// whole in the submitter's memory is touched once.
//
// # Memory
//
// Each queue maps an arena when it is opened: one small chunk for each request of
// its depth, and a fixed number of large ones. Pages are taken from the system
// when they are first used, and free chunks are used again last in, first out, so
// that a queue costs what it has had in flight. They are huge pages where the kernel
// has some: each large chunk is in one piece then, which the kernel finds and hands to
// a device faster than 32 pages, and a virtual disk moves faster. The chunks of both
// sizes that are used first share the first of them. The arena is left out of core
// dumps. That is all the memory there is, whatever the submitter asks for.
//
// Where the lower queue is a blockdev.Viewer, a request whose buffers are whole units
// needs no bounce memory: the transform works between the submitter's memory and the
// stored bytes. A read at the same time as a write to the same unit may find it in
// part as it was and in part as it will be, as with every store of that kind. If the
// store was cut short the request fails with blockdev.ErrShort, in a process that asked
// for panics on faults (debug.SetPanicOnFault).
//
// # Progress
//
// A request of at most one small chunk starts at once, always. A longer one takes
// large chunks, and a small one for its end. When the large ones run out the
// request waits in a first-in first-out line, and Poll goes on with it as chunks
// come back; there is no length and no depth that cannot be served, and nothing is
// given up half way. Small requests overtake those that wait.
//
// # Untrusted memory
//
// The submitter's buffers may be changed by a guest at any time. A write's bytes
// are read from them once. A read's bytes go there only after the transform; where
// a unit of the transform lies across buffers it is transformed in bounce memory
// and then copied. Nothing is read back from them. A fault in such memory (a
// truncated file below it) panics where the process has asked for that
// (debug.SetPanicOnFault); the queue can only be closed after it.
//
// # Threading and failure
//
// As package blockdev says: a queue belongs to one goroutine and takes no lock; a
// transform is called by all queues at the same time. WaitFD and Push are those of
// the lower queue; over a lower queue without descriptor, requests are complete
// when Poll has been called until it returns 0. The first error of any part
// completes the whole request once all parts are back; no further part is started
// then.
package bounce
