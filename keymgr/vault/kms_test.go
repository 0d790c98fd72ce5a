package vault

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/vault/vaulttest"
)

// TestServer runs what needs the server but not the suite, on one.
func TestServer(t *testing.T) {
	server := vaulttest.Start(t)
	for name, f := range map[string]func(*testing.T, *vaulttest.Server){
		"keys that do not fit are refused": keysThatDoNotFit,
		"revoked version":                  revokedVersion,
		"deleted key":                      deletedKey,
		"no such mount":                    noSuchMount,
		"blob opens without us":            blobOpensWithoutUs,
		"namespace":                        namespaces,
		"client certificate":               clientCertificate,
		"wrong authority":                  wrongAuthority,
		"rate limit quota":                 rateLimitQuota,
		"sealed":                           sealed,
		"token that is not valid":          invalidToken,
		"token file is read again":         tokenFileIsReadAgain,
		"AppRole":                          appRole,
		"AppRole logs in again":            appRoleLogsInAgain,
		"wrong secret id":                  wrongSecretID,
		"token is renewed":                 tokenIsRenewed,
		"token of limited life":            tokenOfLimitedLife,
		"closed":                           closed,
	} {
		t.Run(name, func(t *testing.T) { f(t, server) })
	}
}

// hostFor makes a host with a key of its own name.
func hostFor(t *testing.T, s *vaulttest.Server, name string) *vaulttest.Host {
	t.Helper()
	h := s.NewHost(t, name)
	h.NewKey(t, name)
	return h
}

func keysThatDoNotFit(t *testing.T, s *vaulttest.Server) {
	h := s.NewHost(t, "unfit")
	k := open(t, byToken(t, s, h.Token(t, "1h", "")))
	for key, body := range map[string]map[string]any{
		"unfit-plain": {}, "unfit-rsa": {"type": "rsa-2048"}, "unfit-128": {"type": "aes128-gcm96", "derived": true},
		"unfit-ed25519": {"type": "ed25519", "derived": true}, "unfit-hmac": {"type": "hmac", "key_size": 32},
	} {
		s.Do(t, http.MethodPut, "transit/keys/"+key, body)
		h.Allow(t, key)
		dk, _, err := k.GenerateDataKey(t.Context(), "transit/"+key, kmstest.Disk("1"))
		dk.Destroy()
		wantError(t, key, err, keymgr.ErrInvalid, "bao write -f transit/keys/"+key+" derived=true")
		if err != nil && !strings.Contains(err.Error(), "transit/"+key) {
			t.Errorf("%s: %v", key, err)
		}
		_, err = k.GenerateDataKeyWithoutPlaintext(t.Context(), "transit/"+key, kmstest.Disk("1"))
		wantError(t, key, err, keymgr.ErrInvalid, "derived=true")
	}
	// A blob of a key that is not derived opens under any context: it must not open.
	raw := s.Do(t, http.MethodPut, "transit/datakey/wrapped/unfit-plain", map[string]any{"bits": 512})
	w := keymgr.WrappedKey{URI: "vault:transit/unfit-plain", Version: "1", Blob: []byte(raw.Data["ciphertext"].(string))}
	dk, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	dk.Destroy()
	wantError(t, "Decrypt", err, keymgr.ErrInvalid, "derived=true")
	h.NewKey(t, "unfit-not")
	fine := works(t, k, "transit/unfit-not")
	_, err = k.ReEncrypt(t.Context(), fine, kmstest.Disk("1"), "transit/unfit-plain")
	wantError(t, "ReEncrypt", err, keymgr.ErrInvalid, "derived=true")
}

func revokedVersion(t *testing.T, s *vaulttest.Server) {
	k := open(t, byToken(t, s, hostFor(t, s, "revoked").Token(t, "1h", "")))
	w := works(t, k, "transit/revoked")
	s.Do(t, http.MethodPut, "transit/keys/revoked/rotate", nil)
	s.Do(t, http.MethodPut, "transit/keys/revoked/config", map[string]any{"min_decryption_version": 2})
	dk, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	dk.Destroy()
	wantError(t, "Decrypt", err, keymgr.ErrDisabled, "bao write transit/keys/revoked/config min_decryption_version=1")
	err = keymgr.CheckUsable(t.Context(), k, "transit/revoked", w.Version)
	wantError(t, "the watch", err, keymgr.ErrDisabled, "bao write transit/keys/revoked/config min_decryption_version=1")
	if newer := works(t, k, "transit/revoked"); keymgr.CheckUsable(t.Context(), k, "transit/revoked", newer.Version) != nil {
		t.Errorf("the watch takes version %s for lost", newer.Version)
	}
	s.Do(t, http.MethodPut, "transit/keys/revoked/config", map[string]any{"min_decryption_version": 1})
	dk, err = k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	if err != nil {
		t.Error(err)
	}
	dk.Destroy()
	if err := keymgr.CheckUsable(t.Context(), k, "transit/revoked", w.Version); err != nil {
		t.Errorf("the watch, with the version given back: %v", err)
	}
	s.Do(t, http.MethodDelete, "transit/keys/revoked/soft-delete", nil)
	err = keymgr.CheckUsable(t.Context(), k, "transit/revoked", w.Version)
	wantError(t, "the watch, soft-deleted", err, keymgr.ErrDisabled, "soft-delete-restore")
}

