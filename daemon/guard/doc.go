// Package guard keeps debuggers out of workers: an eBPF program in the kernel refuses
// ptrace, /proc/PID/mem, process_vm_readv, process_vm_writev and pidfd_getfd on every
// registered process, to everyone, root included.
//
// # Contract
//
// [Load] puts the program into the kernel and pins it, with the map of registered
// processes, in a directory of bpffs: it works on without the process that loaded it,
// until [Unload] or a reboot. Unload returns when nothing is refused any more. [Register]
// adds a process, which leaves with its end; no pid that is used again is guarded by
// mistake, because the entry belongs to the kernel's task, not to its number. When
// Register returns, every later access is refused.
//
// A child is not guarded by its parent's registration, though it has the parent's memory
// until it executes a program: who registers a process sees to it that it forks nothing
// while it holds keys.
//
// The guard is against reading keys by accident or with an ordinary tool, root's own
// included. It does not stop root from unloading it, from loading another program, or
// from reading memory with the kernel's help.
//
// What only looks (PTRACE_MODE_READ: /proc/PID/maps, fd, environ) is not refused, so
// that ps, lsof and monitoring work.
//
// # Requirements
//
// Linux 5.11 with CONFIG_BPF_LSM and "bpf" in the list of LSMs; root. [Supported] says
// what is missing.
//
// # The object
//
// guard_bpfel.o is compiled from bpf/guard.c by make generate, with Debian 12's clang,
// and committed, so that nobody needs a compiler to build.
//
// # Sources
//
// Documentation/bpf/prog_lsm.rst, Documentation/bpf/map_cgrp_storage.rst and bpf(2)
// (task storage), ptrace(2) ("Ptrace access mode checking"), lsm_list_modules(2).
package guard
