package bench

// Latency is how long requests took, in microseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// Result is what one run of a workload against a target measured. What the server used
// is nil where its process is not known.
type Result struct {
	Target      string   `json:"target"`
	Workload    string   `json:"workload"`
	RW          string   `json:"rw"`
	BlockSize   int      `json:"block_size"`
	IODepth     int      `json:"iodepth"`
	Queues      int      `json:"queues"`
	RuntimeS    float64  `json:"runtime_s"`
	IOPS        float64  `json:"iops"`
	MBps        float64  `json:"mbps"` // 10^6 bytes a second
	LatencyUs   Latency  `json:"lat_us"`
	ServerCPU   *float64 `json:"server_cpu_us_per_io"`
	FrontendCPU float64  `json:"frontend_cpu_us_per_io"`

	// FrontendWork is the part of FrontendCPU that was not spent waiting, and
	// FrontendBusy its share of the time: near 1 the front-end is the bottleneck.
	FrontendWork float64 `json:"frontend_work_us_per_io"`
	FrontendBusy float64 `json:"frontend_busy"`
	// Requests is how many were measured.
	Requests    uint64 `json:"requests"`
	DeviceBytes int64  `json:"device_bytes"`
	UsedBytes   int64  `json:"used_bytes"`
	SectorSize  int    `json:"sector_size,omitempty"`
	Verified    bool   `json:"verified"`
	Polling     bool   `json:"polling"`
	Indirect    bool   `json:"indirect"`
	// Kicks and Calls are notifications, to the server and from it, for each request.
	Kicks float64 `json:"kicks_per_io"`
	Calls float64 `json:"calls_per_io"`
	// Server is what the server's processes did in all.
	Server *ServerCounts `json:"server,omitempty"`
	// Distribution is the share of requests, from 0 to 1, that took no longer than so
	// many microseconds.
	Distribution []Point `json:"lat_distribution,omitempty"`
	// Explain is there if it was asked for.
	Explain *Explanation `json:"explain,omitempty"`
}

// ServerCounts are of the server's processes, while the workload was measured.
type ServerCounts struct {
	CPUs        float64 `json:"cpus"` // how many it kept busy
	DelayMs     float64 `json:"run_delay_ms"`
	Voluntary   int64   `json:"voluntary_switches"`
	Involuntary int64   `json:"involuntary_switches"`
	MinorFaults int64   `json:"minor_faults"`
	MajorFaults int64   `json:"major_faults"`
}

// Point of a distribution: microseconds, and the share of requests.
type Point [2]float64

// BusyPercent is FrontendBusy in percent.
func (r *Result) BusyPercent() float64 { return 100 * r.FrontendBusy }

const distributionPoints = 40

func (r *rig) result(use serverUse) *Result {
	w := r.workload
	out := &Result{
		Target: r.endpoint.Name, Workload: w.Name(), RW: w.RW, BlockSize: w.BlockSize, IODepth: w.IODepth, Queues: w.Queues,
		DeviceBytes: r.disk.Capacity(), UsedBytes: w.Size, SectorSize: r.endpoint.SectorSize,
		Verified: w.Verify, Polling: w.Polling, Indirect: w.Indirect,
	}
	if out.UsedBytes == 0 {
		out.UsedBytes = out.DeviceBytes
	}
	var total tally
	for _, g := range r.generators {
		t := &g.result
		out.IOPS += float64(t.latency.Count()) / (float64(t.window) / 1e9)
		total.latency.Add(&t.latency)
		total.window += t.window
		total.cpu += t.cpu
		total.work += t.work
		total.kicks += t.kicks
		total.calls += t.calls
	}
	out.fill(&total)
	out.fillServer(use)
	if out.Explain = r.explanation; out.Explain != nil {
		out.Explain.Requests = use.completed
	}
	return out
}

// fill takes what all queues together measured.
func (o *Result) fill(t *tally) {
	n := max(1, float64(t.latency.Count()))
	us := func(ns float64) float64 { return ns / 1e3 }
	o.Requests = t.latency.Count()
	o.RuntimeS = float64(t.window) / 1e9 / float64(o.Queues)
	o.MBps = o.IOPS * float64(o.BlockSize) / 1e6
	o.LatencyUs = Latency{
		P50: us(t.latency.Quantile(0.5)), P99: us(t.latency.Quantile(0.99)), P999: us(t.latency.Quantile(0.999)),
		Max: us(float64(t.latency.Max())), Mean: us(t.latency.Mean()),
	}
	o.FrontendCPU = us(float64(t.cpu)) / n
	o.FrontendWork = us(float64(t.work)) / n
	o.FrontendBusy = min(1, float64(t.work)/float64(t.window))
	o.Kicks, o.Calls = float64(t.kicks)/n, float64(t.calls)/n
	ns, share := t.latency.Distribution(distributionPoints)
	for i := range ns {
		o.Distribution = append(o.Distribution, Point{us(ns[i]), share[i]})
	}
}

func (o *Result) fillServer(use serverUse) {
	if use.cpu <= 0 || use.completed == 0 {
		return
	}
	cpu := float64(use.cpu) / 1e3 / float64(use.completed)
	o.ServerCPU = &cpu
	c := use.counts
	o.Server = &ServerCounts{
		CPUs: float64(use.cpu) / 1e9 / o.RuntimeS, DelayMs: float64(c.Delay) / 1e6,
		Voluntary: c.Voluntary, Involuntary: c.Involuntary, MinorFaults: c.MinorFaults, MajorFaults: c.MajorFaults,
	}
}
