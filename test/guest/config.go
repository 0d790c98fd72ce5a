package guest

import (
	"cmp"
	"fmt"
	"io"
)

// Config describes a machine. The zero value is a machine with one CPU and no disk.
type Config struct {
	// Assets to boot from; nil for those that Prepare makes with Options.
	Assets *Assets
	Options
	// MemoryMiB is the size of the guest's memory, 0 for 256 MiB.
	MemoryMiB int
	// CPUs is the number of processors, 0 for one.
	CPUs int
	// Disks are there from the start.
	Disks []Disk
	// Accelerator is what runs the guest's CPUs: TCG, which is the default, or KVM.
	Accelerator string
	// RootPorts is the number of slots for hot-plug. They are named rp0, rp1, ...
	RootPorts int
	// PrivateMemory makes a machine that vhost-user disks cannot be plugged into.
	PrivateMemory bool
	// Incoming makes a machine without a guest, which waits for that of another machine
	// of the same configuration. It takes commands when that has moved here.
	Incoming bool
	// KernelArgs are given to the guest's kernel after those that each guest gets.
	KernelArgs string
	// Args are given to QEMU after all others.
	Args []string
	// Console gets what the guest's kernel says as it says it; nil for nobody.
	Console io.Writer
}

// Disk is a vhost-user-blk disk.
type Disk struct {
	// ID of the device; its chardev is ID-chardev.
	ID string
	// Socket is where its back-end listens.
	Socket string
	// Queues is the number of virtqueues, 0 for one per CPU.
	Queues int
}

// kernelArgs are the guest kernel's. A page that is to take data of a disk is not zeroed
// first: then it has its data from the back-end alone, also when it has arrived in another
// machine. And the kernel does not try whether the timer's interrupt works: on a crowded
// host an emulated one comes too late for it, and the guest panics or goes on with a timer
// that never fires.
const kernelArgs = "console=ttyS0 panic=-1 quiet loglevel=5 init_on_alloc=0 no_timer_check "

// args is QEMU's command line, with the sockets for commands and QMP at the paths.
func (c Config) args(port, qmp string) []string {
	memory := fmt.Sprintf("%dK", c.memoryKiB())
	share := "on"
	if c.PrivateMemory {
		share = "off"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35,memory-backend=mem", "-accel", c.accel(), "-cpu", "max",
		"-smp", fmt.Sprint(max(c.CPUs, 1)), "-m", memory,
		"-object", "memory-backend-memfd,id=mem,size=" + memory + ",share=" + share,
		"-kernel", c.Assets.Kernel, "-initrd", c.Assets.Initrd,
		"-append", kernelArgs + c.KernelArgs,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=port,path=" + quote(port),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=sealblk.agent",
		"-qmp", "unix:" + quote(qmp) + ",server=on,wait=off",
	}
	for i := range c.RootPorts {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=rp%d,chassis=%d,slot=%d", i, i+1, i+1))
	}
	for _, d := range c.Disks {
		args = append(args, d.args()...)
	}
	return append(args, c.Args...)
}

// accel is what runs the CPUs. Emulated ones have a thread each, or take turns in one, and
// each has a fault in QEMU 7.2. With threads, a CPU goes on executing an instruction that
// another has replaced, now and then: in a kernel that patches itself while it runs (static
// keys, tracing) one waits for the other for ever. In turns, before 8.1 (commit c914d46d0a)
// memory barriers are left out, and what the guest tells a vhost-user back-end may be lost.
// So a guest that can have no such disk has one thread.
func (c Config) accel() string {
	switch {
	case c.Accelerator == KVM:
		return KVM
	case c.hasDisks():
		return TCG + ",thread=multi"
	default:
		return TCG + ",thread=single"
	}
}

// hasDisks reports whether there is a vhost-user disk, now or later.
func (c Config) hasDisks() bool { return len(c.Disks) > 0 || c.RootPorts > 0 }

// memoryKiB is the size of the guest's memory. It is not a multiple of 64 pages: for
// one that is, QEMU before 9.0 without KVM forgets that a processor may write to a page
// once more after it has looked which ones were written to, and a guest that migrates
// then arrives with stale pages. Fixed by its change "physmem: Fix migration dirty
// bitmap coherency with TCG memory access".
func (c Config) memoryKiB() int { return cmp.Or(c.MemoryMiB, 256)<<10 + 128 }

func (d Disk) args() []string {
	device := "vhost-user-blk-pci,id=" + d.ID + ",chardev=" + d.ID + "-chardev"
	if d.Queues != 0 {
		device += fmt.Sprintf(",num-queues=%d", d.Queues)
	}
	return []string{
		"-chardev", "socket,id=" + d.ID + "-chardev,reconnect=1,path=" + quote(d.Socket),
		"-device", device,
	}
}
