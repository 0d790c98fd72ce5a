package qmp

import (
	"context"
	"strings"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

// Places in QEMU's object tree.
const (
	pathMachine    = "/machine"
	pathNamed      = "/machine/peripheral"
	pathAnonymous  = "/machine/peripheral-anon"
	pathObjects    = "/objects"
	propHotplugger = "hotplug-handler"
)

// qom reads QEMU's object tree.
type qom struct{ mon Executor }

type object struct{ name, typ string }

// properties lists what an object has.
func (q qom) properties(ctx context.Context, path string) ([]raw.ObjectPropertyInfo, error) {
	var list []raw.ObjectPropertyInfo
	err := q.mon.Execute(ctx, "qom-list", map[string]string{"path": path}, &list)
	return list, err
}

// children lists the objects inside an object.
func (q qom) children(ctx context.Context, path string) ([]object, error) {
	list, err := q.properties(ctx, path)
	if err != nil {
		return nil, err
	}
	var objs []object
	for _, p := range list {
		if typ, ok := within(p.Type, "child"); ok {
			objs = append(objs, object{p.Name, typ})
		}
	}
	return objs, nil
}

// within takes T out of "kind<T>".
func within(typ, kind string) (string, bool) {
	inner, ok := strings.CutPrefix(typ, kind+"<")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(inner, ">")
}

// text reads a property that is a string; a link is the path of its target, empty
// if there is none.
func (q qom) text(ctx context.Context, path, property string) (string, error) {
	var s string
	args := map[string]string{"path": path, "property": property}
	err := q.mon.Execute(ctx, "qom-get", args, &s)
	return s, err
}

// optional is text of a property that some versions or objects lack.
func (q qom) optional(ctx context.Context, path, property string) (string, error) {
	s, err := q.text(ctx, path, property)
	if refused(err) {
		return "", nil
	}
	return s, err
}

// deviceType is the type of the device with an id, empty if there is none.
func (q qom) deviceType(ctx context.Context, id string) (string, error) {
	devices, err := q.children(ctx, pathNamed)
	if err != nil {
		return "", err
	}
	for _, d := range devices {
		if d.name == id {
			return d.typ, nil
		}
	}
	return "", nil
}

// types is the set of the types that implement one.
func (q qom) types(ctx context.Context, parent string) (map[string]bool, error) {
	var list []raw.ObjectTypeInfo
	if err := q.mon.Execute(ctx, "qom-list-types", map[string]string{"implements": parent}, &list); err != nil {
		return nil, err
	}
	set := map[string]bool{parent: true}
	for _, t := range list {
		set[t.Name] = true
	}
	return set, nil
}
