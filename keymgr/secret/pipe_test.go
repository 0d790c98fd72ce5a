package secret

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestSecretThroughAPipe(t *testing.T) {
	// The last is larger than a pipe holds, so that both sides have to wait.
	for _, size := range []int{1, 64, 5000, 300_000} {
		b, err := Random(size)
		if err != nil {
			t.Fatal(err)
		}
		r, w := pipe(t)
		sent := make(chan error)
		go func() {
			sent <- b.WritePipe(w)
			w.Close()
		}()
		got, err := ReadPipe(r, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if !got.Equal(b) {
			t.Errorf("%d bytes: another secret arrived", size)
		}
		got.Destroy()
		b.Destroy()
	}
}

func TestReadPipeTakesExactlyTheSecret(t *testing.T) {
	r, w := pipe(t)
	io.WriteString(w, "secret|rest")
	w.Close()
	b, err := ReadPipe(r, len("secret|"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	rest, err := io.ReadAll(r)
	if string(b.Bytes()) != "secret|" || string(rest) != "rest" || err != nil {
		t.Errorf("read %q, left %q, %v", b.Bytes(), rest, err)
	}
}

func TestReadPipeFailures(t *testing.T) {
	n0, _ := Live()
	r, w := pipe(t)
	io.WriteString(w, "short")
	w.Close()
	if _, err := ReadPipe(r, 64); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short secret: %v", err)
	}
	r, _ = pipe(t)
	r.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := ReadPipe(r, 64); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline passed: %v", err)
	}
	r.Close()
	if _, err := ReadPipe(r, 64); err == nil {
		t.Errorf("closed: %v", err)
	}
	if n, _ := Live(); n != n0 {
		t.Errorf("failed reads left %d buffers", n-n0)
	}
}

func TestWritePipeFailures(t *testing.T) {
	b := known(t, "sesame")
	r, w := pipe(t)
	r.Close()
	if err := b.WritePipe(w); err == nil {
		t.Error("write to a pipe without a reader succeeded")
	}
	b.Destroy()
	if err := b.WritePipe(w); !errors.Is(err, ErrDestroyed) {
		t.Errorf("write of a destroyed secret: %v", err)
	}
}

func TestReadAll(t *testing.T) {
	for _, size := range []int{1, 64, 5000} {
		b, err := Random(size)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Destroy()
		r, w := pipe(t)
		if err := b.WritePipe(w); err != nil {
			t.Fatal(err)
		}
		w.Close()
		got, err := ReadAll(r, 5000)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(b) {
			t.Errorf("%d bytes came out as %d others", size, got.Len())
		}
		got.Destroy()
	}
	for _, size := range []int{0, 9, 100} {
		r, w := pipe(t)
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if b, err := ReadAll(r, 8); !errors.Is(err, ErrSize) {
			b.Destroy()
			t.Errorf("%d bytes where 8 are allowed: %v", size, err)
		}
	}
}

func TestFirst(t *testing.T) {
	b, err := Random(40)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	f, err := b.First(7)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Destroy()
	if f.Len() != 7 || string(f.Bytes()) != string(b.Bytes()[:7]) {
		t.Error("the copy differs")
	}
	if _, err := b.First(41); !errors.Is(err, ErrSize) {
		t.Errorf("more than there is: %v", err)
	}
}
