package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func reported(target string, iops float64) *Result {
	cpu := 2e6 / iops
	return &Result{
		Target: target, Workload: "randread-4k-qd32", RW: RandRead, BlockSize: 4096, IODepth: 32, Queues: 1, RuntimeS: 1,
		IOPS: iops, MBps: iops * 4096 / 1e6, LatencyUs: Latency{P50: 3e7 / iops, P99: 4e7 / iops, P999: 5e7 / iops, Max: 6e7 / iops},
		ServerCPU: &cpu, Requests: uint64(iops), Distribution: []Point{{1, 0.25}, {30, 0.5}, {50, 1}},
	}
}

func page(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReport(t *testing.T) {
	r := &Report{Machine: ThisMachine("v1"), Date: time.Unix(1e9, 0), Command: "sealblk bench report", Results: []*Result{
		reported("memory", 1000000), reported("memory-encrypted", 600000), reported("qsd-luks", 50000), reported("socket:<script>", 7),
	}}
	r.Results[3].ServerCPU, r.Results[3].Distribution = nil, []Point{{5, 1}}
	got := page(t, r)
	for _, want := range []string{
		"2001-09-09 01:46 UTC", "sealblk v1", "<code>sealblk bench report</code>", "<h2>randread-4k-qd32</h2>",
		"<td>memory-encrypted</td><td>memory</td><td>0.600</td><td>1.667</td><td>1.667</td>",
		"socket:&lt;script&gt;", "<td>600000</td>", "<svg ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, not := range []string{"<script", " src=", "href=\"http", "@import", "<?xml"} {
		if strings.Contains(got, not) {
			t.Errorf("%q in the page", not)
		}
	}
	checkPlots(t, got, 3)
}

// checkPlots: the pictures are well formed.
func checkPlots(t *testing.T, page string, want int) {
	t.Helper()
	n := 0
	for rest := page; ; n++ {
		begin := strings.Index(rest, "<svg")
		if begin < 0 {
			break
		}
		end := begin + strings.Index(rest[begin:], "</svg>") + len("</svg>")
		d := xml.NewDecoder(strings.NewReader(rest[begin:end]))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("plot %d: %v", n, err)
			}
		}
		rest = rest[end:]
	}
	if n != want {
		t.Errorf("%d plots, want %d", n, want)
	}
}

func TestReportOfNearlyNothing(t *testing.T) {
	checkPlots(t, page(t, &Report{}), 0)
	one := reported("memory", 1)
	one.Distribution = nil
	checkPlots(t, page(t, &Report{Results: []*Result{one}}), 1)
	one.Distribution = []Point{{0, 0.5}, {0, 1}}
	checkPlots(t, page(t, &Report{Results: []*Result{one}}), 1)
}

func TestPlainNames(t *testing.T) {
	for name, want := range map[string]string{
		"memory-encrypted": "memory", "tmpfs-encrypted@/x": "tmpfs@/x", "qsd-luks": "qsd-raw", "memory": "", "socket:a-encrypted": "socket:a",
	} {
		if got, _ := plainName(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
