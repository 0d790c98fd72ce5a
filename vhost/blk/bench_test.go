package blk_test

import (
	"fmt"
	"testing"

	"sealblk/blockdev/memory"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
)

// BenchmarkRead measures the way of a request through session, ring and device in
// one process: driver and worker share the machine, and the data is a copy in RAM.
func BenchmarkRead(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("4k-depth-%d", depth), func(b *testing.B) { benchmarkRead(b, depth) })
	}
}

func benchmarkRead(b *testing.B, depth int) {
	dev, err := memory.New(capacity, memory.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dev.Close() })
	_, socket := export(b, dev, blk.Options{})
	q := open(b, socket, frontend.Options{}).Queue(0)
	for i := range depth {
		if err := q.Submit(request(b, q, frontend.TypeIn, uint64(i*8), 4096)); err != nil {
			b.Fatal(err)
		}
	}
	if err := q.Notify(); err != nil {
		b.Fatal(err)
	}
	done := make([]*frontend.Request, depth)
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; i < b.N; {
		n, err := q.Wait(done)
		if err != nil {
			b.Fatal(err)
		}
		i += n
		for _, r := range done[:n] {
			if err := q.Submit(r); err != nil {
				b.Fatal(err)
			}
		}
		if err := q.Notify(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
}
