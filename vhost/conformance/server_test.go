package conformance_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/memory"
	"sealblk/internal/leaktest"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const capacity = 32 << 20

// ram is a device in memory that is closed when the test ends.
func ram(t testing.TB, o memory.Options) *memory.Device {
	t.Helper()
	dev, err := memory.New(capacity, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

// serve runs our back-end until the test ends.
func serve(t testing.TB, dev blockdev.Device, o blk.Options) (socket string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	o.Logger = log
	d, err := blk.New(dev, o)
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- vhost.Serve(ctx, ln, d, vhost.Options{Logger: log}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = ln.Close()
	})
	return socket
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Target {
		dev := ram(t, memory.Options{})
		return conformance.Target{Socket: serve(t, dev, blk.Options{NumQueues: 4, Serial: "conformance"})}
	})
}
