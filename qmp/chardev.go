package qmp

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

// hasChardev tells whether a character device with an id exists.
func hasChardev(ctx context.Context, mon Executor, id string) (bool, error) {
	var list []raw.ChardevInfo
	if err := mon.Execute(ctx, "query-chardev", nil, &list); err != nil {
		return false, err
	}
	return slices.ContainsFunc(list, func(c raw.ChardevInfo) bool { return c.Label == id }), nil
}

// addChardev makes the client end of the connection to a back-end.
func addChardev(ctx context.Context, mon Executor, id, path string, again property) error {
	data := map[string]any{
		"addr":     map[string]any{"type": "unix", "data": map[string]any{"path": path}},
		"server":   false,
		again.name: again.value,
	}
	return mon.Execute(ctx, "chardev-add", map[string]any{
		"id":      id,
		"backend": map[string]any{"type": "socket", "data": data},
	}, nil)
}

// property is one argument of a command.
type property struct {
	name  string
	value int64
}

// reconnectProperty is how this QEMU is told to connect again: reconnect-ms where
// it is known (9.2 and later), else reconnect, in seconds.
func reconnectProperty(ctx context.Context, mon Executor, d time.Duration) (property, error) {
	var schema []schemaEntry
	if err := mon.Execute(ctx, "query-qmp-schema", nil, &schema); err != nil {
		return property{}, fmt.Errorf("ask for reconnect option: %w", err)
	}
	for _, e := range schema {
		// The schema hides the names of types; only a chardev's socket has both of these.
		if e.has("telnet") && e.has("addr") && e.has("reconnect-ms") {
			return property{"reconnect-ms", max(1, d.Milliseconds())}, nil
		}
	}
	return property{"reconnect", int64((d + time.Second - 1) / time.Second)}, nil
}

// schemaEntry is the part of a schema entry that tells an object's members.
type schemaEntry struct {
	Members []struct {
		Name string `json:"name"`
	} `json:"members"`
}

func (e schemaEntry) has(member string) bool {
	for _, m := range e.Members {
		if m.Name == member {
			return true
		}
	}
	return false
}

// removeChardev removes a character device and tells whether it was there. A
// device that is just going may hold it a moment longer.
func removeChardev(ctx context.Context, mon Executor, id string) (bool, error) {
	there, err := hasChardev(ctx, mon, id)
	if err != nil || !there {
		return false, err
	}
	for {
		err := mon.Execute(ctx, "chardev-remove", map[string]string{"id": id}, nil)
		if err == nil || !refused(err) {
			return err == nil, err
		}
		if there, lookErr := hasChardev(ctx, mon, id); lookErr == nil && !there {
			return true, nil
		}
		if !strings.Contains(err.Error(), "busy") {
			return false, err
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return false, fmt.Errorf("%w (%w)", err, cause(ctx))
		}
	}
}