func deletedKey(t *testing.T, s *vaulttest.Server) {
	k := open(t, byToken(t, s, hostFor(t, s, "deleted").Token(t, "1h", "")))
	w := works(t, k, "transit/deleted")
	s.Do(t, http.MethodPut, "transit/keys/deleted/config", map[string]any{"deletion_allowed": true})
	s.Do(t, http.MethodDelete, "transit/keys/deleted", nil)
	dk, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	dk.Destroy()
	wantError(t, "Decrypt", err, keymgr.ErrNotFound, "make the key")
	// One of the same name is another one, even if it is not derived.
	s.Do(t, http.MethodPut, "transit/keys/deleted", map[string]any{})
	dk, err = k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	dk.Destroy()
	wantError(t, "Decrypt under another key of that name", err, keymgr.ErrInvalid, "derived=true")
}

func noSuchMount(t *testing.T, s *vaulttest.Server) {
	h := s.NewHost(t, "nowhere")
	s.Do(t, http.MethodPut, "sys/policies/acl/nowhere", map[string]any{"policy": `path "elsewhere/*" { capabilities = ["read", "update"] }`})
	k := open(t, byToken(t, s, h.Token(t, "1h", "")))
	_, err := k.DescribeKey(t.Context(), "elsewhere/key")
	wantError(t, "DescribeKey", err, keymgr.ErrNotFound, "bao write -f elsewhere/keys/key derived=true")
}

// blobOpensWithoutUs: what a disk stores and the engine's own call are enough.
func blobOpensWithoutUs(t *testing.T, s *vaulttest.Server) {
	k := open(t, byToken(t, s, hostFor(t, s, "open").Token(t, "1h", "")))
	dk, w, err := k.GenerateDataKey(t.Context(), "transit/open", kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	defer dk.Destroy()
	bound, err := kmstest.Disk("1").Encode()
	if err != nil {
		t.Fatal(err)
	}
	got := s.Do(t, http.MethodPut, "transit/decrypt/open", map[string]any{
		"ciphertext": string(w.Blob), "context": base64.StdEncoding.EncodeToString(bound),
	})
	if raw, err := base64.StdEncoding.DecodeString(got.Data["plaintext"].(string)); err != nil || string(raw) != string(dk.Bytes()) {
		t.Errorf("the engine opens it to another data key, %v", err)
	}
}

func namespaces(t *testing.T, s *vaulttest.Server) {
	s.Do(t, http.MethodPut, "sys/namespaces/team", map[string]any{})
	s.DoIn(t, "team", http.MethodPut, "sys/mounts/transit", map[string]any{"type": "transit"})
	s.DoIn(t, "team", http.MethodPut, "transit/keys/ours", map[string]any{"derived": true})
	s.DoIn(t, "team", http.MethodPut, "sys/policies/acl/ours", map[string]any{"policy": `path "transit/*" { capabilities = ["read", "update"] }`})
	made := s.DoIn(t, "team", http.MethodPut, "auth/token/create", map[string]any{"policies": []string{"ours"}, "ttl": "1h"})
	config := byToken(t, s, made.Auth.ClientToken)
	config.Namespace = "team"
	works(t, open(t, config), "transit/ours")
	config.Namespace = ""
	_, err := open(t, config).DescribeKey(t.Context(), "transit/ours")
	wantError(t, "without the namespace", err, keymgr.ErrAccessDenied, "")
}

func clientCertificate(t *testing.T, s *vaulttest.Server) {
	config := byToken(t, s, hostFor(t, s, "mutual").Token(t, "1h", ""))
	config.Address = "https://" + s.MutualAddr
	_, err := open(t, config).DescribeKey(t.Context(), "transit/mutual")
	wantError(t, "without a certificate", err, keymgr.ErrUnreachable, "[kms.vault]")
	config.ClientCertFile, config.ClientKeyFile = s.ClientCertFile, s.ClientKeyFile
	works(t, open(t, config), "transit/mutual")
	config.ServerName = "vault.test"
	works(t, open(t, config), "transit/mutual")
	config.ServerName = "other.test"
	_, err = open(t, config).DescribeKey(t.Context(), "transit/mutual")
	wantError(t, "other name", err, keymgr.ErrUnreachable, "kms.vault.server_name")
}

func wrongAuthority(t *testing.T, s *vaulttest.Server) {
	config := byToken(t, s, hostFor(t, s, "stranger").Token(t, "1h", ""))
	config.CAFile = "" // those of the host do not know the server
	_, err := open(t, config).DescribeKey(t.Context(), "transit/stranger")
	wantError(t, "unknown authority", err, keymgr.ErrUnreachable, "kms.vault.ca_file")
	if err != nil && !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("the error does not say why: %v", err)
	}
}

