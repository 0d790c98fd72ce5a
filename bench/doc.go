// Package bench measures vhost-user-blk servers: it is a virtio driver that does
// nothing but requests, with a clock, a histogram and an eye on what the server uses.
//
// # Contract
//
// [Run] drives one server with one [Workload] and returns a [Result]. A [Plan] starts
// the servers of [Target]s, fills their devices, so that no read is of a hole, and runs
// workloads on each. All units are in the names: _us is microseconds, MB/s is 10^6
// bytes a second.
//
// A request's latency goes from when the front-end decides on it to when it sees the
// used element; the time at which others of its batch are prepared is part of it. A
// slot's next request is decided on as soon as its last is seen, so depth is what is in
// flight at all times. With Verify every sector that is read is compared with what was
// last written there; the first that differs ends the run with [ErrMismatch].
//
// Data on a server that was not started here is written by workloads that write, by
// Verify and by Prefill, never otherwise.
//
// # What it costs
//
// Each queue is driven by a goroutine on its own thread, which does not allocate, lock
// or, but for kicks that the server asks for, make system calls. It spins; where threads
// have to share CPUs it yields often. [Result].FrontendWork tells its own cost for each
// request, and FrontendBusy how near it is to being the bottleneck itself.
//
// [RunExplained] also tells where the server's time went, with a collector in the kernel:
// see package explain. It measures what the collector costs, and its results are without.
//
// # Threading
//
// One Run, Fill or Plan at a time: while one runs, the process's garbage collector is
// off and GOMAXPROCS raised.
//
// # Failure model
//
// A failed request, a server that ends, that breaks the protocol or that does not answer
// ends the run with an error that names the target, and the offset where there is one.
// Servers that were started are stopped, and what they stored is removed, whatever the
// outcome; when the context ends, requests in flight get a second to complete.
package bench
