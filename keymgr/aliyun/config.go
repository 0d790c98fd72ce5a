package aliyun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"sealblk/keymgr/wire"
)

// DefaultTimeout bounds one call.
const DefaultTimeout = 5 * time.Second

// Config says how the KMS is reached: the part kms.aliyun of the configuration.
type Config struct {
	// Endpoint is the URL of the KMS, https://HOST[:PORT], or http:// on a loopback
	// address; empty: that of the key's region, kms.REGION.aliyuncs.com.
	Endpoint string `toml:"endpoint"`
	// Credentials is a file with an access key, by its path or as the name of a
	// credential of systemd.
	Credentials string `toml:"credentials"`
	// CA is a file of certificates (PEM) that vouch for the endpoint; empty: the host's.
	CA string `toml:"ca"`
	// Timeout of one call; 0 is DefaultTimeout.
	Timeout time.Duration `toml:"timeout"`
}

// accessKey is what a file of credentials holds.
type accessKey struct {
	ID     string `toml:"access_key_id"`
	Secret string `toml:"access_key_secret"`
	Token  string `toml:"security_token"`
}

// endpoint is where calls go.
type endpoint struct{ protocol, host string }

func (c *Config) timeout() time.Duration {
	if c.Timeout <= 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

// endpoint is that of the configuration, or of a region.
func (c *Config) endpoint(region string) (endpoint, error) {
	if c.Endpoint == "" {
		return endpoint{"HTTPS", "kms." + region + ".aliyuncs.com"}, nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, wire.Invalid("", "kms.aliyun.endpoint is https://HOST:PORT", "endpoint %q", c.Endpoint)
	}
	switch {
	case u.Scheme == "https":
		return endpoint{"HTTPS", u.Host}, nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return endpoint{"HTTP", u.Host}, nil
	}
	return endpoint{}, wire.Invalid("", "use https:// in kms.aliyun.endpoint: without it data keys pass in plaintext", "endpoint %q", c.Endpoint)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// certificates is the text of the file CA, "" for none. The SDK must get none that it
// cannot read.
func (c *Config) certificates() (string, error) {
	if c.CA == "" {
		return "", nil
	}
	text, _, err := wire.ReadCertificates("kms.aliyun.ca", c.CA)
	return string(text), err
}

// direct is which hosts are reached without a proxy, as the environment and this
// package want it. It is part of what the SDK knows its clients by, so the certificates
// get into it too.
func (e endpoint) direct(certificates string) string {
	hosts := os.Getenv("NO_PROXY")
	if hosts == "" {
		hosts = os.Getenv("no_proxy")
	}
	list := strings.Split(hosts, ",")
	if u, err := url.Parse("//" + e.host); err == nil && isLoopback(u.Hostname()) {
		list = append(list, e.host)
	}
	sum := sha256.Sum256([]byte(certificates))
	list = append(list, "certificates-"+hex.EncodeToString(sum[:8])+".invalid")
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), ",")
}

// checkProxies refuses the environment of a proxy that does not parse: the SDK hangs for
// ever after its first look at it.
func checkProxies() error {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if _, err := url.Parse(os.Getenv(name)); err != nil {
			return wire.Invalid("", "correct the environment variable "+name, "the proxy is not a URL")
		}
	}
	return nil
}

// readCredentials reads the file, each time: what it holds may be for an hour only.
func (c *Config) readCredentials(ctx context.Context) (accessKey, error) {
	var k accessKey
	if c.Credentials == "" {
		return k, noCredentials(errors.New("kms.aliyun.credentials is not set"))
	}
	data, err := wire.ReadCredential(ctx, c.timeout(), c.Credentials, noCredentials)
	if err != nil {
		return k, err
	}
	defer clear(data)
	meta, err := toml.Decode(string(data), &k)
	// The parser's own errors quote what they stumble over.
	if err != nil || len(meta.Undecoded()) > 0 || k.ID == "" || k.Secret == "" {
		return accessKey{}, noCredentials(fmt.Errorf("%s does not hold access_key_id and access_key_secret in TOML", c.Credentials))
	}
	return k, nil
}
