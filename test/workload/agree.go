package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/bench"
	"sealblk/qmp"
	"sealblk/test/guest"
)

// agreed are the workloads that both front-ends run.
var agreed = []profile{
	{"randread", 4, 1}, {"randread", 4, 32}, {"randread", 16, 32}, {"read", 128, 1}, {"read", 128, 32}, {"write", 128, 32}, {"read", 1024, 1},
}

const (
	agreeTime = 1200 * time.Millisecond
	agreeRamp = 200 * time.Millisecond
	// enoughCPU is the share of the time for which the server must have had a CPU: it
	// is the bottleneck, and others have not kept it from its work.
	enoughCPU = 0.9
	// attempts is how many rounds are made for one that counts, at most.
	attempts = 2
)

// Agree measures the slow build with bench and with fio in a guest, in turn. The guest
// always has a disk of the fast build beside it, o.Program, to show what it can do.
func Agree(ctx context.Context, o Options, slow string) (_ *AgreeReport, err error) {
	const target = "memory-encrypted"
	fast, err := startServer(ctx, target, o.Program, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fast.Close()) }()
	server, err := startServer(ctx, target, slow, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	accelerator := o.accelerator(ctx)
	vm, err := guest.Boot(ctx, guest.Config{
		Options: guest.Options{Programs: []string{"fio"}}, MemoryMiB: memoryMiB, CPUs: guestCPUs, Accelerator: accelerator, RootPorts: 1,
		Disks: []guest.Disk{{ID: "fast", Socket: fast.Socket, Queues: 1}},
	})
	if err != nil {
		return nil, err
	}
	defer vm.Close()
	a := &agreement{Options: o, vm: vm, slow: server}
	r := &AgreeReport{Machine: bench.ThisMachine("this tree"), Accelerator: accelerator, Rounds: o.Rounds}
	for _, p := range agreed {
		row, err := a.compare(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name(), err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, vm.PowerOff(ctx)
}

// agreement is an Agree under way.
type agreement struct {
	Options
	vm   *guest.VM
	slow *bench.Server
}

// pair is one round: requests a second, and the share of the time for which the server
// had a CPU.
type pair struct {
	bench, fio         float64
	benchCPU, fioCPU   float64
	fast, ratio, least float64
}

// compare takes rounds until enough of them count. Where fio has no room to be compared
// none would.
func (a *agreement) compare(ctx context.Context, p profile) (*Agreement, error) {
	var all, counted []pair
	for len(counted) < a.Rounds && len(all) < attempts*a.Rounds {
		one, err := a.round(ctx, p)
		if err != nil {
			return nil, err
		}
		a.say("%-22s bench %9.1f (server's CPU %.2f)  fio %9.1f (%.2f)  ratio %.3f  fio on the fast build %9.1f",
			p.name(), one.bench, one.benchCPU, one.fio, one.fioCPU, one.ratio, one.fast)
		all = append(all, one)
		if one.least >= enoughCPU {
			counted = append(counted, one)
		}
		if room(all) < p.roomNeeded() && len(all) >= a.Rounds {
			break
		}
	}
	return agreementOf(p, all, counted, a.Rounds), nil
}

func (a *agreement) round(ctx context.Context, p profile) (one pair, err error) {
	w := bench.Workload{RW: p.rw, BlockSize: p.block << 10, IODepth: p.depth, Queues: 1, Runtime: agreeTime, Ramp: agreeRamp, Polling: true, Seed: 1}
	b, err := bench.Run(ctx, a.slow.Endpoint, w, bench.Placement{})
	if err != nil {
		return one, err
	}
	one.bench = b.IOPS
	if b.Server != nil {
		one.benchCPU = b.Server.CPUs
	}
	if one.fio, one.fioCPU, err = a.plugged(ctx, p); err != nil {
		return one, err
	}
	fast, err := a.fio(ctx, p, diskNames[0])
	one.fast, one.ratio, one.least = fast.IOPS, one.bench/one.fio, min(one.benchCPU, one.fioCPU)
	return one, err
}

// plugged runs fio on the slow server's disk, which is the guest's for that time only:
// a server has one front-end. The share of the time is that while fio had requests.
func (a *agreement) plugged(ctx context.Context, p profile) (iops, share float64, err error) {
	mon, err := qmp.Dial(ctx, a.vm.QMP())
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, mon.Disconnect()) }()
	const id = "slow"
	if _, err := qmp.Attach(ctx, mon, qmp.AttachOptions{ID: id, SocketPath: a.slow.Socket, NumQueues: 1}); err != nil {
		return 0, 0, err
	}
	if err := a.vm.WaitDisk(ctx, "vdb"); err != nil {
		return 0, 0, err
	}
	before := cpuTime(a.slow.PID)
	r, err := a.fio(ctx, p, diskNames[1])
	used := cpuTime(a.slow.PID) - before
	_, detachErr := qmp.Detach(ctx, mon, id)
	if err := errors.Join(err, detachErr); err != nil {
		return 0, 0, err
	}
	return r.IOPS, used.Seconds() / (float64(r.Requests) / r.IOPS), nil
}

func (a *agreement) fio(ctx context.Context, p profile, disk string) (fioResult, error) {
	r, err := runFio(ctx, a.vm, []fioJob{{p, disk, agreeTime, 0}})
	if err != nil {
		return fioResult{}, err
	}
	return r[0], nil
}

// cpuTime is what a process has used; nothing if it is gone.
func cpuTime(pid int) time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED of clock_getcpuclockid(3)
	var t unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|scheduled), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// room is how many times as many requests fio does on the fast server.
func room(all []pair) float64 {
	var v []float64
	for _, one := range all {
		v = append(v, one.fast/one.fio)
	}
	return median(v)
}

// roomNeeded is from when on the front-end is not the bottleneck. With many requests in
// flight it works while the server does; with one its time comes on top, and may be a
// tenth.
func (p profile) roomNeeded() float64 {
	if p.depth == 1 {
		return 10
	}
	return 1.5
}

// agreementOf sums up rounds: those that count if there are enough of them, else all.
func agreementOf(p profile, all, counted []pair, rounds int) *Agreement {
	row := &Agreement{Workload: p.name(), Room: room(all), Quiet: len(counted) >= rounds, Rounds: len(all)}
	row.HasRoom = row.Room >= p.roomNeeded()
	if row.Quiet {
		all = counted
	}
	of := func(f func(pair) float64) bench.Spread {
		var v []float64
		for _, one := range all {
			v = append(v, f(one))
		}
		return spread(v)
	}
	row.Bench, row.Fio = of(func(o pair) float64 { return o.bench }), of(func(o pair) float64 { return o.fio })
	row.BenchCPU, row.FioCPU = of(func(o pair) float64 { return o.benchCPU }), of(func(o pair) float64 { return o.fioCPU })
	row.Ratio = of(func(o pair) float64 { return o.ratio })
	row.Ratio.Median = row.Bench.Median / row.Fio.Median
	return row
}
