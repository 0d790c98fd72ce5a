// Package vhost is a vhost-user back-end: it serves a virtio device to a front-end,
// most often QEMU, that shares its guest's memory with us.
//
// [Serve] accepts one front-end at a time on a unix socket; [ServeConn] serves one
// that is connected already. What the device does with a request is the affair of
// a [Device]; this package knows none.
//
// # Threading
//
// A session is one goroutine. It owns all its state, and sleeps in one place for
// messages, for the first kick of rings that have not started, and for workers
// that failed. Each ring that is started and enabled has a worker: a goroutine
// that is locked to its thread and owns the ring, the device's queue and the
// request slots. It takes no lock and allocates nothing for a request. The session
// changes a running worker only by handing it a function, which the worker runs
// between two requests.
//
// # Life of the shared things
//
// Guest memory and the descriptors of a ring belong to the session. Memory is
// unmapped only when no request is in flight that could touch it: the workers are
// stopped, which drains them, before a region goes. A new region needs no pause.
//
// # Dirty log
//
// While the front-end logs writes (VHOST_F_LOG_ALL), all that a request let the
// device write is marked in its log before the used index tells of the request, and
// the pages of the used ring after each change of it. To turn logging on or off
// drains the rings; another log or another place of a used ring takes effect between
// two requests. A write that the log has no bit for ends the session with
// [sealblk/vhost/dirtylog.ErrOutside], and its request does not look done.
//
// # Changes of the configuration space
//
// A device may change its configuration space by itself ([ConfigWatched]). The
// session then sends a CONFIG_CHANGE_MSG over the back-end channel, without waiting:
// not for room in the channel, and not for an answer.
//
// # Pause
//
// A device may have its rings stand still without the front-end's knowledge ([Pausing]):
// the session drains and ends the workers, and starts them again later. That costs a
// running worker nothing, not even a look at a flag.
//
// # Death
//
// The process may be killed at any moment. What its workers have taken and not returned
// is noted in the in-flight region (package inflight), if the front-end negotiated one
// and keeps it. A worker that starts begins with what is noted there, checks it anew,
// and finishes it even if it is told to stop. A ring with such a past starts without a
// kick, which may have died with the predecessor. A write may thus be carried out twice,
// with the same data, and before the driver was told that it is done.
//
// That holds only if nothing that the predecessor started can still happen: whoever
// opens the block device waits for that (package blockdev/file does, by its lock).
//
// What the driver set in the configuration space is noted in the in-flight region too
// ([Remembering]): QEMU does not say it again when it reconnects, and goes on telling its
// guest what it told it before.
//
// # Failure
//
// A request that cannot be carried out is answered with a non-zero status if the
// front-end asked for an answer, and the session goes on. Without that wish there
// is no way to tell it, and a message that breaks the protocol leaves nothing to
// go on with: both end the session with an error. A malformed ring is broken: its
// requests in flight complete, its error descriptor is signalled, it takes nothing
// more until it is stopped and set up again, and the session lives.
//
// At the end of a session, whatever ended it, requests in flight are completed,
// memory is unmapped, and every descriptor that was received is closed.
//
// A front-end can truncate the file behind its memory at any time. Where the kernel
// runs into that, on behalf of a request, the request fails. A worker that runs into it
// ends the session with [ErrMemoryFault]: what is in flight on its ring is given up, once
// nothing can touch the memory any more, and the next front-end is served. A write
// that was given up has been carried out, in part or not at all, as at the end of a
// process; it is in the in-flight region still.
//
// Sources: vhost-user protocol (QEMU docs/interop/vhost-user.rst); VIRTIO 1.3.
package vhost
