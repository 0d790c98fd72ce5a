package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/internal/linkname"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// brokerEnv makes the test program a broker over a fake KMS.
const brokerEnv = "BROKER_TEST"

func TestMain(m *testing.M) {
	againPause /= 10
	if os.Getenv(brokerEnv) != "" {
		if err := serveTest(os.Getenv(brokerEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	leaktest.Main(m, func() error {
		if n, _ := secret.Live(); n != 0 {
			return fmt.Errorf("%d secrets are left", n)
		}
		return nil
	})
}

// plain is the data key that the fake KMS unwraps.
func plain() []byte {
	b := make([]byte, keymgr.DataKeySize)
	for i := range b {
		b[i] = byte(3*i + 1)
	}
	return b
}

// fakeKMS answers by the blob it is given.
type fakeKMS struct{ *Client }

func (fakeKMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	switch string(w.Blob) {
	case "denied":
		return nil, fmt.Errorf("decrypt: %w", &keymgr.Error{Code: "Forbidden", Key: w.URI, Hint: "authorise it", Err: keymgr.ErrAccessDenied})
	case "broken":
		return nil, keymgr.ErrCorrupt
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if ec[keymgr.ContextDisk] != "lineage" || w.URI != "local:key" || w.Version != "7" {
		return nil, errors.New("the request was changed on its way")
	}
	b, err := secret.New(keymgr.DataKeySize)
	if err == nil {
		copy(b.Bytes(), plain())
	}
	return b, err
}

func newClient(t *testing.T) *Client {
	t.Helper()
	t.Setenv(brokerEnv, "1")
	c := New("/proc/self/exe", []string{"broker"}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var ec = keymgr.Context{keymgr.ContextDisk: "lineage"}

func wrapped(blob string) keymgr.WrappedKey {
	return keymgr.WrappedKey{URI: "local:key", Version: "7", Blob: []byte(blob)}
}

func TestDecrypt(t *testing.T) {
	c := newClient(t)
	for range 3 {
		dk, err := c.Decrypt(context.Background(), wrapped("ok"), ec)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dk.Bytes(), plain()) {
			t.Error("another key came out")
		}
		dk.Destroy()
	}
}

// TestErrorsKeepTheirMeaning: what the user reads and what programs compare is what it
// would be without the broker in between.
func TestErrorsKeepTheirMeaning(t *testing.T) {
	c := newClient(t)
	_, want := fakeKMS{}.Decrypt(context.Background(), wrapped("denied"), ec)
	_, err := c.Decrypt(context.Background(), wrapped("denied"), ec)
	if err == nil || err.Error() != want.Error() {
		t.Errorf("got %v, want %v", err, want)
	}
	var kms *keymgr.Error
	if !errors.Is(err, keymgr.ErrAccessDenied) || !errors.As(err, &kms) || kms.Code != "Forbidden" || kms.Hint != "authorise it" {
		t.Errorf("lost its meaning: %#v", err)
	}
	if errors.Is(err, keymgr.ErrCorrupt) {
		t.Error("got a meaning that it did not have")
	}
	_, err = c.Decrypt(context.Background(), wrapped("broken"), ec)
	if !errors.Is(err, keymgr.ErrCorrupt) || errors.As(err, &kms) {
		t.Errorf("got %#v", err)
	}
	if dk, err := c.Decrypt(context.Background(), wrapped("ok"), ec); err != nil {
		t.Errorf("after errors: %v", err)
	} else {
		dk.Destroy()
	}
}

func TestCancel(t *testing.T) {
	c := newClient(t)
	ctx, cancel := context.WithCancel(context.Background())
	if dk, err := c.Decrypt(ctx, wrapped("ok"), ec); err != nil {
		t.Fatal(err)
	} else {
		dk.Destroy()
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.Decrypt(ctx, wrapped("hang"), ec); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want Canceled", err)
	}
}

// TestSealed: a worker that was broken into gets no more keys, and cannot choose files
// to remove.
func TestSealed(t *testing.T) {
	c := newClient(t)
	dir := t.TempDir()
	ours, replaced, other := filepath.Join(dir, "ours"), filepath.Join(dir, "replaced"), filepath.Join(dir, "other")
	for _, path := range []string{ours, replaced, other} {
		touch(t, path)
	}
	if err := c.Seal(context.Background(), []string{ours, replaced, filepath.Join(dir, "missing")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Decrypt(context.Background(), wrapped("ok"), ec); !errors.Is(err, ErrSealed) {
		t.Errorf("decrypts after seal: %v", err)
	}
	if err := c.Seal(context.Background(), []string{other}, nil); !errors.Is(err, ErrSealed) {
		t.Errorf("takes other files after seal: %v", err)
	}
	// Another worker's file stands at the path by now.
	if err := os.Rename(replaced, replaced+".old"); err != nil {
		t.Fatal(err)
	}
	touch(t, replaced)
	for range 2 {
		if err := c.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(ours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the worker's file is left: %v", err)
	}
	for _, path := range []string{replaced, other} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("removed what was not its own: %v", err)
		}
	}
}

// TestShow: the names of Seal are made public, and no others; the end takes off those
// that are still the worker's.
func TestShow(t *testing.T) {
	c := newClient(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"own.ctl", "own.json", "json", "foreign"} {
		touch(t, path(name))
	}
	names := []linkname.Name{{Own: path("own.ctl"), Public: path("ctl")}, {Own: path("own.json"), Public: path("json")}}
	if err := c.Seal(context.Background(), nil, names); err != nil {
		t.Fatal(err)
	}
	if err := c.Show(); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		own, err := os.Stat(n.Own)
		public, err2 := os.Stat(n.Public)
		if err != nil || err2 != nil || !os.SameFile(own, public) {
			t.Errorf("%s is not public: %v, %v", n.Own, err, err2)
		}
	}
	if err := os.Rename(path("foreign"), path("json")); err != nil { // another took the disk
		t.Fatal(err)
	}
	if err := c.Finish(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != "json" {
		t.Errorf("left: %v", left)
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestGone(t *testing.T) {
	c := newClient(t)
	if err := c.Seal(context.Background(), []string{"/nonexistent"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.call(context.Background(), request{Op: "nonsense"}); err == nil {
		t.Error("did nonsense")
	}
	// A message that no worker sends ends the broker.
	if _, err := c.process.conn.WriteString("{]"); err != nil {
		t.Fatal(err)
	}
	<-c.process.done
	if err := c.Finish(); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
}

// TestNothingToDo: a client that nobody asks for anything starts no process.
func TestNothingToDo(t *testing.T) {
	c := New("/no/such/program", nil, nil)
	if err := errors.Join(c.Seal(context.Background(), nil, nil), c.Finish(), c.Close()); err != nil {
		t.Error(err)
	}
	if _, err := c.Decrypt(context.Background(), wrapped("ok"), ec); err == nil || !strings.Contains(err.Error(), "start broker") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyDecrypts(t *testing.T) {
	c := New("/no/such/program", nil, nil)
	_, _, err := c.GenerateDataKey(context.Background(), "local:key", ec)
	_, err2 := c.GenerateDataKeyWithoutPlaintext(context.Background(), "local:key", ec)
	_, err3 := c.ReEncrypt(context.Background(), wrapped("ok"), ec, "local:other")
	_, err4 := c.DescribeKey(context.Background(), "local:key")
	for _, err := range []error{err, err2, err3, err4} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	}
}

// endless is a request without an end, of a worker that was broken into.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, `{"op":"`)
	if e.read > 0 {
		n = copy(p, bytes.Repeat([]byte("x"), len(p)))
	}
	e.read += n
	return n, nil
}

// TestEndlessRequest: what a broker holds of a worker's words is bounded.
func TestEndlessRequest(t *testing.T) {
	states, statesIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()
	e := &endless{}
	conn := struct {
		io.Reader
		io.Writer
	}{e, io.Discard}
	if err := newServer(fakeKMS{}, Options{}, nil, statesIn).serve(t.Context(), conn); !errors.Is(err, errRequest) {
		t.Errorf("got %v", err)
	}
	if e.read > maxRequest {
		t.Errorf("read %d bytes", e.read)
	}
}

// FuzzRequests: whatever a worker that was broken into sends, the broker answers or
// ends, and gives out no key once it is sealed.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"op":"decrypt","key":{"URI":"local:key","Version":"7","Blob":"b2s="},"context":{"sealblk:disk":"lineage"}}`))
	f.Add([]byte(`{"op":"seal","files":["/nonexistent"]}{"op":"finish"}{"op":"seal"}`))
	f.Add([]byte(`{"op":"watch"}{"op":"decrypt","key":{"URI":"","Version":"7","Blob":"b2s="},"context":{}}`))
	f.Add([]byte(`{"op":null}[]`))
	f.Fuzz(func(t *testing.T, stream []byte) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		var out bytes.Buffer
		conn := struct {
			io.Reader
			io.Writer
		}{io.MultiReader(strings.NewReader(`{"op":"seal"}`), bytes.NewReader(stream)), &out}
		states, statesIn, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer states.Close()
		newServer(fakeKMS{}, Options{}, write, statesIn).serve(context.Background(), conn) // it may fail, not more
		write.Close()
		if key, err := io.ReadAll(read); err != nil || len(key) != 0 {
			t.Errorf("a key of %d bytes came out: %v", len(key), err)
		}
	})
}
