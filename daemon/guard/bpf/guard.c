// The key guard: refuses access to the memory of registered processes.
//
// Only the types that are used are declared here; their layout is the running
// kernel's, by relocation (CO-RE), so that no kernel header is needed to build.

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <bpf/bpf_helpers.h>

struct task_struct {
	struct task_struct *group_leader;
} __attribute__((preserve_access_index));

// linux/bpf.h, linux/ptrace.h, asm-generic/errno-base.h
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_F_NO_PREALLOC 1
#define PTRACE_MODE_ATTACH 0x02
#define EPERM 1

char __license[] SEC("license") = "Dual MIT/GPL"; // the kernel asks LSM programs for a licence that agrees with its own

// guarded has an entry, the number of refusals, for each process that is registered.
// The kernel removes the entry with the process.
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} guarded SEC(".maps");

// The hook runs for ptrace(2), for opening /proc/PID/mem, for process_vm_readv(2),
// process_vm_writev(2) and pidfd_getfd(2), whatever the caller's capabilities. It
// does not run for a process's access to itself.
SEC("lsm/ptrace_access_check")
int ptrace_access_check(__u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[0];
	__u32 mode = (__u32)ctx[1];
	int earlier = (int)ctx[2]; // what programs before this one said
	__u64 *refusals;

	if (earlier)
		return earlier;
	if (!(mode & PTRACE_MODE_ATTACH))
		return 0;
	refusals = bpf_task_storage_get(&guarded, child->group_leader, 0, 0);
	if (!refusals)
		return 0;
	__sync_fetch_and_add(refusals, 1);
	return -EPERM;
}
