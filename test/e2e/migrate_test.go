//go:build e2e

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/qmp"
	"sealblk/test/guest"
)

// incoming starts an export that stands by for a disk.
func (h *host) incoming(disk string) *export {
	h.t.Helper()
	return h.exportAt(filepath.Join(h.dir, disk+"-incoming.sock"), disk, "--incoming", "--num-queues", "2")
}

// machineFor starts a machine whose guest is to come, with the disk of an export.
func machineFor(t *testing.T, c guest.Config, e *export) *guest.VM {
	t.Helper()
	c.Incoming = true
	c.Disks = []guest.Disk{cold(e)}
	return guest.ForTest(t, c)
}

// monitor speaks QMP to a machine.
func monitor(t *testing.T, vm *guest.VM) *qmp.Monitor {
	t.Helper()
	m, err := qmp.Dial(t.Context(), vm.QMP())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Disconnect() })
	return m
}

func command(t *testing.T, m *qmp.Monitor, name string, args, out any) {
	t.Helper()
	if err := m.Execute(t.Context(), name, args, out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// The pace of a migration.
var (
	// endless would stop the guest only for a millisecond: after all memory it sends what
	// was written meanwhile, and so on. Slow is slower than the load writes: it stays so.
	endless = map[string]any{"max-bandwidth": 64 << 20, "downtime-limit": 1}
	slow    = map[string]any{"max-bandwidth": 256 << 10}
	atOnce  = map[string]any{"max-bandwidth": 1 << 30, "downtime-limit": 2000}
)

// startMigration begins a migration that is completed when the destination has said so.
func startMigration(t *testing.T, m *qmp.Monitor, to *guest.VM, pace map[string]any) {
	t.Helper()
	capability(t, m, "return-path", true)
	send(t, m, to, pace)
}

func send(t *testing.T, m *qmp.Monitor, to *guest.VM, pace map[string]any) {
	t.Helper()
	command(t, m, "migrate-set-parameters", pace, nil)
	command(t, m, "migrate", map[string]any{"uri": "unix:" + to.MigrationSocket()}, nil)
}

func capability(t *testing.T, m *qmp.Monitor, name string, on bool) {
	t.Helper()
	command(t, m, "migrate-set-capabilities", map[string]any{
		"capabilities": []any{map[string]any{"capability": name, "state": on}},
	}, nil)
}

type migrationStatus struct {
	Status    string `json:"status"`
	ErrorDesc string `json:"error-desc"`
	RAM       struct {
		Rounds int `json:"dirty-sync-count"`
	} `json:"ram"`
}

// migrationBecomes waits for a state of the migration.
func migrationBecomes(t *testing.T, m *qmp.Monitor, enough func(migrationStatus) bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var s migrationStatus
		command(t, m, "query-migrate", nil, &s)
		if enough(s) {
			return
		}
		if s.Status == "failed" || time.Now().After(deadline) {
			t.Fatalf("migration: %+v", s)
		}
	}
}

func is(status string) func(migrationStatus) bool {
	return func(s migrationStatus) bool { return s.Status == status }
}

// load fills 24 MiB with noise. It writes noise to the first third, slot by slot, and
// notes the sum of each slot; and reads the second third into the guest's memory again
// and again. It goes on until /tmp/stop is there; /tmp/still stills the reader.
//
// Somebody has the disk open all the time: else the kernel drops what it has read with the
// last who closes it.
const load = `set -e
sleep 100000 </dev/vda >/dev/null 2>&1 &
dd if=/dev/urandom of=/dev/vda bs=1M count=24 conv=notrunc,fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=8 count=8 2>/dev/null | sha256sum >/tmp/second
(i=0; while [ ! -e /tmp/stop ]; do
	slot=$((i % 32)); i=$((i + 1))
	dd if=/dev/urandom of=/tmp/noise bs=64k count=1 2>/dev/null
	dd if=/tmp/noise of=/dev/vda bs=64k seek=$slot count=1 conv=notrunc,fsync 2>/dev/null || echo "write $slot" >>/tmp/bad
	sum=$(sha256sum </tmp/noise); echo "$sum" >/tmp/sum.$slot; echo $i >/tmp/writes
done; echo done >/tmp/writer) >/dev/null 2>&1 &
(i=0; while [ ! -e /tmp/stop ]; do
	echo 1 >/proc/sys/vm/drop_caches
	dd if=/dev/vda bs=1M skip=8 count=8 2>/dev/null | sha256sum | cmp -s - /tmp/second || echo "read" >>/tmp/bad
	i=$((i + 1)); echo $i >/tmp/reads
	[ ! -e /tmp/still ] || touch /tmp/stilled
	while [ -e /tmp/still ]; do usleep 50000; done
done; echo done >/tmp/reader) >/dev/null 2>&1 &
until [ -s /tmp/writes ] && [ -s /tmp/reads ]; do usleep 50000; done`

// goesOn waits until the load has written some more, and sees that nothing went wrong.
const goesOn = `n=$(cat /tmp/writes); until [ $(cat /tmp/writes) -gt $((n + 4)) ]; do usleep 50000; done; ! cat /tmp/bad 2>/dev/null`

// readOnce reads the last third into the guest's memory, where it stays. Nobody but the
// back-end writes to those pages: they arrive if it marks what it writes.
const readOnce = `rm -f /tmp/stilled; touch /tmp/still; until [ -e /tmp/stilled ]; do usleep 50000; done
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=16 count=8 2>/dev/null | sha256sum >/tmp/third`

// compareOnce compares what has arrived, then what is on the disk.
const compareOnce = `read -r before _ </sys/block/vda/stat
dd if=/dev/vda bs=1M skip=16 count=8 2>/dev/null | sha256sum | cmp - /tmp/third || echo "in memory"
read -r after _ </sys/block/vda/stat; [ $before = $after ] || echo "not in memory"
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=16 count=8 2>/dev/null | sha256sum | cmp - /tmp/third || echo "on the disk"
rm /tmp/still`

// verify ends the load and compares what is on the disk with what was noted.
const verify = `touch /tmp/stop
until [ -e /tmp/writer ] && [ -e /tmp/reader ]; do usleep 50000; done
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=8 count=8 2>/dev/null | sha256sum | cmp -s - /tmp/second || echo "second third" >>/tmp/bad
for f in /tmp/sum.*; do
	slot=${f#/tmp/sum.}
	dd if=/dev/vda bs=64k skip=$slot count=1 2>/dev/null | sha256sum | cmp -s - $f || echo "slot $slot" >>/tmp/bad
done
cat /tmp/bad 2>/dev/null; dd if=/dev/vda bs=1M count=24 2>/dev/null | sha256sum`

// migrate moves a guest, and returns when it works where it is now.
func migrate(t *testing.T, vm, target *guest.VM, from, to side) {
	t.Helper()
	m := monitor(t, vm)
	stop := watch(t, from, to)
	startMigration(t, m, target, endless)
	// All pages are copied once, then the back-end writes to some, then comes the rest.
	migrationBecomes(t, m, func(s migrationStatus) bool { return s.RAM.Rounds >= 2 })
	command(t, m, "migrate-set-parameters", slow, nil)
	vm.Must(t, readOnce)
	command(t, m, "migrate-set-parameters", atOnce, nil)
	migrationBecomes(t, m, is("completed"))
	if got := target.Must(t, compareOnce); got != "" {
		t.Errorf("what the guest had read is not what it reads now: %s", got)
	}
	target.Must(t, goesOn)
	stop()
}

// TestMigration moves a guest that writes and reads without a pause to another machine,
// on another host as far as sealblk can see, and back.
func TestMigration(t *testing.T) {
	leaktest.Tool(t, "cryptsetup")
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "24M", "--encrypted")
	other := h.another("db")
	source := h.export("db", "--num-queues", "2")
	config := guest.Config{CPUs: 2, Disks: []guest.Disk{cold(source)}}
	vm := guest.ForTest(t, config)
	vm.Must(t, load)
	destination := other.incoming("db")
	away := machineFor(t, config, destination)
	here, there := h.side("source", "db", source), other.side("destination", "db", destination)

	// The other host is not told.
	h.run("disk", "resize", "db", "32M")
	vm.Must(t, "until [ $(cat /sys/block/vda/size) = 65536 ]; do usleep 50000; done")
	migrate(t, vm, away, here, there)
	away.Must(t, "echo new | dd of=/dev/vda bs=1M seek=31 conv=notrunc,fsync 2>/dev/null")
	for _, h := range []*host{h, other} {
		if got := h.show("db").State; got != "in-use" {
			t.Errorf("the disk is %q", got)
		}
		h.refused("in use", "disk", "delete", "db")
	}
	vm.Kill()

	back := machineFor(t, config, source) // the export that gave the disk away stands by for it
	migrate(t, away, back, there, here)
	away.Kill()
	destination.stop()

	sum := strings.TrimSuffix(back.Must(t, verify), "  -\n")
	powerOff(t, back)
	source.stop()
	if got := h.show("db").State; got != "available" {
		t.Errorf("the disk is %q", got)
	}
	plain, _ := decrypt(t, other, "db")
	if sum != fmt.Sprintf("%x", sha256.Sum256(plain[:24<<20])) || string(plain[31<<20:][:4]) != "new\n" {
		t.Errorf("the disk in the guest is not what other software decrypts: %s", sum)
	}
}

