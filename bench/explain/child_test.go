package explain

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// children are processes whose behaviour is known. Each does its work on one thread
// between two lines on its standard input, and tells how long it took.
var children = map[string]func(){
	"reads":   func() { child(readFile) },
	"sleeps":  func() { child(sleepAndBurn) },
	"burns":   func() { child(burn) },
	"crypto":  func() { child(encrypt) },
	"touches": func() { child(touch) },
	"writes":  func() { child(writeDirect) },
	"workers": func() { child(newThreads) },
	"asks":    func() { fmt.Println(Supported()) },
}

const (
	reads   = 3210
	naps    = 40
	nap     = 10 * time.Millisecond
	busy    = 300 * time.Millisecond
	pages   = 777
	writes  = 64
	extra   = 3 // threads
	perEach = 100
)

// child waits for a line, works, and answers with the thread and the time it took.
func child(work func() error) {
	runtime.LockOSThread()
	// The thread it works on tells its number, then it is watched.
	fmt.Println(unix.Gettid())
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		os.Exit(1)
	}
	begun := time.Now()
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(time.Since(begun).Nanoseconds())
	in.ReadString('\n') // it lives until the report is made
}

// readFile makes exactly so many calls of preadv, which the Go runtime never does.
func readFile() error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 64)
	for range reads {
		if _, err := unix.Preadv(int(f.Fd()), [][]byte{b}, 0); err != nil {
			return err
		}
	}
	return nil
}

// sleepAndBurn sleeps and computes by turns, for the same time each.
func sleepAndBurn() error {
	// The Go runtime's signals would end a sleep early.
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &everySignal, nil); err != nil {
		return err
	}
	for range naps {
		spin(nap)
		t := unix.NsecToTimespec(int64(nap))
		if _, err := unix.Ppoll(nil, &t, nil); err != nil {
			return err
		}
	}
	return nil
}

var everySignal = unix.Sigset_t{Val: [16]uint64{^uint64(0)}}

func burn() error { spin(busy); return nil }

func spin(d time.Duration) {
	for begun := time.Now(); time.Since(begun) < d; {
	}
}

func encrypt() error {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	stream := cipher.NewCTR(block, make([]byte, 16))
	for begun := time.Now(); time.Since(begun) < busy; {
		stream.XORKeyStream(b, b)
	}
	return nil
}

// touch faults so many pages in.
func touch() error {
	b, err := unix.Mmap(-1, 0, pages*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	return nil
}

// writeDirect has a block device work, where there is one.
func writeDirect() error {
	f, err := os.OpenFile(os.Getenv("EXPLAIN_TEST_FILE"), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	for i := range writes {
		if _, err := unix.Pwrite(int(f.Fd()), b, int64(i)*4096); err != nil {
			return err
		}
	}
	return nil
}

// newThreads makes threads that were not there when it was watched, and computes and
// calls on them.
func newThreads() error {
	done := make(chan error)
	for range extra {
		go func() {
			runtime.LockOSThread() // it ends with the thread
			spin(busy / extra)
			var err error
			for range perEach {
				if _, e := unix.Getpriority(unix.PRIO_PROCESS, 0); e != nil {
					err = e
				}
			}
			done <- err
		}()
	}
	var errs []error
	for range extra {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}
