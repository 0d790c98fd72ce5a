package bench

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// The names are a contract with scripts.
func TestResultJSON(t *testing.T) {
	b, err := json.Marshal([]*Result{reported("memory", 1e6)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"target":"memory"`, `"workload":"randread-4k-qd32"`, `"rw":"randread"`, `"block_size":4096`, `"iodepth":32`, `"queues":1`, `"runtime_s":1`,
		`"iops":1000000`, `"mbps":4096`, `"lat_us":{"p50":30,"p99":40,"p999":50,"max":60`, `"server_cpu_us_per_io":2`, `"frontend_cpu_us_per_io":0`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	var back []*Result
	if err := json.Unmarshal(b, &back); err != nil || back[0].Distribution[1] != (Point{30, 0.5}) {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestComparedJSON(t *testing.T) {
	samples := []*Result{reported("memory", 1e6)}
	b, err := json.Marshal(compare(samples, samples))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"target":"memory"`, `"iops":1000000`, `"rounds":1`, `"ratios":{`, `"spreads":{`, `"p50_us":{"median":30,"min":30,"max":30}`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

// A line is a name without spaces, an iteration count, and pairs of value and unit
// (golang.org/design/14313-benchmark-format).
func TestGoFormat(t *testing.T) {
	results := []*Result{reported("memory", 1e6), reported("socket:/a b/c", 2e6)}
	results[0].SectorSize, results[1].ServerCPU = 512, nil
	var b bytes.Buffer
	if err := WriteGoFormat(&b, results); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[3], "cpu: ") {
		t.Fatalf("got %q", lines)
	}
	if want := "BenchmarkVhost/target=memory:512/rw=randread/bs=4096/iodepth=32/queues=1-1\t1000000\t1000.0 ns/op\t1000000 IOPS\t4096.00 MB/s\t30.000 p50-us"; !strings.HasPrefix(lines[4], want) {
		t.Errorf("got %q", lines[4])
	}
	for _, l := range lines[4:] {
		if !regexp.MustCompile(`^Benchmark\S+\t\d+(\t[0-9.]+ \S+)+$`).MatchString(l) {
			t.Errorf("benchstat does not read %q", l)
		}
	}
}
