package vault

import (
	"fmt"
	"net/url"
	"time"

	"sealblk/keymgr"
)

// DefaultTimeout of a call.
const DefaultTimeout = 10 * time.Second

// Config is the part [kms.vault] of the configuration. Secrets are named by the path
// of a file that only its owner may read, or by the name, without a slash, of a
// systemd credential.
type Config struct {
	// Address of the server: https://HOST:PORT, or unix:///PATH of an agent.
	Address string `toml:"address"`
	// Namespace, if the server has some.
	Namespace string `toml:"namespace"`
	// Timeout of a call, such as "5s".
	Timeout duration `toml:"timeout"`

	// CAFile has the certificates of the authorities that sign the server's; without it
	// the host's are trusted.
	CAFile string `toml:"ca_file"`
	// ClientCertFile and ClientKeyFile identify this host to the server.
	ClientCertFile string `toml:"client_cert_file"`
	ClientKeyFile  string `toml:"client_key_file"`
	// ServerName that the server's certificate must be for, if not the address's.
	ServerName string `toml:"server_name"`

	// TokenFile holds a token.
	TokenFile string `toml:"token_file"`
	// RoleID and SecretIDFile log in by AppRole, at the mount AppRoleMount ("approle").
	RoleID       string `toml:"role_id"`
	SecretIDFile string `toml:"secret_id_file"`
	AppRoleMount string `toml:"approle_mount"`
}

// duration is a time.Duration in a configuration file.
type duration time.Duration

// UnmarshalText takes a text such as "5s".
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err == nil && parsed <= 0 {
		err = fmt.Errorf("%q is not positive", text)
	}
	*d = duration(parsed)
	return err
}

func (c Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return time.Duration(c.Timeout)
}

func (c Config) appRoleMount() string {
	if c.AppRoleMount == "" {
		return "approle"
	}
	return c.AppRoleMount
}

// check looks for what cannot work.
func (c Config) check() error {
	u, err := url.Parse(c.Address)
	switch {
	case c.Address == "":
		return invalidConfig("address", "it is missing: give the server's, https://HOST:8200")
	case err != nil || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "unix" || u.Scheme != "unix" && u.Host == "":
		return invalidConfig("address", "use https://HOST:PORT, or unix:///PATH of an agent")
	case u.User != nil:
		return invalidConfig("address", "no user and no password belong there: use token_file or role_id")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return invalidConfig("address", "keys must not cross the network in the clear: use https")
	case (c.ClientCertFile == "") != (c.ClientKeyFile == ""):
		return invalidConfig("client_cert_file", "a certificate and its key go together: set client_key_file too, or neither")
	case c.TokenFile != "" && (c.RoleID != "" || c.SecretIDFile != ""):
		return invalidConfig("token_file", "use either token_file or role_id with secret_id_file")
	case c.TokenFile == "" && c.RoleID == "" && u.Scheme != "unix":
		return invalidConfig("token_file", "set token_file, or role_id and secret_id_file, to log in with")
	case (c.RoleID == "") != (c.SecretIDFile == ""):
		return invalidConfig("role_id", "role_id and secret_id_file go together")
	}
	return nil
}

func isLoopback(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1"
}

func invalidConfig(name, hint string) error {
	return &keymgr.Error{
		Code: keymgr.CodeInvalid, Hint: hint,
		Err: fmt.Errorf("configuration kms.vault.%s: %w", name, keymgr.ErrInvalid),
	}
}
