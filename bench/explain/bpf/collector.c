// The collector: where the threads of some processes spend their time.
//
// Only the types that are used are declared here; their layout is the running
// kernel's, by relocation (CO-RE), so that no kernel header is needed to build.
//
// A thread runs on one CPU at a time, so what is keyed by thread needs no lock and
// no atomic: all of it is written where the thread runs, but for `woken`.

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

#include <stdbool.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	__u32 flags;
	int pid;
	int tgid;
} __attribute__((preserve_access_index));

struct pt_regs {
	unsigned long orig_ax;
} __attribute__((preserve_access_index));

struct bio {
	struct bio *bi_next;
} __attribute__((preserve_access_index));

struct request {
	struct bio *bio;
} __attribute__((preserve_access_index));

// What a perf_event program is given on x86-64: asm/ptrace.h, linux/bpf_perf_event.h.
struct bpf_perf_event_data {
	__u64 before[16];
	__u64 ip;
	__u64 cs;
};

// linux/bpf.h, linux/sched.h, asm-generic/errno-base.h
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_NOEXIST 1
#define ENOENT 2
#define TASK_DEAD 0x80
#define PF_IO_WORKER 0x10
#define PF_USER_WORKER 0x4000

// Where a thread is, if not in a system call by its number.
#define IN_USER -1   // in the program, or in a fault or interrupt that it took
#define IN_WORKER -2 // a thread of the kernel's that works for the process
#define IN_UNKNOWN -3 // in a system call that it was in before us

// Buckets of a histogram, eight to a power of two, in nanoseconds up to 2^36.
#define BUCKETS 272

#define MAX_PROCESSES 16
#define MAX_PARTS 64 // of a request that are looked at

char __license[] SEC("license") = "Dual MIT/GPL"; // the helpers that are used ask for it

// watched are the processes; the rest is 0.
const volatile __u32 watched[MAX_PROCESSES];

// from and until bound what is counted, by CLOCK_MONOTONIC.
volatile __u64 from, until;

// lost counts what the maps did not take.
volatile __u64 lost;

struct times {
	__u64 on_cpu;
	__u64 asleep;
	__u64 waiting; // runnable, but not on a CPU
};

struct thread {
	__u64 since; // when it came on the CPU, into its system call, or off the CPU
	__u64 woken; // off the CPU: when it became runnable; 0: it is asleep
	__u64 ran;   // in its system call so far, whether counted or not
	__s32 nr;
	__u8 running;
	__u8 slept; // off the CPU of its own will
	__u8 dead;
	__u8 pad;
	struct times user;
	struct times call; // of the system call that it is in
	__u64 voluntary, involuntary;
	__u64 faults;
	__u64 wakeups, wakeup_ns, wakeup_max;
	__u32 wakeup[BUCKETS];
};

struct call_key {
	__u32 tid;
	__s32 nr;
};

struct call {
	__u64 count;
	struct times times;
	__u64 ns, max; // on the CPU, of those that are in the histogram
	__u32 ran[BUCKETS];
};

struct sample_key {
	__u64 ip; // 0: in the kernel
	__u32 tid;
	__u32 pad;
};

struct device {
	__u64 count, bytes, ns, max;
	__u32 latency[BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32); // thread id
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct sample_key);
	__type(value, __u64);
} samples SEC(".maps");

// bios are on their way from a process to a request, issued are requests at a device.
// Requests are completed in interrupts, wherever those are taken.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} bios SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} issued SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

// New entries of maps are copied from here: they are too large for the stack.
static const struct thread no_thread;
static const struct call no_call;

static __always_inline bool ours(__u32 tgid)
{
	for (int i = 0; i < MAX_PROCESSES; i++) {
		if (!watched[i])
			return false;
		if (watched[i] == tgid)
			return true;
	}
	return false;
}

static __always_inline bool counted(__u64 now) { return now >= from && now < until; }

// clip is how much of a time is to be counted.
static __always_inline __u64 clip(__u64 begin, __u64 end)
{
	if (begin < from)
		begin = from;
	if (end > until)
		end = until;
	return end > begin ? end - begin : 0;
}

// bucket of a time: below 8 ns its own; above, by the highest bit and the next three.
static __always_inline __u32 bucket(__u64 ns)
{
	__u32 high = 0;
	__u64 v = ns;

	if (ns < 8)
		return ns;
	if (ns >> 36)
		return BUCKETS - 1;
	if (v >> 32) { high += 32; v >>= 32; }
	if (v >> 16) { high += 16; v >>= 16; }
	if (v >> 8) { high += 8; v >>= 8; }
	if (v >> 4) { high += 4; v >>= 4; }
	if (v >> 2) { high += 2; v >>= 2; }
	if (v >> 1) { high += 1; }
	return (high - 2) * 8 + ((ns >> (high - 3)) & 7);
}

