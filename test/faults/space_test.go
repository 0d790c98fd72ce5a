package faults

import (
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/file"
	"sealblk/internal/leaktest"
	"sealblk/internal/uring"
	"sealblk/vhost/frontend"
)

// TestGuestOnFullFileSystem: a thin disk on a file system that is too small for it.
// Writes that find no space fail and are counted as such, the others hold, and after
// a discard there is room again.
func TestGuestOnFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		leaktest.Missing(t, "the right to mount a tmpfs: "+err.Error())
	}
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	for _, e := range []file.Engine{file.EngineUring, file.EngineThreads} {
		t.Run(e.String(), func(t *testing.T) {
			if err := uring.Probe(); e == file.EngineUring && err != nil {
				leaktest.Missing(t, err.Error())
			}
			s := newStack(t, onFile(e)(t, 4096, dir+"/disk.img"), 4096)
			defer s.close()
			g := newGuest(s, capacity, 4096)
			most := maxBytes / g.unit
			for first := int64(0); first < int64(len(g.may)); first += most {
				g.write(first, most, uint64(first))
			}
			g.drain()
			if got := s.stats(); g.failed == 0 || got.NoSpace != g.failed || got.Failed != 0 {
				t.Errorf("the guest saw %d writes fail, counted were %+v", g.failed, got)
			}
			g.readAll()
			before := g.failed
			g.erase(frontend.TypeDiscard, 0, int64(len(g.may)))
			g.drain()
			g.write(0, most, 1)
			g.flush()
			g.drain()
			if g.failed != before {
				t.Error("there is no room after a discard")
			}
			g.readAll()
		})
	}
}
