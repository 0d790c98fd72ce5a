package aws

import (
	"regexp"
	"strings"

	"sealblk/keymgr/wire"
)

// Scheme of the URIs of these keys.
const Scheme = "aws"

var (
	regionForm = regexp.MustCompile(`^[a-z]{2}[a-z0-9]*(-[a-z0-9]+)+$`)
	keyForm    = regexp.MustCompile(`^[A-Za-z0-9:/_-]+$`)
)

// name is a key as a URI names it: where it is, and its id, its alias (alias/NAME) or
// the ARN of either. Only the ARN names a key of another account.
type name struct{ region, key string }

// parseName splits REGION/KEY. The region becomes part of a host's name, so it is
// looked at closely.
func parseName(s string) (name, error) {
	region, key, _ := strings.Cut(s, "/")
	if !regionForm.MatchString(region) || !keyForm.MatchString(key) {
		return name{}, wire.Invalid("", "a key of AWS KMS is named aws:REGION/KEY-ID or aws:REGION/alias/NAME",
			"parse key name %q", s[:min(len(s), 80)])
	}
	return name{region, key}, nil
}

func (n name) String() string { return Scheme + ":" + n.region + "/" + n.key }

// id is what tells one key of a region from another, "" for an alias.
func (n name) id() string {
	if id, ok := idOf(n.key); ok {
		return id
	}
	if strings.HasPrefix(n.key, "alias/") || strings.Contains(n.key, ":alias/") {
		return ""
	}
	return n.key
}

// idOf is the id in the ARN of a key.
func idOf(arn string) (string, bool) {
	_, id, ok := strings.Cut(arn, ":key/")
	return id, ok
}

// holder names the key that the KMS used, by its ARN: an alias may point elsewhere
// tomorrow. The account is kept if it was given.
func (n name) holder(arn string) name {
	if id, ok := idOf(arn); ok && !strings.HasPrefix(n.key, "arn:") {
		return name{n.region, id}
	}
	return name{n.region, arn}
}
