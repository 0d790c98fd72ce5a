package kmsserver

import (
	"crypto/tls"
	"fmt"
	"sync"

	"sealblk/internal/credential"
)

// Config is the part kms.serve of the configuration.
type Config struct {
	// Listen is the address, "HOST:PORT".
	Listen string `toml:"listen"`
	// Certificate and Key are PEM files; the key may also be the name of a credential of
	// systemd. Without them the server speaks plain HTTP, on a loopback address only.
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	// AccessKeys is the file of the access keys; "": access-keys in the state directory.
	AccessKeys string `toml:"access_keys"`
}

// TLS is the configuration for a certificate, nil if none is named. The files are read
// again when they have been replaced.
func (c *Config) TLS() (*tls.Config, error) {
	if c.Certificate == "" && c.Key == "" {
		return nil, nil
	}
	if c.Certificate == "" || c.Key == "" {
		return nil, fmt.Errorf("certificate %q and key %q go together", c.Certificate, c.Key)
	}
	p := &pair{certificate: c.Certificate, key: c.Key}
	if _, err := p.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.get}, nil
}

// pair is a certificate and its key, in files.
type pair struct {
	certificate, key string

	mu     sync.Mutex
	stamps [2]stamp
	loaded *tls.Certificate
}

// get keeps the old certificate while the new files are not both there.
func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	loaded, stamps, err := p.load()
	switch {
	case err == nil:
		p.loaded, p.stamps = loaded, stamps
	case p.loaded == nil:
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	return p.loaded, nil
}

// load reads the files if they have changed.
func (p *pair) load() (*tls.Certificate, [2]stamp, error) {
	var stamps [2]stamp
	key, err := credential.Path(p.key)
	if err != nil {
		return nil, stamps, err
	}
	for i, path := range []string{p.certificate, key} {
		if stamps[i], err = stampOf(path); err != nil {
			return nil, stamps, err
		}
	}
	if p.loaded != nil && stamps == p.stamps {
		return p.loaded, stamps, nil
	}
	loaded, err := tls.LoadX509KeyPair(p.certificate, key)
	return &loaded, stamps, err
}
