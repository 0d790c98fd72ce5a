package file

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// BenchmarkRead4K keeps 32 random reads in flight.
func BenchmarkRead4K(b *testing.B) {
	const size, depth = 64 << 20, 32
	for _, v := range variants {
		b.Run(v.name, func(b *testing.B) {
			path := b.TempDir() + "/disk.img"
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				b.Fatal(err)
			}
			d, err := Open(path, v.opts)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			q, err := d.OpenQueue(blockdev.QueueConfig{Depth: depth})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			b.SetBytes(4096)
			b.ReportAllocs()
			randomReads(b, q, size, depth)
		})
	}
}

func randomReads(b *testing.B, q blockdev.Queue, size int64, depth int) {
	mem, err := unix.Mmap(-1, 0, depth*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(mem)
	state := uint64(1)
	next := func(r *blockdev.Request) *blockdev.Request {
		state = state*6364136223846793005 + 1442695040888963407
		r.Offset = int64(state>>33) % (size / 4096) * 4096
		return r
	}
	todo := make([]*blockdev.Request, depth)
	for i := range todo {
		todo[i] = next(rw(blockdev.Read, 0, mem[i*4096:(i+1)*4096]))
	}
	done, again := make([]*blockdev.Request, depth), make([]*blockdev.Request, 1)
	fds := []unix.PollFd{{Fd: int32(q.WaitFD()), Events: unix.POLLIN}}
	q.Submit(todo...)
	q.Push()
	b.ResetTimer()
	for completed, inflight := 0, depth; inflight > 0; {
		n := q.Poll(done)
		if n == 0 {
			unix.Poll(fds, -1)
			continue
		}
		completed, inflight = completed+n, inflight-n
		for _, r := range done[:n] {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
			if completed+inflight < b.N {
				again[0] = next(r)
				q.Submit(again...)
				inflight++
			}
		}
		q.Push()
	}
}
