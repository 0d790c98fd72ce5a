// Package uring is a thin layer over io_uring: a ring with batched submission and
// polled completion, for one user at a time.
//
// # Use
//
// New makes a ring; SQE gives the next free submission entry, which one of its
// methods fills; Submit hands all that were filled to the kernel in one call; Peek
// takes completions. Nothing waits: a user sleeps on FD, which polls readable
// while there is something for Peek to do. Peek is called until it returns 0
// before such a sleep, because a ring may hold work (deferred completions, an
// overflow list) that only a system call brings to light, and Peek makes it.
//
// # Memory
//
// The kernel works on addresses, so whatever an entry names belongs to the kernel
// from Submit until the completion was taken by Peek. The caller
//
//   - keeps a Go reference to every iovec array and every buffer for that time. The
//     entries live in memory that the garbage collector does not see. An array of
//     unix.Iovec that is itself referenced is enough, for its Base fields are Go
//     pointers;
//   - uses only memory that stays where it is: the heap (Go's collector does not move
//     it) or mappings, never a stack. What is reached through a slice kept in a heap
//     object is on the heap;
//   - does not touch a buffer that is being read into.
//
// # Threads
//
// A ring is used by one goroutine at a time and takes no lock. The goroutine need
// not be locked to a thread, but completions are finished by the thread that
// submitted (IORING_SETUP_COOP_TASKRUN, Linux 5.19: at its next system call, without
// an interrupt), so one that is locked gets them soonest. A thread must not exit
// with operations in flight: the kernel cancels them.
//
// IORING_SETUP_DEFER_TASKRUN is left out on purpose. It would finish completions
// only inside io_uring_enter, and a ring in that mode does not wake a poll(2) of its
// descriptor (seen on Linux 6.18); an eventfd registered beside it would, at the
// price of a signal and a read for every sleep, and the ring would be tied to one
// thread. Cooperative mode has neither price.
//
// # Failure model
//
// An operation's failure is the negative errno in its CQE. Errors of Submit and Peek
// are about the ring itself and final, but for a kernel that has no room at the
// moment (EAGAIN, EBUSY): the entries then stay in the ring, Pending tells how many,
// and they go with a later Submit. Completions that do not fit the completion ring
// are kept by the kernel (IORING_FEAT_NODROP, required) and come with later Peeks.
//
// Sources: io_uring_setup(2), io_uring_enter(2), io_uring_register(2), io_uring(7),
// linux/io_uring.h. Byte order: little-endian hosts only.
package uring
