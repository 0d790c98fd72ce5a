package bench

import (
	"context"
	"errors"
	"slices"
)

// DefaultSize of the devices of servers that are started.
const DefaultSize = 1 << 30

// Plan is a number of workloads to run against a number of targets.
type Plan struct {
	Targets   []*Target
	Workloads []Workload
	Host      Host
	// Pin binds server and front-end to different CPUs, where there are enough.
	Pin bool
	// Prefill writes the devices of external servers before the first workload; those
	// of others always are.
	Prefill bool
	// Explain has Run find out where the servers' time goes; Compare does not.
	Explain bool
	// Started, if any, is called before each step of the plan.
	Started func(step Step)
}

// Step is a part of a plan that takes time.
type Step struct {
	Number, Of int
	Target     string
	// What is done: a workload's name, or the filling of the device.
	What string
}

// Run runs the targets one after the other, and each workload on each.
func (p *Plan) Run(ctx context.Context) ([]*Result, error) {
	var results []*Result
	for i, t := range p.Targets {
		more, err := p.runTarget(ctx, i, t)
		results = append(results, more...)
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

func (p *Plan) runTarget(ctx context.Context, i int, t *Target) (results []*Result, err error) {
	perTarget := len(p.Workloads) + 1
	step := func(k int, what string) {
		if p.Started != nil {
			p.Started(Step{i*perTarget + k, perTarget * len(p.Targets), t.Name, what})
		}
	}
	step(0, "start")
	s, place, err := p.ready(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	run := Run
	if p.Explain {
		run = RunExplained
	}
	for k, w := range p.Workloads {
		step(k+1, w.Name())
		r, err := run(ctx, s.Endpoint, w, place)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// ready starts a target's server and fills its device.
func (p *Plan) ready(ctx context.Context, t *Target) (*Server, Placement, error) {
	h := p.Host
	if h.Size == 0 {
		h.Size = DefaultSize
	}
	var place Placement
	var err error
	if p.Pin {
		if place, err = Place(h.Queues); err != nil {
			return nil, place, err
		}
		h.CPUs = slices.Clone(place.Server)
	}
	s, err := t.Start(ctx, &h)
	if err != nil {
		return nil, place, err
	}
	if !s.External || p.Prefill {
		if err := Fill(ctx, s.Endpoint, p.Host.Size, place); err != nil {
			return nil, place, errors.Join(err, s.Close())
		}
	}
	return s, place, nil
}

// Standard are the workloads of a report: small blocks at depth 32 and 1, and large
// ones in sequence. The rest is as in w.
func Standard(w Workload) []Workload {
	var all []Workload
	for _, s := range []struct {
		rw        string
		bs, depth int
	}{
		{RandRead, 4 << 10, 32}, {RandRead, 4 << 10, 1}, {RandWrite, 4 << 10, 32}, {RandRW, 16 << 10, 32}, {Read, 128 << 10, 32}, {Write, 128 << 10, 32},
	} {
		w.RW, w.BlockSize, w.IODepth = s.rw, s.bs, s.depth
		all = append(all, w)
	}
	return all
}