static __always_inline void note(__u32 *histogram, __u64 ns)
{
	__u32 i = bucket(ns);

	if (i < BUCKETS)
		histogram[i]++;
}

static __always_inline struct times *where(struct thread *t)
{
	return t->nr == IN_USER ? &t->user : &t->call;
}

// find is a thread's entry; one that is new has come to be on the CPU now.
static __always_inline struct thread *find(__u32 tid, __u32 flags, __u64 now)
{
	struct thread *t = bpf_map_lookup_elem(&threads, &tid);

	if (t && !t->dead)
		return t;
	if (!t) {
		bpf_map_update_elem(&threads, &tid, &no_thread, BPF_NOEXIST);
		t = bpf_map_lookup_elem(&threads, &tid);
		if (!t) {
			__sync_fetch_and_add(&lost, 1);
			return 0;
		}
	}
	t->dead = 0;
	t->nr = flags & (PF_IO_WORKER | PF_USER_WORKER) ? IN_WORKER : IN_USER;
	t->running = 1;
	t->since = now;
	return t;
}

static __always_inline struct thread *current_thread(__u64 now)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (!ours(id >> 32))
		return 0;
	return find((__u32)id, 0, now);
}

// leave ends a thread's time on the CPU, or in what it did there.
static __always_inline void leave(struct thread *t, __u64 now)
{
	where(t)->on_cpu += clip(t->since, now);
	t->ran += now - t->since;
	t->since = now;
}

SEC("tp_btf/sys_enter")
int sys_enter(__u64 *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct thread *t = current_thread(now);

	if (!t)
		return 0;
	leave(t, now);
	t->nr = (__s32)ctx[1];
	t->ran = 0;
	return 0;
}

SEC("tp_btf/sys_exit")
int sys_exit(__u64 *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct thread *t = current_thread(now);
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	struct call_key key = {};
	struct call *c;

	if (!t || t->nr == IN_USER) // a call from before, or the first of a new thread's life
		return 0;
	leave(t, now);
	key.tid = (__u32)bpf_get_current_pid_tgid();
	key.nr = t->nr == IN_UNKNOWN ? (__s32)regs->orig_ax : t->nr;
	t->nr = IN_USER;
	c = bpf_map_lookup_elem(&calls, &key);
	if (!c && now >= from) {
		bpf_map_update_elem(&calls, &key, &no_call, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&calls, &key);
		if (!c)
			__sync_fetch_and_add(&lost, 1);
	}
	if (c) {
		c->times.on_cpu += t->call.on_cpu;
		c->times.asleep += t->call.asleep;
		c->times.waiting += t->call.waiting;
		if (counted(now)) {
			c->count++;
			c->ns += t->ran;
			note(c->ran, t->ran);
			if (t->ran > c->max)
				c->max = t->ran;
		}
	}
	t->call.on_cpu = t->call.asleep = t->call.waiting = 0;
	return 0;
}

static __always_inline void switch_out(struct task_struct *task, bool runnable, bool dead, __u64 now)
{
	struct thread *t = find(task->pid, task->flags, now);

	if (!t)
		return;
	leave(t, now);
	t->woken = runnable ? now : 0;
	t->slept = !runnable;
	t->dead = dead;
	t->running = 0;
	if (counted(now)) {
		if (runnable)
			t->involuntary++;
		else
			t->voluntary++;
	}
}

static __always_inline void switch_in(struct task_struct *task, __u64 now)
{
	struct thread *t = find(task->pid, task->flags, now);
	__u64 woken;

	if (!t || t->running)
		return;
	woken = t->woken;
	if (!woken || woken < t->since)
		woken = now; // nobody said when
	where(t)->asleep += clip(t->since, woken);
	where(t)->waiting += clip(woken, now);
	if (t->slept && t->woken && counted(now)) {
		t->wakeups++;
		t->wakeup_ns += now - woken;
		if (now - woken > t->wakeup_max)
			t->wakeup_max = now - woken;
		note(t->wakeup, now - woken);
	}
	t->running = 1;
	t->since = now;
}