// another is another host with the same KMS that sees the disk's storage.
func (h *host) another(disk string) *host {
	h.t.Helper()
	other := newHost(h.t)
	if out, err := exec.Command("cp", "-a", filepath.Join(h.dir, "kms"), other.dir).CombinedOutput(); err != nil {
		h.t.Fatalf("copy the KMS: %v\n%s", err, out)
	}
	other.run("disk", "import", disk, "--backend", "file:"+h.show(disk).Path)
	return other
}

// TestMigrationThatFails: wherever a migration ends early, the guest goes on where it
// was, with its disk.
func TestMigrationThatFails(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "24M", "--encrypted")
	source := h.export("db", "--num-queues", "2")
	config := guest.Config{CPUs: 2, Disks: []guest.Disk{cold(source)}}
	vm := guest.ForTest(t, config)
	vm.Must(t, load)
	m, here := monitor(t, vm), h.side("source", "db", source)
	t.Run("machine stops and goes on", func(t *testing.T) { stopsAndGoesOn(t, h, vm, m, here) })
	for _, c := range []struct {
		name   string
		paused bool // the guest is stopped already, and the disk given up
		end    func(target *guest.VM)
		status string
	}{
		{"called off while the guest runs", false, func(*guest.VM) { command(t, m, "migrate_cancel", nil, nil) }, "cancelled"},
		{"destination dies while the guest runs", false, func(target *guest.VM) { target.Kill() }, "failed"},
		{"called off when the guest is stopped", true, func(*guest.VM) { command(t, m, "migrate_cancel", nil, nil) }, "cancelled"},
		{"destination dies when the guest is stopped", true, func(target *guest.VM) {
			target.Kill()
			command(t, m, "migrate-continue", map[string]any{"state": "pre-switchover"}, nil)
		}, "failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			standby := h.incoming("db")
			target := machineFor(t, config, standby)
			there := h.side("destination", "db", standby)
			idle := there.work(t)
			capability(t, m, "pause-before-switchover", c.paused)
			if c.paused {
				startMigration(t, m, target, atOnce)
				migrationBecomes(t, m, is("pre-switchover"))
			} else {
				startMigration(t, m, target, slow)
				migrationBecomes(t, m, is("active"))
				vm.Must(t, goesOn)
			}
			if here.owns() == c.paused || there.owns() {
				t.Error("the right to the disk is not where the guest is")
			}
			h.refused("in use", "disk", "delete", "db")
			c.end(target)
			migrationBecomes(t, m, is(c.status))
			vm.Must(t, goesOn)
			if !here.owns() || there.owns() || there.work(t) != idle {
				t.Error("the disk has not stayed where the guest is")
			}
			target.Kill()
			standby.stop()
		})
	}
	t.Run("destination cannot load the guest and the source is not told", func(t *testing.T) { isNotLoaded(t, h, vm, m, here, config) })
	if got := vm.Must(t, verify); strings.Count(got, "\n") != 1 {
		t.Errorf("got:\n%s", got)
	}
	powerOff(t, vm)
	source.stop()
}

