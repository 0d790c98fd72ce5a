package protocol

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is two connected ends; both are closed when the test ends.
func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return conn(t, fds[0]), conn(t, fds[1])
}

func conn(t testing.TB, fd int) *Conn {
	t.Helper()
	c, err := NewConnFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		t.Fatal(err)
	}
	return c
}

// openFDs counts the process's descriptors.
func openFDs(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// eventfds makes descriptors to send; they are closed when the test ends.
func eventfds(t testing.TB, n int) []int {
	t.Helper()
	fds := make([]int, n)
	for i := range fds {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return fds
}

func TestMessageArrivesWhole(t *testing.T) {
	a, b := pair(t)
	fds := eventfds(t, MaxFiles)
	payload := table(8)
	if err := a.WriteMessage(NewHeader(SetMemTable, FlagNeedReply), payload, fds...); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteMessage(NewHeader(GetFeatures, 0), nil); err != nil {
		t.Fatal(err)
	}
	var m Message
	if err := b.ReadMessage(&m); err != nil {
		t.Fatal(err)
	}
	if Request(m.Request) != SetMemTable || !m.NeedReply() || !bytes.Equal(m.Payload, payload) || m.Files.Len() != 8 {
		t.Fatalf("got %v with %d bytes, %d files", Request(m.Request), len(m.Payload), m.Files.Len())
	}
	sameFile(t, fds[7], m.Files.Take(7))
	if err := b.ReadMessage(&m); err != nil {
		t.Fatal(err)
	}
	if Request(m.Request) != GetFeatures || len(m.Payload) != 0 || m.Files.Len() != 0 {
		t.Fatalf("second message: %v with %d bytes, %d files", Request(m.Request), len(m.Payload), m.Files.Len())
	}
}

// sameFile checks that got is another descriptor of sent's eventfd, close-on-exec,
// and closes it.
func sameFile(t *testing.T, sent, got int) {
	t.Helper()
	defer closeFD(got)
	if _, err := unix.Write(sent, []byte{7, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	var b [8]byte
	if _, err := unix.Read(got, b[:]); err != nil || b[0] != 7 {
		t.Errorf("received descriptor reads %v, %v", b, err)
	}
	if flags, err := unix.FcntlInt(uintptr(got), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("received descriptor has flags %#x, %v", flags, err)
	}
}

func TestUnixConn(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, aerr := NewConn(client.(*net.UnixConn))
	b, berr := NewConn(server.(*net.UnixConn))
	if aerr != nil || berr != nil {
		t.Fatal(aerr, berr)
	}
	defer func() { _ = b.Close() }()
	fd := eventfds(t, 1)[0]
	if err := a.WriteMessage(NewHeader(SetVringKick, 0), VringFD{Index: 3}.Append(nil), fd); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	var m Message
	if err := b.ReadMessage(&m); err != nil || m.Files.Len() != 1 {
		t.Fatal(m.Files.Len(), err)
	}
	sameFile(t, fd, m.Files.Take(0))
	if err := b.ReadMessage(&m); !errors.Is(err, io.EOF) {
		t.Errorf("after the peer closed: %v", err)
	}
}

// Every byte of a message sent on its own, with descriptors at the header, within
// it and within the payload: one message, all descriptors its own, in order.
func TestPartialReads(t *testing.T) {
	a, b := pair(t)
	fds := eventfds(t, 3)
	payload := table(3)
	h := NewHeader(SetMemTable, 0)
	h.Size = uint32(len(payload))
	wire := append(h.Append(nil), payload...)
	attached := map[int]int{0: fds[0], 5: fds[1], 40: fds[2]}
	go func() {
		for i := range wire {
			var with []int
			if fd, ok := attached[i]; ok {
				with = []int{fd}
			}
			if err := a.WriteRaw(wire[i:i+1], with...); err != nil {
				t.Error(err)
			}
		}
	}()
	var m Message
	if err := b.ReadMessage(&m); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Payload, payload) || m.Files.Len() != 3 {
		t.Fatalf("got %x with %d files", m.Payload, m.Files.Len())
	}
	for i, fd := range fds {
		sameFile(t, fd, m.Files.Take(i))
	}
}

func TestEndOfStream(t *testing.T) {
	payload := AppendU64(nil, 1)
	h := NewHeader(SetFeatures, 0)
	h.Size = 8
	wire := append(h.Append(nil), payload...)
	for n := range wire {
		a, b := pair(t)
		before := openFDs(t)
		if n > 0 {
			if err := a.WriteRaw(wire[:n], eventfds(t, 1)...); err != nil {
				t.Fatal(err)
			}
			before++ // the eventfd that was sent
		}
		_ = a.Close()
		var m Message
		err := b.ReadMessage(&m)
		if n == 0 && !errors.Is(err, io.EOF) || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v", n, err)
		}
		if got := openFDs(t); got != before-1 || m.Files.Len() != 0 {
			t.Errorf("after %d bytes: %d descriptors, want %d", n, got, before-1)
		}
	}
}

// However many descriptors come and however they are spread, none stays.
func TestFloodOfFiles(t *testing.T) {
	fds := eventfds(t, 100)
	h := NewHeader(SetMemTable, 0)
	h.Size = 8
	wire := h.Append(nil)
	for _, tt := range []struct {
		name  string
		parts [][]int // one part for each byte from the first on
	}{
		{"nine at once", [][]int{fds[:9]}},
		{"a hundred at once", [][]int{fds}},
		{"five and four", [][]int{fds[:5], fds[:4]}},
		{"nine times one", [][]int{fds[:1], fds[:1], fds[:1], fds[:1], fds[:1], fds[:1], fds[:1], fds[:1], fds[:1]}},
		{"eight, then nine", [][]int{fds[:8], fds[:9]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			before := openFDs(t)
			for i, part := range tt.parts {
				if err := a.WriteRaw(wire[i:i+1], part...); err != nil {
					t.Fatal(err)
				}
			}
			var m Message
			if err := b.ReadMessage(&m); !errors.Is(err, ErrTooManyFiles) {
				t.Errorf("got %v", err)
			}
			if got := openFDs(t); got != before {
				t.Errorf("%d descriptors open, want %d", got, before)
			}
		})
	}
}

func TestUntakenFilesAreClosedByNextRead(t *testing.T) {
	a, b := pair(t)
	fds := eventfds(t, 2)
	before := openFDs(t)
	var m Message
	for range 50 {
		if err := a.WriteMessage(NewHeader(SetBackendReqFD, 0), nil, fds...); err != nil {
			t.Fatal(err)
		}
		if err := b.ReadMessage(&m); err != nil {
			t.Fatal(err)
		}
	}
	if got := openFDs(t); got != before+2 {
		t.Errorf("%d descriptors open, want those of one message: %d", got, before+2)
	}
	m.Files.CloseAll()
	if got := openFDs(t); got != before {
		t.Errorf("%d descriptors open after CloseAll, want %d", got, before)
	}
}

func TestTake(t *testing.T) {
	var f Files
	fd := eventfds(t, 1)[0]
	if err := f.add([]int{fd}); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]int{-1: -1, 1: -1, 8: -1, 0: fd} {
		if got := f.Take(i); got != want {
			t.Errorf("Take(%d) = %d, want %d", i, got, want)
		}
	}
	if got := f.Take(0); got != -1 || f.Len() != 1 {
		t.Errorf("second Take(0) = %d of %d", got, f.Len())
	}
}

func TestRefusedHeaders(t *testing.T) {
	for _, tt := range []struct {
		h    Header
		want error
	}{
		{Header{Request: 1, Flags: 2}, ErrVersion},
		{Header{Request: 1, Flags: 1, Size: 1 << 31}, ErrPayloadTooLarge},
	} {
		a, b := pair(t)
		if err := a.WriteRaw(tt.h.Append(nil)); err != nil {
			t.Fatal(err)
		}
		var m Message
		if err := b.ReadMessage(&m); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt.h, err)
		}
	}
	a, _ := pair(t)
	if err := a.WriteMessage(NewHeader(GetConfig, 0), make([]byte, MaxPayload+1)); !errors.Is(err, ErrPayloadTooLarge) {
		t.Errorf("writing too much: %v", err)
	}
}

