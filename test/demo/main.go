// Command demo shows the main job in words: an encrypted disk in a real guest, and
// what is left of it on the host. It needs no KMS, no configuration and no KVM, and
// leaves nothing behind.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sealblk/test/guest"
	"sealblk/test/independent"
)

const message = "Dear diary, nobody on the host shall read this line."

func main() {
	program := flag.String("sealblk", "bin/sealblk", "the program to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := show(ctx, *program); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run: a state directory of its own and a guest.
type demo struct {
	ctx     context.Context
	program string
	dir     string
	vm      *guest.VM
}

func show(ctx context.Context, program string) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "sealblk-demo")
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, program: program, dir: dir}
	defer d.close()
	for _, step := range []func() error{d.create, d.boot, d.attach, d.use, d.detach, d.lookAtHost, d.openWithoutUs} {
		if err := step(); err != nil {
			return err
		}
	}
	say("\nThat was the whole of it: encrypted on the host, plain only in the guest, and yours with or without sealblk.")
	return nil
}

func (d *demo) close() {
	if d.vm != nil {
		d.vm.Close()
	}
	// An export that a failed step left must not outlive its state directory.
	exec.Command(d.program, "--state-dir", d.dir, "disk", "detach", "diary").Run() //nolint:errcheck // there may be none
	_ = os.RemoveAll(d.dir)
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// sealblk runs the program as a user would, and shows both sides.
func (d *demo) sealblk(args ...string) error {
	say("  $ sealblk %s", strings.Join(args, " "))
	cmd := exec.CommandContext(d.ctx, d.program, append([]string{"--state-dir", d.dir}, args...)...)
	out, err := cmd.CombinedOutput()
	fmt.Print(indent(string(out)))
	return err
}

// inGuest runs a script in the guest, and shows both sides.
func (d *demo) inGuest(script string) error {
	say("  guest# %s", script)
	r, err := d.vm.Run(d.ctx, script)
	fmt.Print(indent(r.Output))
	return err
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("    " + line)
	}
	return b.String()
}

func (d *demo) create() error {
	say("\n1. Create an encrypted disk. Nothing was set up: the embedded KMS makes its service key now.")
	if err := d.sealblk("disk", "create", "diary", "--size", "64M", "--encrypted"); err != nil {
		return err
	}
	return d.sealblk("key", "list")
}

func (d *demo) boot() (err error) {
	say("\n2. Boot a Linux guest under QEMU. It knows nothing of encryption. (Emulated, so it takes some seconds.)")
	start := time.Now()
	d.vm, err = guest.Boot(d.ctx, guest.Config{CPUs: 2, RootPorts: 1})
	if err == nil {
		say("    up after %.0f s", time.Since(start).Seconds())
	}
	return err
}

func (d *demo) attach() error {
	say("\n3. Plug the disk into the running guest.")
	if err := d.sealblk("disk", "attach", "diary", "--qmp", d.vm.QMP()); err != nil {
		return err
	}
	return d.vm.WaitDisk(d.ctx, "vda")
}

func (d *demo) use() error {
	say("\n4. The guest sees an ordinary disk: it makes a file system, writes, and reads back.")
	for _, script := range []string{
		`echo "vda: $(($(cat /sys/block/vda/size) / 2048)) MiB, serial $(cat /sys/block/vda/serial)"`,
		"mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt",
		"echo '" + message + "' >/mnt/diary && sync && cat /mnt/diary",
		"umount /mnt",
	} {
		if err := d.inGuest(script); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) detach() error {
	say("\n5. Unplug it. The key is wiped from memory.")
	return d.sealblk("disk", "detach", "diary")
}

func (d *demo) image() string { return filepath.Join(d.dir, "volumes", "diary.img") }

func (d *demo) lookAtHost() error {
	say("\n6. What lies on the host?")
	img, err := os.ReadFile(d.image())
	if err != nil {
		return err
	}
	if bytes.Contains(img, []byte(message)) || bytes.Contains(img, []byte(message[5:20])) {
		return fmt.Errorf("the guest's text is in %s", d.image())
	}
	say("    The guest's text is nowhere in the %d MiB of %s: it is ciphertext.", len(img)>>20, filepath.Base(d.image()))
	return nil
}

func (d *demo) openWithoutUs() error {
	say("\n7. The way out: with the exported key, standard tools open the disk without sealblk.")
	keyFile := filepath.Join(d.dir, "diary.key")
	if err := d.sealblk("disk", "export-key", "diary", "--out", keyFile, "--yes-i-know"); err != nil {
		return err
	}
	layout, err := independent.Header(d.image())
	if err != nil {
		return err
	}
	say("    cryptsetup reads the LUKS2 header: data at byte %d, sectors of %d bytes.", layout.Offset, layout.SectorSize)
	if err := independent.KeyOpens(d.image(), keyFile); err != nil {
		return err
	}
	say("    cryptsetup accepts the key.")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	var plain bytes.Buffer
	if err := independent.Decrypt(&plain, d.image(), key, layout); err != nil {
		return err
	}
	at := bytes.Index(plain.Bytes(), []byte(message))
	if at < 0 {
		return fmt.Errorf("the guest's text is not in the decrypted disk")
	}
	say("    golang.org/x/crypto/xts decrypts the data; at byte %d it says:\n      %s", at, message)
	return nil
}