// TestDetachAfterMigration: the note of an attach is of no use when the VM has moved on.
func TestDetachAfterMigration(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "8M", "--encrypted")
	config := guest.Config{CPUs: 2, RootPorts: 1}
	vm := guest.ForTest(t, config)
	h.run("disk", "attach", "db", "--qmp", vm.QMP(), "--id", "hot", "--bus", "rp0")
	if err := vm.WaitDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	vm.Must(t, "echo written | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null")
	standby := h.exportAt(filepath.Join(h.dir, "standby.sock"), "db", "--incoming") // as attach started the other
	config.Incoming = true
	config.Args = []string{"-chardev", "socket,id=c,path=" + standby.socket, "-device", "vhost-user-blk-pci,id=hot,chardev=c,bus=rp0,num-queues=4"}
	target := guest.ForTest(t, config)
	m := monitor(t, vm)
	startMigration(t, m, target, atOnce)
	migrationBecomes(t, m, is("completed"))
	m.Disconnect()
	target.Must(t, "echo 3 >/proc/sys/vm/drop_caches; head -c 8 /dev/vda") // it has its disk

	if out := h.run("disk", "detach", "db"); !strings.Contains(out, "migrated") || !strings.Contains(out, standby.socket) {
		t.Errorf("detach says %q", out)
	}
	h.refused("not attached", "disk", "detach", "db")
	h.refused("in use", "disk", "delete", "db")
	if got := target.Must(t, "echo 3 >/proc/sys/vm/drop_caches; head -c 8 /dev/vda; echo more | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null"); got != "written\n" {
		t.Errorf("the guest reads %q where it is now", got)
	}
	powerOff(t, target)
	standby.stop()
}

