// Verify runs in a guest: it writes to a disk at random and checks every byte that it
// reads, until the file that it is told to watch is gone. Each of its workers has a part
// of the disk to itself and one request in flight, so what a read must return is known.
//
//	verify DEVICE WHILE-FILE SEED
//
// It prints what it did. Its status is 1 after an error of the disk or a difference.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	block   = 4096
	workers = 24
	largest = 8 // blocks in a request
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("verify:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: verify DEVICE WHILE-FILE SEED")
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", args[0], err)
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("size of %s: %w", args[0], err)
	}
	total, err := verifyAll(fd, int(size)/block/workers, args[1], seed)
	fmt.Printf("writes %d reads %d flushes %d\n", total.writes, total.reads, total.flushes)
	return err
}

type counts struct{ writes, reads, flushes int }

// verifyAll runs the workers until one fails or the file is gone.
func verifyAll(fd, blocks int, while string, seed uint64) (total counts, err error) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex // guards total and err
	)
	for i := range workers {
		wg.Go(func() {
			w := newWorker(fd, i*blocks, blocks, seed+uint64(i))
			werr := w.run(while)
			mu.Lock()
			defer mu.Unlock()
			total.writes += w.writes
			total.reads += w.reads
			total.flushes += w.flushes
			err = errors.Join(err, werr)
		})
	}
	wg.Wait()
	return total, err
}

// worker owns a range of blocks.
type worker struct {
	counts
	fd, first int
	stamps    []uint64 // of the last write to each block; 0: never
	rng       *rand.Rand
	stamp     uint64
	buf       []byte
}

func newWorker(fd, first, blocks int, seed uint64) *worker {
	buf, err := unix.Mmap(-1, 0, largest*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	return &worker{fd: fd, first: first, stamps: make([]uint64, blocks), rng: rand.New(rand.NewPCG(seed, 7)), stamp: seed << 20, buf: buf}
}

func (w *worker) run(while string) error {
	for n := 0; ; n++ {
		if _, err := os.Stat(while); n%16 == 0 && err != nil {
			return w.readAll()
		}
		count := 1 + w.rng.IntN(largest)
		at := w.rng.IntN(len(w.stamps) - count)
		var err error
		switch kind := w.rng.IntN(20); {
		case kind == 0:
			w.flushes++
			err = unix.Fdatasync(w.fd)
		case kind < 12:
			err = w.write(at, count)
		default:
			err = w.read(at, count)
		}
		if err != nil {
			return err
		}
	}
}

func (w *worker) write(at, count int) error {
	w.stamp++
	b := w.buf[:count*block]
	for off := 0; off < len(b); off += 8 {
		binary.LittleEndian.PutUint64(b[off:], w.word(w.stamp, at*block+off))
	}
	w.writes++
	if n, err := unix.Pwrite(w.fd, b, int64(w.first+at)*block); err != nil || n != len(b) {
		return fmt.Errorf("write of blocks %d to %d: %d bytes: %w", w.first+at, w.first+at+count-1, n, err)
	}
	for i := range count {
		w.stamps[at+i] = w.stamp
	}
	return nil
}

// word tells its write and its place; zero where nothing was written.
func (w *worker) word(stamp uint64, at int) uint64 {
	if stamp == 0 {
		return 0
	}
	return stamp<<24 ^ uint64(at)
}

func (w *worker) read(at, count int) error {
	b := w.buf[:count*block]
	w.reads++
	if n, err := unix.Pread(w.fd, b, int64(w.first+at)*block); err != nil || n != len(b) {
		return fmt.Errorf("read of blocks %d to %d: %d bytes: %w", w.first+at, w.first+at+count-1, n, err)
	}
	for off := 0; off < len(b); off += 8 {
		stamp := w.stamps[at+off/block]
		if got, want := binary.LittleEndian.Uint64(b[off:]), w.word(stamp, at*block+off); got != want {
			return fmt.Errorf("block %d, byte %d: read %#x, want %#x", w.first+at+off/block, off%block, got, want)
		}
	}
	return nil
}

func (w *worker) readAll() error {
	for at := 0; at < len(w.stamps); at += largest {
		if err := w.read(at, min(largest, len(w.stamps)-at)); err != nil {
			return err
		}
	}
	return nil
}
