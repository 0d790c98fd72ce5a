package vault

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"sealblk/keymgr"
)

// Scheme of the URIs of this KMS.
const Scheme = "vault"

// name is a key: the mount of a transit engine and a key in it.
type name struct{ mount, key string }

func (n name) String() string { return n.mount + "/" + n.key }

// uri is the key's URI.
func (n name) uri() string { return Scheme + ":" + n.String() }

// path is where a call about the key goes.
func (n name) path(call string) string { return n.mount + "/" + call + "/" + n.key }

var (
	mountForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$`)
	keyForm   = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
)

// parseName splits MOUNT/KEY. Both are such that they mean themselves in a URL.
func parseName(s string) (name, error) {
	slash := strings.LastIndexByte(s, '/')
	if slash < 0 || !mountForm.MatchString(s[:slash]) || !keyForm.MatchString(s[slash+1:]) {
		return name{}, &keymgr.Error{
			Code: keymgr.CodeInvalid, Key: Scheme + ":" + s,
			Hint: "a key is named vault:MOUNT/KEY, for example vault:transit/disks",
			Err:  fmt.Errorf("parse key name: %w", keymgr.ErrInvalid),
		}
	}
	return name{s[:slash], s[slash+1:]}, nil
}

// parseWrapped checks what a disk stores: that the key is one of ours, and the blob
// exactly what the engine writes for the version that goes with it.
func parseWrapped(w keymgr.WrappedKey) (name, int, error) {
	u, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return name{}, 0, err
	}
	if u.Scheme != Scheme {
		return name{}, 0, badBlob(w.URI, "it belongs to another KMS")
	}
	n, err := parseName(u.Key)
	if err != nil {
		return name{}, 0, err
	}
	version, ok := parseBlob(string(w.Blob))
	if !ok {
		return name{}, 0, badBlob(n.uri(), "it is not what the transit engine writes")
	}
	if strconv.Itoa(version) != w.Version {
		return name{}, 0, badBlob(n.uri(), fmt.Sprintf("it was wrapped under version %d, not %q", version, w.Version))
	}
	return n, version, nil
}

// blobForm is the engine's text; minSealed is what a data key has at least when it is
// sealed: a nonce, 64 bytes, and a tag.
var blobForm = regexp.MustCompile(`^vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})$`)

const minSealed = 12 + keymgr.DataKeySize + 16

// parseBlob returns the version that a blob names. A text that decodes to the same
// bytes as another one is not accepted beside it.
func parseBlob(blob string) (version int, ok bool) {
	parts := blobForm.FindStringSubmatch(blob)
	if parts == nil {
		return 0, false
	}
	version, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, false
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	return version, err == nil && len(sealed) >= minSealed
}

// contextOf is an encryption context as the engine takes it.
func contextOf(ec keymgr.Context) (string, error) {
	encoded, err := ec.Encode()
	if err != nil {
		return "", &keymgr.Error{Code: keymgr.CodeInvalid, Hint: "correct the encryption context", Err: err}
	}
	return base64.StdEncoding.EncodeToString(encoded), nil
}
