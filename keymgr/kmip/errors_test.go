package kmip

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"sealblk/keymgr"
)

// alerting is a server that answers a ClientHello with an alert of TLS. It returns the
// failure of a client.
func alerting(t *testing.T, alert byte) error {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		var head [5]byte
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, server, int64(head[3])<<8|int64(head[4])); err != nil {
			return
		}
		server.Write([]byte{21, 3, 3, 0, 2, 2, alert}) // a fatal one; the client may have gone
	}()
	err := tls.Client(client, &tls.Config{ServerName: "kms.example"}).Handshake()
	client.Close()
	<-ended
	return err
}

// TestAlerts: of what a server can say before it speaks KMIP, only what is about this
// host's certificate is a refusal, and none is the loss of a key.
func TestAlerts(t *testing.T) {
	about := map[byte]bool{42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 49: true, 51: true, 116: true}
	for _, alert := range []byte{10, 20, 40, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 70, 71, 80, 86, 90, 112, 116, 120} {
		err := explain(t.Context(), "kmip:a", alerting(t, alert))
		want, code := keymgr.ErrUnreachable, "KMSUnreachable"
		if about[alert] {
			want, code = keymgr.ErrCredentials, CodeCertificate
		}
		var e *keymgr.Error
		if !errors.Is(err, want) || !errors.As(err, &e) || e.Code != code || e.Hint == "" || keymgr.IsLoss(err) {
			t.Errorf("alert %d: %v, want %v", alert, err, want)
		}
		if errors.Is(err, keymgr.ErrAccessDenied) != about[alert] {
			t.Errorf("alert %d: %v", alert, err)
		}
	}
}
