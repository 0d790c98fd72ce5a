//! frontend SOCKET RW BLOCK-SIZE DEPTH SECONDS SIZE [CPU]
//!
//! Drives the first queue of a vhost-user-blk server with RW (randread or read) and
//! prints "iops p50_us p99_us".

use std::error::Error;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};
use virtio_driver::{VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags};

struct Workload {
    random: bool,
    block: usize,
    blocks: u64,
    at: u64,
    state: u64,
}

impl Workload {
    fn next(&mut self) -> u64 {
        if !self.random {
            self.at = (self.at + 1) % self.blocks;
            return self.at * self.block as u64;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state as u128 * self.blocks as u128) >> 64) as u64 * self.block as u64
    }
}

fn guest_memory(size: usize) -> Result<(File, memmap2::MmapMut), Box<dyn Error>> {
    // The name is a C string; the kernel keeps a copy.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size as u64)?;
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file)? };
    map.fill(1); // no page faults later
    Ok((file, map))
}

fn pin(cpu: usize) {
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    if args.len() < 7 {
        return Err("usage: frontend SOCKET RW BLOCK-SIZE DEPTH SECONDS SIZE [CPU]".into());
    }
    if let Some(cpu) = args.get(7) {
        pin(cpu.parse()?);
    }
    let block: usize = args[3].parse()?;
    let depth: usize = args[4].parse()?;
    let runtime = Duration::from_secs_f64(args[5].parse()?);
    let blocks = args[6].parse::<u64>()? / block as u64;
    let mut workload = Workload { random: args[2] == "randread", block, blocks, at: 0, state: 88172645463325252 };

    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let mut transport: Box<VirtioBlkTransport> = Box::new(VhostUser::new(&args[1], features.bits())?);
    let size = (3 * depth).next_power_of_two().max(64) as u16;
    let mut queue = VirtioBlkQueue::<usize>::setup_queues(transport.as_mut(), 1, size)?.remove(0);
    let (file, mut memory) = guest_memory(block * depth)?;
    transport.map_mem_region(memory.as_ptr() as usize, memory.len(), file.as_raw_fd(), 0)?;
    let kick = transport.get_submission_notifier(0);
    queue.set_used_notif_enabled(false);

    let base = memory.as_mut_ptr();
    let mut starts = vec![Instant::now(); depth];
    let mut latencies: Vec<u32> = Vec::with_capacity(1 << 24);
    for slot in 0..depth {
        starts[slot] = Instant::now();
        // Each slot has its own part of the memory, which lives as long as the queue.
        unsafe { queue.read_raw(workload.next(), base.add(slot * block), block, slot)? };
    }
    kick.notify()?;

    let warm = Instant::now() + runtime / 10;
    let end = warm + runtime;
    let (mut begun, mut count) = (None, 0u64);
    let mut done: Vec<usize> = Vec::with_capacity(depth);
    loop {
        for c in queue.completions() {
            if c.ret != 0 {
                return Err(format!("request failed: {}", c.ret).into());
            }
            done.push(c.context);
        }
        if done.is_empty() {
            std::hint::spin_loop();
            continue;
        }
        let now = Instant::now();
        if begun.is_none() && now >= warm {
            begun = Some(now);
        }
        if let (Some(b), true) = (begun, now >= end) {
            let seconds = (now - b).as_secs_f64();
            latencies.sort_unstable();
            let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] as f64 / 1e3;
            println!("{:.0} {:.3} {:.3}", count as f64 / seconds, quantile(0.5), quantile(0.99));
            return Ok(());
        }
        for slot in done.drain(..) {
            if begun.is_some() {
                count += 1;
                if latencies.len() < latencies.capacity() {
                    latencies.push((now - starts[slot]).as_nanos() as u32);
                }
            }
            starts[slot] = now;
            unsafe { queue.read_raw(workload.next(), base.add(slot * block), block, slot)? };
        }
        if queue.avail_notif_needed() {
            kick.notify()?;
        }
    }
}
