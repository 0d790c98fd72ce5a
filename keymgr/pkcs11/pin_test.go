//go:build pkcs11

package pkcs11

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/pkcs11/softhsm"
)

// TestPINIsAPipe: whoever gives up ends the wait for it, and so does the time-out.
func TestPINIsAPipe(t *testing.T) {
	token := softhsm.New(t)
	token.Key(t, "disks", []byte{1})
	err := kmstest.CheckPipe(t, []byte("1234\n"), func(ctx context.Context, pipe string, timeout time.Duration) error {
		c := configOf(token)
		c.PINFile, c.Timeout = pipe, timeout
		k, err := open(c)
		if err != nil {
			return err
		}
		defer k.Close()
		_, err = k.DescribeKey(ctx, "disks")
		return err
	})
	if err != nil {
		t.Errorf("DescribeKey: %v", err)
	}
}

// TestManyWaitForThePIN: it is read once for all of them, however one gives up meanwhile,
// and closing the KMS ends the wait.
func TestManyWaitForThePIN(t *testing.T) {
	token := softhsm.New(t)
	token.Key(t, "disks", []byte{1})
	c := configOf(token)
	c.Timeout, c.PINFile = time.Minute, filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(c.PINFile, 0o600); err != nil {
		t.Fatal(err)
	}
	k := openKMS(t, c)
	describe := func(ctx context.Context) error {
		_, err := k.DescribeKey(ctx, "disks")
		return err
	}
	var others sync.WaitGroup
	for range 3 {
		others.Go(func() {
			if err := describe(t.Context()); err != nil {
				t.Errorf("DescribeKey: %v", err)
			}
		})
	}
	w, err := os.OpenFile(c.PINFile, os.O_WRONLY, 0) // when one of them reads it
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { gone <- describe(ctx) }()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	w.WriteString("1234\n")
	w.Close()
	others.Wait()
	k.Close()

	k = openKMS(t, c)
	go func() { gone <- describe(t.Context()) }()
	w, err = os.OpenFile(c.PINFile, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	k.Close()
	if err := <-gone; !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
}
