package frontend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

const qsdCapacity = 16 << 20

// startQSD runs qemu-storage-daemon, which nobody here wrote, as back-end. It
// listens on a socket that is made here, so that it is there at once.
func startQSD(t *testing.T, queues int) (socket, image string) {
	t.Helper()
	program := leaktest.Tool(t, "qemu-storage-daemon")
	dir := t.TempDir()
	socket, image = filepath.Join(dir, "s"), filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, qsdCapacity); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program,
		"--blockdev", "driver=file,node-name=f,filename="+image,
		"--blockdev", "driver=raw,node-name=d,file=f",
		"--export", fmt.Sprintf("type=vhost-user-blk,id=e,node-name=d,addr.type=fd,addr.str=3,writable=on,num-queues=%d", queues))
	var out bytes.Buffer
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{f}, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed on purpose
		if t.Failed() {
			t.Logf("qemu-storage-daemon: %s", out.Bytes())
		}
	})
	return socket, image
}

func openDisk(t *testing.T, socket string, o Options) *Disk {
	t.Helper()
	o.Timeout = 10 * time.Second
	d, err := Open(context.Background(), socket, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// Every way to negotiate and to frame requests: what is written is on the disk and
// reads back.
func TestQSD(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, o := range map[string]Options{
		"plain":           {},
		"polling":         {Polling: true},
		"four queues":     {Queues: 4},
		"no event idx":    {Without: 1 << virtqueue.FeatureEventIdx},
		"polling no idx":  {Polling: true, Without: 1 << virtqueue.FeatureEventIdx},
		"no indirect":     {Without: 1 << virtqueue.FeatureIndirectDesc},
		"no reply ack":    {WithoutProtocol: 1 << protocol.ProtocolReplyAck},
		"memory slots":    {MemorySlots: true},
		"small ring":      {QueueSize: 4, Without: 1 << virtqueue.FeatureIndirectDesc},
		"merged":          {Framing: FrameMerged},
		"at most 64 KiB":  {Framing: FrameAtMost(64 << 10), Without: 1 << virtqueue.FeatureIndirectDesc},
		"random framing":  {Framing: FrameRandom(rng, 20)},
		"several regions": {Layout: []RegionLayout{{Size: 64 << 10}, {GuestAddr: 1 << 20, Size: 8 << 20}, {GuestAddr: 1 << 32, Size: 64 << 20, File: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			queues := max(o.Queues, 1)
			socket, image := startQSD(t, queues)
			d := openDisk(t, socket, o)
			if d.Capacity() != qsdCapacity {
				t.Fatalf("capacity %d", d.Capacity())
			}
			for i, q := range d.Queues() {
				writeAndVerify(t, q, int64(i)*(3<<20), randomBytes(uint64(i), 3<<19))
			}
			onDisk, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			for i := range queues {
				want := randomBytes(uint64(i), 3<<19)
				if at := i * (3 << 20); !bytes.Equal(onDisk[at:at+len(want)], want) {
					t.Errorf("queue %d: the image has other data", i)
				}
			}
		})
	}
}

func writeAndVerify(t *testing.T, q *Queue, off int64, data []byte) {
	t.Helper()
	if n, err := q.WriteAt(data, off); err != nil || n != len(data) {
		t.Fatalf("write: %d, %v", n, err)
	}
	if err := q.Flush(); err != nil {
		t.Fatalf("flush: %v", err)
	}
	got := make([]byte, len(data))
	if n, err := q.ReadAt(got, off); err != nil || n != len(got) {
		t.Fatalf("read: %d, %v", n, err)
	}
	if !bytes.Equal(got, data) {
		t.Error("read back other data")
	}
	if id, err := q.GetID(); err != nil || id == "" {
		t.Errorf("id %q, %v", id, err)
	}
}

// Many requests in flight on several queues at once, each queue with a goroutine.
func TestQSDConcurrent(t *testing.T) {
	const queues, depth, rounds = 3, 32, 400
	socket, _ := startQSD(t, queues)
	d := openDisk(t, socket, Options{Queues: queues})
	requests := make([][]*Request, queues)
	for i := range requests {
		for range depth {
			r, err := d.Queue(i).NewRequest(4096)
			if err != nil {
				t.Fatal(err)
			}
			requests[i] = append(requests[i], r)
		}
	}
	var wg sync.WaitGroup
	for i, q := range d.Queues() {
		wg.Go(func() { pump(t, q, requests[i], uint64(i)*depth*8, rounds) })
	}
	wg.Wait()
}

// pump writes with every slot, then reads back with it, until all rounds are done.
func pump(t *testing.T, q *Queue, slots []*Request, base uint64, rounds int) {
	done := make([]*Request, len(slots))
	for i, r := range slots {
		r.Sector, r.Tag = base+uint64(i)*8, uint64(i)
	}
	for round := range rounds {
		for i, r := range slots {
			r.Type = TypeOut
			if round%2 == 1 {
				r.Type = TypeIn
				clear(r.Data)
			} else {
				fill(r.Data, byte(round/2+i))
			}
			if err := q.Submit(r); err != nil {
				t.Error(err)
				return
			}
		}
		if err := q.Notify(); err != nil {
			t.Error(err)
		}
		for left := len(slots); left > 0; {
			n, err := q.Wait(done)
			if err != nil {
				t.Error(err)
				return
			}
			left -= n
			for _, r := range done[:n] {
				check(t, r, byte(round/2)+byte(r.Tag))
			}
		}
	}
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func check(t *testing.T, r *Request, want byte) {
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Type != TypeIn {
		return
	}
	if bytes.Count(r.Data, []byte{want}) != len(r.Data) {
		t.Errorf("slot %d: read %d, want %d", r.Tag, r.Data[0], want)
	}
	if r.Written != uint32(len(r.Data))+1 {
		t.Errorf("used length %d", r.Written)
	}
}

// A stop in between loses nothing and repeats nothing.
func TestQSDStopAndStart(t *testing.T) {
	socket, _ := startQSD(t, 2)
	d := openDisk(t, socket, Options{Queues: 2})
	for i := range 3 {
		for _, q := range d.Queues() {
			writeAndVerify(t, q, int64(q.Index())<<20, randomBytes(uint64(i), 4096))
		}
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQSDErrors(t *testing.T) {
	socket, _ := startQSD(t, 1)
	if _, err := Open(context.Background(), socket, Options{Queues: 5}); !errors.Is(err, ErrNotOffered) {
		t.Errorf("too many queues: %v", err)
	}
	if _, err := Open(context.Background(), socket, Options{Require: 1 << 41}); !errors.Is(err, ErrNotOffered) {
		t.Errorf("a feature that is not there: %v", err)
	}
	d := openDisk(t, socket, Options{})
	q := d.Queue(0)
	if _, err := q.ReadAt(make([]byte, 512), qsdCapacity); !errors.Is(err, ErrIO) {
		t.Errorf("read behind the end: %v", err)
	}
	r, err := q.NewRequest(512)
	if err != nil {
		t.Fatal(err)
	}
	r.Type = 77
	if err := q.Do(r); !errors.Is(err, ErrUnsupported) {
		t.Errorf("unknown type: %v", err)
	}
}

// The measure of the driver's own costs: nothing is allocated per request, asleep
// or polling.
func TestQSDNoAllocation(t *testing.T) {
	for _, polling := range []bool{false, true} {
		socket, _ := startQSD(t, 1)
		d := openDisk(t, socket, Options{Polling: polling})
		q := d.Queue(0)
		r, err := q.NewRequest(4096)
		if err != nil {
			t.Fatal(err)
		}
		r.Type = TypeOut
		if n := testing.AllocsPerRun(500, func() {
			if err := q.Do(r); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("polling %v: %v allocations per request", polling, n)
		}
	}
}
