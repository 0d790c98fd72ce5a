package qmp

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

const hintSlot = "start QEMU with another -device pcie-root-port,id=rp0,chassis=1 " +
	"(libvirt: <controller type='pci' model='pcie-root-port'/>), one for each disk to plug, or detach a disk"

// bus is a PCI bus of the machine. query-pci would not do to find them: it shows
// nothing behind a port until the guest's firmware has numbered the buses.
type bus struct {
	name    string
	express bool // PCI Express: one device, if it is a port at all
	port    bool // below a root or downstream port
	hotplug bool
	devices int
}

// free tells whether a device can be plugged, as far as can be seen from here: a
// conventional bus with no slot left is QEMU's to refuse.
func (b bus) free() bool {
	return b.hotplug && (!b.express || b.port && b.devices == 0)
}

// findSlot chooses the bus for a new device: the one that is asked for, else the
// first free port, else a free conventional bus.
func findSlot(ctx context.Context, mon Executor, want string) (string, error) {
	buses, err := listBuses(ctx, mon)
	if err != nil {
		return "", fmt.Errorf("find hot-plug slot: %w", err)
	}
	if want != "" {
		return want, checkBus(buses, want)
	}
	for _, b := range buses {
		if b.free() {
			return b.name, nil
		}
	}
	return "", fail(ErrNoSlot, hintSlot, "%s", describe(buses))
}

func checkBus(buses []bus, name string) error {
	i := slices.IndexFunc(buses, func(b bus) bool { return b.name == name })
	switch {
	case i < 0:
		return fail(ErrNoSlot, "name one of: "+freeNames(buses), "the machine has no PCI bus %q", name)
	case !buses[i].hotplug:
		return fail(ErrNoSlot, "name one of: "+freeNames(buses), "bus %q does not support hot-plug", name)
	case !buses[i].free():
		return fail(ErrNoSlot, "name one of: "+freeNames(buses), "bus %q is occupied", name)
	}
	return nil
}

func freeNames(buses []bus) string {
	var names []string
	for _, b := range buses {
		if b.free() {
			names = append(names, b.name)
		}
	}
	if len(names) == 0 {
		return "none is free, " + hintSlot
	}
	return strings.Join(names, ", ")
}

// describe tells why none of the buses will do.
func describe(buses []bus) string {
	var ports, fixed int
	for _, b := range buses {
		if b.port && b.hotplug {
			ports++
		} else if b.port {
			fixed++
		}
	}
	switch {
	case ports > 0:
		return fmt.Sprintf("all %d hot-pluggable PCIe ports are occupied", ports)
	case fixed > 0:
		return fmt.Sprintf("hot-plug is off on all %d PCIe ports", fixed)
	case len(buses) > 0:
		return "the machine has no PCIe port"
	}
	return "the machine has no PCI bus"
}

// listBuses finds the buses of all named and unnamed devices and of the host
// bridge, ports first, in the order of their names.
func listBuses(ctx context.Context, mon Executor) ([]bus, error) {
	l := busLister{qom: qom{mon}}
	if err := l.loadTypes(ctx); err != nil {
		return nil, err
	}
	for _, path := range []string{pathNamed, pathAnonymous, pathMachine} {
		if err := l.visit(ctx, path); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(l.buses, func(a, b bus) int {
		if a.port != b.port && a.port {
			return -1
		} else if a.port != b.port {
			return 1
		}
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return l.buses, nil
}

// busLister walks from devices to their buses.
type busLister struct {
	qom
	busTypes, expressTypes, portTypes map[string]bool
	buses                             []bus
}

func (l *busLister) loadTypes(ctx context.Context) (err error) {
	if l.busTypes, err = l.types(ctx, "PCI"); err != nil {
		return err
	}
	if l.expressTypes, err = l.types(ctx, "PCIE"); err != nil {
		return err
	}
	l.portTypes, err = l.types(ctx, "pcie-slot")
	return err
}

// visit takes the buses of the devices in a container; in the machine itself only
// host bridges have any.
func (l *busLister) visit(ctx context.Context, path string) error {
	devices, err := l.children(ctx, path)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if path == pathMachine && !strings.HasSuffix(d.typ, "-pcihost") {
			continue
		}
		if err := l.visitDevice(ctx, path+"/"+d.name, l.portTypes[d.typ]); err != nil {
			return err
		}
	}
	return nil
}

func (l *busLister) visitDevice(ctx context.Context, path string, port bool) error {
	parts, err := l.children(ctx, path)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if !l.busTypes[p.typ] {
			continue
		}
		b := bus{name: p.name, express: l.expressTypes[p.typ], port: port}
		if err := l.inspect(ctx, path+"/"+p.name, &b); err != nil {
			return err
		}
		l.buses = append(l.buses, b)
	}
	return nil
}

// inspect counts what is plugged into a bus and asks whether more can be.
func (l *busLister) inspect(ctx context.Context, path string, b *bus) error {
	props, err := l.properties(ctx, path)
	if err != nil {
		return err
	}
	for _, p := range props {
		if strings.HasPrefix(p.Name, "child[") {
			b.devices++
		}
	}
	handler, err := l.optional(ctx, path, propHotplugger)
	b.hotplug = handler != ""
	return err
}
