//go:build linux && amd64 && !purego && !race

// The race detector's shadow memory takes half a minute to search. Without assembly
// the registers of the cipher are beyond anybody's reach.

package crypt

import (
	"bufio"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/bounce"
	"sealblk/blockdev/memory"
	"sealblk/cipher"
	"sealblk/internal/leaktest"
	"sealblk/internal/sigmask"
)

// TestFaultLeavesNoKeyMaterial: guest memory vanishes while the cipher works on it, and
// the kernel saves the registers, which hold encrypted tweaks, for the signal handler.
// Once the queue is closed the process has round keys where they belong, and tweaks
// nowhere.
func TestFaultLeavesNoKeyMaterial(t *testing.T) {
	if len(cipher.Implementations()) == 1 {
		leaktest.Missing(t, "AES instructions")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would move the stacks
	keys := guestMemory(t, max(cipher.StateSize, 1<<16))
	for i, op := range []blockdev.Op{blockdev.Read, blockdev.Write, blockdev.Read, blockdev.Write} {
		step, reached, done := make(chan bool), make(chan error), make(chan error)
		go func() { // what a worker does
			done <- sigmask.Do(func() error {
				q, closeAll := queueWithKeys(t, keys, i < 2)
				reached <- nil
				<-step
				reached <- fault(q, op, vanishing(t))
				<-step
				err := closeAll()
				reached <- nil
				<-step
				return err
			})
		}()
		<-reached
		var s *search
		if err := sigmask.Do(func() error {
			s = newSearch(t, keys)
			cipher.Scrub() // the standard library leaves its round keys in registers
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		s.look(t)
		s.own = s.found // by this test
		step <- true
		if err := <-reached; err != nil {
			t.Fatal(err)
		}
		if s.look(t) == 0 {
			t.Errorf("op %d: the search finds nothing after the fault: it proves nothing", op)
		}
		step <- true
		<-reached
		if n := s.look(t); n > 0 {
			t.Errorf("op %d: %d pieces of round keys or tweaks are left", op, n)
		}
		step <- true
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func newDeviceIn(t *testing.T, keys []byte, direct bool) *Device {
	x, err := cipher.NewXTSIn(keys, testKey, 512)
	if err != nil {
		panic(err)
	}
	var lower blockdev.Device = newMemory(t, 1<<20, memory.Options{})
	if !direct { // nobody sees its bytes
		lower = blockdevtest.NewFault(lower, blockdevtest.FaultOptions{})
	}
	d, err := newDevice(lower, x, Options{}, bounce.Config{})
	if err != nil {
		panic(err)
	}
	return d
}

// queueWithKeys panics where it fails: it is not on the test's goroutine.
func queueWithKeys(t *testing.T, keys []byte, direct bool) (_ blockdev.Queue, closeAll func() error) {
	d := newDeviceIn(t, keys, direct)
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		panic(err)
	}
	drv := blockdevtest.NewDriver(t, q, 1)
	drv.Must(request(blockdev.Write, 0, blockdevtest.Noise(1, vanishingSize)))
	return q, func() error { return errors.Join(q.Close(), d.Close()) }
}

const vanishingSize = 64 << 10

// vanishing is guest memory of which only the first half is there.
func vanishing(t *testing.T) []byte {
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(fd, 0, vanishingSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	if err := unix.Ftruncate(fd, vanishingSize/2); err != nil {
		panic(err)
	}
	return mem
}

var errNoFault = errors.New("no fault")

func fault(q blockdev.Queue, op blockdev.Op, mem []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if _, ok := recover().(interface{ Addr() uintptr }); ok {
			err = nil
		}
	}()
	q.Submit(request(op, 0, mem))
	q.Push()
	for range 10 {
		q.Poll(make([]*blockdev.Request, 1))
	}
	return errNoFault
}

// search looks for round keys and tweaks, which it holds masked.
type search struct {
	masked map[[2]uint64]bool
	first  [1 << 16]bool // by bits of the first word, for speed
	keys   uintptr       // where they belong
	size   uintptr
	page   []byte

	found, own map[uintptr]bool // where there are any; and were before
}

const searchMask = 0x5aa5_c33c_9669_f00f

func newSearch(t *testing.T, keys []byte) *search {
	s := &search{
		masked: map[[2]uint64]bool{}, page: guestMemory(t, 4096),
		keys: uintptr(unsafe.Pointer(unsafe.SliceData(keys))), size: uintptr(len(keys)),
	}
	for i := 0; i+16 <= len(keys); i += 16 {
		if p := pair(keys[i:]); p[0]^p[1] != 0 { // neither zeros nor a repeated word
			s.masked[p] = true
		}
	}
	for i := 0; i < len(testKey); i += 16 { // the caller's affair
		delete(s.masked, pair(testKey[i:]))
	}
	s.addTweaks(t)
	for p := range s.masked {
		s.first[p[0]&0xffff] = true
	}
	return s
}

// addTweaks adds those of all cipher blocks that the test reads or writes.
func (s *search) addTweaks(t *testing.T) {
	tweak, err := aes.NewCipher(testKey[cipher.KeySize/2:])
	if err != nil {
		t.Fatal(err)
	}
	b := guestMemory(t, 4096)[:16]
	defer clear(b)
	for sector := range uint64(vanishingSize / cipher.SectorSize) {
		binary.LittleEndian.PutUint64(b, sector)
		binary.LittleEndian.PutUint64(b[8:], 0)
		tweak.Encrypt(b, b)
		for range cipher.SectorSize / 16 {
			s.masked[pair(b)] = true
			double(b)
		}
	}
}

// double multiplies a tweak by x (IEEE Std 1619, clause 5.2).
func double(b []byte) {
	lo, hi := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	binary.LittleEndian.PutUint64(b, lo<<1^0x87*(hi>>63))
	binary.LittleEndian.PutUint64(b[8:], hi<<1|lo>>63)
}

func pair(b []byte) [2]uint64 {
	return [2]uint64{binary.LittleEndian.Uint64(b) ^ searchMask, binary.LittleEndian.Uint64(b[8:]) ^ searchMask}
}

// look searches all memory that this process can write to, and tells how many pieces
// are new.
func (s *search) look(t *testing.T) (fresh int) {
	t.Helper()
	s.found = map[uintptr]bool{}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	for lines := bufio.NewScanner(strings.NewReader(string(maps))); lines.Scan(); {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(mode, "rw") && to>>63 == 0 {
			s.lookIn(process, from, to)
		}
	}
	for at := range s.found {
		if !s.own[at] {
			fresh++
		}
	}
	return fresh
}

func (s *search) lookIn(process *os.File, from, to uintptr) {
	own := uintptr(unsafe.Pointer(unsafe.SliceData(s.page)))
	for ; from < to; from += uintptr(len(s.page)) {
		if from-s.keys < s.size || from == own {
			continue
		}
		if k, err := process.ReadAt(s.page, int64(from)); err != nil || k != len(s.page) {
			continue
		}
		for i := 0; i+16 <= len(s.page); i += 8 {
			if p := pair(s.page[i:]); s.first[p[0]&0xffff] && s.masked[p] {
				s.found[from+uintptr(i)] = true
			}
		}
	}
	clear(s.page)
}
