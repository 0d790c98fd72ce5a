package vhost_test

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/vhost"
	"sealblk/vhost/frontend"
)

// TestRequestLostInAFault: a device may be cut short by a fault in the midst of a
// request, which it does not return then. That ends the session, which gives back all
// that it has, and nothing more.
func TestRequestLostInAFault(t *testing.T) {
	dev := &copier{}
	before := openFDs(t)
	for range 3 {
		s, ended := pair(t, context.Background(), dev)
		d, err := frontend.OpenSession(s, frontend.Options{Timeout: patience, Layout: []frontend.RegionLayout{
			{Size: 4 << 20}, {GuestAddr: 1 << 40, Size: 1 << 20, File: 1},
		}})
		must(t, err)
		q := d.Queue(0)
		must(t, q.Do(request(t, q, frontend.TypeFlush, 0, 0)))
		must(t, unix.Ftruncate(d.Memory.Regions[1].FD, 0))
		_, err = q.Ring.Add([]frontend.Segment{{Addr: 1 << 40, Len: 1}}, 0)
		must(t, err)
		q.Ring.Publish()
		must(t, q.Kick.Signal())
		wantEnd(t, ended, vhost.ErrMemoryFault)
		closeDisk(d)
	}
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}
