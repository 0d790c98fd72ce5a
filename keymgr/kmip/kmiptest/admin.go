package kmiptest

import (
	"testing"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipclient"
)

// Admin is a client of the server itself, not through the proxy. It ends with the test.
func (s *Server) Admin(t testing.TB) *kmipclient.Client {
	t.Helper()
	c, err := kmipclient.Dial(s.direct, kmipclient.WithRootCAFile(s.CA), kmipclient.WithClientCertFiles(s.Certificate, s.Key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // it is done with
	return c
}

// NewKey makes an AES key of 256 bits, with a name unless it is "", and returns its
// identifier. It is not active yet.
func (s *Server) NewKey(t testing.TB, name string) string {
	t.Helper()
	create := s.Admin(t).Create().AES(256, kmip.CryptographicUsageEncrypt|kmip.CryptographicUsageDecrypt)
	if name != "" {
		create = create.WithName(name)
	}
	out, err := create.Exec()
	if err != nil {
		t.Fatal(err)
	}
	return out.UniqueIdentifier
}

// Activate makes a key usable.
func (s *Server) Activate(t testing.TB, uid string) string {
	t.Helper()
	if _, err := s.Admin(t).Activate(uid).Exec(); err != nil {
		t.Fatal(err)
	}
	return uid
}

// Revoke makes a key unusable, for good.
func (s *Server) Revoke(t testing.TB, uid string) {
	t.Helper()
	if _, err := s.Admin(t).Revoke(uid).WithRevocationReasonCode(kmip.RevocationReasonCodeCessationOfOperation).Exec(); err != nil {
		t.Fatal(err)
	}
}

// Destroy destroys a key that is not active.
func (s *Server) Destroy(t testing.TB, uid string) {
	t.Helper()
	if _, err := s.Admin(t).Destroy(uid).Exec(); err != nil {
		t.Fatal(err)
	}
}
