// Package sandbox takes from a process what it does not need any more: a worker that
// has opened its disk and its sockets keeps those, and can do nothing else.
//
// # Contract
//
// [Apply] holds for the whole process: for every thread that runs and every thread
// that is started later, in builds with and without cgo. Nothing takes it back. After
// it
//
//   - the process runs as an unprivileged user without supplementary groups, with
//     every capability set empty, the bounding set included;
//   - it is in a network namespace of its own that has no interface that is up;
//   - it can gain no privileges by an exec (no_new_privs), and writes no core;
//   - Landlock refuses it every path: to open, create, remove or execute;
//   - seccomp answers EPERM to every system call but those of the data path: no open,
//     no exec, no new socket, no connection, no ptrace, no change of credentials, no
//     executable memory, no signal to others.
//
// File descriptors that were open stay as they are. What needs a path or a privilege
// afterwards belongs into another process.
//
// io_uring executes operations that seccomp does not see; Landlock, the user and the
// network namespace hold for those too.
//
// # Failure
//
// What the kernel lacks, and what only root may do when the process is not root, is
// left out; the [Report] says so, layer by layer. Apply fails, and the process must
// not go on, when a user that was asked for is unknown, or when root cannot be given
// up.
//
// # Sources
//
// capabilities(7), credentials(7), landlock(7), seccomp(2), prctl(2) (PR_SET_DUMPABLE,
// PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP), network_namespaces(7), io_uring_setup(2).
package sandbox
