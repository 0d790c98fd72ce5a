package worker

import (
	"context"
	"fmt"
	"testing"

	"sealblk/disk"
	"sealblk/vhost/frontend"
)

const (
	benchDisk  = 256 << 20
	benchBlock = 128 << 10
	benchDepth = 16
)

// BenchmarkExport is the sequential throughput of a whole export: driver, virtqueue,
// encryption and backend, one queue, 128 KiB requests, 16 in flight.
func BenchmarkExport(b *testing.B) {
	for _, backend := range []string{"memory:", ""} {
		for _, encrypted := range []bool{false, true} {
			for _, typ := range []uint32{frontend.TypeOut, frontend.TypeIn} {
				name := fmt.Sprintf("backend=%s/encrypted=%v/%s", map[string]string{"memory:": "memory", "": "file"}[backend],
					encrypted, map[uint32]string{frontend.TypeIn: "read", frontend.TypeOut: "write"}[typ])
				b.Run(name, func(b *testing.B) { benchExport(b, backend, encrypted, typ) })
			}
		}
	}
}

func benchExport(b *testing.B, backend string, encrypted bool, typ uint32) {
	h := newHost(b)
	_, err := h.catalogue.Create(context.Background(), disk.CreateOptions{
		Name: "bench", SizeBytes: benchDisk, Encrypted: encrypted, SectorSize: 4096, Backend: backend,
	})
	if err != nil {
		b.Fatal(err)
	}
	h.export(Options{Disk: "bench", FD: -1})
	d, err := frontend.Open(context.Background(), h.socket, frontend.Options{Polling: true})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	sequential(b, d.Queue(0), frontend.TypeOut, benchDisk/benchBlock) // nothing stays a hole
	b.SetBytes(benchBlock)
	b.ResetTimer()
	sequential(b, d.Queue(0), typ, b.N)
	b.StopTimer()
}

// sequential keeps the queue full with n requests, one behind the other on the disk.
func sequential(b *testing.B, q *frontend.Queue, typ uint32, n int) {
	done := make([]*frontend.Request, benchDepth)
	var free []*frontend.Request
	for range benchDepth {
		r, err := q.NewRequest(benchBlock)
		if err != nil {
			b.Fatal(err)
		}
		r.Type = typ
		free = append(free, r)
	}
	for sent, left := 0, n; left > 0; {
		for ; len(free) > 0 && sent < n; sent++ {
			r := free[len(free)-1]
			free = free[:len(free)-1]
			r.Sector = uint64(sent%(benchDisk/benchBlock)) * benchBlock / frontend.SectorSize
			if err := q.Submit(r); err != nil {
				b.Fatal(err)
			}
		}
		if err := q.Notify(); err != nil {
			b.Fatal(err)
		}
		k, err := q.Wait(done)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range done[:k] {
			if err := r.Err(); err != nil {
				b.Fatal(err)
			}
		}
		free = append(free, done[:k]...)
		left -= k
	}
}
