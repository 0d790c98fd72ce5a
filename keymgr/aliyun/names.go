package aliyun

import (
	"regexp"
	"strings"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// Scheme of the URIs of these keys.
const Scheme = "aliyun"

var (
	regionForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	keyForm    = regexp.MustCompile(`^[A-Za-z0-9/_-]+$`)
)

// name is a key as a URI names it: where it is, and its id or its alias (alias/NAME).
type name struct{ region, key string }

func (n name) String() string { return Scheme + ":" + n.region + "/" + n.key }

// parseName splits REGION/KEY. The region becomes part of a host's name, so it is
// looked at closely.
func parseName(s string) (name, error) {
	region, key, _ := strings.Cut(s, "/")
	if len(region) > 63 || !regionForm.MatchString(region) || !keyForm.MatchString(key) {
		return name{}, wire.Invalid("", "a key is named aliyun:REGION/KEY-ID or aliyun:REGION/alias/NAME", "parse key name %q", s[:min(len(s), 80)])
	}
	return name{region, key}, nil
}

// parseWrapped is the key that wrapped a data key.
func parseWrapped(w keymgr.WrappedKey) (name, error) {
	u, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return name{}, err
	}
	if u.Scheme != Scheme {
		return name{}, wire.Invalid(w.URI, "ask the KMS of its URI", "unwrap a data key of another KMS")
	}
	n, err := parseName(u.Key)
	if err == nil && len(w.Blob) == 0 {
		err = wire.Damaged(n, "the wrapped key is empty")
	}
	return n, err
}

// wrapped is what the KMS made under a key: the reply names the key itself.
func (n name) wrapped(keyID, version, blob string) (keymgr.WrappedKey, error) {
	n.key = keyID
	if !keyForm.MatchString(keyID) || version == "" || blob == "" {
		return keymgr.WrappedKey{}, oddReply(n, "the reply lacks KeyId, KeyVersionId or CiphertextBlob")
	}
	return keymgr.WrappedKey{URI: n.String(), Version: version, Blob: []byte(blob)}, nil
}
