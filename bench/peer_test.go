package bench

import (
	"context"
	"os"
	"testing"
	"time"

	"sealblk/internal/leaktest"
)

// The other servers start, hold what is written to them, and leave nothing behind.
func TestPeers(t *testing.T) {
	for _, tool := range []string{"qemu-storage-daemon", "qemu-img"} {
		leaktest.Tool(t, tool)
	}
	t.Setenv("TMPDIR", t.TempDir())
	h := Host{PeerDirectory: t.TempDir(), Size: 8 << 20, Queues: 2, PollMaxNs: 0}
	w := workload(RandRW)
	w.Queues, w.Verify = 2, true
	p := Plan{Host: h, Workloads: []Workload{w}}
	for _, name := range []string{"qsd-raw", "qsd-luks"} {
		target, err := FindTarget(name)
		if err != nil {
			t.Fatal(err)
		}
		p.Targets = append(p.Targets, target)
	}
	results, err := p.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		checkResult(t, r, &w, func(w Workload) *Result {
			longer := Plan{Host: h, Workloads: []Workload{w}, Targets: p.Targets[i : i+1]}
			results, err := longer.Run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return results[0]
		})
	}
	for _, dir := range []string{h.PeerDirectory, os.Getenv("TMPDIR")} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// What was started is stopped when the rest fails.
func TestServerThatEndsByItself(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	target, err := FindTarget("memory@/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := target.Start(context.Background(), &Host{Size: 1 << 20, Queues: 1}); err == nil {
		t.Error("a program that does nothing is taken for a server")
	}
	if time.Since(start) > startPatience/2 {
		t.Error("waited for a server that had ended")
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTargetsByName(t *testing.T) {
	for name, good := range map[string]bool{
		"memory": true, "memory@/x": true, "socket:/x": true, "qsd-luks": true,
		"": false, "memory@": false, "socket:": false, "qsd-luks@/x": false, "none": false,
	} {
		if target, err := FindTarget(name); (err == nil) != good || err == nil && (target.Name != name || target.External() != (name == "socket:/x")) {
			t.Errorf("%q: %+v, %v", name, target, err)
		}
	}
}
