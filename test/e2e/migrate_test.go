//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/qmp"
	"sealblk/test/guest"
)

// incoming starts an export that stands by for a disk.
func (h *host) incoming(disk string) *export {
	h.t.Helper()
	socket := filepath.Join(h.dir, disk+"-incoming.sock")
	e := h.export(disk, "--incoming", "--num-queues", "2", "--socket-path", socket)
	e.socket = socket
	return e
}

// ownership watches which of two exports has the lock of a file.
type ownership struct {
	source, destination int // pids
	path                string

	samples, both atomic.Int64
	// moved is when the destination was first seen as the owner.
	moved atomic.Int64
}

// owns tells whether a process holds the right to write to the file: the kernel lists
// the locks of each open file.
func (o *ownership) owns(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || to != o.path {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err == nil && strings.Contains(string(info), "OFDLCK") && strings.Contains(string(info), "WRITE") {
			return true
		}
	}
	return false
}

// sample looks at the source before and after the destination, so that a lock that
// changes hands between two looks is not seen twice.
func (o *ownership) sample() {
	before := o.owns(o.source)
	theirs := o.owns(o.destination)
	if theirs && o.moved.Load() == 0 {
		o.moved.Store(time.Now().UnixNano())
	}
	if theirs && before && o.owns(o.source) {
		o.both.Add(1)
	}
	o.samples.Add(1)
}

func (o *ownership) watch(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			o.sample()
		}
	}()
	return func() {
		cancel()
		<-done
		t.Logf("%d looks at the locks", o.samples.Load())
		if n := o.both.Load(); n != 0 {
			t.Errorf("the disk had two owners, seen %d times", n)
		}
	}
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

type migrationStatus struct {
	Status    string `json:"status"`
	ErrorDesc string `json:"error-desc"`
	RAM       struct {
		Rounds int `json:"dirty-sync-count"`
	} `json:"ram"`
}

// migrationBecomes waits for a status of the migration.
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

func startMigration(t *testing.T, m *qmp.Monitor, to *guest.VM, bandwidth int) {
	t.Helper()
	command(t, m, "migrate-set-parameters", map[string]any{"max-bandwidth": bandwidth, "downtime-limit": 500}, nil)
	command(t, m, "migrate", map[string]any{"uri": "unix:" + to.MigrationSocket()}, nil)
}

// load writes noise to the first half of a disk, slot by slot, reads each slot back at
// once, and notes its sum; and reads the second half into the guest's memory again and
// again. It goes on until /tmp/stop is there.
const load = `set -e
dd if=/dev/urandom of=/dev/vda bs=1M seek=16 count=16 conv=notrunc,fsync 2>/dev/null
dd if=/dev/vda bs=1M skip=16 count=16 2>/dev/null | sha256sum >/tmp/second
(i=0; while [ ! -e /tmp/stop ]; do
	slot=$((i % 64)); i=$((i + 1))
	dd if=/dev/urandom of=/tmp/noise bs=64k count=1 2>/dev/null
	dd if=/tmp/noise of=/dev/vda bs=64k seek=$slot count=1 conv=notrunc,fsync 2>/dev/null || echo "write $slot" >>/tmp/bad
	sum=$(sha256sum </tmp/noise); echo "$sum" >/tmp/sum.$slot; echo $i >/tmp/writes
done; echo done >/tmp/writer) >/dev/null 2>&1 &
(i=0; while [ ! -e /tmp/stop ]; do
	echo 1 >/proc/sys/vm/drop_caches
	dd if=/dev/vda bs=1M skip=16 count=16 2>/dev/null | sha256sum | cmp -s - /tmp/second || echo "read" >>/tmp/bad
	i=$((i + 1)); echo $i >/tmp/reads
done; echo done >/tmp/reader) >/dev/null 2>&1 &
until [ -s /tmp/writes ] && [ -s /tmp/reads ]; do usleep 50000; done`

// verify ends the load and compares: what is in the guest's memory, what is on the
// disk, and what was noted.
const verify = `touch /tmp/stop
until [ -e /tmp/writer ] && [ -e /tmp/reader ]; do usleep 50000; done
dd if=/dev/vda bs=1M skip=16 count=16 2>/dev/null | sha256sum | cmp -s - /tmp/second || echo "second half in memory" >>/tmp/bad
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=16 count=16 2>/dev/null | sha256sum | cmp -s - /tmp/second || echo "second half on disk" >>/tmp/bad
for f in /tmp/sum.*; do
	slot=${f#/tmp/sum.}
	dd if=/dev/vda bs=64k skip=$slot count=1 2>/dev/null | sha256sum | cmp -s - $f || echo "slot $slot" >>/tmp/bad
done
cat /tmp/bad 2>/dev/null; echo "verified"`

