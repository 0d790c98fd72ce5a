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

	"sealblk/keymgr/secret"
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

const movedPassphrase = "correct horse"

// openAgainAndAgain is a child of TestMoveUnderOtherProcesses: it opens the KMS until its
// standard input ends.
func openAgainAndAgain(dir string) int {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	fmt.Println("running")
	for {
		select {
		case <-ended:
			return 0
		default:
		}
		if err := openMoved(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

func openMoved(dir string) error {
	ask := func(bool) (*secret.Buffer, error) {
		b, err := secret.New(len(movedPassphrase))
		if err == nil {
			copy(b.Bytes(), movedPassphrase)
		}
		return b, err
	}
	k, err := Open(dir, Options{Sources: map[string]RootSource{RootPassphrase: PassphraseSource{Ask: ask}}})
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = k.ListKeys(context.Background())
	return err
}

// TestMoveUnderOtherProcesses moves the root key to and fro while other processes open
// the KMS: none of them ever sees it half moved.
func TestMoveUnderOtherProcesses(t *testing.T) {
	const processes, rounds = 2, 10
	dir, w, dk := populated(t)
	var wg sync.WaitGroup
	var inputs []io.Closer
	for range processes {
		c := exec.Command("/proc/self/exe")
		c.Env, c.Stderr = append(os.Environ(), "LOCAL_TEST_OPEN="+dir), os.Stderr
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fscanln(out, new(string)); err != nil {
			t.Error(err)
		}
		inputs = append(inputs, in)
		wg.Go(func() {
			if err := c.Wait(); err != nil {
				t.Errorf("another process: %v", err)
			}
		})
	}
	k := openAt(t, dir)
	for range rounds {
		if err := k.SetRootSource(t.Context(), RootPassphrase, asks(t, movedPassphrase)); err != nil {
			t.Fatal(err)
		}
		if err := k.SetRootSource(t.Context(), RootFile, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, in := range inputs {
		in.Close()
	}
	wg.Wait()
	wantOpens(t, k, w, dk)
	if _, err := k.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}