// stopsAndGoesOn: to pause a machine gives the disk up, as the last step of a migration
// does.
func stopsAndGoesOn(t *testing.T, h *host, vm *guest.VM, m *qmp.Monitor, here side) {
	for range 3 {
		command(t, m, "stop", nil, nil)
		if here.owns() {
			t.Error("a stopped machine's export still owns the disk")
		}
		h.refused("in use", "disk", "delete", "db")
		command(t, m, "cont", nil, nil)
		vm.Must(t, goesOn)
		if !here.owns() {
			t.Error("a running machine's export does not own the disk")
		}
	}
}

// isNotLoaded: a machine that was not to lose its guest, but has, can be told to go on.
func isNotLoaded(t *testing.T, h *host, vm *guest.VM, m *qmp.Monitor, here side, config guest.Config) {
	capability(t, m, "return-path", false)
	capability(t, m, "pause-before-switchover", false)
	for range 20 {
		if lostUnnoticed(t, h, vm, m, here, config) {
			return
		}
	}
	t.Error("the source notices each time")
}

// lostUnnoticed tells whether the source took its guest to be loaded. If the destination
// ends before all is sent the source notices, and goes on by itself.
func lostUnnoticed(t *testing.T, h *host, vm *guest.VM, m *qmp.Monitor, here side, config guest.Config) bool {
	standby := h.incoming("db")
	config.Incoming, config.Disks = true, []guest.Disk{{ID: "cold", Socket: standby.socket, Queues: 1}} // not as the source
	target := guest.ForTest(t, config)
	send(t, m, target, atOnce)
	completed := false
	migrationBecomes(t, m, func(s migrationStatus) bool {
		completed = s.Status == "completed"
		return completed || s.Status == "failed"
	})
	<-target.Exited()
	if completed {
		if here.owns() {
			t.Error("the source owns the disk without its guest")
		}
		command(t, m, "cont", nil, nil)
	}
	vm.Must(t, goesOn)
	if !here.owns() {
		t.Error("the disk is not where the guest is")
	}
	standby.stop()
	return completed
}
