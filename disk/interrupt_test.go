package disk

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/luks"
	"sealblk/keymgr/secret"
)

var interruptions = flag.Int("rewraps", 200, "how many re-wraps TestRewrapsInterruptedAtRandom interrupts, half by SIGKILL and half by a power cut")

func init() { operations["re-wrap for ever"] = rewrapForEver }

// rewrapForEver moves the disks db0, db1, ... to and fro between two CMKs, which it
// reads from standard input, until it is killed.
func rewrapForEver(ctx context.Context, c *Catalogue) error {
	var keys [2]string
	if _, err := fmt.Scan(&keys[0], &keys[1]); err != nil {
		return err
	}
	records, _ := c.List()
	fmt.Println("begun")
	for i := 0; ; i++ {
		for _, r := range records {
			if _, err := c.Rewrap(ctx, r.Name, RewrapOptions{Key: keys[i%2]}); err != nil {
				return err
			}
		}
	}
}

// TestRewrapsInterruptedAtRandom kills processes that re-wrap, and cuts the power in the
// middle of a header's write with any of its sectors on the medium, a thousand times with
// -rewraps 1000. One of the disks is served all the time, under I/O. Afterwards each disk
// opens, with its key and data, under one of the two CMKs, at least one copy of its header
// is whole, and neither CMK that it needs could have been deleted.
func TestRewrapsInterruptedAtRandom(t *testing.T) {
	n := *interruptions
	if testing.Short() {
		n = min(n, 20)
	}
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	st := newStorm(t)
	stop := st.serve("db0")
	outcomes := map[string]int{}
	for i := range n {
		before := st.uris()
		if i%2 == 0 {
			st.killed(time.Duration(rng.IntN(12_000)) * time.Microsecond)
		} else {
			st.cut(rng)
		}
		for name, uri := range st.check(rng) {
			if uri == before[name] {
				outcomes["old wrapping"]++
			} else {
				outcomes["new wrapping"]++
			}
		}
	}
	ios := stop()
	for _, name := range st.names {
		mustRewrap(t, st.c, name, st.keys[0])
		wantKey(t, st.c, name, st.dk[name], st.keys[0], "1")
		wantWhole(t, st.c, name)
	}
	t.Logf("%d re-wraps interrupted (%d killed, %d power cuts); looked at %d disks afterwards: %v, %d with a torn or stale copy beside the good one; %d requests of the disk that was served meanwhile, all right",
		n, (n+1)/2, n/2, n*len(st.names), outcomes, st.torn, ios)
	if outcomes["old wrapping"] == 0 || outcomes["new wrapping"] == 0 {
		t.Errorf("one kind of outcome was never seen: %v", outcomes)
	}
}

// storm is a catalogue whose disks are re-wrapped between two CMKs.
type storm struct {
	t     *testing.T
	c     *Catalogue
	names []string
	keys  [2]string
	dk    map[string]*secret.Buffer
	torn  int
}

func newStorm(t *testing.T) *storm {
	st := &storm{t: t, c: newCatalogue(t), dk: map[string]*secret.Buffer{}}
	for i := range 3 {
		name := fmt.Sprint("db", i)
		mustCreate(t, st.c, CreateOptions{Name: name, Encrypted: true})
		st.names, st.dk[name] = append(st.names, name), keyOf(t, st.c, name)
	}
	operator := st.c.operator(t, "")
	st.keys = [2]string{newCMK(t, operator), newCMK(t, operator)}
	for _, name := range st.names {
		mustRewrap(t, st.c, name, st.keys[0])
	}
	return st
}

// uris are the CMKs of the disks, by their headers.
func (st *storm) uris() map[string]string {
	found := map[string]string{}
	for _, name := range st.names {
		found[name] = st.c.Current(must(st.c.Get(name))).KeyURI
	}
	return found
}

// serve opens a disk as an export does, and reads and writes it until the function is
// called, which tells how many requests that were.
func (st *storm) serve(name string) (stop func() int64) {
	d, err := st.c.Open(st.t.Context(), name, OpenOptions{})
	if err != nil {
		st.t.Fatal(err)
	}
	publish(st.t, d, os.Getpid())
	q, err := d.Device.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		st.t.Fatal(err)
	}
	var ended atomic.Bool
	requests := make(chan int64)
	go func() {
		driver, n := blockdevtest.NewDriver(st.t, q, 4), int64(0)
		data := blockdevtest.Noise(7, diskSize)
		for ; !ended.Load(); n += 2 {
			at := n * 2048 % diskSize
			driver.Write(at, data[at:at+4096])
			if string(driver.Read(at, 4096)) != string(data[at:at+4096]) {
				st.t.Error("the disk that is served reads something else")
				break
			}
			time.Sleep(200 * time.Microsecond) // leave the processor to the others
		}
		requests <- n
	}()
	return func() int64 {
		ended.Store(true)
		n := <-requests
		if err := errors.Join(q.Close(), d.Close()); err != nil {
			st.t.Error(err)
		}
		return n
	}
}

