package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeQEMU is a machine behind a QMP socket. Its state outlives connections, and
// a test may spoil any command.
type fakeQEMU struct {
	path string

	mu       sync.Mutex
	memdevs  []map[string]any
	main     string              // the machine's memory-backend
	mapped   map[string]bool     // memdevs that a larger region contains
	types    map[string]string   // of memdevs
	bridges  map[string]string   // host bridge -> name of its bus
	buses    map[string]*fakeBus // by name
	devices  map[string]*fakeDevice
	chardevs map[string]string // id -> socket
	status   string            // of the run state
	schema   []map[string]any
	commands []string
	args     map[string]json.RawMessage // the last of each command

	// spoil is asked before each command, with its number from 0.
	spoil func(n int, r request) fault
	// unplug tells how the guest answers device_del.
	unplug guest
	// cancel is called by the fault cancelled.
	cancel context.CancelFunc
}

type fakeBus struct {
	typ, parent, handler string
}

type fakeDevice struct {
	typ, bus, chardev string
	unplugging        bool
}

type fault int

const (
	none      fault = iota
	lostFirst       // the connection ends, the command is not run
	lostAfter       // the command is run, the connection ends without a reply
	cancelled       // the command is run, the caller gives up before the reply
	refuse          // an error
)

type guest int

const (
	releases guest = iota
	releasesUnheard
	releasesAtSecond // request; the first is missed
	holds
	refuses
)

func newFake(t *testing.T) *fakeQEMU {
	q := &fakeQEMU{
		memdevs:  []map[string]any{{"id": "mem", "share": true, "size": 64 << 20}},
		main:     "/objects/mem",
		mapped:   map[string]bool{},
		types:    map[string]string{"mem": "memory-backend-memfd"},
		bridges:  map[string]string{"q35": "pcie.0"},
		devices:  map[string]*fakeDevice{"rp0": {typ: "pcie-root-port"}, "rp1": {typ: "pcie-root-port"}},
		buses:    map[string]*fakeBus{"pcie.0": {typ: "PCIE"}},
		chardevs: map[string]string{"compat_monitor0": "stdio"},
		status:   "running",
		args:     map[string]json.RawMessage{},
	}
	for _, rp := range []string{"rp0", "rp1"} {
		q.buses[rp] = &fakeBus{"PCIE", rp, "/machine/unattached/device[2]"}
	}
	q.schema = append(q.schema, object1("addr", "telnet", "reconnect"), object1("reconnect-ms", "addr"),
		object1(strings.Repeat("x", 100_000))) // the real one is as large
	q.path = serve(t, q.connection)
	return q
}

func object1(members ...string) map[string]any {
	var list []map[string]string
	for _, m := range members {
		list = append(list, map[string]string{"name": m})
	}
	return map[string]any{"members": list}
}

// state is what must not differ after a failure.
func (q *fakeQEMU) state() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return fmt.Sprint(q.devices, q.chardevs)
}

func (d *fakeDevice) String() string { return d.typ + "@" + d.bus }

func (q *fakeQEMU) connection(c net.Conn) {
	p, ok := greet(c)
	if !ok {
		return
	}
	for {
		r, ok := p.receive()
		if !ok || !q.command(p, r) {
			return
		}
	}
}

// command answers one command and tells whether the connection goes on. An event
// comes before each reply.
func (q *fakeQEMU) command(p *peer, r request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := none
	if q.spoil != nil {
		f = q.spoil(len(q.commands), r)
	}
	q.commands = append(q.commands, r.Execute)
	q.args[r.Execute] = r.Arguments
	switch f {
	case lostFirst:
		return false
	case refuse:
		return p.send(`{"error": {"class": "GenericError", "desc": "spoilt"}, "id": "` + r.ID + `"}`)
	}
	var args map[string]any
	json.Unmarshal(r.Arguments, &args)
	ret, events, err := q.run(r.Execute, args)
	switch f {
	case lostAfter:
		return false
	case cancelled:
		q.cancel()
		return true
	}
	p.send(`{"event": "NIC_RX_FILTER_CHANGED", "data": {"name": "n"}}`)
	if err != nil {
		reply, _ := json.Marshal(map[string]any{"error": err, "id": r.ID})
		return p.send(string(reply))
	}
	reply, _ := json.Marshal(map[string]any{"return": ret, "id": r.ID})
	return p.send(string(reply)) && p.send(strings.Join(events, ""))
}

func generic(format string, args ...any) *Error {
	return &Error{"GenericError", fmt.Sprintf(format, args...)}
}

