package bench

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"sealblk/bench/explain"
	"sealblk/internal/leaktest"
)

func TestRunExplained(t *testing.T) {
	if err := explain.Supported(); err != nil {
		leaktest.Missing(t, err.Error())
	}
	e, _ := serve(t, "memory")
	w := workload(RandRead)
	w.Runtime, w.Ramp = 100*time.Millisecond, 20*time.Millisecond
	w.Polling = false // front-end and server notify each other: by system calls
	r, err := RunExplained(context.Background(), e, w, Placement{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests == 0 || r.IOPS <= 0 || r.ServerCPU == nil || *r.ServerCPU <= 0 {
		t.Errorf("%+v", r)
	}
	x := r.Explain
	if x == nil || x.Requests == 0 || x.IntervalMs != 100 || x.Total.UserMs <= 0 || x.Total.SystemMs <= 0 || len(x.Calls) == 0 || x.Lost != 0 {
		t.Fatalf("%+v", x)
	}
	if o := x.Overhead; o.Rounds != explainRounds || o.IOPS.Median <= 0 || o.ServerCPU.Median <= 0 {
		t.Errorf("overhead %+v", o)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields struct {
		Explain map[string]any `json:"explain"`
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"interval_ms", "total", "threads", "code", "system_calls", "wakeup_us", "device_us", "overhead", "requests"} {
		if fields.Explain[name] == nil {
			t.Errorf("no field %q in %s", name, text)
		}
	}
	if plain := run(t, e, w); plain.Explain != nil {
		t.Error("explained without being asked")
	}
}
