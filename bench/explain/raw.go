package explain

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// What follows lies in the maps as bpf/collector.c has it.

// Where a thread is, if not in a system call by its number.
const (
	inUser   = -1
	inWorker = -2
	// inUnknown is a system call whose number could not be read; the program learns it
	// when the call returns.
	inUnknown = -3
)

const buckets = 272

type rawTimes struct{ OnCPU, Asleep, Waiting uint64 }

type rawThread struct {
	Since, Woken, Ran            uint64
	Nr                           int32
	Running, Slept, Dead, _      uint8
	User, Call                   rawTimes
	Voluntary, Involuntary       uint64
	Faults                       uint64
	Wakeups, WakeupNs, WakeupMax uint64
	Wakeup                       [buckets]uint32
}

type callKey struct {
	TID uint32
	Nr  int32
}

type rawCall struct {
	Count uint64
	Times rawTimes
	Ns    uint64
	Max   uint64
	Ran   [buckets]uint32
}

type sampleKey struct {
	IP  uint64
	TID uint32
	_   uint32
}

type rawDevice struct {
	Count, Bytes, Ns, Max uint64
	Latency               [buckets]uint32
}

// raw is all that a collector has counted.
type raw struct {
	from, until uint64
	threads     map[uint32]rawThread
	calls       map[callKey]rawCall
	samples     map[sampleKey]uint64
	devices     []rawDevice // by CPU
	lost        uint64
}

func (c *Collector) read() (*raw, error) {
	r := &raw{from: c.from, until: c.until}
	var errs [5]error
	r.threads, errs[0] = readMap[uint32, rawThread](c.objects.Threads)
	r.calls, errs[1] = readMap[callKey, rawCall](c.objects.Calls)
	r.samples, errs[2] = readMap[sampleKey, uint64](c.objects.Samples)
	errs[3] = c.objects.Devices.Lookup(uint32(0), &r.devices)
	errs[4] = c.objects.Lost.Get(&r.lost)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("read collector: %w", err)
	}
	return r, nil
}

func readMap[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	all := make(map[K]V)
	var key K
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		all[key] = value
	}
	return all, entries.Err()
}