func rateLimitQuota(t *testing.T, s *vaulttest.Server) {
	k := open(t, byToken(t, s, hostFor(t, s, "busy").Token(t, "1h", "")))
	works(t, k, "transit/busy")
	s.Do(t, http.MethodPut, "sys/quotas/rate-limit/busy", map[string]any{"path": "transit/", "rate": 1, "interval": "60s"})
	defer s.Do(t, http.MethodDelete, "sys/quotas/rate-limit/busy", nil)
	var err error
	for range 5 {
		if _, err = k.DescribeKey(t.Context(), "transit/busy"); err != nil {
			break
		}
	}
	wantError(t, "over the quota", err, keymgr.ErrThrottled, "quota")
}

func sealed(t *testing.T, s *vaulttest.Server) {
	k := open(t, byToken(t, s, hostFor(t, s, "sealed").Token(t, "1h", "")))
	works(t, k, "transit/sealed")
	s.Seal(t)
	_, err := k.DescribeKey(t.Context(), "transit/sealed")
	s.Unseal(t)
	wantError(t, "sealed", err, keymgr.ErrUnreachable, "unsealed")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); { // it is not active at once
		if _, err = k.DescribeKey(t.Context(), "transit/sealed"); err == nil {
			break
		}
	}
	works(t, k, "transit/sealed")
}

