package conformance_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"sealblk/blockdev"
	"sealblk/blockdev/memory"
	"sealblk/internal/leaktest"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
)

func TestMain(m *testing.M) { leaktest.Main(m, removeProgram) }

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
	socket, _ = serveBlk(t, dev, o)
	return socket
}

// serveBlk is serve that tells what it serves.
func serveBlk(t testing.TB, dev blockdev.Device, o blk.Options) (socket string, d *blk.Device) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	o.Logger = log
	d, err := blk.New(dev, o)
	if err != nil {
		t.Fatal(err)
	}
	return serveDevice(t, d), d
}

// serveDevice runs our sessions over any virtio device.
func serveDevice(t testing.TB, d vhost.Device) (socket string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- vhost.Serve(ctx, ln, d, vhost.Options{Logger: log, PollMax: vhost.DefaultPollMax}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = ln.Close()
	})
	return socket
}

// patient bounds a run in a test, where the machine may be busy with others.
var patient = conformance.Options{Patience: 20 * time.Second, CaseTime: 40 * time.Second, Budget: 10 * time.Minute}

// conform runs the suite, each case as a test.
func conform(t *testing.T, target conformance.Target) conformance.Report {
	t.Helper()
	return conformWith(t, target, patient)
}

func conformWith(t *testing.T, target conformance.Target, o conformance.Options) conformance.Report {
	t.Helper()
	report := conformance.Run(t.Context(), target, o)
	for _, r := range report {
		t.Run(r.Name, func(t *testing.T) {
			switch r.Result {
			case conformance.Skip:
				t.Skip(r.Detail)
			case conformance.Fail:
				t.Errorf("%s (%s, %s): %s", r.Rule, r.Spec, r.Kind, r.Detail)
			}
		})
	}
	return report
}

func TestConformance(t *testing.T) {
	dev := ram(t, memory.Options{MaxCapacity: 2 * capacity})
	socket, d := serveBlk(t, dev, blk.Options{NumQueues: 4, Serial: "conformance"})
	grow := func(context.Context) error {
		err := dev.Grow(dev.Info().Capacity + 1<<20)
		d.Resized()
		return err
	}
	conform(t, conformance.Target{Socket: socket, Grow: grow})
}
