package kmstest

import (
	"net"
	"os"
	"sync"
	"testing"
)

// loopback is an address of this process alone (127.0.0.0/8 is all loopback, RFC 1122,
// 3.2.1.3): a port of it that is free stays free until this process takes it, which one
// of 127.0.0.1 does not while other tests run.
var loopback = func() net.IP {
	pid := os.Getpid()
	return net.IPv4(127, 128|byte(pid>>16), byte(pid>>8), byte(pid))
}()

var given struct {
	sync.Mutex
	ports map[int]bool
}

// FreeAddress returns "address:port" for a server that cannot be given a listener.
// Nobody else listens there.
func FreeAddress(t testing.TB) string {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	for {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: loopback})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // only then, or the next turn may get the same
		if a := l.Addr().(*net.TCPAddr); !given.ports[a.Port] {
			if given.ports == nil {
				given.ports = map[int]bool{}
			}
			given.ports[a.Port] = true
			return a.String()
		}
	}
}
