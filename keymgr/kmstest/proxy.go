package kmstest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// proxyMode is what a proxy does with what it gets.
type proxyMode int

const (
	passing proxyMode = iota
	broken            // no connections
	hanging           // connections, on which nothing moves
)

// Proxy stands between a client and a server and passes TCP connections on, until it is
// told otherwise. Its Break, Hang and Mend are those of a [Subject].
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond // of mode, or closed
	mode    proxyMode
	closed  bool
	conns   map[net.Conn]bool
}

// NewProxy listens on a port of the loopback address and passes on to target
// ("127.0.0.1:port") until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.changed.L = &p.mu
	p.wg.Go(p.serve)
	t.Cleanup(p.close)
	return p
}

// Addr is where clients connect: "127.0.0.1:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Break cuts all connections, and every later one as soon as it is made.
func (p *Proxy) Break(testing.TB) { p.turn(broken) }

// Hang keeps connections and takes more, and passes nothing on.
func (p *Proxy) Hang(testing.TB) { p.turn(hanging) }

// Mend passes on again; what hung goes on.
func (p *Proxy) Mend(testing.TB) { p.turn(passing) }

func (p *Proxy) turn(m proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	if m == broken {
		p.cutLocked()
	}
	p.changed.Broadcast()
}

func (p *Proxy) cutLocked() {
	for c := range p.conns {
		reset(c)
	}
}

// reset closes a connection without a farewell.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // it may be closed already
	}
	c.Close()
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.cutLocked()
	p.changed.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.wg.Go(func() { p.handle(c) })
		}
	}
}

// keep registers a connection, unless there must be none.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.mode == broken {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

func (p *Proxy) handle(client net.Conn) {
	if !p.keep(client) {
		reset(client)
		return
	}
	defer p.drop(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	if !p.keep(server) {
		reset(server)
		return
	}
	defer p.drop(server)
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(server, client) })
	wg.Go(func() { p.pump(client, server) })
	wg.Wait()
}

// pump passes one direction on, and ends both when it ends.
func (p *Proxy) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.mayPass() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				p.mayPass() // a farewell hangs like all else
			}
			return
		}
	}
}

// mayPass waits while the proxy hangs.
func (p *Proxy) mayPass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mode == hanging && !p.closed {
		p.changed.Wait()
	}
	return p.mode == passing && !p.closed
}