// killed has a process re-wrap, and kills it after a while.
func (st *storm) killed(after time.Duration) {
	st.t.Helper()
	cmd := childCommand(st.t, st.c.dir, 0, "re-wrap for ever")
	cmd.Stdin = strings.NewReader(st.keys[1] + " " + st.keys[0] + "\n")
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		st.t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	if line, err := out.ReadString('\n'); line != "begun\n" {
		st.t.Fatalf("%q, %v", line, err)
	}
	time.Sleep(after) // the moment is to be any
	cmd.Process.Kill()
	if line, _ := out.ReadString('\n'); line != "" {
		st.t.Fatalf("the re-wrap failed: %s", line)
	}
	cmd.Wait()
}

var errPower = errors.New("power failed")

// cut re-wraps a disk, and cuts the power at one of the writes of its header.
func (st *storm) cut(rng *rand.Rand) {
	st.t.Helper()
	name := st.names[rng.IntN(len(st.names))]
	to := st.keys[0]
	if st.uris()[name] == to {
		to = st.keys[1]
	}
	var p *powerCut
	st.c.headerFile = func(f *os.File) luks.File {
		p = &powerCut{File: f, rng: rng, left: 1 + rng.IntN(6), was: map[int64][]byte{}}
		return p
	}
	_, err := st.c.Rewrap(st.t.Context(), name, RewrapOptions{Key: to})
	st.c.headerFile = nil
	if err != nil && !errors.Is(err, errPower) {
		st.t.Fatal(err)
	}
	if p.failed {
		p.settle()
	}
}

// powerCut is a file whose power fails at one of its writes or syncs. Of the sectors
// that were written since the last sync, any may be on the medium then.
type powerCut struct {
	*os.File
	rng    *rand.Rand
	left   int // writes and syncs till it fails
	failed bool
	was    map[int64][]byte // sectors as they were at the last sync
}

func (p *powerCut) WriteAt(b []byte, off int64) (int, error) {
	if p.failed {
		return 0, errPower
	}
	for i := int64(0); i < int64(len(b)); i += 512 {
		if _, known := p.was[off+i]; !known {
			old := make([]byte, 512)
			if _, err := p.ReadAt(old, off+i); err != nil {
				return 0, err
			}
			p.was[off+i] = old
		}
	}
	n, err := p.File.WriteAt(b, off)
	if p.left--; p.left <= 0 {
		p.failed = true
		return 0, errPower
	}
	return n, err
}

func (p *powerCut) Sync() error {
	if p.left--; p.failed || p.left <= 0 {
		p.failed = true
		return errPower
	}
	clear(p.was)
	return nil
}

// settle takes some of the sectors back that were not synced.
func (p *powerCut) settle() {
	f, err := os.OpenFile(p.Name(), os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	for off, old := range p.was {
		if p.rng.IntN(2) == 0 {
			if _, err := f.WriteAt(old, off); err != nil {
				panic(err)
			}
		}
	}
}

// check looks at all disks as they are, and returns the CMK that each is under.
func (st *storm) check(rng *rand.Rand) map[string]string {
	st.t.Helper()
	for _, name := range st.names {
		h, err := openHeader(must(st.c.Get(name)).Where())
		if err != nil {
			st.t.Fatalf("disk %s: %v", name, err)
		}
		if h.Warnings() != nil {
			st.torn++
		}
		_, _, dk, err := st.c.keyIn(st.t.Context(), name, mainSlot) // by the KMS, and the digest
		if err != nil {
			st.t.Fatalf("disk %s: %v", name, err)
		}
		if !dk.Equal(st.dk[name]) {
			st.t.Fatalf("disk %s has another key", name)
		}
		dk.Destroy()
		users, err := st.c.UsersOf(st.uris()[name])
		if err != nil || !strings.Contains(fmt.Sprint(users), name) {
			st.t.Fatalf("disk %s: its key is not guarded: %v, %v", name, users, err)
		}
	}
	now := st.uris()
	if name := st.names[1+rng.IntN(len(st.names)-1)]; rng.IntN(4) == 0 { // the first is served
		d, err := st.c.Open(st.t.Context(), name, OpenOptions{})
		if err != nil {
			st.t.Fatal(err)
		}
		d.Close()
	}
	return now
}
