package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// attachTo is an attach with what is needed and no more.
func attachTo(t *testing.T, m *Monitor, change func(*AttachOptions)) (*Attachment, error) {
	o := AttachOptions{ID: "disk0", SocketPath: "/nowhere/s", NoProbe: true}
	if change != nil {
		change(&o)
	}
	return Attach(patient(t), m, o)
}

// hint is the advice in an error; every error a user can mend has one.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// wantError asserts the kind of an error, that its one line contains a text, and
// that the machine is as it was.
func wantError(t *testing.T, q *fakeQEMU, before string, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v\nwant kind %q with %q", err, kind, text)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("error has more than one line: %q", err)
	}
	if after := q.state(); after != before {
		t.Errorf("the machine is changed:\nbefore %s\nafter  %s", before, after)
	}
}

func TestAttachPlugsTheDisk(t *testing.T) {
	q := newFake(t)
	m := dial(t, q.path)
	sock := backend(t)
	index := 0
	a, err := Attach(patient(t), m, AttachOptions{ID: "disk0", SocketPath: sock, NumQueues: 2, QueueSize: 256, BootIndex: &index})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Attachment{"disk0", "disk0-chardev", "rp0"}); *a != want {
		t.Errorf("got %+v, want %+v", *a, want)
	}
	for command, want := range map[string]string{
		"chardev-add": `{"backend":{"data":{"addr":{"data":{"path":"` + sock + `"},"type":"unix"},"reconnect":1,"server":false},"type":"socket"},"id":"disk0-chardev"}`,
		"device_add":  `{"bootindex":0,"bus":"rp0","chardev":"disk0-chardev","driver":"vhost-user-blk-pci","id":"disk0","num-queues":2,"queue-size":256}`,
	} {
		if got := string(q.args[command]); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", command, got, want)
		}
	}
}

