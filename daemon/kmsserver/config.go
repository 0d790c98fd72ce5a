package kmsserver

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// Config is the part kms.serve of the configuration.
type Config struct {
	// Listen is the address, "HOST:PORT".
	Listen string `toml:"listen"`
	// Certificate and Key are PEM files. Without them the server speaks plain HTTP, on a
	// loopback address only.
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
	now, err := p.stampsNow()
	if err == nil && p.loaded != nil && now == p.stamps {
		return p.loaded, nil
	}
	var loaded tls.Certificate
	if err == nil {
		loaded, err = tls.LoadX509KeyPair(p.certificate, p.key)
	}
	if err != nil {
		if p.loaded != nil {
			return p.loaded, nil
		}
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	p.loaded, p.stamps = &loaded, now
	return p.loaded, nil
}

func (p *pair) stampsNow() (now [2]stamp, err error) {
	for i, path := range []string{p.certificate, p.key} {
		if now[i], err = stampOf(path); err != nil {
			return now, err
		}
	}
	info, err := os.Stat(p.key)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("mode %04o lets others read it, run: chmod 600 %s: %w", info.Mode().Perm(), p.key, fs.ErrPermission)
	}
	return now, err
}
