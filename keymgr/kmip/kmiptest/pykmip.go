// Package kmiptest runs PyKMIP's server for tests, with certificates made for it, and
// does with keys what the program under test has no business with.
package kmiptest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/keymgr/kmstest"
)

// Server is a PyKMIP server behind a proxy that loses it where it is told to.
type Server struct {
	// Address is where the program under test connects.
	Address string
	Net     *kmstest.Proxy
	// CA, Certificate and Key are files: who vouches for the server, and a client that
	// it knows.
	CA, Certificate, Key string

	direct string
}

const configuration = `[server]
hostname=%[1]s
port=%[2]s
certificate_path=%[3]s/server.pem
key_path=%[3]s/server.key
ca_path=%[3]s/ca.pem
auth_suite=TLS1.2
policy_path=%[3]s/policy
enable_tls_client_auth=True
logging_level=INFO
database_path=%[3]s/keys.db
`

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	program := leaktest.Tool(t, "pykmip-server")
	dir := Certificates(t)
	if err := os.Mkdir(filepath.Join(dir, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	address := kmstest.FreeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "server.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, host, port, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{
		CA: filepath.Join(dir, "ca.pem"), Certificate: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client.key"),
		direct: address,
	}
	run(t, s.direct, program, "-f", file, "-l", filepath.Join(dir, "server.log"))
	s.Net = kmstest.NewProxy(t, s.direct)
	s.Address = s.Net.Addr()
	return s
}

// run starts a server and waits until it accepts connections. It ends with the test.
func run(t testing.TB, address string, program string, args ...string) {
	t.Helper()
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = said, said
	// It starts a process of its own: both end together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() //nolint:errcheck // it is killed
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
		<-ended
	})
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(said.Name())
			t.Fatalf("%s ended: %s", program, text)
		case <-time.After(20 * time.Millisecond): // there is nothing to wait for but the port
		}
	}
}

// Certificates makes a set of its own, and returns the folder: ca.pem, and pairs for the
// server, a client, and another client.
func Certificates(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	ca := kmstest.NewAuthority(t, dir)
	ca.Server(t, "server")
	ca.Client(t, "client")
	ca.Client(t, "other")
	return dir
}
