package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// printServiceKey is a child of TestServiceKeyIsMadeOnce: when its standard input
// ends it uses the service key and prints its name.
func printServiceKey(dir string) int {
	io.Copy(io.Discard, os.Stdin)
	uri, err := useServiceKey(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Print(uri)
	return 0
}

func useServiceKey(dir string) (string, error) {
	k, err := Open(dir, Options{Principal: DiskService})
	if err != nil {
		return "", err
	}
	defer k.Close()
	w, err := k.GenerateDataKeyWithoutPlaintext(context.Background(), "", disk("1"))
	return w.URI, err
}

func TestServiceKeyIsMadeOnce(t *testing.T) {
	const processes, goroutines = 3, 4
	dir := newFolder(t)
	answers := make(chan string, processes+goroutines)
	start, gate, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range processes {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), "LOCAL_TEST_SERVICE_KEY="+dir)
		c.Stdin, c.Stderr = start, os.Stderr
		wg.Go(func() {
			out, err := c.Output()
			if err != nil {
				t.Error(err)
			}
			answers <- string(out)
		})
	}
	for range goroutines {
		wg.Go(func() {
			start.Read(make([]byte, 1))
			uri, err := useServiceKey(dir)
			if err != nil {
				t.Error(err)
			}
			answers <- uri
		})
	}
	gate.Close()
	wg.Wait()
	start.Close()
	first := <-answers
	for range processes + goroutines - 1 {
		if uri := <-answers; uri != first || uri == "" {
			t.Errorf("service keys %q and %q", first, uri)
		}
	}
	if list, err := openAt(t, dir).ListKeys(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

func TestOneKMSFromManyGoroutines(t *testing.T) {
	k := newKMS(t)
	id := newKey(t, k)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ec := disk(fmt.Sprint(i))
			dk, w, err := k.As(DiskService).GenerateDataKey(t.Context(), id, ec)
			if err != nil {
				t.Error(err)
				return
			}
			defer dk.Destroy()
			if _, err := k.RotateKey(t.Context(), id); err != nil {
				t.Error(err)
			}
			got, err := k.As(DiskService).Decrypt(t.Context(), w, ec)
			if err != nil || !got.Equal(dk) {
				t.Errorf("Decrypt: %v", err)
			}
			got.Destroy()
		})
	}
	wg.Wait()
	if info, err := k.DescribeKey(t.Context(), id); err != nil || info.Versions != 9 {
		t.Errorf("%d versions after 8 rotations, %v", info.Versions, err)
	}
}

// TestCallsExcludeOtherProcesses tries the lock, as another process would, at every
// write of a call.
func TestCallsExcludeOtherProcesses(t *testing.T) {
	k := newKMS(t)
	other, err := os.Open(k.store.path("lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	writes := 0
	k.store.step = func(operation, name string) error {
		writes++
		if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Errorf("lock while %s of %s: %v", operation, name, err)
			unix.Flock(int(other.Fd()), unix.LOCK_UN)
		}
		return nil
	}
	newKey(t, k)
	if writes == 0 {
		t.Error("nothing was written")
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("lock after the call: %v", err)
	}
}
