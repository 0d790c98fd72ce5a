package aws

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// metadata is the metadata service of an instance that has a role.
type metadata struct{ status atomic.Int32 }

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const roles = "/latest/meta-data/iam/security-credentials/"
	w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "600")
	w.WriteHeader(int(m.status.Load()))
	switch r.URL.Path {
	case "/latest/api/token":
		io.WriteString(w, "token")
	case roles:
		io.WriteString(w, "role")
	case roles + "role":
		io.WriteString(w, `{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"B","Token":"C","Expiration":"2099-01-01T00:00:00Z"}`)
	}
}

// onInstance is a host whose only credentials are the metadata service's.
func onInstance(t *testing.T, service string, timeout time.Duration) *KMS {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_EC2_METADATA_DISABLED", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service)
	kms := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"KeyMetadata":{"KeyId":"k","KeyState":"Enabled"}}`)
	}))
	t.Cleanup(kms.Close)
	return open(t, Config{Endpoint: kms.URL, Timeout: timeout})
}

// TestMetadataServiceIsWaitedFor as a KMS is; one that has no role is not.
func TestMetadataServiceIsWaitedFor(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, c := range map[string]struct {
		status  int
		timeout time.Duration
		want    error
	}{
		"not there":   {0, 10 * time.Second, keymgr.ErrUnreachable},
		"failing":     {http.StatusInternalServerError, time.Second, keymgr.ErrUnreachable},
		"has no role": {http.StatusNotFound, 10 * time.Second, keymgr.ErrCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			url := gone.URL
			if c.status != 0 {
				var m metadata
				m.status.Store(int32(c.status))
				s := httptest.NewServer(&m)
				defer s.Close()
				url = s.URL
			}
			_, err := onInstance(t, url, c.timeout).DescribeKey(t.Context(), in("k"))
			var e *keymgr.Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Code != wire.CodeNoCredentials || !strings.Contains(err.Error(), "no credentials for AWS") || !strings.Contains(e.Hint, "kms.aws.credentials") {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestMetadataServiceComesUp between two attempts.
func TestMetadataServiceComesUp(t *testing.T) {
	var m metadata
	m.status.Store(http.StatusServiceUnavailable)
	s := httptest.NewServer(&m)
	defer s.Close()
	k := onInstance(t, s.URL, 3*time.Second)
	set := keymgr.NewSet(keymgr.Retry{Attempts: 2, Sleep: func(context.Context, time.Duration) error {
		m.status.Store(http.StatusOK)
		return nil
	}}, map[string]keymgr.Opener{Scheme: func(context.Context) (keymgr.KMS, error) { return k, nil }})
	if info, err := set.DescribeKey(t.Context(), Scheme+":"+in("k")); err != nil || info.State != keymgr.Enabled {
		t.Errorf("%+v, %v", info, err)
	}
}
