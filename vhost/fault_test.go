package vhost_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/vhost"
	"sealblk/vhost/frontend"
)

// TestAbandonedRequest: when a request is lost in a fault nothing that it may touch
// is freed, and Serve ends.
func TestAbandonedRequest(t *testing.T) {
	defer vhost.SetFaultPatience(20 * time.Millisecond)()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer ln.Close()
	served := make(chan error, 1)
	go func() { served <- vhost.Serve(context.Background(), ln, &copier{}, vhost.Options{Logger: quiet}) }()
	s, err := frontend.Dial(context.Background(), socket)
	must(t, err)
	d, err := frontend.OpenSession(s, frontend.Options{Timeout: patience, Layout: []frontend.RegionLayout{
		{Size: 4 << 20}, {GuestAddr: 1 << 40, Size: 1 << 20, File: 1},
	}})
	must(t, err)
	must(t, unix.Ftruncate(d.Memory.Regions[1].FD, 0))
	_, err = d.Queue(0).Ring.Add([]frontend.Segment{{Addr: 1 << 40, Len: 1}}, 0)
	must(t, err)
	d.Queue(0).Ring.Publish()
	must(t, d.Queue(0).Kick.Signal())
	wantEnd(t, served, vhost.ErrAbandoned)
	closeDisk(d)
	if n := closeLeftMemory(t); n != 2 {
		t.Errorf("%d files of guest memory are held, want 2", n)
	}
}

// closeLeftMemory closes the files that an abandoned session keeps for good.
func closeLeftMemory(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		fd, err := strconv.Atoi(e.Name())
		must(t, err)
		if strings.Contains(target, "sealblk-guest-memory") {
			must(t, unix.Close(fd))
			n++
		}
	}
	return n
}
