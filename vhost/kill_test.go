package vhost_test

import (
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/crypt"
	"sealblk/blockdev/file"
	"sealblk/cipher"
	"sealblk/internal/unixsocket"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
	"sealblk/vhost/inflight"
	"sealblk/vhost/virtqueue"
)

// victimEnv makes this program a back-end that is going to be killed: socket, image and
// engine.
const victimEnv = "SEALBLK_TEST_VICTIM"

const victimCapacity = 16 << 20

// beVictim serves until it is killed, or fails.
func beVictim(args string) error {
	a := strings.Split(args, "\n")
	engine := file.EngineUring
	if a[2] == "threads" {
		engine = file.EngineThreads
	}
	image, err := file.Open(a[1], file.Options{Lock: true, LockWait: file.AfterKill, Engine: engine})
	if err != nil {
		return err
	}
	key := sha512.Sum512([]byte("victim"))
	x, err := cipher.NewXTS(key[:], 512)
	if err != nil {
		return err
	}
	dev, err := crypt.New(image, x, crypt.Options{})
	if err != nil {
		return err
	}
	disk, err := blk.New(dev, blk.Options{NumQueues: 2, Logger: quiet})
	if err != nil {
		return err
	}
	ln, err := unixsocket.Listen(a[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return vhost.Serve(context.Background(), ln.UnixListener, disk, vhost.Options{Logger: quiet, PollMax: vhost.DefaultPollMax})
}

// victims starts back-ends on one socket and image, one after the other.
type victims struct {
	t      *testing.T
	socket string
	args   string
	cmd    *exec.Cmd
}

func newVictims(t *testing.T, engine string) *victims {
	t.Helper()
	dir, err := os.MkdirTemp("", "kill")
	must(t, err)
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, victimCapacity))
	v := &victims{t: t, socket: filepath.Join(dir, "s")}
	v.args = strings.Join([]string{v.socket, image, engine}, "\n")
	t.Cleanup(func() { v.kill(); v.wait(); os.RemoveAll(dir) })
	return v
}

// start returns when the next one listens.
func (v *victims) start() {
	v.t.Helper()
	v.cmd = exec.Command(os.Args[0])
	v.cmd.Env = append(os.Environ(), victimEnv+"="+v.args)
	v.cmd.Stderr = os.Stderr
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := v.cmd.StdoutPipe()
	must(v.t, err)
	must(v.t, v.cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		v.t.Fatalf("the next back-end does not start: %q, %v", line, err)
	}
}

// kill does not wait: others may be in the middle of something with it.
func (v *victims) kill() {
	if v.cmd != nil {
		_ = v.cmd.Process.Kill()
	}
}

func (v *victims) wait() {
	if v.cmd != nil {
		_ = v.cmd.Wait()
		v.cmd = nil
	}
}

// TestKilledBackend: a back-end is killed at random moments, also while it takes over
// from the one before, under a load whose every byte is known. The driver notices
// nothing: each request completes once, and reads what was written last.
func TestKilledBackend(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 12
	}
	for _, c := range []struct {
		engine  string
		options frontend.Options
	}{
		{"uring", frontend.Options{Queues: 2, QueueSize: 64}},
		{"threads", frontend.Options{Queues: 2, QueueSize: 128, Indirect: -1, MemorySlots: true, Without: 1 << 29}},
	} {
		t.Run(c.engine, func(t *testing.T) { killRounds(t, c.engine, c.options, rounds) })
	}
}

func killRounds(t *testing.T, engine string, o frontend.Options, rounds int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	v := newVictims(t, engine)
	v.start()
	o.Timeout = patience
	d, err := frontend.Open(context.Background(), v.socket, o)
	must(t, err)
	t.Cleanup(func() { closeDisk(d) })
	l := newLoad(t, d, rng)
	left := 0
	for range rounds {
		for n := rng.IntN(300); n > 0 && l.step(); n-- {
		}
		v.kill()
		must(t, l.untilGone())
		left += l.inFlight()
		for reconnect(t, v, d, rng) != nil {
		}
	}
	must(t, l.drain())
	must(t, l.readAll())
	must(t, d.Stop())
	t.Logf("%d requests, %d of them in flight when a back-end was killed", l.completed, left)
	if left < rounds {
		t.Errorf("only %d requests were in flight at %d kills", left, rounds)
	}
	for _, q := range d.Queues() {
		if heads := leftInFlight(t, d, q); len(heads) > 0 {
			t.Errorf("queue %d: %v stay in flight in a disk that has stopped", q.Index(), heads)
		}
	}
}

// leftInFlight is what the next back-end would take up.
func leftInFlight(t *testing.T, d *frontend.Disk, q *frontend.Queue) []uint16 {
	t.Helper()
	desc, fd := d.InflightFD()
	fd, err := unix.Dup(fd)
	must(t, err)
	r, err := inflight.Open(desc, fd)
	must(t, err)
	defer r.Close()
	_, heads, err := r.Recover(q.Index(), q.Ring.Size(), binary.LittleEndian.Uint16(q.Ring.Used.Bytes[virtqueue.UsedIdxOffset:]))
	must(t, err)
	return heads
}

// reconnect starts the next back-end and connects to it, and kills that, too, once in a
// while.
func reconnect(t *testing.T, v *victims, d *frontend.Disk, rng *rand.Rand) error {
	v.wait()
	v.start()
	if rng.IntN(4) == 0 {
		delay := time.Duration(rng.IntN(2000)) * time.Microsecond
		timer := time.AfterFunc(delay, v.kill)
		defer timer.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := d.ReconnectTo(ctx, v.socket)
	if err != nil && !errors.Is(err, frontend.ErrDisconnected) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	return err
}
