// Package secret holds key material in memory that is locked, guarded, left out of
// core dumps and of forked children, and wiped when it is destroyed.
//
// # Contract
//
// A [Buffer] is a mapping of its own, never Go heap: the garbage collector neither
// copies nor frees it, and nothing happens to it before Destroy. Its bytes start at
// a multiple of [Align] and are followed, less than Align bytes after their end, by
// a page that cannot be accessed; another such page stands in front of the mapping.
// The pages are
//
//   - locked: they are never written to swap;
//   - left out of core dumps (MADV_DONTDUMP);
//   - absent from forked children (MADV_DONTFORK), and from the program after an
//     exec, as every mapping is;
//   - where the kernel has memfd_secret(2) (Linux 5.14, by default since 6.5) and
//     the process may use it, absent from the kernel's own map of memory too, so that
//     neither ptrace nor /proc/PID/mem nor another process reads them. [Buffer.Backing]
//     tells which of the two kinds of memory a buffer got.
//
// Memory of memfd_secret cannot be the target of I/O that pins pages (O_DIRECT,
// registered io_uring buffers, vmsplice). read(2), write(2) and getrandom(2) work.
//
// A Buffer shows nothing of itself to fmt, log/slog, encoding/json or reflection.
// What leaves it, leaves through [Buffer.Bytes]: whoever takes that slice must not
// turn it into a string, append to it or copy it to the heap. [ReadPipe] and
// [Buffer.WritePipe] take a secret from one process to another without a copy
// outside locked memory (the kernel holds it in the pipe until it is read).
//
// # Threading
//
// Methods may be called from any goroutine. A slice taken from Bytes before Destroy
// is unmapped memory afterwards, and touching it kills the process with SIGSEGV:
// the owner stops every user first. It does not read as zeros, so that nothing is
// ever encrypted under a wiped key by mistake.
//
// # Failure
//
// There is no fallback to unlocked memory. When the limit on locked memory is
// reached, [New] fails with an error that wraps [ErrLimit] and says how to raise it.
// After Destroy, Bytes is nil, Len is 0, Equal is false and the pipe helpers fail
// with [ErrDestroyed]. A Buffer has no finalizer: its bytes may be in use through a
// slice that the collector does not know. [Live] counts what was not destroyed.
//
// Sources: memfd_secret(2), mlock(2), madvise(2), prctl(2) PR_SET_DUMPABLE,
// core(5), getrandom(2).
package secret
