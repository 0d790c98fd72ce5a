package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sealblk/bench"
	"sealblk/test/guest"
)

// Options of a run.
type Options struct {
	// Program is the sealblk to measure.
	Program string
	// Backend is where the disks' data is: memory, tmpfs, or file, which is direct I/O
	// in Directory.
	Backend, Directory string
	// Rounds, at least one.
	Rounds int
	// Quick takes a fraction of the time, for results that tell little.
	Quick bool
	// Said, if any, gets a line on each step.
	Said func(line string)
}

func (o *Options) say(format string, args ...any) {
	if o.Said != nil {
		o.Said(fmt.Sprintf(format, args...))
	}
}

// accelerator is the best that there is for guests.
func (o *Options) accelerator(ctx context.Context) string {
	name, why := guest.FindAccelerator(ctx)
	o.say("the guest's CPU: %s. %s", name, why)
	return name
}

// deviceSize is that of each disk, in bytes. The guest has two CPUs: with one, requests
// hung now and then. QEMU before 8.1 leaves out the memory barriers of an emulated guest
// with one CPU, which is the likely cause but not proven (docs/performance.md).
const (
	deviceSize = 256 << 20
	sectorSize = 4096
	memoryMiB  = 768
	guestCPUs  = 2
)

// side is one of the two disks of a round.
type side int

const (
	off side = iota // plain
	on              // encrypted
)

// sample is a job's rate on either disk in one round.
type sample [2]float64

// Run measures all jobs.
func Run(ctx context.Context, o Options) (*Report, error) {
	begun := time.Now()
	s := full
	if o.Quick {
		s = quick
	}
	accelerator := o.accelerator(ctx)
	options, err := s.guestOptions()
	if err != nil {
		return nil, err
	}
	assets, err := guest.Prepare(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("prepare guest: %w", err)
	}
	r := &run{Options: o, scale: s, config: guest.Config{Assets: assets, MemoryMiB: memoryMiB, CPUs: guestCPUs, Accelerator: accelerator}, samples: map[string][]sample{}, best: map[string]float64{}}
	for i := range o.Rounds {
		if err := r.round(ctx, i); err != nil {
			return nil, fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	return r.report(accelerator, time.Since(begun)), nil
}

// run is a Run under way.
type run struct {
	Options
	scale   scale
	config  guest.Config
	samples map[string][]sample // by the names of jobs, one for each round
	repeats map[string][]sample // likewise, of the round under way
	best    map[string]float64  // the largest ratio so far
}

// disk is one of the two of a round.
type disk struct {
	side   side
	target string // of package bench
	name   string // in the guest
}

// round measures every job on two new disks. Each repeat begins with the other disk: the
// first use of a program finds its code neither in caches nor translated.
func (r *run) round(ctx context.Context, number int) (err error) {
	disks := []disk{{off, r.Backend, ""}, {on, r.Backend + "-encrypted", ""}}
	if number%2 == 1 {
		slices.Reverse(disks)
	}
	c := r.config
	c.Disks = nil
	for i := range disks {
		server, startErr := startServer(ctx, disks[i].target, r.Program, r.Directory)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		disks[i].name = diskNames[i]
		c.Disks = append(c.Disks, guest.Disk{ID: fmt.Sprintf("disk%d", i), Socket: server.Socket, Queues: 1})
	}
	r.say("round %d of %d", number+1, r.Rounds)
	vm, err := guest.Boot(ctx, c)
	if err != nil {
		return err
	}
	defer vm.Close()
	r.repeats = map[string][]sample{}
	for range r.scale.repeats {
		if err := r.measure(ctx, vm, disks); err != nil {
			return err
		}
		slices.Reverse(disks)
	}
	r.endRound()
	return vm.PowerOff(ctx)
}

// endRound has the round count as the medians of its repeats.
func (r *run) endRound() {
	for name, repeats := range r.repeats {
		r.samples[name] = append(r.samples[name], middle(repeats))
		for _, one := range repeats {
			r.best[name] = max(r.best[name], one[on]/one[off])
		}
	}
}

// measure runs all jobs once, each on both disks in turn.
func (r *run) measure(ctx context.Context, vm *guest.VM, disks []disk) error {
	if err := r.fio(ctx, vm, disks); err != nil {
		return fmt.Errorf("fio: %w", err)
	}
	for _, s := range r.scale.steps() {
		var rates sample
		for _, d := range disks {
			out, err := vm.Run(ctx, s.script(d.name))
			if err != nil {
				return err
			}
			if rates[d.side], err = timedRate(out.Output); err != nil {
				return fmt.Errorf("%s: %w: %s", s.name, err, out.Output)
			}
		}
		r.add(s.name, rates)
	}
	return nil
}

// diskNames are how the guest calls its disks.
var diskNames = []string{"/dev/vda", "/dev/vdb"}

// fio runs all profiles on both disks in turn, by one program: it starts slowly.
func (r *run) fio(ctx context.Context, vm *guest.VM, disks []disk) error {
	var jobs []fioJob
	for _, p := range profiles {
		for _, d := range disks {
			jobs = append(jobs, fioJob{p, d.name, r.scale.fio, r.scale.ramp})
		}
	}
	results, err := runFio(ctx, vm, jobs)
	if err != nil {
		return err
	}
	for k, p := range profiles {
		var rates sample
		for i, d := range disks {
			rates[d.side] = p.rate(results[k*len(disks)+i].IOPS)
		}
		r.add(p.name(), rates)
	}
	return nil
}

func (r *run) add(name string, rates sample) {
	r.say("  %-24s plain %10.1f  encrypted %10.1f  %.3f", name, rates[off], rates[on], rates[on]/rates[off])
	r.repeats[name] = append(r.repeats[name], rates)
}

// startServer starts a server of package bench and fills its device.
func startServer(ctx context.Context, target, program, dir string) (*bench.Server, error) {
	t, err := bench.FindTarget(target)
	if err != nil {
		return nil, err
	}
	s, err := t.Start(ctx, &bench.Host{Program: program, Directory: dir, Size: deviceSize, SectorSize: sectorSize, Queues: 1})
	if err != nil {
		return nil, err
	}
	if err := bench.Fill(ctx, s.Endpoint, 0, bench.Placement{}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}