func TestAttachLeavesTheRestToQEMU(t *testing.T) {
	q := newFake(t)
	if _, err := attachTo(t, dial(t, q.path), nil); err != nil {
		t.Fatal(err)
	}
	want := `{"bus":"rp0","chardev":"disk0-chardev","driver":"vhost-user-blk-pci","id":"disk0"}`
	if got := string(q.args["device_add"]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestReconnectIsPutInWhatThisQEMUKnows(t *testing.T) {
	modern := []map[string]any{object1("addr", "telnet", "reconnect", "reconnect-ms")}
	old := []map[string]any{object1("addr", "telnet", "reconnect"), object1("addr", "reconnect-ms")}
	for _, c := range []struct {
		schema []map[string]any
		after  time.Duration
		want   string
	}{
		{modern, 0, `"reconnect-ms":1000`},
		{modern, 250 * time.Millisecond, `"reconnect-ms":250`},
		{modern, time.Microsecond, `"reconnect-ms":1`},
		{old, 0, `"reconnect":1`},
		{old, 250 * time.Millisecond, `"reconnect":1`},
		{old, 1001 * time.Millisecond, `"reconnect":2`},
	} {
		q := newFake(t)
		q.schema = c.schema
		if _, err := attachTo(t, dial(t, q.path), func(o *AttachOptions) { o.Reconnect = c.after }); err != nil {
			t.Fatal(err)
		}
		if got := string(q.args["chardev-add"]); !strings.Contains(got, c.want) || strings.Count(got, "reconnect") != 1 {
			t.Errorf("%s: got %s, want %s", c.after, got, c.want)
		}
	}
}

func TestAttachRefusesUnsharedMemory(t *testing.T) {
	unshared := func(id string) map[string]any { return map[string]any{"id": id, "share": false, "size": 32 << 20} }
	shared := func(id string) map[string]any { return map[string]any{"id": id, "share": true, "size": 1 << 30} }
	for name, c := range map[string]struct {
		change func(*fakeQEMU)
		text   string // "" if it must work
	}{
		"default": {func(q *fakeQEMU) {
			q.memdevs = []map[string]any{unshared("pc.ram")}
			q.main = "/objects/pc.ram"
		}, `memory backend "pc.ram" has share=off; start QEMU with -object memory-backend-memfd,id=mem,size=32M,share=on -machine memory-backend=mem, or in libvirt <memoryBacking>`},
		"one numa node": {func(q *fakeQEMU) {
			q.memdevs = []map[string]any{shared("a"), unshared("b")}
			q.main, q.mapped = "", map[string]bool{"a": true, "b": true}
		}, `"b" has share=off; start QEMU with -object memory-backend-memfd,id=b,size=32M,share=on in its place`},
		"dimm": {func(q *fakeQEMU) {
			q.memdevs = append(q.memdevs, unshared("d"))
			q.mapped["d"] = true
		}, `"d" has share=off`},
		"not in use": {func(q *fakeQEMU) { q.memdevs = append(q.memdevs, unshared("x")) }, ""},
		"unknown use": {func(q *fakeQEMU) {
			q.memdevs, q.main = []map[string]any{shared("a"), unshared("b")}, ""
		}, `"b" has share=off`},
		"anonymous": {func(q *fakeQEMU) { q.types["mem"] = "memory-backend-ram" },
			"memory-backend-ram, which has no file to share"},
		"none": {func(q *fakeQEMU) { q.memdevs = nil }, "QEMU names no memory backend; start QEMU with -object"},
	} {
		t.Run(name, func(t *testing.T) {
			q := newFake(t)
			c.change(q)
			before := q.state()
			_, err := attachTo(t, dial(t, q.path), nil)
			if c.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, q, before, err, ErrMemoryNotShared, c.text)
			if hint(err) == "" {
				t.Error("no hint")
			}
		})
	}
}

func TestAttachChoosesTheSlot(t *testing.T) {
	occupy := func(q *fakeQEMU, buses ...string) {
		for _, b := range buses {
			q.devices["in-"+b] = &fakeDevice{typ: "virtio-net-pci", bus: b}
		}
	}
	for name, c := range map[string]struct {
		change func(*fakeQEMU)
		bus    string
		want   string // or, after '!', the error
	}{
		"first port":    {func(q *fakeQEMU) {}, "", "rp0"},
		"next port":     {func(q *fakeQEMU) { occupy(q, "rp0") }, "", "rp1"},
		"all ports":     {func(q *fakeQEMU) { occupy(q, "rp0", "rp1") }, "", "!all 2 hot-pluggable PCIe ports are occupied; start QEMU with another -device pcie-root-port,id=rp0"},
		"port is fixed": {func(q *fakeQEMU) { q.buses["rp0"].handler = "" }, "", "rp1"},
		"all are fixed": {func(q *fakeQEMU) { q.buses["rp0"].handler, q.buses["rp1"].handler = "", "" }, "", "!hot-plug is off on all 2 PCIe ports"},
		"no port": {func(q *fakeQEMU) {
			delete(q.devices, "rp0")
			delete(q.devices, "rp1")
		}, "", "!the machine has no PCIe port; start QEMU with another -device pcie-root-port"},
		"i440fx": {func(q *fakeQEMU) {
			clear(q.devices)
			q.bridges = map[string]string{"i440FX": "pci.0"}
			q.buses = map[string]*fakeBus{"pci.0": {typ: "PCI", handler: "/machine/x"}}
			occupy(q, "pci.0")
		}, "", "pci.0"},
		"no pci": {func(q *fakeQEMU) {
			clear(q.devices)
			clear(q.bridges)
		}, "", "!the machine has no PCI bus"},
		"asked for":           {func(q *fakeQEMU) {}, "rp1", "rp1"},
		"asked for, occupied": {func(q *fakeQEMU) { occupy(q, "rp1") }, "rp1", `!bus "rp1" is occupied; name one of: rp0`},
		"asked for, fixed":    {func(q *fakeQEMU) {}, "pcie.0", `!bus "pcie.0" does not support hot-plug; name one of: rp0, rp1`},
		"asked for, absent":   {func(q *fakeQEMU) { occupy(q, "rp0", "rp1") }, "rp9", `!the machine has no PCI bus "rp9"; name one of: none is free, start QEMU`},
	} {
		t.Run(name, func(t *testing.T) {
			q := newFake(t)
			c.change(q)
			before := q.state()
			a, err := attachTo(t, dial(t, q.path), func(o *AttachOptions) { o.Bus = c.bus })
			if text, bad := strings.CutPrefix(c.want, "!"); bad {
				wantError(t, q, before, err, ErrNoSlot, text)
				return
			}
			if err != nil || a.Bus != c.want {
				t.Fatalf("got %+v, %v, want %s", a, err, c.want)
			}
		})
	}
}

func TestAttachRefusesAnIDInUse(t *testing.T) {
	q := newFake(t)
	m := dial(t, q.path)
	if _, err := attachTo(t, m, nil); err != nil {
		t.Fatal(err)
	}
	before := q.state()
	_, err := attachTo(t, m, nil)
	wantError(t, q, before, err, ErrInUse, "the machine has a vhost-user-blk-pci with this id; choose another id or detach it first")
	q.mu.Lock()
	delete(q.devices, "disk0")
	q.mu.Unlock()
	before = q.state()
	_, err = attachTo(t, m, nil)
	wantError(t, q, before, err, ErrInUse, "chardev disk0-chardev is left over")
}

func TestAttachChecksItsOptions(t *testing.T) {
	minus := -1
	for name, change := range map[string]func(*AttachOptions){
		"no id":         func(o *AttachOptions) { o.ID = "" },
		"digit first":   func(o *AttachOptions) { o.ID = "0disk" },
		"bad letter":    func(o *AttachOptions) { o.ID = "disk/0" },
		"long id":       func(o *AttachOptions) { o.ID = strings.Repeat("x", 65) },
		"relative path": func(o *AttachOptions) { o.SocketPath = "s" },
		"long path":     func(o *AttachOptions) { o.SocketPath = "/" + strings.Repeat("x", 107) },
		"queues":        func(o *AttachOptions) { o.NumQueues = 1025 },
		"queue size":    func(o *AttachOptions) { o.QueueSize = 100 },
		"large queue":   func(o *AttachOptions) { o.QueueSize = 2048 },
		"boot index":    func(o *AttachOptions) { o.BootIndex = &minus },
		"reconnect":     func(o *AttachOptions) { o.Reconnect = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			// It must not even talk to QEMU.
			if _, err := attachTo(t, New("unix", "/nowhere"), change); !errors.Is(err, ErrBadOptions) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestAttachAsksTheBackendFirst(t *testing.T) {
	silent := serve(t, func(net.Conn) { <-t.Context().Done() })
	other := serve(t, func(c net.Conn) {
		c.Read(make([]byte, vhostHeader))
		fmt.Fprint(c, greetingLine)
	})
	dead := shortDir(t) + "/none"
	for path, text := range map[string]string{
		dead:   "no such file or directory; start the export",
		other:  "not a vhost-user back-end",
		silent: "no reply in time; one export serves one VM",
	} {
		q := newFake(t)
		before := q.state()
		m := dial(t, q.path)
		ctx, cancel := context.WithCancel(patient(t))
		if path == silent {
			ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
		}
		_, err := Attach(ctx, m, AttachOptions{ID: "disk0", SocketPath: path})
		cancel()
		wantError(t, q, before, err, ErrBackend, text)
	}
}

// TestInterruptedIsNoFaultOfTheBackend: who gives up while the back-end is asked reads that,
// and no advice on a back-end that may have nothing wrong.
func TestInterruptedIsNoFaultOfTheBackend(t *testing.T) {
	q := newFake(t)
	before := q.state()
	ctx, cancel := context.WithCancel(patient(t))
	silent := serve(t, func(net.Conn) { cancel(); <-t.Context().Done() })
	_, err := Attach(ctx, dial(t, q.path), AttachOptions{ID: "disk0", SocketPath: silent})
	if errors.Is(err, ErrBackend) {
		t.Errorf("got %v", err)
	}
	wantError(t, q, before, err, context.Canceled, "attach disk0: ask back-end: context canceled")
}

func TestErrorsOfQEMUAreQuoted(t *testing.T) {
	q := newFake(t)
	before := q.state()
	q.spoil = func(_ int, r request) fault {
		if r.Execute == "device_add" {
			return refuse
		}
		return none
	}
	_, err := attachTo(t, dial(t, q.path), nil)
	if err == nil || err.Error() != "attach disk0: run device_add: spoilt (rolled back)" {
		t.Fatalf("got %v", err)
	}
	wantError(t, q, before, err, err, "")
}

func TestSizesAreQEMUs(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 1: "1", 1536: "1536", 2048: "2K", 64 << 20: "64M", 5 << 30: "5G", 1<<30 + 1<<20: "1025M"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// The members of a schema entry that is no object are of another kind.
func TestSchemaEntriesWithoutMembers(t *testing.T) {
	var e []schemaEntry
	err := json.Unmarshal([]byte(`[{"name":"x","meta-type":"enum","values":["a"],"members":[{"name":"a"}]},{"meta-type":"alternate","members":[{"type":"1"}]},{"name":"c","meta-type":"command"}]`), &e)
	if err != nil || len(e) != 3 || !e[0].has("a") || e[2].has("a") {
		t.Fatalf("got %+v, %v", e, err)
	}
}
