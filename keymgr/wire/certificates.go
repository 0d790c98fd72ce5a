package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"sealblk/keymgr"
)

// ReadCertificates reads a file (PEM) that a setting names.
func ReadCertificates(setting, path string) (text []byte, pool *x509.CertPool, err error) {
	text, err = os.ReadFile(path)
	if err != nil {
		return nil, nil, Invalid("", "correct "+setting, "read certificates: %w", err)
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, Invalid("", setting+" is a file of PEM certificates", "no certificate in %s", path)
	}
	return text, pool, nil
}

// Untrusted tells whether a call failed because the server's certificate is not to be
// trusted, or not now.
func Untrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert) || keymgr.Stranger(err)
}
