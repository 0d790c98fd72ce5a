// Package inflight is the region in which a back-end notes the requests that it has
// taken from the rings and not yet returned. The front-end keeps the region when the
// back-end dies, and gives it to the next one, which then knows what is to be done
// again (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, split rings, version 1).
//
// # Why the rings do not suffice
//
// Requests complete in any order. The used index tells how many are done, not which
// ones, and the entries of the avail ring are overwritten by those that follow. So the
// region holds, for each descriptor that heads a chain, whether the chain is in flight
// and when it was taken.
//
// # Order of stores
//
// The process may end between any two stores; none is lost then, because the memory is
// shared and no CPU dies. For a chain that is taken: its counter, then its mark. For a
// batch that is returned:
//
//	Done        each chain's link to the one before it
//	Seal        the head of that list
//	            (the ring's used index: from here on the driver has them)
//	Published   the marks of the batch, then the region's copy of the used index
//
// If that copy differs from the used index in the ring, the last back-end died between
// the two, and [Region.Recover] takes the marks of the batch away: those chains have
// been returned and must not be served again. What is marked after that is in flight.
// The next entry of the avail ring to take follows from it too: the used index and as
// many more as are in flight.
//
// # Memo
//
// Behind the queues, a region that this package made has a word for what the driver set
// and the next back-end would not be told: a front-end that reconnects sends no
// SET_CONFIG. Who made no such word is not given one.
//
// # Contract
//
// A [Region] may be used from any goroutine; a [Queue] belongs to one. After Recover
// the region is only written: what others store there has no effect before the next
// Recover. Queue's methods do not allocate, and do nothing on a nil Queue.
//
// # Failure
//
// The region comes from the front-end and may hold anything. Each word is read once
// and checked: an index outside the queue, a batch longer than the queue, another
// version, size or unknown feature is an error and nothing is served on the strength of
// it. The file behind it is a memfd, not of huge pages, that is sealed against shrinking,
// by us if nobody did it before, so that no access can fail.
//
// Sources: vhost-user protocol (QEMU docs/interop/vhost-user.rst), "Inflight I/O
// tracking" and "Inflight description". That each queue's part begins at a multiple of
// 64 bytes is not in there, but is what existing back-ends agree on.
package inflight
