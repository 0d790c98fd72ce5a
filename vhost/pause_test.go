package vhost_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sealblk/blockdev/memory"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
)

// paused runs Pause and tells when it has returned.
func paused(dev *blk.Device) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		dev.Pause()
	}()
	return done
}

func returned(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}

// TestPauseKeepsRequestsInTheRing: a pause waits for what is in flight, which completes;
// what comes meanwhile stays in the ring unanswered, and is served after it.
func TestPauseKeepsRequestsInTheRing(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: queues})
	q := d.Queue(0)
	for i := range d.Queues() {
		roundTrip(t, d.Queue(i))
	}
	fault.Hold()
	submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	done := paused(dev)
	select {
	case <-done:
		t.Fatal("paused with a request in flight")
	case <-time.After(20 * time.Millisecond):
	}
	fault.Resume()
	returned(t, "Pause", done)
	waitDone(t, q)
	n := fault.Submitted()
	for i := range d.Queues() {
		submit(t, d.Queue(i), request(t, d.Queue(i), frontend.TypeOut, 8, 512))
		must(t, d.Queue(i).Kick.Signal())
	}
	stays(t, "a paused device was used", func() bool { return fault.Submitted() == n })
	for i := range d.Queues() {
		if k, err := d.Queue(i).Poll(make([]*frontend.Request, 1)); k != 0 || err != nil {
			t.Errorf("ring %d: %d requests of a paused device are answered, %v", i, k, err)
		}
	}
	alive(t, d.Session)
	dev.Resume()
	for i := range d.Queues() {
		waitDone(t, d.Queue(i))
		roundTrip(t, d.Queue(i))
	}
}

// TestPausedDeviceCanBeLeft: a front-end stops the rings of a paused device, learns where
// they stand, changes memory, and starts them again; a reset, a reconnect and the end need
// no device either.
func TestPausedDeviceCanBeLeft(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: queues})
	q := d.Queue(0)
	roundTrip(t, q)
	returned(t, "Pause", paused(dev))
	submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	for range 3 {
		base, err := d.Session.GetVringBase(0)
		must(t, err)
		if base != 1 {
			t.Fatalf("the ring goes on at %d, not at the first request that waits", base)
		}
		prepareRing(t, d, 0, base)
		must(t, d.Session.SetVringEnable(0, true))
		must(t, q.Kick.Signal())
	}
	must(t, d.Session.SetVringEnable(0, false))
	must(t, d.Session.SetVringEnable(0, true))
	n := fault.Submitted()
	stays(t, "a paused device was used", func() bool { return fault.Submitted() == n })
	dev.Resume()
	waitDone(t, q)
	returned(t, "Pause", paused(dev))
	must(t, d.Stop())
	dev.Resume()
	must(t, d.Start())
	roundTrip(t, q)
}

// TestSessionOfAPausedDevice begins, waits, and is served when the pause ends; or ends.
func TestSessionOfAPausedDevice(t *testing.T) {
	dev, _ := newDevice(t)
	returned(t, "Pause", paused(dev))
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	submit(t, q, request(t, q, frontend.TypeIn, 0, 4096))
	alive(t, d.Session)
	dev.Resume()
	waitDone(t, q)

	returned(t, "Pause", paused(dev))
	ctx, cancel := context.WithCancel(context.Background())
	s, ended := pair(t, ctx, dev)
	alive(t, s)
	cancel()
	wantEnd(t, ended, nil)
	dev.Resume()
}

// TestPauseToAndFro: pauses at any moment lose nothing and answer nothing twice.
func TestPauseToAndFro(t *testing.T) {
	mem, err := memory.New(capacity, memory.Options{})
	must(t, err)
	defer mem.Close()
	dev, err := blk.New(mem, blk.Options{NumQueues: queues, MaxQueueSize: 256, Logger: quiet})
	must(t, err)
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				dev.Pause()
				dev.Resume()
			}
		}
	}()
	for i := range 300 {
		data := []byte{byte(i), byte(i >> 8)}
		block := make([]byte, 512)
		copy(block, data)
		if _, err := q.WriteAt(block, int64(i%64)*512); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 512)
		if _, err := q.ReadAt(got, int64(i%64)*512); err != nil || got[0] != data[0] || got[1] != data[1] {
			t.Fatalf("round %d: read %v, %v", i, got[:2], err)
		}
	}
	close(stop)
	<-done
}

// TestPauseAmongMessages: whatever a front-end does while the device pauses and goes on at
// random, a paused device is not used, and each request is answered once in the end.
func TestPauseAmongMessages(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			pauseAmongMessages(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func pauseAmongMessages(t *testing.T, random *rand.Rand) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: queues})
	type state struct {
		enabled, stopped bool
		base, waiting    int
	}
	rings := make([]state, queues)
	for i := range rings {
		rings[i].enabled = true
	}
	isPaused, used := false, 0
	resume := func(i int) {
		r := &rings[i]
		prepareRing(t, d, uint32(i), uint32(r.base))
		must(t, d.Session.SetVringEnable(uint32(i), r.enabled))
		must(t, d.Queue(i).Kick.Signal())
		r.stopped = false
	}
	for range 60 {
		i := random.IntN(queues)
		r, q := &rings[i], d.Queue(i)
		switch random.IntN(7) {
		case 0:
			returned(t, "Pause", paused(dev))
			isPaused, used = true, fault.Submitted()
		case 1:
			isPaused = false
			dev.Resume()
		case 2:
			r.enabled = !r.enabled
			must(t, d.Session.SetVringEnable(uint32(i), r.enabled))
		case 3:
			if r.stopped {
				resume(i)
				break
			}
			base, err := d.Session.GetVringBase(uint32(i))
			must(t, err)
			r.base, r.stopped = int(base), true
		default:
			if r.waiting < 20 {
				must(t, q.Submit(request(t, q, frontend.TypeOut, 0, 512)))
				must(t, q.Kick.Signal())
				r.waiting++
			}
		}
		if isPaused && fault.Submitted() != used {
			t.Fatal("a paused device was used")
		}
	}
	dev.Resume()
	for i := range rings {
		if rings[i].enabled = true; rings[i].stopped {
			resume(i)
		} else {
			must(t, d.Session.SetVringEnable(uint32(i), true))
		}
		for range rings[i].waiting {
			waitDone(t, d.Queue(i))
		}
		roundTrip(t, d.Queue(i))
	}
}
