// Package guest boots a small real Linux under QEMU and runs commands in it, for
// end-to-end tests and for the demonstration.
//
//	vm := guest.ForTest(t, guest.Config{
//		CPUs:      2,
//		RootPorts: 1,
//		Disks:     []guest.Disk{{ID: "disk0", Socket: sock, Queues: 2}},
//	})
//	vm.Must(t, "mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt")
//	... sealblk disk attach NAME --qmp vm.QMP() ...
//	vm.WaitDisk(ctx, "vdb")
//	vm.PowerOff(ctx)
//
// Outside of tests Prepare and Boot do the same and return errors.
//
// # The guest
//
// Kernel and modules are those of Debian's linux-image-cloud-amd64, unpacked into a
// cache (CacheDir) and not installed. The root is an initramfs with busybox-static,
// mke2fs, e2fsck and their libraries from this machine, and whatever Options adds.
// QEMU emulates the CPU (TCG), since test machines have no usable KVM: a boot takes
// some seconds. FindAccelerator tells whether KVM would do. Guest memory is shared, as vhost-user needs it. A reboot ends QEMU.
//
// # Commands
//
// Run gives a shell script to an agent, which is the guest's init, over a virtio
// serial port of its own, so that kernel messages cannot get in between. Output is
// bytes, exit status included. A script is some lines of shell: data goes into the
// guest by Options.Files. Any number of scripts may run at once. A script whose
// context ends is killed with all it started. A context without a deadline gets
// DefaultTimeout.
//
// # Life and death
//
// A VM is QEMU, one goroutine that owns the process, one that reads the agent's
// replies, and a temporary folder. PowerOff, Kill and Close end all of them and wait;
// QEMU also dies with the process that started it. The console is kept
// (VM.Console), and shown by ForTest when the test fails.
//
// Tests that boot guests carry the build tag e2e.
package guest