// Some front-ends pass a pipe as back-end channel.
func TestPipe(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := conn(t, p[0]), conn(t, p[1])
	if err := w.WriteMessage(NewHeader(BackendConfigChangeMsg, 0), nil); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	var m Message
	if err := r.ReadMessage(&m); err != nil || BackendRequest(m.Request) != BackendConfigChangeMsg {
		t.Errorf("%v: %v", BackendRequest(m.Request), err)
	}
	if err := r.ReadMessage(&m); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestDeadlineAndClose(t *testing.T) {
	_, b := pair(t)
	if err := b.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var m Message
	if err := b.ReadMessage(&m); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("late read: %v", err)
	}
	_, b = pair(t)
	done := make(chan error)
	go func() { done <- b.ReadMessage(new(Message)) }()
	_ = b.Close()
	if err := <-done; err == nil {
		t.Error("a read on a closed connection succeeded")
	}
}

func TestPeerGoneIsAnError(t *testing.T) {
	a, b := pair(t)
	_ = b.Close()
	if err := a.WriteMessage(NewHeader(GetFeatures, 0), nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v", err)
	}
}

// Reading in a session must not cost an allocation per message without files.
func TestReadDoesNotAllocatePayloads(t *testing.T) {
	a, b := pair(t)
	payload := make([]byte, MaxPayload)
	var m Message
	small := testing.AllocsPerRun(100, func() { exchange(t, a, b, &m, payload[:8]) })
	large := testing.AllocsPerRun(100, func() { exchange(t, a, b, &m, payload) })
	if large > small {
		t.Errorf("%v allocations for a large message, %v for a small one", large, small)
	}
}

func exchange(t *testing.T, a, b *Conn, m *Message, payload []byte) {
	if err := a.WriteMessage(NewHeader(SetConfig, 0), payload); err != nil {
		t.Fatal(err)
	}
	if err := b.ReadMessage(m); err != nil {
		t.Fatal(err)
	}
}

// FuzzReadMessage feeds a connection with any bytes, cut in two anywhere, with
// descriptors: it ends, with an error or at the end, and keeps none of them.
func FuzzReadMessage(f *testing.F) {
	h := NewHeader(SetMemTable, 0)
	h.Size = 8
	f.Add(append(h.Append(nil), 0, 0, 0, 0, 0, 0, 0, 0), uint16(5), uint8(2))
	f.Add(numbered(40), uint16(12), uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16, files uint8) {
		w, r := pair(t)
		fds := eventfds(t, int(files)%12)
		before := openFDs(t)
		if len(b) > 8192 {
			b = b[:8192]
		}
		k := min(int(cut), len(b))
		if err := w.WriteRaw(b[:k], fds...); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteRaw(b[k:], fds...); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		var m Message
		for range len(b) + 1 {
			if err := r.ReadMessage(&m); err != nil {
				m.Files.CloseAll()
				break
			}
		}
		_ = r.Close()
		if got := openFDs(t); got != before-2 {
			t.Errorf("%d descriptors open, want %d", got, before-2)
		}
	})
}
