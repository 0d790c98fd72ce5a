package vaulttest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// Host is what a host logs in with: a policy that lets it use keys, as the manual of
// package vault says, and credentials under it.
type Host struct {
	server *Server
	policy string

	mu     sync.Mutex
	keys   []string
	denied map[string]bool
}

// NewHost makes a host that may use no key yet. The name is new.
func (s *Server) NewHost(t testing.TB, name string) *Host {
	t.Helper()
	h := &Host{server: s, policy: name, denied: map[string]bool{}}
	h.write(t)
	return h
}

// NewKey makes a key in transit/ as it must be and lets the host use it.
func (h *Host) NewKey(t testing.TB, name string) {
	t.Helper()
	h.server.Do(t, http.MethodPut, "transit/keys/"+name, map[string]any{"derived": true})
	h.Allow(t, name)
}

// Allow lets the host use a key, or its name.
func (h *Host) Allow(t testing.TB, key string) {
	t.Helper()
	h.mu.Lock()
	h.keys = append(h.keys, key)
	h.mu.Unlock()
	h.write(t)
}

// Deny takes a key from the host.
func (h *Host) Deny(t testing.TB, key string) {
	t.Helper()
	h.mu.Lock()
	h.denied[key] = true
	h.mu.Unlock()
	h.write(t)
}

func (h *Host) write(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var rules strings.Builder
	rules.WriteString("# what a host may do\n") // an empty policy is refused
	for _, key := range h.keys {
		if h.denied[key] {
			continue
		}
		fmt.Fprintf(&rules, "path \"transit/keys/%s\" { capabilities = [\"read\"] }\n", key)
		for _, call := range []string{"datakey/+", "decrypt", "rewrap", "encrypt"} {
			fmt.Fprintf(&rules, "path \"transit/%s/%s\" { capabilities = [\"update\"] }\n", call, key)
		}
	}
	h.server.Do(t, http.MethodPut, "sys/policies/acl/"+h.policy, map[string]any{"policy": rules.String()})
}

// Token is a new token of the host, good for so long ("1h") and renewable up to max.
func (h *Host) Token(t testing.TB, ttl, max string) string {
	t.Helper()
	made := h.server.Do(t, http.MethodPut, "auth/token/create", map[string]any{
		"policies": []string{h.policy, "default"}, "no_default_policy": false, "ttl": ttl, "explicit_max_ttl": max, "no_parent": true,
	})
	return made.Auth.ClientToken
}

// AppRole makes a role for the host whose tokens are good for so long, and returns its
// id and a secret id.
func (h *Host) AppRole(t testing.TB, ttl, max string) (roleID, secretID string) {
	t.Helper()
	role := "auth/approle/role/" + h.policy
	h.server.Do(t, http.MethodPut, role, map[string]any{"token_policies": []string{h.policy}, "token_ttl": ttl, "token_max_ttl": max})
	id := h.server.Do(t, http.MethodGet, role+"/role-id", nil)
	secret := h.server.Do(t, http.MethodPut, role+"/secret-id", map[string]any{})
	return id.Data["role_id"].(string), secret.Data["secret_id"].(string)
}

// Revoke ends a token.
func (s *Server) Revoke(t testing.TB, token string) {
	t.Helper()
	s.Do(t, http.MethodPut, "auth/token/revoke", map[string]any{"token": token})
}

// Alive tells whether a token has not ended.
func (s *Server) Alive(t testing.TB, token string) bool {
	t.Helper()
	found, err := s.root.Logical().WriteWithContext(t.Context(), "auth/token/lookup", map[string]any{"token": token})
	return err == nil && found != nil
}
