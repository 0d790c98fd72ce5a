package blk

import (
	"sync"

	"sealblk/vhost"
)

// watchers are the sessions that want to know of a change of the configuration space.
type watchers struct {
	mu   sync.Mutex
	list map[*func()]struct{}
}

var _ vhost.ConfigWatched = (*Device)(nil)

// WatchConfig implements [vhost.ConfigWatched].
func (d *Device) WatchConfig(changed func()) (stop func()) {
	w := &d.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = make(map[*func()]struct{})
	}
	w.list[&changed] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.list, &changed)
	}
}

// Resized tells the driver, by the sessions that there are, that the block device has
// another capacity.
func (d *Device) Resized() {
	w := &d.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	for changed := range w.list {
		(*changed)()
	}
}
