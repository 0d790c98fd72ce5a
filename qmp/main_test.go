package qmp

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const greetingLine = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "test"}, "capabilities": ["oob"]}}` + "\r\n"

// patient is a context for what must not take long.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shortDir is a temporary folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve runs a server that gives each connection to handle, until the test ends.
func serve(t *testing.T, handle func(net.Conn)) string {
	path := filepath.Join(shortDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn
	)
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); handle(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return path
}

// peer is the server's side of a connection whose handshake is done.
type peer struct {
	net.Conn
	in *json.Decoder
}

type request struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        string          `json:"id"`
}

// greet does the handshake; false if the client went away.
func greet(c net.Conn) (*peer, bool) {
	p := &peer{c, json.NewDecoder(c)}
	if _, err := c.Write([]byte(greetingLine)); err != nil {
		return nil, false
	}
	r, ok := p.receive()
	if !ok || r.Execute != "qmp_capabilities" {
		return nil, false
	}
	return p, p.send(`{"return": {}, "id": "` + r.ID + `"}`)
}

func (p *peer) receive() (r request, ok bool) {
	return r, p.in.Decode(&r) == nil
}

func (p *peer) send(line string) bool {
	_, err := p.Write([]byte(line + "\r\n"))
	return err == nil
}

// connect makes a client of a server that runs handle after the handshake.
func connect(t *testing.T, handle func(*peer)) *Monitor {
	path := serve(t, func(c net.Conn) {
		if p, ok := greet(c); ok {
			handle(p)
		}
	})
	return dial(t, path)
}

func dial(t *testing.T, path string) *Monitor {
	m, err := Dial(patient(t), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Disconnect() })
	return m
}
