package independent_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sealblk/bench"
	"sealblk/internal/leaktest"
	"sealblk/vhost/frontend"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var (
	compare = flag.Bool("libblkio", false, "compare bench with libblkio's driver (needs cargo, and a quiet machine)")
	rounds  = flag.Int("rounds", 5, "rounds of -libblkio")
)

const deviceSize = 256 << 20

// TestHarnessAgreesWithLibblkio holds bench against a front-end that shares no code
// with it, in rounds, where neither front-end is the bottleneck: `make bench-check`.
func TestHarnessAgreesWithLibblkio(t *testing.T) {
	if !*compare {
		t.Skip("asked for with -libblkio only")
	}
	driver, program := buildDriver(t), build(t)
	place, err := bench.Place(1)
	if err != nil {
		t.Fatal(err)
	}
	// A disk that answers about when the server gives up polling, which is after 32 us, has
	// it sleep or not by the smallest difference, and that is 25 us more or less. So the
	// server polls long enough for every answer.
	h := &bench.Host{Program: program, Directory: t.TempDir(), Size: deviceSize, SectorSize: 4096, Queues: 1, CPUs: place.Server, PollMaxNs: 100_000}
	for _, target := range []string{"memory-encrypted", "tmpfs-encrypted", "file-encrypted", "qsd-luks"} {
		s := start(t, target, h, place)
		for _, w := range []bench.Workload{
			{RW: bench.RandRead, BlockSize: 4096, IODepth: 1},
			{RW: bench.RandRead, BlockSize: 4096, IODepth: 32},
			{RW: bench.Read, BlockSize: 128 << 10, IODepth: 16},
		} {
			if w.IODepth == 1 && (target == "memory-encrypted" || target == "tmpfs-encrypted") {
				continue // of 2 us, what a front-end itself takes is too large a part
			}
			w.Queues, w.Runtime, w.Ramp, w.Polling, w.Seed = 1, 300*time.Millisecond, 30*time.Millisecond, true, 1
			check(t, s, w, place, driver)
		}
	}
}

// start starts a target whose device is filled; a target that this host lacks is left out.
func start(t *testing.T, name string, h *bench.Host, place bench.Placement) *bench.Server {
	t.Helper()
	target, err := bench.FindTarget(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Missing(h); err != nil {
		t.Skipf("%s: %v", name, err)
	}
	s, err := target.Start(context.Background(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(awaitEnd(s.Socket), s.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := bench.Fill(context.Background(), s.Endpoint, 0, place); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitEnd waits until the session of libblkio's driver, which just goes away, is over: by
// one that is not, since servers have one at a time.
func awaitEnd(socket string) error {
	s, err := frontend.Dial(context.Background(), socket)
	if err != nil {
		return err
	}
	s.SetTimeout(patience)
	_, err = s.GetFeatures()
	return errors.Join(err, s.Leave(patience), s.Close())
}

const patience = 20 * time.Second

func check(t *testing.T, s *bench.Server, w bench.Workload, place bench.Placement, driver string) {
	t.Helper()
	var iops, p50 []float64
	var ours, theirs [2][]float64
	for round := range *rounds {
		var r *bench.Result
		var i, l float64
		run := []func(){
			func() { r = own(t, s, w, place) },
			func() { i, l = other(t, driver, s.Socket, &w, place) },
		}
		run[round%2]()
		run[1-round%2]()
		iops, p50 = append(iops, r.IOPS/i), append(p50, r.LatencyUs.P50/l)
		ours[0], ours[1] = append(ours[0], r.IOPS), append(ours[1], r.LatencyUs.P50)
		theirs[0], theirs[1] = append(theirs[0], i), append(theirs[1], l)
	}
	line := fmt.Sprintf("%-17s %-17s IOPS %9.0f / %9.0f = %.3f, p50 %7.2f / %7.2f us = %.3f (medians of %d rounds, ours / libblkio's)",
		s.Name, w.Name(), median(ours[0]), median(theirs[0]), median(iops), median(ours[1]), median(theirs[1]), median(p50), *rounds)
	t.Log(line)
	if r := median(p50); differs(r) {
		t.Errorf("%s %s: the two front-ends differ by more than 15 %%: ratio of latency %.3f", s.Name, w.Name(), r)
	}
	// A disk that others use stalls now and then, which is in the IOPS of some rounds.
	if r := median(iops); differs(r) && s.Name != "file-encrypted" {
		t.Errorf("%s %s: the two front-ends differ by more than 15 %%: ratio of IOPS %.3f", s.Name, w.Name(), r)
	}
}

func differs(ratio float64) bool { return ratio < 0.85 || ratio > 1.15 }

// own runs bench's front-end.
func own(t *testing.T, s *bench.Server, w bench.Workload, place bench.Placement) *bench.Result {
	t.Helper()
	r, err := bench.Run(context.Background(), s.Endpoint, w, place)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// other runs libblkio's driver.
func other(t *testing.T, driver, socket string, w *bench.Workload, place bench.Placement) (iops, p50 float64) {
	t.Helper()
	args := []string{socket, w.RW, strconv.Itoa(w.BlockSize), strconv.Itoa(w.IODepth), fmt.Sprint(w.Runtime.Seconds()), strconv.Itoa(deviceSize)}
	if len(place.Frontend) > 0 {
		args = append(args, strconv.Itoa(place.Frontend[0]))
	}
	out, err := exec.Command(driver, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := fmt.Sscan(strings.TrimSpace(string(out)), &iops, &p50); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return iops, p50
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func buildDriver(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(leaktest.Tool(t, "cargo"), "build", "--release", "--locked", "--target-dir", dir)
	cmd.Dir = "frontend"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build frontend: %v: %s", err, out)
	}
	return filepath.Join(dir, "release", "frontend")
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sealblk")
	if out, err := exec.Command("go", "build", "-o", path, "sealblk/cmd/sealblk").CombinedOutput(); err != nil {
		t.Fatalf("build sealblk: %v: %s", err, out)
	}
	return path
}
