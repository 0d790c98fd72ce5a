package workload

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const fioOutput = `fio: a warning { of some kind
{
  "fio version" : "fio-3.33",
  "jobs" : [
    {"jobname" : "job0", "error" : 0, "read" : {"iops" : 100.5, "total_ios" : 201}, "write" : {"iops" : 0.0, "total_ios" : 0}},
    {"jobname" : "job1", "error" : %d, "read" : {"iops" : 70.0, "total_ios" : 140}, "write" : {"iops" : 30.0, "total_ios" : %d}}
  ]
}
`

func TestFioResultsAreReadInOrder(t *testing.T) {
	r, err := parseFio(fmt.Sprintf(fioOutput, 0, 60), 2)
	if err != nil {
		t.Fatal(err)
	}
	if r[0] != (fioResult{100.5, 201}) || r[1] != (fioResult{100, 200}) {
		t.Errorf("got %+v", r)
	}
}

func TestJobWithoutResultIsAnError(t *testing.T) {
	for name, output := range map[string]string{
		"no output": "",
		"not JSON":  "{\n oops",
		"a job too few": strings.Replace(fmt.Sprintf(fioOutput, 0, 60), `,
    {"jobname" : "job1"`, `],"x":[{"y" : ""`, 1),
		"an error":        fmt.Sprintf(fioOutput, 5, 60),
		"another's order": strings.Replace(fmt.Sprintf(fioOutput, 0, 60), "job1", "job7", 1),
		"no requests":     strings.NewReplacer("201", "0", "100.5", "0").Replace(fmt.Sprintf(fioOutput, 0, 60)),
	} {
		if r, err := parseFio(output, 2); !errors.Is(err, errNoResult) {
			t.Errorf("%s: got %+v, %v", name, r, err)
		}
	}
	for _, output := range []string{"", "count", `{"count":0,"centiseconds":5}`, `{"count":5,"centiseconds":-1}`} {
		if rate, err := timedRate(output); !errors.Is(err, errNoResult) {
			t.Errorf("%q: got %g, %v", output, rate, err)
		}
	}
}

func TestFioRunsJobsOneAfterTheOther(t *testing.T) {
	file := fioFile([]fioJob{{profiles[0], "/dev/vdb", quick.fio, quick.ramp}, {profiles[4], "/dev/vda", full.fio, full.ramp}})
	if n := strings.Count(file, "stonewall"); n != 2 {
		t.Errorf("%d of 2 jobs wait for those before", n)
	}
	for _, want := range []string{
		"[job0]\nstonewall\nfilename=/dev/vdb\nrw=randread\nbs=4k\niodepth=1\nruntime=300ms\nramp_time=50ms\n",
		"[job1]\nstonewall\nfilename=/dev/vda\nrw=read\nbs=128k\niodepth=32\nruntime=700ms\n",
	} {
		if !strings.Contains(file, want) {
			t.Errorf("no %q in\n%s", want, file)
		}
	}
}

func TestTimedScript(t *testing.T) {
	run := func(s step) (string, error) {
		out, err := exec.Command("sh", "-c", s.script("/dev/some")).CombinedOutput()
		return string(out), err
	}
	out, err := run(step{count: 40, before: `test "$disk" = /dev/some && echo noise`, what: "sleep 0.2", after: "sleep 0.01"})
	if err != nil {
		t.Fatal(err, out)
	}
	if rate, err := timedRate(out); err != nil || rate > 40/0.18 || rate <= 0 {
		t.Errorf("40 in 0.2 s is a rate of %g, %v: %s", rate, err, out)
	}
	for _, s := range []step{{before: "false", what: "true"}, {what: "false"}, {what: "true", after: "false"}} {
		if out, err := run(s); err == nil {
			t.Errorf("%+v: succeeded: %s", s, out)
		}
	}
}

