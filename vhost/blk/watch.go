package blk

import (
	"sync"

	"sealblk/vhost"
)

// watchers are the sessions that want to know of a change.
type watchers struct {
	mu   sync.Mutex
	list map[*func()]struct{}
}

// add has changed called with each tell, until stop has returned.
func (w *watchers) add(changed func()) (stop func()) {
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

func (w *watchers) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for changed := range w.list {
		(*changed)()
	}
}

var _ vhost.ConfigWatched = (*Device)(nil)

// WatchConfig implements [vhost.ConfigWatched].
func (d *Device) WatchConfig(changed func()) (stop func()) { return d.watchers.add(changed) }

// Resized tells the driver, by the sessions that there are, that the block device has
// another capacity.
func (d *Device) Resized() { d.watchers.tell() }
