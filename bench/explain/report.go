package explain

import (
	"cmp"
	"slices"
)

// Report is what threads did within an interval. All times are in milliseconds but for
// those in Latency.
type Report struct {
	IntervalMs float64 `json:"interval_ms"`
	// Total of Threads, which begin with the one that was on a CPU for longest.
	Total   Thread   `json:"total"`
	Threads []Thread `json:"threads"`
	// Code is what ran in Total.UserMs, and Functions the longest of it.
	Code      []Code     `json:"code"`
	Functions []Function `json:"functions"`
	// Calls are those of all threads.
	Calls []Call `json:"system_calls"`
	// Wakeup goes from when a sleeping thread is woken to when it is on a CPU.
	Wakeup Latency `json:"wakeup_us"`
	// Device goes from when a request is issued to a block device to its completion.
	Device      Latency `json:"device_us"`
	DeviceBytes uint64  `json:"device_bytes"`
	// Lost is how much did not fit into the collector's tables, or found them locked: if
	// it is not 0 the rest is incomplete.
	Lost uint64 `json:"lost"`
}

// Thread is what one thread did.
type Thread struct {
	PID  int    `json:"pid,omitempty"`
	TID  int    `json:"tid,omitempty"`
	Name string `json:"name,omitempty"`

	UserMs   float64 `json:"user_ms"`
	CryptoMs float64 `json:"crypto_ms"` // of UserMs
	SystemMs float64 `json:"system_ms"`
	// WaitingMs is runnable without a CPU; WakeupMs is the part after it was woken.
	WaitingMs float64 `json:"waiting_ms"`
	WakeupMs  float64 `json:"wakeup_ms"`
	AsleepMs  float64 `json:"asleep_ms"`

	Voluntary   uint64 `json:"voluntary_switches"`
	Involuntary uint64 `json:"involuntary_switches"`
	Wakeups     uint64 `json:"wakeups"`
	Faults      uint64 `json:"page_faults"`
	Samples     uint64 `json:"samples"`

	Calls []Call `json:"system_calls,omitempty"` // not of a total
}

// OnCPU is UserMs and SystemMs.
func (t *Thread) OnCPU() float64 { return t.UserMs + t.SystemMs }

// Add adds what another thread did.
func (t *Thread) Add(o *Thread) {
	t.UserMs += o.UserMs
	t.CryptoMs += o.CryptoMs
	t.SystemMs += o.SystemMs
	t.WaitingMs += o.WaitingMs
	t.WakeupMs += o.WakeupMs
	t.AsleepMs += o.AsleepMs
	t.Voluntary += o.Voluntary
	t.Involuntary += o.Involuntary
	t.Wakeups += o.Wakeups
	t.Faults += o.Faults
	t.Samples += o.Samples
}

// Call is a system call by name, or what is like one: the work of the kernel's own
// threads, and sleep in page faults. Ran is the time on a CPU of those that returned.
type Call struct {
	Name      string  `json:"name"`
	OnCPUMs   float64 `json:"on_cpu_ms"`
	AsleepMs  float64 `json:"asleep_ms"`
	WaitingMs float64 `json:"waiting_ms"`
	Ran       Latency `json:"on_cpu_us"`
}

// Report is what was counted. The processes must still live: their files name the code.
func (c *Collector) Report() (*Report, error) {
	r, err := c.read()
	if err != nil {
		return nil, err
	}
	p := &processes{}
	for _, pid := range c.pids {
		if err := p.add(pid); err != nil {
			return nil, err
		}
	}
	return r.report(p.name, p.symbol), nil
}

// namer knows a thread's process and name; symbolizer what is at an address in it.
type (
	namer      func(tid int) (pid int, name string)
	symbolizer func(tid int, ip uint64) place
)

// report adds up what lies in the maps.
func (r *raw) report(name namer, symbol symbolizer) *Report {
	r.finish()
	out := &Report{IntervalMs: ms(r.until - r.from), Lost: r.lost, Calls: []Call{}, Threads: []Thread{}}
	var wakeup histogram
	for tid, t := range r.threads {
		one := t.times()
		one.TID = int(tid)
		one.PID, one.Name = name(one.TID)
		out.Threads = append(out.Threads, one)
		wakeup.add(&t.Wakeup, t.Wakeups, t.WakeupNs, t.WakeupMax)
	}
	out.Wakeup = wakeup.latency()
	out.addCalls(r.calls)
	out.addCode(r.samples, symbol)
	out.addDevices(r.devices)
	for i := range out.Threads {
		out.Total.Add(&out.Threads[i])
	}
	slices.SortFunc(out.Threads, func(a, b Thread) int {
		return cmp.Or(cmp.Compare(b.OnCPU(), a.OnCPU()), cmp.Compare(a.TID, b.TID))
	})
	return out
}

