package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"sealblk/blockdev"
)

const (
	pathEnv     = "SEALBLK_FILE_TEST_PATH"
	readOnlyEnv = "SEALBLK_FILE_TEST_READONLY"
)

// lockChild opens a device with a lock, tells how that went, and holds it until its
// standard input ends.
func lockChild() {
	o := Options{Lock: true, ReadOnly: os.Getenv(readOnlyEnv) != ""}
	d, err := Open(os.Getenv(pathEnv), o)
	if err != nil {
		fmt.Println(err)
		return
	}
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 4})
	fmt.Println("open", err)
	io.Copy(io.Discard, os.Stdin)
	q.Close()
	d.Close()
}

func TestLockBetweenProcesses(t *testing.T) {
	for _, c := range []struct{ holdRO, wantRO, busy bool }{
		{false, false, true}, {false, true, true}, {true, false, true}, {true, true, false},
	} {
		t.Run(fmt.Sprintf("holder read-only %v, other read-only %v", c.holdRO, c.wantRO), func(t *testing.T) {
			path := image(t, 1<<20)
			env := []string{pathEnv + "=" + path}
			if c.holdRO {
				env = append(env, readOnlyEnv+"=1")
			}
			holder := startChild(t, "lock", env...)
			if got := holder.line(t); got != "open <nil>\n" {
				t.Fatalf("holder: %s", got)
			}
			d, err := Open(path, Options{Lock: true, ReadOnly: c.wantRO})
			if errors.Is(err, blockdev.ErrBusy) != c.busy || (err == nil) == c.busy {
				t.Errorf("open while held: %v", err)
			}
			if err == nil {
				d.Close()
			}
			open(t, path, Options{ReadOnly: c.wantRO}) // who asks for no lock needs none
			holder.end(t)
			open(t, path, Options{Lock: true, ReadOnly: c.wantRO})
		})
	}
}

func TestLockInOneProcess(t *testing.T) {
	path := image(t, 1<<20)
	d := open(t, path, Options{Lock: true})
	if _, err := Open(path, Options{Lock: true}); !errors.Is(err, blockdev.ErrBusy) {
		t.Fatalf("second open: %v", err)
	}
	if got := drive(t, d, 1).Read(0, 512); len(got) != 512 {
		t.Fatal("the first device is of no use after it")
	}
}

// TestCloseReleasesLockAtOnce: an I/O ring that is torn down later does not hold it.
func TestCloseReleasesLockAtOnce(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		path := image(t, 1<<20)
		o.Lock = true
		for range 50 {
			d, err := Open(path, o)
			if err != nil {
				t.Fatal(err)
			}
			q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 4})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(q.Close(), d.Close()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