func invalidToken(t *testing.T, s *vaulttest.Server) {
	config := byToken(t, s, "s.not-a-token")
	_, err := open(t, config).DescribeKey(t.Context(), "transit/any")
	wantError(t, "token that never was", err, keymgr.ErrAccessDenied, config.TokenFile)
	if err != nil && strings.Contains(err.Error(), "not-a-token") {
		t.Errorf("the error shows the token: %v", err)
	}
	config.TokenFile = t.TempDir() + "/none"
	_, err = open(t, config).DescribeKey(t.Context(), "transit/any")
	wantError(t, "no token file", err, keymgr.ErrInvalid, "token_file")
	config.TokenFile = file(t, "")
	_, err = open(t, config).DescribeKey(t.Context(), "transit/any")
	wantError(t, "empty token file", err, keymgr.ErrInvalid, "token_file")
	if err := os.Chmod(config.TokenFile, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = open(t, config).DescribeKey(t.Context(), "transit/any")
	wantError(t, "token that others can read", err, keymgr.ErrInvalid, "token_file")
}

func tokenFileIsReadAgain(t *testing.T, s *vaulttest.Server) {
	h := hostFor(t, s, "agent")
	first, second := h.Token(t, "1h", ""), h.Token(t, "1h", "")
	config := byToken(t, s, first)
	k := open(t, config)
	works(t, k, "transit/agent")
	s.Revoke(t, first)
	_, err := k.DescribeKey(t.Context(), "transit/agent")
	wantError(t, "revoked token", err, keymgr.ErrAccessDenied, "")
	if keymgr.IsLoss(err) {
		t.Errorf("that a token has ended is the loss of a key: %v", err)
	}
	if err := os.WriteFile(config.TokenFile, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	works(t, k, "transit/agent")
}

// roleOf is the configuration of a host with AppRole.
func roleOf(t *testing.T, s *vaulttest.Server, roleID, secretID string) Config {
	return Config{Address: "https://" + s.Addr, CAFile: s.CAFile, RoleID: roleID, SecretIDFile: file(t, secretID)}
}

func appRole(t *testing.T, s *vaulttest.Server) {
	h := hostFor(t, s, "role")
	role, id := h.AppRole(t, "1h", "0")
	works(t, open(t, roleOf(t, s, role, id)), "transit/role")
}

func appRoleLogsInAgain(t *testing.T, s *vaulttest.Server) {
	h := hostFor(t, s, "again")
	role, id := h.AppRole(t, "1h", "0")
	k := open(t, roleOf(t, s, role, id))
	w := works(t, k, "transit/again")
	before, err := k.login.token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Revoke(t, before)
	dk, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	if err != nil {
		t.Fatalf("with a token that was revoked: %v", err)
	}
	dk.Destroy()
	// A token that is good and may not is left alone.
	after, _ := k.login.token(t.Context())
	h.Deny(t, "again")
	_, err = k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	wantError(t, "denied", err, keymgr.ErrAccessDenied, "policy")
	if !keymgr.IsLoss(err) {
		t.Errorf("that the policy denies the key is no loss: %v", err)
	}
	if now, _ := k.login.token(t.Context()); after == before || now != after {
		t.Error("not one log-in for a revoked token, and none for a denied call")
	}
}

func wrongSecretID(t *testing.T, s *vaulttest.Server) {
	role, _ := hostFor(t, s, "wrong").AppRole(t, "1h", "0")
	config := roleOf(t, s, role, "00000000-0000-0000-0000-000000000000")
	_, err := open(t, config).DescribeKey(t.Context(), "transit/wrong")
	wantError(t, "wrong secret id", err, keymgr.ErrAccessDenied, config.SecretIDFile)
}

// eventually waits for the renewal, which is nobody's call.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Errorf("not in 20 s: %s", what)
}

// tokenIsRenewed before its time is over. A host that stands still for the rest of a short
// time ends one token; without renewal all end.
func tokenIsRenewed(t *testing.T, s *vaulttest.Server) {
	h := hostFor(t, s, "renewed")
	var errs []error
	for _, ttl := range []time.Duration{2 * time.Second, 6 * time.Second, 18 * time.Second} {
		token := h.Token(t, ttl.String(), "")
		k := open(t, byToken(t, s, token))
		err := use(t, k, "transit/renewed")
		time.Sleep(ttl + ttl/2) // it outlives its time
		if err == nil && !s.Alive(t, token) {
			err = errors.New("it has ended")
		}
		if err == nil {
			err = use(t, k, "transit/renewed")
		}
		if err == nil {
			return
		}
		errs = append(errs, fmt.Errorf("a token of %v: %w", ttl, err))
	}
	t.Error(errors.Join(errs...))
}

// use makes a data key and opens it.
func use(t *testing.T, k *KMS, key string) error {
	dk, w, err := k.GenerateDataKey(t.Context(), key, kmstest.Disk("1"))
	if err != nil {
		return err
	}
	defer dk.Destroy()
	again, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	if err != nil {
		return err
	}
	defer again.Destroy()
	if !again.Equal(dk) {
		return errors.New("another data key")
	}
	return nil
}

// tokenOfLimitedLife: where a token cannot be renewed any more, AppRole gets another.
func tokenOfLimitedLife(t *testing.T, s *vaulttest.Server) {
	role, id := hostFor(t, s, "limited").AppRole(t, "2s", "3s")
	k := open(t, roleOf(t, s, role, id))
	works(t, k, "transit/limited")
	first, err := k.login.token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "another token", func() bool {
		now, err := k.login.token(t.Context())
		return err == nil && now != first
	})
	works(t, k, "transit/limited")
}

func closed(t *testing.T, s *vaulttest.Server) {
	live, _ := secret.Live()
	k := open(t, byToken(t, s, hostFor(t, s, "closed").Token(t, "1h", "")))
	works(t, k, "transit/closed")
	k.Close()
	if _, err := k.DescribeKey(t.Context(), "transit/closed"); err == nil || !strings.Contains(err.Error(), ErrClosed.Error()) {
		t.Errorf("after Close: %v", err)
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets left", n-live)
	}
}

// TestAgent: an agent on a socket logs in by itself; it gets no token from here.
func TestAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	agent := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := r.Header.Get("X-Vault-Token"); token != "" || r.URL.Path != "/v1/transit/keys/disks" {
			t.Errorf("%s with the token %q", r.URL.Path, token)
		}
		io.WriteString(w, `{"data":{"type":"aes256-gcm96","derived":true,"latest_version":3,"keys":{"3":1700000000,"2":1600000000}}}`)
	})}
	ended := make(chan error)
	go func() { ended <- agent.Serve(l) }()
	k := open(t, Config{Address: "unix://" + path})
	info, err := k.DescribeKey(t.Context(), "transit/disks")
	if err != nil || info.PrimaryVersion != "3" || info.Created.Unix() != 1600000000 || info.State != keymgr.Enabled {
		t.Errorf("%+v, %v", info, err)
	}
	k.Close()
	agent.Close()
	<-ended
}