func TestTarballHasItsFiles(t *testing.T) {
	data, err := makeTarball(120)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := makeTarball(120)
	if !bytes.Equal(data, again) {
		t.Error("two runs would unpack different files")
	}
	n := 0
	for r := tar.NewReader(bytes.NewReader(data)); ; n++ {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != 120 {
		t.Errorf("%d files", n)
	}
}

func TestDatabaseDoesAllTransactions(t *testing.T) {
	sqlite := leaktest.Tool(t, "sqlite3")
	db := filepath.Join(t.TempDir(), "db")
	do := func(sql string) string {
		t.Helper()
		cmd := exec.Command(sqlite, "-bail", db)
		cmd.Stdin = strings.NewReader(sql)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	do(schemaSQL)
	do(transactionsSQL(30))
	if got := do("SELECT count(*), count(DISTINCT at) FROM history; SELECT sum(balance) = (SELECT sum(delta) FROM history) FROM accounts;"); got != "30|30\n1\n" {
		t.Errorf("after 30 transactions: %q", got)
	}
	if got := strings.Count(do(lookupsSQL(25)), "\n"); got != 25 {
		t.Errorf("%d of 25 lookups found a row", got)
	}
	if info, err := os.Stat(db); err != nil || info.Size() < 8<<20 {
		t.Errorf("the database is small enough for any cache: %v, %v", info, err)
	}
}

func TestRatiosOfARow(t *testing.T) {
	r := row("job", "1/s", []sample{{100, 90}, {200, 100}, {110, 121}})
	if r.Off.Median != 110 || r.On.Median != 100 || r.Ratio.Median != 100./110 || r.Ratio.Min != 0.5 || r.Ratio.Max != 1.1 {
		t.Errorf("got %+v", r)
	}
}

func TestRoundIsTheMedianOfItsRepeats(t *testing.T) {
	r := run{samples: map[string][]sample{}, best: map[string]float64{}, repeats: map[string][]sample{"job": {{1, 30}, {5, 10}, {3, 20}}}}
	r.endRound()
	r.repeats = map[string][]sample{"job": {{7, 8}}}
	r.endRound()
	if got := r.samples["job"]; len(got) != 2 || got[0] != (sample{3, 20}) || got[1] != (sample{7, 8}) {
		t.Errorf("got %v", got)
	}
}

func TestAbsurdRatioFails(t *testing.T) {
	report := func(repeats ...sample) *Report {
		r := run{samples: map[string][]sample{}, best: map[string]float64{}, repeats: map[string][]sample{"job": repeats}}
		r.endRound()
		return &Report{Accelerator: "tcg", Rows: []Row{r.row("job", "1/s")}}
	}
	if err := report(sample{100, 10}, sample{100, 10}, sample{100, 30}).Check(); err != nil {
		t.Errorf("two disturbed repeats: %v", err)
	}
	r := report(sample{100, 10}, sample{100, 15})
	if err := r.Check(); !errors.Is(err, ErrAbsurd) || !strings.Contains(err.Error(), "job") {
		t.Errorf("got %v", err)
	}
	var out bytes.Buffer
	if err := r.Write(&out); err != nil || !strings.Contains(out.String(), "only the ratios mean anything") {
		t.Errorf("the report of an emulated guest: %v\n%s", err, &out)
	}
}

func TestWhatIsJudged(t *testing.T) {
	quiet := func(ratio, room float64) pair {
		return pair{bench: ratio, benchCPU: 1, fio: 1, fioCPU: 1, fast: room, ratio: ratio, least: 1}
	}
	busy := quiet(3, 5)
	busy.least = 0.5
	deep, single := profile{"read", 128, 32}, profile{"read", 128, 1}
	for _, c := range []struct {
		p       profile
		pairs   []pair
		verdict string
	}{
		{deep, []pair{quiet(1.1, 2), quiet(0.9, 2)}, "agree"},
		{deep, []pair{quiet(1.2, 2), quiet(1.2, 2)}, "DIFFER"},
		{deep, []pair{quiet(0.8, 2), quiet(0.8, 2)}, "DIFFER"},
		{deep, []pair{quiet(1.2, 1.4), quiet(1.2, 1.4)}, "fio is the bottleneck"},
		{single, []pair{quiet(1.2, 9), quiet(1.2, 9)}, "fio is the bottleneck"},
		{single, []pair{quiet(1.2, 11), quiet(1.2, 11)}, "DIFFER"},
		{deep, []pair{busy, busy, quiet(1, 5)}, "the machine is too busy"},
		{deep, []pair{busy, quiet(1, 5), quiet(1, 5)}, "agree"},
	} {
		var counted []pair
		for _, one := range c.pairs {
			if one.least >= enoughCPU {
				counted = append(counted, one)
			}
		}
		a := agreementOf(c.p, c.pairs, counted, 2)
		if a.verdict() != c.verdict {
			t.Errorf("%s %v: %s, want %s", c.p.name(), c.pairs, a.verdict(), c.verdict)
		}
		err := (&AgreeReport{Rows: []*Agreement{a}}).Check()
		if (err == nil) != (c.verdict == "agree") || errors.Is(err, ErrDisagree) != (c.verdict == "DIFFER") {
			t.Errorf("%s: Check says %v", c.verdict, err)
		}
	}
}
