package bench

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"unicode"
)

// WriteGoFormat writes results as Go's benchmarks do (golang.org/design/14313), so that
// benchstat compares them: one line for each result.
func WriteGoFormat(w io.Writer, results []*Result) error {
	_, err := fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: sealblk/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, CPUModel())
	for _, r := range results {
		if err == nil {
			err = writeGoLine(w, r)
		}
	}
	return err
}

// word makes a target's name, which may be a path, part of a benchmark's name.
func word(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '/' || r == '=' {
			return '_'
		}
		return r
	}, name)
}

func writeGoLine(w io.Writer, r *Result) error {
	target := word(r.Target)
	if r.SectorSize == 512 && !strings.HasPrefix(target, "qsd") { // not a part of its own, or plain and encrypted would not pair
		target += ":512"
	}
	name := fmt.Sprintf("BenchmarkVhost/target=%s/rw=%s/bs=%d/iodepth=%d/queues=%d", target, r.RW, r.BlockSize, r.IODepth, r.Queues)
	line := fmt.Sprintf("%s-%d\t%d\t%.1f ns/op\t%.0f IOPS\t%.2f MB/s\t%.3f p50-us\t%.3f p99-us\t%.3f p99.9-us",
		name, r.Queues, r.Requests, 1e9/max(r.IOPS, 1e-9), r.IOPS, r.MBps, r.LatencyUs.P50, r.LatencyUs.P99, r.LatencyUs.P999)
	if r.ServerCPU != nil {
		line += fmt.Sprintf("\t%.4f server-cpu-us/op", *r.ServerCPU)
	}
	_, err := fmt.Fprintf(w, "%s\t%.4f frontend-cpu-us/op\n", line, r.FrontendCPU)
	return err
}