// TestMigration moves a guest that writes and reads without a pause to another
// machine, after an attempt that is cancelled.
func TestMigration(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "32M", "--encrypted")
	source := h.export("db", "--num-queues", "2")
	config := guest.Config{CPUs: 2, Disks: []guest.Disk{cold(source)}}
	vm := guest.ForTest(t, config)
	vm.Must(t, load)
	from := monitor(t, vm)

	cancelMigration(t, h, vm, from, config)

	destination := h.incoming("db")
	target := machineFor(t, config, destination)
	path, err := filepath.EvalSymlinks(h.show("db").Path)
	if err != nil {
		t.Fatal(err)
	}
	owners := &ownership{source: source.cmd.Process.Pid, destination: destination.cmd.Process.Pid, path: path}
	if !owners.owns(owners.source) || owners.owns(owners.destination) {
		t.Fatal("before the migration the source is not the owner")
	}
	stop := owners.watch(t)
	startMigration(t, from, target, 64<<20)
	migrationBecomes(t, from, func(s migrationStatus) bool { return s.Status == "completed" })
	target.Must(t, `n=$(cat /tmp/writes); until [ $(cat /tmp/writes) -gt $((n + 5)) ]; do usleep 50000; done`)
	stop()
	if owners.owns(owners.source) || !owners.owns(owners.destination) {
		t.Error("after the migration the destination is not the owner")
	}
	if got := h.show("db"); got.State != "in-use" || got.SocketPath != destination.socket {
		t.Errorf("the disk is %+v", got)
	}
	vm.Kill()
	source.stop()
	h.refused("in use", "disk", "delete", "db")
	if got := target.Must(t, verify); got != "verified\n" {
		t.Errorf("after the migration:\n%s", got)
	}
	powerOff(t, target)
	destination.stop()
	if got := h.show("db").State; got != "available" {
		t.Errorf("the disk is %q", got)
	}
}

func machineFor(t *testing.T, c guest.Config, e *export) *guest.VM {
	t.Helper()
	c.Incoming = true
	c.Disks = []guest.Disk{cold(e)}
	return guest.ForTest(t, c)
}

// cancelMigration begins a migration, and calls it off: the guest goes on where it is.
func cancelMigration(t *testing.T, h *host, vm *guest.VM, from *qmp.Monitor, c guest.Config) {
	t.Helper()
	standby := h.incoming("db")
	target := machineFor(t, c, standby)
	startMigration(t, from, target, 4<<20)
	migrationBecomes(t, from, func(s migrationStatus) bool { return s.Status == "active" })
	vm.Must(t, `n=$(cat /tmp/writes); until [ $(cat /tmp/writes) -gt $((n + 3)) ]; do usleep 50000; done`)
	command(t, from, "migrate_cancel", nil, nil)
	migrationBecomes(t, from, func(s migrationStatus) bool { return s.Status == "cancelled" })
	target.Kill()
	standby.stop()
	vm.Must(t, `n=$(cat /tmp/writes); until [ $(cat /tmp/writes) -gt $((n + 3)) ]; do usleep 50000; done; ! [ -e /tmp/bad ]`)
}

// TestStoppedMachineTakesItsDiskBack: to pause a machine gives the disk up, as the last
// step of a migration does; if that fails, the machine goes on with it.
func TestStoppedMachineTakesItsDiskBack(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "32M", "--encrypted")
	source := h.export("db", "--num-queues", "2")
	vm := guest.ForTest(t, guest.Config{CPUs: 2, Disks: []guest.Disk{cold(source)}})
	vm.Must(t, load)
	m := monitor(t, vm)
	path, err := filepath.EvalSymlinks(h.show("db").Path)
	if err != nil {
		t.Fatal(err)
	}
	owners := &ownership{source: source.cmd.Process.Pid, path: path}
	for range 3 {
		command(t, m, "stop", nil, nil)
		if owners.owns(owners.source) {
			t.Error("a stopped machine's export still owns the disk")
		}
		h.refused("in use", "disk", "delete", "db")
		command(t, m, "cont", nil, nil)
		vm.Must(t, `n=$(cat /tmp/writes); until [ $(cat /tmp/writes) -gt $((n + 2)) ]; do usleep 50000; done`)
		if !owners.owns(owners.source) {
			t.Error("a running machine's export does not own the disk")
		}
	}
	if got := vm.Must(t, verify); got != "verified\n" {
		t.Errorf("got:\n%s", got)
	}
	powerOff(t, vm)
	source.stop()
}
