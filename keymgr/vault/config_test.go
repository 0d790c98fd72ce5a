package vault

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"sealblk/keymgr"
)

func TestConfigIsRead(t *testing.T) {
	var c Config
	meta, err := toml.Decode(`
address = "https://vault.example:8200"
namespace = "team"
timeout = "3s"
ca_file = "/ca"
client_cert_file = "/cert"
client_key_file = "/key"
server_name = "vault"
role_id = "r"
secret_id_file = "secret-id"
approle_mount = "hosts"
`, &c)
	if err != nil || len(meta.Undecoded()) != 0 {
		t.Fatalf("%v, unknown %v", err, meta.Undecoded())
	}
	want := Config{
		Address: "https://vault.example:8200", Namespace: "team", Timeout: duration(3 * time.Second), CAFile: "/ca", ClientCertFile: "/cert",
		ClientKeyFile: "/key", ServerName: "vault", RoleID: "r", SecretIDFile: "secret-id", AppRoleMount: "hosts",
	}
	if c != want || c.check() != nil || c.timeout() != 3*time.Second {
		t.Errorf("%+v, %v", c, c.check())
	}
	for _, bad := range []string{"0s", "-1s", "soon", "3"} {
		if _, err := toml.Decode(`timeout = "`+bad+`"`, &c); err == nil {
			t.Errorf("timeout %q was taken", bad)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	good := Config{Address: "https://vault.example:8200", TokenFile: "/t"}
	for name, c := range map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"no address":          {func(c *Config) { c.Address = "" }, "kms.vault.address"},
		"no scheme":           {func(c *Config) { c.Address = "vault.example:8200" }, "kms.vault.address"},
		"clear text":          {func(c *Config) { c.Address = "http://vault.example:8200" }, "kms.vault.address"},
		"user in the URL":     {func(c *Config) { c.Address = "https://u:sesame@vault.example" }, "kms.vault.address"},
		"certificate only":    {func(c *Config) { c.ClientCertFile = "/c" }, "kms.vault.client_cert_file"},
		"no credentials":      {func(c *Config) { c.TokenFile = "" }, "kms.vault.token_file"},
		"two of them":         {func(c *Config) { c.RoleID, c.SecretIDFile = "r", "/s" }, "kms.vault.token_file"},
		"role without id":     {func(c *Config) { c.TokenFile, c.RoleID = "", "r" }, "kms.vault.role_id"},
		"authority not there": {func(c *Config) { c.CAFile = "/nowhere/ca.pem" }, "TLS"},
	} {
		bad := good
		c.spoil(&bad)
		k, err := Open(t.Context(), bad)
		wantError(t, name, err, keymgr.ErrInvalid, "")
		if err == nil {
			k.Close()
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, address := range []string{"http://127.0.0.1:8200", "http://localhost:8200", "http://[::1]:8200", "unix:///run/agent.sock"} {
		c := good
		c.Address = address
		if err := c.check(); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := (Config{Address: "unix:///run/agent.sock"}).check(); err != nil {
		t.Errorf("an agent that logs in: %v", err)
	}
}

// TestEnvironmentIsNotRead: what the configuration does not say is not taken from
// variables that the client library knows.
func TestEnvironmentIsNotRead(t *testing.T) {
	for _, name := range []string{"BAO_TOKEN", "VAULT_TOKEN", "BAO_ADDR", "VAULT_ADDR", "BAO_SKIP_VERIFY", "BAO_NAMESPACE"} {
		t.Setenv(name, "1")
	}
	path := file(t, "token")
	k := open(t, Config{Address: "https://127.0.0.1:1", TokenFile: path})
	if k.client.api.Token() != "" || k.client.api.Namespace() != "" || k.client.api.Address() != "https://127.0.0.1:1" {
		t.Errorf("the client has %q, %q", k.client.api.Namespace(), k.client.api.Address())
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
