package aws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"golang.org/x/sys/unix"

	"sealblk/keymgr/wire"
)

// DefaultTimeout bounds one call.
const DefaultTimeout = 5 * time.Second

// Config says how AWS KMS is reached. The zero Config reaches the public one, with what
// credentials the host has.
type Config struct {
	// Endpoint is the URL of the KMS, with https unless it is on this host; empty: that of
	// the key's region.
	Endpoint string `toml:"endpoint"`
	// Credentials is a file in the form of ~/.aws/credentials, by its path or as the name
	// of a credential of systemd. It is read again when it is needed, so that it can be
	// replaced. Empty: the SDK's own chain: environment, ~/.aws, the role of a
	// container, the role of the instance.
	Credentials string `toml:"credentials"`
	// Profile is the section of that file, or of ~/.aws; empty: default.
	Profile string `toml:"profile"`
	// CA is a file of certificates (PEM) that vouch for the endpoint; empty: the host's.
	CA string `toml:"ca"`
	// Timeout of one call; 0 is DefaultTimeout.
	Timeout time.Duration `toml:"timeout"`
}

// checkEndpoint refuses what data keys would travel to in the clear.
func (c *Config) checkEndpoint() error {
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" {
		return wire.Invalid("", "kms.aws.endpoint is a URL, as https://kms.example", "endpoint %q", c.Endpoint)
	}
	address := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || address == nil || !address.IsLoopback()) {
		return wire.Invalid("", "begin kms.aws.endpoint with https://", "endpoint %q: data keys would travel in the clear", c.Endpoint)
	}
	return nil
}

func (c *Config) timeout() time.Duration {
	if c.Timeout <= 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

// newTransport is HTTP/1.1 without compression: each layer less has one buffer less
// in which a data key may stay.
func (c *Config) newTransport() (*http.Transport, error) {
	t := &http.Transport{
		Proxy:              http.ProxyFromEnvironment,
		DialContext:        (&net.Dialer{}).DialContext,
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12},
		TLSNextProto:       map[string]func(string, *tls.Conn) http.RoundTripper{},
		DisableCompression: true,
		IdleConnTimeout:    30 * time.Second,
	}
	if c.CA == "" {
		return t, nil
	}
	var err error
	_, t.TLSClientConfig.RootCAs, err = wire.ReadCertificates("kms.aws.ca", c.CA)
	return t, err
}

// credentials makes the provider that a client asks before it signs.
func (c *Config) credentials(ctx context.Context, region string) (aws.CredentialsProvider, error) {
	if c.Credentials != "" {
		return aws.CredentialsProviderFunc(c.readCredentials), nil
	}
	chain, err := config.LoadDefaultConfig(ctx, config.WithSharedConfigProfile(c.Profile), config.WithDefaultRegion(region))
	if err != nil {
		return nil, noCredentials(err)
	}
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		found, err := chain.Credentials.Retrieve(ctx)
		if err != nil {
			return found, noCredentials(err)
		}
		return found, nil
	}), nil
}

// readCredentials reads the file, each time: what it holds may be for an hour only.
func (c *Config) readCredentials(ctx context.Context) (aws.Credentials, error) {
	file, err := c.copyCredentials(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	defer file.Close()
	profile := c.Profile
	if profile == "" {
		profile = config.DefaultSharedConfigProfile
	}
	shared, err := config.LoadSharedConfigProfile(ctx, profile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{fmt.Sprintf("/proc/self/fd/%d", file.Fd())}, []string{}
	})
	if err == nil && !shared.Credentials.HasKeys() {
		err = fmt.Errorf("profile %s in %s has no access key", profile, c.Credentials)
	}
	var broken config.SharedConfigLoadError
	if errors.As(err, &broken) {
		broken.Filename, err = c.Credentials, broken
	}
	if err != nil {
		return aws.Credentials{}, noCredentials(err)
	}
	return shared.Credentials, nil
}

// copyCredentials is what the file holds, in memory: the SDK takes paths only, and waits
// for a pipe without end.
func (c *Config) copyCredentials(ctx context.Context) (*os.File, error) {
	data, err := wire.ReadCredential(ctx, c.timeout(), c.Credentials, noCredentials)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	fd, err := unix.MemfdCreate("credentials", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copy credentials: %w", err)
	}
	file := os.NewFile(uintptr(fd), "credentials")
	if _, err := file.Write(data); err != nil {
		file.Close()
		return nil, fmt.Errorf("copy credentials: %w", err)
	}
	return file, nil
}
