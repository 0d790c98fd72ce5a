package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/internal/leaktest"
	"sealblk/keymgr/aliyun"
	"sealblk/keymgr/kmstest"
)

// kmsService is sealblk kms serve in a process of its own.
type kmsService struct {
	t     *testing.T
	state string
	url   string
	pid   int
	stop  func() error
}

func serveKMS(t *testing.T, state string, flags ...string) *kmsService {
	t.Helper()
	cmd := server(state, append([]string{"kms", "serve", "--listen", "127.0.0.1:0", "--log-level", "debug"}, flags...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer hurry(cmd)()
	r := bufio.NewReader(stderr)
	line, err := r.ReadString('\n')
	url, ready := strings.CutPrefix(strings.TrimSpace(line), "sealblk: ready: KMS on ")
	if err != nil || !ready {
		rest, _ := io.ReadAll(r)
		cmd.Wait()
		t.Fatalf("%q, %v\n%s", line, err, rest)
	}
	logged := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(r)
		logged <- string(text)
	}()
	s := &kmsService{t: t, state: state, url: url, pid: cmd.Process.Pid}
	stopped := false
	s.stop = func() error {
		stopped = true
		defer hurry(cmd)()
		cmd.Process.Signal(syscall.SIGINT)
		log := <-logged
		for _, word := range []string{"Signature", "sealblk:disk", "access_key_secret", "CiphertextBlob"} {
			if strings.Contains(log, word) {
				t.Errorf("the log has %q:\n%s", word, log)
			}
		}
		return cmd.Wait()
	}
	t.Cleanup(func() {
		if !stopped {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return s
}

// client is the official SDK with the access key of a file.
func (s *kmsService) client(credentials, ca string) *sdk.Client {
	s.t.Helper()
	var k struct {
		ID     string `toml:"access_key_id"`
		Secret string `toml:"access_key_secret"`
	}
	if _, err := toml.DecodeFile(credentials, &k); err != nil {
		s.t.Fatal(err)
	}
	scheme, addr, _ := strings.Cut(s.url, "://")
	config := &openapi.Config{
		AccessKeyId: &k.ID, AccessKeySecret: &k.Secret, Endpoint: &addr, Protocol: tea.String(strings.ToUpper(scheme)),
		RegionId: tea.String("local"), ReadTimeout: tea.Int(20_000), NoProxy: &addr,
	}
	if ca != "" {
		config.Ca = &ca
	}
	c, err := sdk.NewClient(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// accessKey makes an access key and returns the file that it is in.
func accessKey(t *testing.T, state, principal string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), principal+".toml")
	mustRun(t, state, "kms", "access-key", "create", "--principal", principal, "--out", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	return file
}

// TestKMSServe: an administrator and a disk service, over the official SDK, and a disk of
// another host under a key of this one.
func TestKMSServe(t *testing.T) {
	state := t.TempDir()
	operator, service := accessKey(t, state, "operator"), accessKey(t, state, "disk-service")
	s := serveKMS(t, state)
	admin, user := s.client(operator, ""), s.client(service, "")
	made, err := admin.CreateKey(&sdk.CreateKeyRequest{Description: tea.String("of another host")})
	if err != nil {
		t.Fatal(err)
	}
	id := tea.StringValue(made.Body.KeyMetadata.KeyId)
	mustRun(t, state, "key", "authorize", id, "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
	if _, err := user.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: &id, NumberOfBytes: tea.Int32(64)}); err != nil {
		t.Error(err)
	}
	elsewhere(t, s, service, id)
	if out := mustRun(t, state, "audit", "list"); !regexp.MustCompile(`operator +CreateKey +`+id).MatchString(out) ||
		!regexp.MustCompile(`disk-service +GenerateDataKey +`+id).MatchString(out) {
		t.Errorf("audit:\n%s", out)
	}
	mustRun(t, state, "audit", "verify")
	if err := s.stop(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

// elsewhere makes a disk on another host, under the key.
func elsewhere(t *testing.T, s *kmsService, credentials, id string) {
	t.Helper()
	host := t.TempDir()
	config := filepath.Join(host, "config.toml")
	text := fmt.Sprintf("[kms.aliyun]\nendpoint = %q\ncredentials = %q\ntimeout = \"10s\"\n", s.url, credentials)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	uri := "aliyun:local/" + id
	mustRun(t, host, "--config", config, "disk", "create", "db", "--size", "1M", "--key", uri)
	export := serve(t, host, server(host, "--config", config, "export", "db"))
	export.connect().Close()
	key := filepath.Join(host, "db.key")
	mustRun(t, host, "--config", config, "disk", "export-key", "db", "--out", key, "--yes-i-know")
	if data, err := os.ReadFile(key); err != nil || len(data) != 64 {
		t.Errorf("data key of %d bytes, %v", len(data), err)
	}
	moveThere(t, host, config, uri)
	mustRun(t, s.state, "key", "disable", id)
	out, err := program(t, host, "--config", config, "disk", "export-key", "db", "--out", key+"2", "--yes-i-know").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Rejected.Disabled") || !strings.Contains(string(out), id) {
		t.Errorf("under a disabled key: %v, %s", err, out)
	}
	mustRun(t, s.state, "key", "enable", id)
}

// moveThere puts a disk of a host's own KMS under a key of another host.
func moveThere(t *testing.T, host, config, uri string) {
	t.Helper()
	export := func(to string) []byte {
		file := filepath.Join(host, to)
		mustRun(t, host, "--config", config, "disk", "export-key", "own", "--out", file, "--yes-i-know")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	mustRun(t, host, "--config", config, "disk", "create", "own", "--size", "1M", "--encrypted")
	before := export("before")
	mustRun(t, host, "--config", config, "disk", "rewrap", "own", "--key", uri)
	if out := mustRun(t, host, "--config", config, "disk", "show", "own"); !strings.Contains(out, uri) {
		t.Errorf("after the move:\n%s", out)
	}
	if !bytes.Equal(export("after"), before) {
		t.Error("the data key is another one after the move")
	}
}

// TestConformanceOfKMSServe runs the suite of KMSs on a server of its own and a client of
// its API; what is done to keys is done over the official SDK.
func TestConformanceOfKMSServe(t *testing.T) {
	state := t.TempDir()
	operator, service := accessKey(t, state, "operator"), accessKey(t, state, "disk-service")
	s := serveKMS(t, state)
	admin, addr := s.client(operator, ""), strings.TrimPrefix(s.url, "http://")
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		proxy := kmstest.NewProxy(t, addr)
		const patient, short = 20 * time.Second, 200 * time.Millisecond
		open := func(timeout time.Duration) *aliyun.KMS {
			k, err := aliyun.Open(t.Context(), aliyun.Config{Endpoint: "http://" + proxy.Addr(), Credentials: service, Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		k := &switched{KMS: open(patient)}
		do := func(t testing.TB, err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		id := func(key string) *string { return tea.String(strings.TrimPrefix(key, "local/")) }
		return &kmstest.Subject{
			KMS: k, Scheme: aliyun.Scheme, Timeout: short, UnknownKey: "local/key-" + strings.Repeat("0", 32),
			NewKey: func(t testing.TB) string {
				made, err := admin.CreateKey(&sdk.CreateKeyRequest{})
				do(t, err)
				id := tea.StringValue(made.Body.KeyMetadata.KeyId)
				do(t, authorize(state, id))
				return "local/" + id
			},
			Disable: func(t testing.TB, key string) {
				_, err := admin.DisableKey(&sdk.DisableKeyRequest{KeyId: id(key)})
				do(t, err)
			},
			Enable: func(t testing.TB, key string) {
				_, err := admin.EnableKey(&sdk.EnableKeyRequest{KeyId: id(key)})
				do(t, err)
			},
			Rotate: func(t testing.TB, key string) {
				_, err := admin.CreateKeyVersion(&sdk.CreateKeyVersionRequest{KeyId: id(key)})
				do(t, err)
			},
			Deny: func(t testing.TB, key string) {
				if code := run([]string{"sealblk", "--state-dir", state, "key", "revoke", *id(key), "--principal", "disk-service"}, streams{io.Discard, io.Discard}); code != 0 {
					t.Fatalf("revoke: exit code %d", code)
				}
			},
			Break: proxy.Break,
			Hang:  func(t testing.TB) { k.KMS = open(short); proxy.Hang(t) },
			Mend:  func(t testing.TB) { k.KMS = open(patient); proxy.Mend(t) },
			Lacks: map[kmstest.Capability]string{kmstest.Throttling: "the server refuses only what is too much at a time"},
		}
	})
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// switched is a KMS that another may take the place of.
type switched struct{ *aliyun.KMS }

func authorize(state, id string) error {
	var out bytes.Buffer
	line := []string{"sealblk", "--state-dir", state, "key", "authorize", id, "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt"}
	if code := run(line, streams{&out, &out}); code != 0 {
		return errors.New(out.String())
	}
	return nil
}

func TestKMSServeOverTLS(t *testing.T) {
	state := t.TempDir()
	certificate, key := selfSigned(t)
	operator := accessKey(t, state, "operator")
	s := serveKMS(t, state, "--certificate", certificate, "--key", key)
	ca, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client(operator, string(ca)).ListKeys(&sdk.ListKeysRequest{}); err != nil || !strings.HasPrefix(s.url, "https://") {
		t.Errorf("%s: %v", s.url, err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// selfSigned is a certificate for the loopback address, and its key.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// TestServedDataKeysAreNotInTheServersMemory once they were handed out: neither as they
// are nor in the notation of the reply.
func TestServedDataKeysAreNotInTheServersMemory(t *testing.T) {
	certificate, key := selfSigned(t)
	ca, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{"plain": nil, "TLS": {"--certificate", certificate, "--key", key}} {
		t.Run(name, func(t *testing.T) {
			if name == "TLS" && testing.Short() {
				t.Skip("under the race detector sync.Pool drops buffers, and crypto/tls takes too small ones")
			}
			state := t.TempDir()
			service := accessKey(t, state, "disk-service")
			s := serveKMS(t, state, flags...)
			keys, blobs := handedOut(t, s.client(service, string(ca)), 20)
			memory := readMemory(t, s.pid)
			if n := found(memory, keys); n != 0 {
				t.Errorf("%d of %d data keys are in the server's memory", n, len(keys))
			}
			if found(memory, blobs) == 0 {
				t.Error("no blob is found either: the search does not work")
			}
		})
	}
}

// handedOut are data keys that a server has made and opened, and their blobs, in Base64.
func handedOut(t *testing.T, c *sdk.Client, n int) (keys, blobs []string) {
	t.Helper()
	for range n {
		made, err := c.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: tea.String("alias/acs/ecs"), NumberOfBytes: tea.Int32(64)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: made.Body.CiphertextBlob}); err != nil {
			t.Fatal(err)
		}
		keys, blobs = append(keys, tea.StringValue(made.Body.Plaintext)), append(blobs, tea.StringValue(made.Body.CiphertextBlob))
	}
	return keys, blobs
}

// found counts what is in memory, as text or as the bytes that it stands for, in part.
func found(memory []byte, texts []string) int {
	n := 0
	for _, text := range texts {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || bytes.Contains(memory, []byte(text[:24])) || bytes.Contains(memory, raw[:16]) || bytes.Contains(memory, raw[len(raw)-16:]) {
			n++
		}
	}
	return n
}

// readMemory is what can be read of a process: all but the memory of memfd_secret.
func readMemory(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/maps")
	if err != nil {
		leaktest.Missing(t, "the right to read another process's memory: "+err.Error())
	}
	mem, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	if err != nil {
		leaktest.Missing(t, "the right to read another process's memory: "+err.Error())
	}
	defer mem.Close()
	var all []byte
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "rw") || to-from > 1<<30 {
			continue
		}
		part := make([]byte, to-from)
		n, _ := mem.ReadAt(part, from)
		all = append(all, part[:n]...)
	}
	if len(all) < 1<<20 {
		leaktest.Missing(t, fmt.Sprintf("the right to read another process's memory: only %d bytes came", len(all)))
	}
	return all
}
