package kmip

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipserver"
	"github.com/ovh/kmip-go/payloads"

	"sealblk/keymgr"
	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
)

// fake is a server for what PyKMIP does not do: links to replacements, older versions of
// the protocol, refusals of every kind, wrong answers.
type fake struct {
	mu       sync.Mutex
	keys     map[string]fakeKey
	denied   map[string]bool // keys of others
	refuse   map[kmip.Operation]kmip.ResultReason
	encrypt  func(*payloads.EncryptRequestPayload) *payloads.EncryptResponsePayload
	material []byte
	versions []kmip.ProtocolVersion
	offers   []kmip.Operation
}

type fakeKey struct {
	state       kmip.State
	bits        int32
	replacement string
}

// start serves on a loopback port until the test ends, and returns how to reach it.
func (f *fake) start(t *testing.T) Config {
	t.Helper()
	dir := kmiptest.Certificates(t)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	exec := kmipserver.NewBatchExecutor()
	exec.SetSupportedProtocolVersions(f.versions...) // which puts the oldest first
	exec.Route(kmip.OperationQuery, handle(f, f.query))
	exec.Route(kmip.OperationGetAttributes, handle(f, f.attributes))
	exec.Route(kmip.OperationLocate, handle(f, func(*payloads.LocateRequestPayload) (*payloads.LocateResponsePayload, error) {
		return &payloads.LocateResponsePayload{}, nil
	}))
	exec.Route(kmip.OperationGet, handle(f, f.get))
	exec.Route(kmip.OperationEncrypt, handle(f, func(r *payloads.EncryptRequestPayload) (*payloads.EncryptResponsePayload, error) {
		return f.encrypt(r), nil
	}))
	exec.Route(kmip.OperationDecrypt, handle(f, func(*payloads.DecryptRequestPayload) (*payloads.DecryptResponsePayload, error) {
		return &payloads.DecryptResponsePayload{}, nil
	}))
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the server has no other log
	server := kmipserver.NewServer(l, exec)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve()
	}()
	t.Cleanup(func() {
		server.Shutdown()
		<-done
	})
	return Config{
		Address: l.Addr().String(), CA: filepath.Join(dir, "ca.pem"), Timeout: 10 * time.Second,
		Certificate: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client.key"),
	}
}

// handle is an operation that the fake may be told to refuse.
func handle[Req, Resp kmip.OperationPayload](f *fake, h func(Req) (Resp, error)) kmipserver.OperationHandler {
	return kmipserver.HandleFunc(func(_ context.Context, r Req) (Resp, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if reason, ok := f.refuse[r.Operation()]; ok {
			var none Resp
			return none, kmipserver.Errorf(reason, "as told")
		}
		return h(r)
	})
}

func (f *fake) query(*payloads.QueryRequestPayload) (*payloads.QueryResponsePayload, error) {
	return &payloads.QueryResponsePayload{Operations: f.offers}, nil
}

func (f *fake) attributes(r *payloads.GetAttributesRequestPayload) (*payloads.GetAttributesResponsePayload, error) {
	key, ok := f.keys[r.UniqueIdentifier]
	if f.denied[r.UniqueIdentifier] {
		return nil, kmipserver.Errorf(kmip.ResultReasonPermissionDenied, "another's")
	}
	if !ok {
		return nil, kmipserver.ErrItemNotFound
	}
	out := &payloads.GetAttributesResponsePayload{UniqueIdentifier: r.UniqueIdentifier, Attribute: []kmip.Attribute{
		{AttributeName: kmip.AttributeNameState, AttributeValue: key.state},
		{AttributeName: kmip.AttributeNameCryptographicAlgorithm, AttributeValue: kmip.CryptographicAlgorithmAES},
		{AttributeName: kmip.AttributeNameCryptographicLength, AttributeValue: key.bits},
	}}
	if key.replacement != "" {
		out.Attribute = append(out.Attribute, kmip.Attribute{AttributeName: kmip.AttributeNameLink, AttributeValue: kmip.Link{
			LinkType: kmip.LinkTypeReplacementObjectLink, LinkedObjectIdentifier: key.replacement,
		}})
	}
	return out, nil
}

