package control

import (
	"bufio"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/internal/unixsocket"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

type fakeExport struct{ stopped atomic.Bool }

func (e *fakeExport) Status() Status { return Status{PID: 7, Disk: "db"} }
func (e *fakeExport) Stop()          { e.stopped.Store(true) }

func (e *fakeExport) Resize(size int64) error {
	if size%512 != 0 {
		return errors.New("not a whole number of sectors")
	}
	return nil
}

func (e *fakeExport) SetOnKeyLoss(policy string) error {
	if policy != "pause" {
		return errors.New("no such policy")
	}
	return nil
}

func TestAsksAndStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl")
	e := &fakeExport{}
	s, err := Serve(path, e)
	if err != nil {
		t.Fatal(err)
	}
	c := Dial(path)
	if got, err := c.Status(t.Context()); err != nil || got.PID != 7 || got.Disk != "db" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := c.Resize(t.Context(), 1024); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resize(t.Context(), 7); err == nil || !strings.Contains(err.Error(), "whole number of sectors") {
		t.Fatalf("why a resize failed is lost: %v", err)
	}
	if _, err := c.SetOnKeyLoss(t.Context(), "pause"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetOnKeyLoss(t.Context(), "panic"); err == nil || !strings.Contains(err.Error(), "no such policy") {
		t.Fatalf("why a change of policy failed is lost: %v", err)
	}
	if e.stopped.Load() {
		t.Fatal("asking stopped it")
	}
	if err := c.Stop(t.Context()); err != nil || !e.stopped.Load() {
		t.Fatalf("not stopped: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("%v; want ErrNotRunning", err)
	}
}

// TestDeadSocket: the file that a killed export leaves means that none runs.
func TestDeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl")
	ln, err := unixsocket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if _, err := Dial(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("%v; want ErrNotRunning", err)
	}
	s, err := Serve(path, &fakeExport{})
	if err != nil {
		t.Fatalf("the place is not taken over: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStrangeAnswers: whoever answers and however, an error of one line that does not
// speak of HTTP comes back in time.
func TestStrangeAnswers(t *testing.T) {
	old := callTimeout
	callTimeout = 100 * time.Millisecond
	defer func() { callTimeout = old }()
	for what, answer := range map[string]string{
		"nothing":        "",
		"no HTTP":        "220 ESMTP\r\n",
		"an error":       "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
		"no JSON":        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope",
		"half an answer": "HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{",
		"no end":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + strings.Repeat(" ", 2<<20),
		"a hang":         "wait",
	} {
		path := filepath.Join(t.TempDir(), "ctl")
		ln, err := unixsocket.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := ln.Accept()
			if err == nil {
				say(conn, answer)
			}
		}()
		_, err = Dial(path).Status(t.Context())
		if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: %v", what, err)
		}
		ln.Close()
		<-done
	}
}

// say answers one request; "wait" is to wait until the client has gone.
func say(conn net.Conn, answer string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for line := "x"; strings.TrimSpace(line) != ""; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
	}
	if answer == "wait" {
		r.ReadByte()
		return
	}
	conn.Write([]byte(answer))
}

func TestCallIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl")
	ln, err := unixsocket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // it never accepts
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(path).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
