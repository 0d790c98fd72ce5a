package kmsserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

// site is a server with its KMS, as a test sees it.
type site struct {
	t       testing.TB
	kms     *local.KMS // as the operator
	server  *Server
	addr    string
	keyFile string
	keys    map[string]accessKeyOf // by principal
	log     *logBuffer
	stop    func()
}

type accessKeyOf struct{ id, secret string }

// newSite starts a server with an access key for the operator and one for the disk
// service.
func newSite(t testing.TB) *site { return newSiteWith(t, Options{}) }

func newSiteWith(t testing.TB, o Options) *site {
	t.Helper()
	dir := kmstest.Folder(t)
	kms, err := local.Open(filepath.Join(dir, "kms"), local.Options{Now: o.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kms.Close() })
	s := &site{t: t, kms: kms, keyFile: filepath.Join(dir, "access-keys"), keys: map[string]accessKeyOf{}, log: &logBuffer{}}
	for _, principal := range []string{local.Operator, local.DiskService} {
		s.newAccessKey(principal)
	}
	keys, err := OpenAccessKeys(s.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	o.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.server = New(kms, "", keys, o)
	s.serve()
	return s
}

// serve serves until the test ends.
func (s *site) serve() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.server.Serve(ctx, l, nil); err != nil {
			s.t.Errorf("Serve: %v", err)
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(s.stop)
}

func (s *site) newAccessKey(principal string) accessKeyOf {
	s.t.Helper()
	_, err := CreateAccessKey(s.t.Context(), s.keyFile, principal, func(id string, text *secret.Buffer) error {
		s.keys[principal] = accessKeyOf{id, string(text.Bytes())}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.keys[principal]
}

// client is the official SDK as a principal.
func (s *site) client(principal string) *sdk.Client {
	return s.clientWith(s.keys[principal], func(*openapi.Config) {})
}

func (s *site) clientWith(k accessKeyOf, change func(*openapi.Config)) *sdk.Client {
	s.t.Helper()
	config := &openapi.Config{
		AccessKeyId: &k.id, AccessKeySecret: &k.secret, Endpoint: &s.addr, Protocol: tea.String("HTTP"),
		RegionId: tea.String("local"), ReadTimeout: tea.Int(10_000), NoProxy: &s.addr,
	}
	change(config)
	c, err := sdk.NewClient(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// newKey makes a key, in a state, that the disk service may use; w is a data key that
// it wrapped before.
func (s *site) newKey(state keymgr.State, external bool) (id string, w keymgr.WrappedKey) {
	s.t.Helper()
	ctx, k := s.t.Context(), s.kms
	info, err := k.CreateKey(ctx, local.CreateOptions{External: external})
	s.must(err)
	id = info.KeyID
	if external {
		s.must(k.ImportKeyMaterial(ctx, id, s.material(), time.Time{}))
	}
	s.must(k.Authorize(ctx, id, local.DiskService, []local.Permission{local.Generate, local.Decrypt, local.ReEncrypt}))
	w, err = k.As(local.DiskService).GenerateDataKeyWithoutPlaintext(ctx, id, disk1)
	s.must(err)
	switch state {
	case keymgr.Disabled:
		s.must(k.DisableKey(ctx, id))
	case keymgr.PendingDeletion:
		_, err = k.ScheduleKeyDeletion(ctx, id, 7, false)
		s.must(err)
	case keymgr.PendingImport:
		s.must(k.DeleteKeyMaterial(ctx, id))
	}
	return id, w
}

var disk1 = keymgr.Context{keymgr.ContextDisk: "1"}

// contextOf is an encryption context as the SDK takes it.
func contextOf(ec keymgr.Context) map[string]any {
	m := map[string]any{}
	for k, v := range ec {
		m[k] = v
	}
	return m
}

// material is what keys of external origin get in these tests.
func (s *site) material() *secret.Buffer {
	s.t.Helper()
	m, err := secret.New(local.MaterialSize)
	s.must(err)
	s.t.Cleanup(m.Destroy)
	copy(m.Bytes(), strings.Repeat("m", local.MaterialSize))
	return m
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// wantCode checks an error that the SDK returned.
func wantCode(t testing.TB, what string, err error, code string, status int) *tea.SDKError {
	t.Helper()
	var e *tea.SDKError
	if !errors.As(err, &e) || tea.StringValue(e.Code) != code || tea.IntValue(e.StatusCode) != status {
		t.Errorf("%s: error %v, want the code %s and the status %d", what, err, code, status)
		return &tea.SDKError{}
	}
	if !strings.Contains(tea.StringValue(e.Message), "request id: ") || strings.Contains(tea.StringValue(e.Message), "<nil>") {
		t.Errorf("%s: %q has no RequestId", what, tea.StringValue(e.Message))
	}
	return e
}

// logBuffer is what a server has logged.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
	slow atomic.Pointer[func()] // is called before a line is written
}

func (b *logBuffer) Write(p []byte) (int, error) {
	if wait := b.slow.Load(); wait != nil {
		(*wait)()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
