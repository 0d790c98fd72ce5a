package kmsserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealblk/internal/credential"
)

// writePair writes a certificate of a serial number, and its key.
func writePair(t *testing.T, c *Config, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{c.Certificate: {Type: "CERTIFICATE", Bytes: der}, c.Key: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewCertificateIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	writePair(t, c, 1)
	config, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		got, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("certificate %d", n)
	}
	writePair(t, c, 2)
	if n := serial(); n != 2 {
		t.Errorf("certificate %d after it was replaced", n)
	}
	if err := os.Remove(c.Key); err != nil {
		t.Fatal(err)
	}
	if n := serial(); n != 2 {
		t.Errorf("certificate %d while the key is missing", n)
	}
}

func TestCertificatesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	writePair(t, c, 1)
	if err := os.Chmod(c.Key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TLS(); !errors.Is(err, credential.ErrExposed) {
		t.Errorf("a key that others may read: %v", err)
	}
	if config, err := (&Config{}).TLS(); config != nil || err != nil {
		t.Errorf("none: %v, %v", config, err)
	}
	if _, err := (&Config{Certificate: c.Certificate}).TLS(); err == nil {
		t.Error("without a key")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if _, err := (&Config{Certificate: c.Certificate, Key: "k.pem"}).TLS(); err != nil {
		t.Errorf("a credential of systemd: %v", err)
	}
}
