package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sealblk/test/guest"
)

// profile is a workload of fio on a raw disk.
type profile struct {
	rw    string // as fio calls it
	block int    // in KiB
	depth int
}

var profiles = []profile{
	{"randread", 4, 1}, {"randread", 4, 32}, {"randwrite", 4, 1}, {"randwrite", 4, 32},
	{"read", 128, 32}, {"write", 128, 32}, {"randrw", 4, 32},
}

func (p profile) name() string { return fmt.Sprintf("fio %s-%dk-qd%d", p.rw, p.block, p.depth) }

// inBytes tells whether bytes are what counts.
func (p profile) inBytes() bool { return p.block >= 64 }

func (p profile) unit() string {
	if p.inBytes() {
		return "MB/s"
	}
	return "IOPS"
}

func (p profile) rate(iops float64) float64 {
	if p.inBytes() {
		return iops * float64(p.block) * 1024 / 1e6
	}
	return iops
}

// fioJob is a profile on a disk, for some time after a ramp.
type fioJob struct {
	profile
	disk          string
	runtime, ramp time.Duration
}

const fioGlobal = `[global]
ioengine=libaio
direct=1
thread
time_based
norandommap
rwmixread=70
gtod_reduce=1
`

// fioFile is a job file that runs jobs one after the other.
func fioFile(jobs []fioJob) string {
	var b strings.Builder
	b.WriteString(fioGlobal)
	for i, j := range jobs {
		fmt.Fprintf(&b, "[job%d]\nstonewall\nfilename=%s\nrw=%s\nbs=%dk\niodepth=%d\nruntime=%dms\nramp_time=%dms\n",
			i, j.disk, j.rw, j.block, j.depth, j.runtime.Milliseconds(), j.ramp.Milliseconds())
	}
	return b.String()
}

// runFio runs jobs in a guest, one after the other; the results are in their order.
func runFio(ctx context.Context, vm *guest.VM, jobs []fioJob) ([]fioResult, error) {
	out, err := vm.Run(ctx, "/bin/fio --output-format=json --disk_util=0 - <<'.'\n"+fioFile(jobs)+".\n")
	if err != nil {
		return nil, err
	}
	return parseFio(out.Output, len(jobs))
}

// fioResult is what we need of a result of fio.
type fioResult struct {
	IOPS     float64
	Requests int64
}

// parseFio reads fio's JSON, which warnings may precede.
func parseFio(output string, want int) ([]fioResult, error) {
	at := strings.Index(output, "{\n")
	if at < 0 {
		return nil, fmt.Errorf("%w: no JSON: %.200s", errNoResult, output)
	}
	type direction struct {
		IOPS  float64 `json:"iops"`
		Total int64   `json:"total_ios"`
	}
	type job struct {
		Name        string `json:"jobname"`
		Error       int
		Read, Write direction
	}
	var doc struct{ Jobs []job }
	if err := json.NewDecoder(strings.NewReader(output[at:])).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoResult, err)
	}
	if len(doc.Jobs) != want {
		return nil, fmt.Errorf("%w: %d jobs in place of %d", errNoResult, len(doc.Jobs), want)
	}
	results := make([]fioResult, want)
	for i, j := range doc.Jobs {
		results[i] = fioResult{j.Read.IOPS + j.Write.IOPS, j.Read.Total + j.Write.Total}
		if j.Name != fmt.Sprintf("job%d", i) || j.Error != 0 || results[i].Requests <= 0 || results[i].IOPS <= 0 {
			return nil, fmt.Errorf("%w: %s: error %d, %d requests", errNoResult, j.Name, j.Error, results[i].Requests)
		}
	}
	return results, nil
}
