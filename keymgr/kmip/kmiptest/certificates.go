package kmiptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates. ECDSA: with RSA, Go and Python's server find no cipher
// suite that both like.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// makeCertificates writes ca.pem, and pairs for the server, a client, and another client.
func makeCertificates(t testing.TB, dir string) {
	t.Helper()
	ca := newAuthority(t, dir)
	ca.issue(t, dir, "server", 2, x509.ExtKeyUsageServerAuth)
	ca.issue(t, dir, "client", 3, x509.ExtKeyUsageClientAuth)
	ca.issue(t, dir, "other", 4, x509.ExtKeyUsageClientAuth)
}

func newAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	template := template("sealblk test CA", 1)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", der)
	return &authority{key, cert}
}

func (a *authority) issue(t testing.TB, dir, name string, serial int64, usage x509.ExtKeyUsage) {
	t.Helper()
	template := template(name, serial)
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", secret)
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Certificates makes another set, which no server knows, and returns the folder: ca.pem,
// client.pem and client.key among others.
func Certificates(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	makeCertificates(t, dir)
	return dir
}