func ms(ns uint64) float64 { return float64(ns) / 1e6 }

// times is what is in a thread's own entry: all but its system calls.
func (t *rawThread) times() Thread {
	return Thread{
		UserMs: ms(t.User.OnCPU), WaitingMs: ms(t.User.Waiting), AsleepMs: ms(t.User.Asleep), WakeupMs: ms(t.WakeupNs),
		Voluntary: t.Voluntary, Involuntary: t.Involuntary, Wakeups: t.Wakeups, Faults: t.Faults,
	}
}

// finish counts what was in progress when the interval ended: the program counts when
// something is over.
func (r *raw) finish() {
	for tid, t := range r.threads {
		r.close(&t)
		if t.Nr != inUser {
			key := callKey{tid, t.Nr}
			call := r.calls[key]
			call.Times.add(&t.Call)
			r.calls[key] = call
		}
		r.threads[tid] = t
	}
	for tid, t := range r.threads { // sleep in a fault is like that in a call
		if t.User.Asleep > 0 {
			r.calls[callKey{tid, inUser}] = rawCall{Times: rawTimes{Asleep: t.User.Asleep}}
			t.User.Asleep = 0
			r.threads[tid] = t
		}
	}
}

// close counts a thread's present state.
func (r *raw) close(t *rawThread) {
	if t.Dead != 0 {
		return
	}
	times := &t.User
	if t.Nr != inUser {
		times = &t.Call
	}
	switch {
	case t.Running != 0:
		times.OnCPU += r.clip(t.Since, r.until)
	case t.Woken != 0:
		times.Asleep += r.clip(t.Since, t.Woken)
		times.Waiting += r.clip(t.Woken, r.until)
	default:
		times.Asleep += r.clip(t.Since, r.until)
	}
}

func (r *raw) clip(begin, end uint64) uint64 {
	begin, end = max(begin, r.from), min(end, r.until)
	if end <= begin {
		return 0
	}
	return end - begin
}

func (t *rawTimes) add(o *rawTimes) {
	t.OnCPU += o.OnCPU
	t.Asleep += o.Asleep
	t.Waiting += o.Waiting
}

// addCalls adds system calls to their threads, and up by their names.
func (o *Report) addCalls(calls map[callKey]rawCall) {
	threads := o.byTID()
	all := map[int32]*callSum{}
	for key, c := range calls {
		if all[key.Nr] == nil {
			all[key.Nr] = &callSum{}
		}
		all[key.Nr].add(&c)
		t := threads[int(key.TID)]
		if t == nil {
			continue
		}
		t.SystemMs += ms(c.Times.OnCPU)
		t.AsleepMs += ms(c.Times.Asleep)
		t.WaitingMs += ms(c.Times.Waiting)
		var one callSum
		one.add(&c)
		t.Calls = appendCall(t.Calls, key.Nr, &one)
	}
	for nr, s := range all {
		o.Calls = appendCall(o.Calls, nr, s)
	}
	sortCalls(o.Calls)
	for _, t := range threads {
		sortCalls(t.Calls)
	}
}

// callSum is a system call's times on one or more threads.
type callSum struct {
	times rawTimes
	ran   histogram
}

func (s *callSum) add(c *rawCall) {
	s.times.add(&c.Times)
	s.ran.add(&c.Ran, c.Count, c.Ns, c.Max)
}

// appendCall leaves out what was not called within the interval.
func appendCall(list []Call, nr int32, s *callSum) []Call {
	if s.ran.n == 0 && s.times == (rawTimes{}) {
		return list
	}
	return append(list, Call{callName(nr), ms(s.times.OnCPU), ms(s.times.Asleep), ms(s.times.Waiting), s.ran.latency()})
}

func sortCalls(calls []Call) {
	slices.SortFunc(calls, func(a, b Call) int {
		return cmp.Or(cmp.Compare(b.OnCPUMs, a.OnCPUMs), cmp.Compare(b.AsleepMs, a.AsleepMs), cmp.Compare(a.Name, b.Name))
	})
}

func (o *Report) byTID() map[int]*Thread {
	threads := make(map[int]*Thread, len(o.Threads))
	for i := range o.Threads {
		threads[o.Threads[i].TID] = &o.Threads[i]
	}
	return threads
}

// addDevices adds what each CPU has counted.
func (o *Report) addDevices(byCPU []rawDevice) {
	var h histogram
	for i := range byCPU {
		d := &byCPU[i]
		h.add(&d.Latency, d.Count, d.Ns, d.Max)
		o.DeviceBytes += d.Bytes
	}
	o.Device = h.latency()
}