SEC("tp_btf/sched_switch")
int sched_switch(__u64 *ctx)
{
	bool preempt = ctx[0] & 1;
	struct task_struct *prev = (struct task_struct *)ctx[1];
	struct task_struct *next = (struct task_struct *)ctx[2];
	__u32 state = (__u32)ctx[3]; // Linux 5.18
	bool out = ours(prev->tgid), in = ours(next->tgid);
	__u64 now;

	if (!out && !in)
		return 0;
	now = bpf_ktime_get_ns();
	if (out)
		switch_out(prev, preempt || !state, !preempt && (state & TASK_DEAD), now);
	if (in)
		switch_in(next, now);
	return 0;
}

// wake notes that a thread may run again. It may do so before the thread is off the
// CPU; then sched_wakeup, which is later, tells.
static __always_inline int wake(struct task_struct *task)
{
	struct thread *t;
	__u32 tid;

	if (!ours(task->tgid))
		return 0;
	tid = task->pid;
	t = bpf_map_lookup_elem(&threads, &tid);
	if (t && !t->running && !t->woken)
		t->woken = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sched_waking")
int sched_waking(__u64 *ctx) { return wake((struct task_struct *)ctx[0]); }

SEC("tp_btf/sched_wakeup")
int sched_wakeup(__u64 *ctx) { return wake((struct task_struct *)ctx[0]); }

static __always_inline int fault(void)
{
	__u64 now = bpf_ktime_get_ns();
	struct thread *t = current_thread(now);

	if (t && counted(now))
		t->faults++;
	return 0;
}

SEC("tp_btf/page_fault_user")
int page_fault_user(__u64 *ctx) { return fault(); }

SEC("tp_btf/page_fault_kernel")
int page_fault_kernel(__u64 *ctx) { return fault(); }

// done counts a change of a map that was not made: the lock of a bucket may be refused.
static __always_inline bool done(long err)
{
	if (err && err != -ENOENT)
		__sync_fetch_and_add(&lost, 1);
	return !err;
}

// A bio is made by the process, or a worker of its. The request that it goes into may
// be issued by anyone, as the process may issue those of others.
static __always_inline int mark(__u64 bio)
{
	__u64 one = 1;

	if (ours(bpf_get_current_pid_tgid() >> 32))
		done(bpf_map_update_elem(&bios, &bio, &one, 0));
	return 0;
}

SEC("tp_btf/block_bio_queue")
int block_bio_queue(__u64 *ctx) { return mark(ctx[0]); }

SEC("tp_btf/block_split")
int block_split(__u64 *ctx) { return mark(ctx[0]); }

// It is traced for bios that end without a request.
SEC("tp_btf/block_bio_complete")
int block_bio_complete(__u64 *ctx)
{
	__u64 bio = ctx[1];

	done(bpf_map_delete_elem(&bios, &bio));
	return 0;
}

SEC("tp_btf/block_rq_issue")
int block_rq_issue(__u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct bio *bio = rq->bio;
	__u64 key, now;
	bool any = false;

	for (int i = 0; i < MAX_PARTS && bio; i++) {
		key = (__u64)bio;
		if (done(bpf_map_delete_elem(&bios, &key)))
			any = true;
		bio = bio->bi_next;
	}
	if (!any)
		return 0;
	key = (__u64)rq;
	now = bpf_ktime_get_ns();
	done(bpf_map_update_elem(&issued, &key, &now, 0));
	return 0;
}

SEC("tp_btf/block_rq_complete")
int block_rq_complete(__u64 *ctx)
{
	__u64 key = ctx[0], now, ns;
	__u32 zero = 0;
	__u64 *begun = bpf_map_lookup_elem(&issued, &key);
	struct device *d = bpf_map_lookup_elem(&devices, &zero);

	if (!begun || !d)
		return 0;
	now = bpf_ktime_get_ns();
	ns = now - *begun;
	done(bpf_map_delete_elem(&issued, &key));
	if (!counted(now))
		return 0;
	d->count++;
	d->bytes += (__u32)ctx[2];
	d->ns += ns;
	if (ns > d->max)
		d->max = ns;
	note(d->latency, ns);
	return 0;
}

// sample looks at what a thread runs outside of system calls.
SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct thread *t = bpf_map_lookup_elem(&threads, &tid);
	struct sample_key key = {};
	__u64 *n, none = 0;

	if (!t || t->nr != IN_USER || !counted(bpf_ktime_get_ns()))
		return 0;
	key.tid = tid;
	if (ctx->cs & 3)
		key.ip = ctx->ip;
	n = bpf_map_lookup_elem(&samples, &key);
	if (!n) {
		bpf_map_update_elem(&samples, &key, &none, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&samples, &key);
	}
	if (n)
		(*n)++;
	else
		__sync_fetch_and_add(&lost, 1);
	return 0;
}