func (q *fakeQEMU) run(name string, args map[string]any) (any, []string, *Error) {
	str := func(k string) string { s, _ := args[k].(string); return s }
	empty := map[string]any{}
	switch name {
	case "query-memdev":
		return q.memdevs, nil, nil
	case "query-status":
		return map[string]any{"running": q.status == "running", "status": q.status}, nil, nil
	case "query-version":
		return json.RawMessage(`{"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}`), nil, nil
	case "query-qmp-schema":
		return q.schema, nil, nil
	case "query-chardev":
		return q.queryChardev(), nil, nil
	case "qom-list":
		return q.list(str("path"))
	case "qom-get":
		return q.get(str("path"), str("property"))
	case "qom-list-types":
		return map[string]any{
			"PCI":       []any{map[string]string{"name": "PCIE", "parent": "PCI"}},
			"PCIE":      []any{},
			"pcie-slot": []any{map[string]string{"name": "pcie-root-port"}},
		}[str("implements")], nil, nil
	case "chardev-add":
		if _, ok := q.chardevs[str("id")]; ok {
			return nil, nil, generic("Chardev with id '%s' already exists", str("id"))
		}
		q.chardevs[str("id")] = fmt.Sprint(args["backend"])
		return empty, nil, nil
	case "chardev-remove":
		return empty, nil, q.chardevRemove(str("id"))
	case "device_add":
		return empty, nil, q.deviceAdd(args)
	case "device_del":
		events, err := q.deviceDel(str("id"))
		return empty, events, err
	}
	return nil, nil, &Error{"CommandNotFound", "The command " + name + " has not been found"}
}

func (q *fakeQEMU) queryChardev() []map[string]any {
	list := []map[string]any{}
	for id := range q.chardevs {
		list = append(list, map[string]any{"label": id, "filename": "f", "frontend-open": true})
	}
	return list
}

func (q *fakeQEMU) list(path string) (any, []string, *Error) {
	props := []map[string]string{{"name": "type", "type": "string"}}
	add := func(name, typ string) { props = append(props, map[string]string{"name": name, "type": typ}) }
	switch name := path[strings.LastIndex(path, "/")+1:]; {
	case path == pathMachine:
		add("peripheral", "child<container>")
		for b := range q.bridges {
			add(b, "child<"+b+"-pcihost>")
		}
	case path == pathNamed:
		for id, d := range q.devices {
			add(id, "child<"+d.typ+">")
		}
	case path == pathAnonymous:
	case q.bridges[name] != "":
		b := q.bridges[name]
		add(b, "child<"+q.buses[b].typ+">")
	case strings.Count(path, "/") == 3 && q.devices[name] != nil:
		if b := q.buses[name]; b != nil {
			add(name, "child<"+b.typ+">")
		}
	case q.buses[name] != nil:
		for _, d := range q.devices {
			if d.bus == name {
				add("child[0]", "link<"+d.typ+">")
			}
		}
	default:
		return nil, nil, &Error{"DeviceNotFound", "Device '" + path + "' not found"}
	}
	return props, nil, nil
}

func (q *fakeQEMU) get(path, property string) (any, []string, *Error) {
	name := path[strings.LastIndex(path, "/")+1:]
	switch property {
	case "memory-backend":
		return q.main, nil, nil
	case "container":
		if q.mapped[strings.TrimSuffix(name, "[0]")] {
			return "/machine/ram", nil, nil
		}
		return "", nil, nil
	case "type":
		return q.types[name], nil, nil
	case propHotplugger:
		return q.buses[name].handler, nil, nil
	case "chardev":
		if d := q.devices[name]; d != nil && strings.HasPrefix(path, pathNamed) {
			return d.chardev, nil, nil
		}
	}
	return nil, nil, generic("Property '%s' not found", property)
}

func (q *fakeQEMU) chardevRemove(id string) *Error {
	if _, ok := q.chardevs[id]; !ok {
		return generic("Chardev '%s' not found", id)
	}
	for _, d := range q.devices {
		if d.chardev == id {
			return generic("Chardev '%s' is busy", id)
		}
	}
	delete(q.chardevs, id)
	return nil
}

func (q *fakeQEMU) deviceAdd(args map[string]any) *Error {
	id, bus, chardev := args["id"].(string), args["bus"].(string), args["chardev"].(string)
	if q.devices[id] != nil {
		return generic("Duplicate device ID '%s'", id)
	}
	if _, ok := q.chardevs[chardev]; !ok {
		return generic("Property 'vhost-user-blk-pci.chardev' can't find value '%s'", chardev)
	}
	q.devices[id] = &fakeDevice{typ: args["driver"].(string), bus: bus, chardev: chardev}
	return nil
}

func (q *fakeQEMU) deviceDel(id string) ([]string, *Error) {
	d := q.devices[id]
	if d == nil {
		return nil, &Error{"DeviceNotFound", "Device '" + id + "' not found"}
	}
	again := d.unplugging
	d.unplugging = true
	event := func(name string) []string {
		return []string{
			`{"event": "` + name + `", "data": {"path": "/machine/peripheral/` + id + `/virtio-backend"}}`,
			`{"event": "` + name + `", "data": {"device": "` + id + `", "path": "/machine/peripheral/` + id + `"}}`,
		}
	}
	switch {
	case q.unplug == releases, q.unplug == releasesAtSecond && again:
		delete(q.devices, id)
		return event("DEVICE_DELETED"), nil
	case q.unplug == releasesUnheard:
		delete(q.devices, id)
	case q.unplug == refuses:
		return event("DEVICE_UNPLUG_GUEST_ERROR"), nil
	case again:
		return nil, generic("Device %s is already in the process of unplug", id)
	}
	return nil, nil
}

// backend is a socket where something answers as a vhost-user back-end does.
func backend(t *testing.T) string {
	return serve(t, func(c net.Conn) {
		var req [vhostHeader]byte
		if _, err := c.Read(req[:]); err != nil {
			return
		}
		c.Write(append([]byte{1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0}, make([]byte, 8)...))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		c.Read(req[:])
	})
}
