package kmip

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"time"

	"sealblk/keymgr/wire"
)

const (
	// DefaultTimeout bounds one call, which may be several requests.
	DefaultTimeout = 5 * time.Second
	// DefaultPort is the one that IANA gave to KMIP.
	DefaultPort = "5696"
)

// Modes.
const (
	// ModeAuto is ModeEncrypt where the server can, else ModeGet.
	ModeAuto = "auto"
	// ModeEncrypt has the server wrap and unwrap: its key never leaves it.
	ModeEncrypt = "encrypt"
	// ModeGet fetches the key for each call and wraps here.
	ModeGet = "get"
)

// Config says how a KMIP server is reached.
type Config struct {
	// Address is HOST or HOST:PORT.
	Address string `toml:"address"`
	// CA is a file of certificates (PEM) that vouch for the server; empty: the host's.
	CA string `toml:"ca"`
	// Certificate and Key are files (PEM) with which this host proves who it is. Key, by
	// its path or as the name of a credential of systemd, must be private. They are read
	// again for each connection, so that they can be replaced.
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	// ServerName is the name in the server's certificate; empty: the host of Address.
	ServerName string `toml:"server_name"`
	// Timeout of one call; 0 is DefaultTimeout.
	Timeout time.Duration `toml:"timeout"`
	// Mode is ModeAuto, the default, ModeEncrypt or ModeGet.
	Mode string `toml:"mode"`
}

// complete checks a configuration and fills in its defaults.
func (c Config) complete() (Config, error) {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Mode == "" {
		c.Mode = ModeAuto
	}
	switch {
	case c.Mode != ModeAuto && c.Mode != ModeEncrypt && c.Mode != ModeGet:
		return c, wire.Invalid("", "kms.kmip.mode is auto, encrypt or get", "mode %q", c.Mode)
	case c.Address == "":
		return c, wire.Invalid("", "set kms.kmip.address to HOST:PORT of the KMIP server", "no address is configured")
	case c.Certificate == "" || c.Key == "":
		return c, wire.Invalid("", "set kms.kmip.certificate and kms.kmip.key", "no client certificate is configured")
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		host, c.Address = c.Address, net.JoinHostPort(c.Address, DefaultPort)
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c, nil
}

// dial connects and proves both sides.
func (c *Config) dial(ctx context.Context) (net.Conn, error) {
	config, err := c.tls(ctx)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{Config: config}
	return d.DialContext(ctx, "tcp", c.Address)
}

func (c *Config) tls(ctx context.Context) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	chain, err := os.ReadFile(c.Certificate)
	if err != nil {
		return nil, wire.Invalid("", "correct kms.kmip.certificate", "read certificate: %w", err)
	}
	key, err := wire.ReadCredential(ctx, c.Timeout, c.Key, func(err error) error {
		return wire.Invalid("", "correct kms.kmip.key", "%w", err)
	})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	clear(key)
	if err != nil {
		return nil, wire.Invalid("", "correct kms.kmip.certificate and kms.kmip.key", "load client certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	if c.CA == "" {
		return config, nil
	}
	_, config.RootCAs, err = wire.ReadCertificates("kms.kmip.ca", c.CA)
	return config, err
}