func (f *fake) get(r *payloads.GetRequestPayload) (*payloads.GetResponsePayload, error) {
	material := bytes.Clone(f.material)
	if material == nil {
		material = bytes.Repeat([]byte(r.UniqueIdentifier[:1]), 32)
	}
	return &payloads.GetResponsePayload{
		ObjectType: kmip.ObjectTypeSymmetricKey, UniqueIdentifier: r.UniqueIdentifier,
		Object: &kmip.SymmetricKey{KeyBlock: kmip.KeyBlock{
			KeyFormatType:          kmip.KeyFormatTypeRaw,
			KeyValue:               &kmip.KeyValue{Plain: &kmip.PlainKeyValue{KeyMaterial: kmip.KeyMaterial{Bytes: &material}}},
			CryptographicAlgorithm: kmip.CryptographicAlgorithmAES, CryptographicLength: 256,
		}},
	}, nil
}

func active(replacement string) fakeKey { return fakeKey{kmip.StateActive, 256, replacement} }

func TestReplacedKeys(t *testing.T) {
	f := &fake{keys: map[string]fakeKey{
		"a": active("b"), "b": active("c"), "c": {kmip.StatePreActive, 256, ""}, "x": active("y"), "y": active("x"), "short": {kmip.StateActive, 128, ""},
	}}
	k := open(t, f.start(t))
	if dk, w := kmstest.Generate(t, k, "a"); w.URI != "kmip:b" || w.Version != "b" {
		t.Errorf("wrapped under %s, want b, the newest that is active", w.URI)
	} else {
		kmstest.WantOpens(t, k, w, dk)
	}
	info, err := k.DescribeKey(t.Context(), "a")
	if err != nil || info.PrimaryVersion != "b" || info.Versions != 2 {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
	f.mu.Lock()
	f.keys["a"], f.keys["b"] = active(""), active("")
	f.mu.Unlock()
	dk, w := kmstest.Generate(t, k, "a")
	f.mu.Lock()
	f.keys["a"] = active("b")
	f.mu.Unlock()
	kmstest.WantOpens(t, k, w, dk) // rotation leaves what is there alone
	out, err := k.ReEncrypt(t.Context(), w, kmstest.Disk("1"), "a")
	if err != nil || out.URI != "kmip:b" {
		t.Fatalf("ReEncrypt: %+v, %v", out, err)
	}
	kmstest.WantOpens(t, k, out, dk)
	if _, err := k.DescribeKey(t.Context(), "x"); err != nil {
		t.Errorf("links in a circle: %v", err)
	}
	_, _, err = k.GenerateDataKey(t.Context(), "short", kmstest.Disk("1"))
	kmstest.WantError(t, "AES-128", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
}

func TestModeIsChosenByTheServer(t *testing.T) {
	both := []kmip.Operation{kmip.OperationEncrypt, kmip.OperationDecrypt, kmip.OperationGet}
	for name, c := range map[string]struct {
		f        *fake
		encrypts bool
	}{
		"encrypts":         {&fake{offers: both}, true},
		"only hands out":   {&fake{offers: both[2:]}, false},
		"encrypts only":    {&fake{offers: both[:1]}, false},
		"an older version": {&fake{offers: both, versions: []kmip.ProtocolVersion{kmip.V1_2, kmip.V1_1}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := open(t, c.f.start(t))
			s, _, err := k.session(t.Context())
			if err != nil || s.encrypts != c.encrypts {
				t.Errorf("encrypts %v, %v, want %v", s != nil && s.encrypts, err, c.encrypts)
			}
		})
	}
	old := fake{versions: []kmip.ProtocolVersion{kmip.V1_2, kmip.V1_1}, keys: map[string]fakeKey{"a": active("")}}
	config := old.start(t)
	config.Mode = ModeEncrypt
	_, err := open(t, config).DescribeKey(t.Context(), "a")
	kmstest.WantError(t, "mode encrypt with KMIP 1.2", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
}

func TestRefusals(t *testing.T) {
	f := &fake{keys: map[string]fakeKey{"a": active("")}, refuse: map[kmip.Operation]kmip.ResultReason{}}
	config := f.start(t)
	config.Mode = ModeEncrypt
	k := open(t, config)
	blob := sealed{make([]byte, nonceSize), make([]byte, keymgr.DataKeySize), make([]byte, tagSize)}
	w := keymgr.WrappedKey{URI: "kmip:a", Blob: blob.encode(mustBind(t, kmstest.Disk("1")))}
	for reason, want := range map[kmip.ResultReason]error{
		kmip.ResultReasonPermissionDenied: keymgr.ErrAccessDenied, kmip.ResultReasonAuthenticationNotSuccessful: keymgr.ErrAccessDenied,
		kmip.ResultReasonItemNotFound: keymgr.ErrNotFound, kmip.ResultReasonCryptographicFailure: keymgr.ErrCorrupt,
		kmip.ResultReasonGeneralFailure: keymgr.ErrCorrupt, kmip.ResultReasonOperationNotSupported: keymgr.ErrInvalid,
		kmip.ResultReasonObjectArchived: keymgr.ErrDisabled, kmip.ResultReasonKeyValueNotPresent: keymgr.ErrPendingImport,
	} {
		f.mu.Lock()
		f.refuse[kmip.OperationDecrypt] = reason
		f.mu.Unlock()
		_, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
		kmstest.WantError(t, "Decrypt", err, want, "")
	}
	f.mu.Lock()
	clear(f.refuse)
	f.mu.Unlock()
	_, err := k.Decrypt(t.Context(), w, kmstest.Disk("1")) // answered with no data at all
	kmstest.WantError(t, "an empty answer", err, keymgr.ErrCorrupt, "")
}

func TestWrongAnswers(t *testing.T) {
	f := &fake{keys: map[string]fakeKey{"a": active("")}}
	config := f.start(t)
	tag := make([]byte, tagSize)
	for name, encrypt := range map[string]func(*payloads.EncryptRequestPayload) *payloads.EncryptResponsePayload{
		"the plaintext": func(r *payloads.EncryptRequestPayload) *payloads.EncryptResponsePayload {
			return &payloads.EncryptResponsePayload{Data: r.Data, AuthenticatedEncryptionTag: tag}
		},
		"no tag": func(*payloads.EncryptRequestPayload) *payloads.EncryptResponsePayload {
			return &payloads.EncryptResponsePayload{Data: make([]byte, keymgr.DataKeySize)}
		},
		"nothing": func(*payloads.EncryptRequestPayload) *payloads.EncryptResponsePayload {
			return &payloads.EncryptResponsePayload{}
		},
	} {
		f.encrypt, config.Mode = encrypt, ModeEncrypt
		dk, w, err := open(t, config).GenerateDataKey(t.Context(), "a", kmstest.Disk("1"))
		kmstest.WantError(t, name, err, keymgr.ErrCorrupt, "")
		if dk != nil || w.Blob != nil {
			t.Errorf("%s: something is returned", name)
		}
	}
	f.encrypt = func(*payloads.EncryptRequestPayload) *payloads.EncryptResponsePayload {
		return &payloads.EncryptResponsePayload{Data: make([]byte, keymgr.DataKeySize+tagSize)}
	}
	if dk, _, err := open(t, config).GenerateDataKey(t.Context(), "a", kmstest.Disk("1")); err != nil {
		t.Errorf("a tag behind the text: %v", err)
	} else {
		dk.Destroy()
	}
	f.material, config.Mode = make([]byte, 16), ModeGet
	_, _, err := open(t, config).GenerateDataKey(t.Context(), "a", kmstest.Disk("1"))
	kmstest.WantError(t, "a key that is too short", err, keymgr.ErrCorrupt, "")
}
