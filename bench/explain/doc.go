// Package explain tells where the time of other processes goes: an eBPF collector in the
// kernel adds up, for each of their threads, what it does at any moment.
//
// # Contract
//
// [Watch] attaches the collector to processes, [Collector.Between] says which time is to
// be counted, and [Collector.Report], called when that time is over and while the
// processes still live, returns a [Report]. At any moment a thread is in one of four
// states, and the times of a thread that lived throughout add up to the whole:
//
//   - on a CPU in its own code, a fault or an interrupt ("user"),
//   - on a CPU in a system call, or as a thread of the kernel's that works for the
//     process, as io_uring has them ("system"),
//   - runnable without a CPU ("waiting"): after it was preempted, or after it was woken,
//   - asleep, by the system call that it sleeps in.
//
// What is in progress when the time begins or ends counts with the part inside. A
// system call counts if it returns inside.
//
// What a thread does in its own code is sampled, by [SampleHz] a second of its time on a
// CPU, and named by the symbols of the file that it runs: see [Code]. From n samples a
// share s is known to within about the square root of s(1-s)/n.
//
// Requests to block devices count if the process, or its kernel threads, submitted
// a part of them; what the kernel writes back later on its own is not the process's.
//
// # What it costs
//
// All is added up in the kernel; nothing is passed on event by event. A program that
// was not asked for pays for a comparison at each system call, context switch and page
// fault, and its requests to block devices are looked up, while a collector is attached;
// Linux takes all system calls on its slower path meanwhile. The watched threads pay
// for the accounting: two clock readings for each system call, one for each switch.
// The package cannot know what that is in the end; who uses it measures with and
// without.
//
// # Threading
//
// A Collector is used by one goroutine at a time. Collectors know nothing of each other.
//
// # Failure model
//
// Where the kernel or the user's rights do not do, Watch fails with an error that says
// what to do; [Supported] asks beforehand. Close detaches everything, and so does the end of
// this process. What a map could not take is counted in [Report].Lost.
//
// # Requirements
//
// Linux 5.18 or later with BTF on amd64; root, or CAP_BPF and CAP_PERFMON, and
// CAP_SYS_PTRACE for other users' processes. tracefs need not be mounted.
//
// # The object
//
// collector_bpfel.o is compiled from bpf/collector.c by make generate, with Debian 12's
// clang, and committed, so that nobody needs a compiler to build.
//
// # Sources
//
// The running kernel's events/*/format in tracefs, Documentation/trace/events.rst,
// Documentation/bpf/btf.rst and llvm_reloc.rst (CO-RE), bpf(2), perf_event_open(2),
// proc_pid_maps(5), proc_pid_stat(5), elf(5).
package explain
