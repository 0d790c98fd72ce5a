package bench

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/memory"
	"sealblk/internal/leaktest"
	"sealblk/vhost"
	"sealblk/vhost/blk"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const testDevice = 4 << 20

// serve is an export in this process whose device can be made to misbehave.
func serve(t *testing.T, name string) (Endpoint, *fault.Device) {
	t.Helper()
	lower, err := memory.New(testDevice, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dev := fault.New(lower, fault.Options{})
	return Endpoint{Name: name, Socket: serveDevice(t, dev)}, dev
}

func serveDevice(t *testing.T, dev blockdev.Device) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := blk.New(dev, blk.Options{NumQueues: 4, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- vhost.Serve(ctx, ln, disk, vhost.Options{Logger: slog.New(slog.DiscardHandler)}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ln.Close()
		dev.Close()
	})
	return socket
}
