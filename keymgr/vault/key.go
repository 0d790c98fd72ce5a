package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sealblk/keymgr"
)

// keyState is what the engine tells of a key.
type keyState struct {
	Type        string `json:"type"`
	Derived     bool   `json:"derived"`
	SoftDeleted bool   `json:"soft_deleted"`
	Latest      int    `json:"latest_version"`
	MinDecrypt  int    `json:"min_decryption_version"`
	Imported    bool   `json:"imported_key"`
	AutoRotate  int64  `json:"auto_rotate_period"` // seconds
	// Keys has the creation of each version, of a symmetric key in seconds since 1970.
	Keys map[string]json.RawMessage `json:"keys"`
}

// aeads are the key types that wrap data keys as they must be wrapped.
var aeads = map[string]bool{"aes256-gcm96": true, "chacha20-poly1305": true, "xchacha20-poly1305": true}

// read asks for a key.
func (k *KMS) read(ctx context.Context, n name) (keyState, error) {
	answer, err := k.call(ctx, n, request{http.MethodGet, n.path("keys"), nil})
	if err != nil {
		if no := refused(err); no != nil && no.StatusCode == http.StatusNotFound && len(no.Errors) == 0 {
			return keyState{}, notFound(n.uri(), "transit engine "+n.mount+" has no key "+n.key)
		}
		return keyState{}, k.failed(ctx, n.uri(), err)
	}
	defer answer.Destroy()
	var reply struct {
		ID   string    `json:"request_id"`
		Data *keyState `json:"data"`
	}
	switch err := decode(answer, &reply); {
	case err != nil || reply.Data == nil || reply.Data.Type == "" && reply.ID == "":
		return keyState{}, k.failed(ctx, n.uri(), errAnswer)
	case reply.Data.Type == "":
		return keyState{}, notFound(n.uri(), "what is at "+n.String()+" is not a key of a transit engine")
	}
	return *reply.Data, nil
}

// mustFit refuses a key that cannot bind data keys to disks. What fits once, does for
// good: neither derivation nor type of a key can be changed.
func (k *KMS) mustFit(ctx context.Context, n name) error {
	k.mu.Lock()
	fit := k.fit[n]
	k.mu.Unlock()
	if fit {
		return nil
	}
	s, err := k.read(ctx, n)
	if err != nil {
		return err
	}
	if err := s.mustFit(n); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fit[n] = true
	return nil
}

func (s keyState) mustFit(n name) error {
	switch {
	case s.SoftDeleted:
		return disabled(n, "it is soft-deleted", "bao write -f "+n.path("keys")+"/soft-delete-restore")
	case !s.Derived:
		return unfit(n, "it is not derived, and the server ignores the encryption context of such a key")
	case !aeads[s.Type]:
		return unfit(n, "its type is "+oneLine(s.Type)+", not an AEAD of 256 bits such as aes256-gcm96")
	}
	return nil
}

// mustOpen refuses a version that opens nothing, or is none.
func (s keyState) mustOpen(n name, version int) error {
	switch {
	case version > s.Latest:
		return badBlob(n.uri(), fmt.Sprintf("it names version %d, and the newest is %d", version, s.Latest))
	case version < s.MinDecrypt:
		return disabled(n, fmt.Sprintf("version %d is below min_decryption_version, %d", version, s.MinDecrypt),
			fmt.Sprintf("bao write %s/config min_decryption_version=%d", n.path("keys"), version))
	}
	return nil
}

func unfit(n name, why string) error {
	return &keymgr.Error{
		Code: CodeKeyType, Key: n.uri(), Hint: "use another key; " + makeHint(n.uri()),
		Err: fmt.Errorf("use key: %s: %w", why, keymgr.ErrInvalid),
	}
}

func disabled(n name, why, hint string) error {
	return &keymgr.Error{
		Code: CodeDisabled, Key: n.uri(), Hint: hint,
		Err: fmt.Errorf("%w: %s", keymgr.ErrDisabled, why),
	}
}

// diagnose finds out why the server refused a call under a key, with a blob of this
// version, or 0 without one.
func (k *KMS) diagnose(ctx context.Context, n name, version int, err error) error {
	if no := refused(err); no == nil || no.StatusCode != http.StatusBadRequest {
		return k.failed(ctx, n.uri(), err)
	}
	k.mu.Lock()
	delete(k.fit, n)
	k.mu.Unlock()
	s, readErr := k.read(ctx, n)
	if readErr != nil {
		return readErr
	}
	if err := s.mustFit(n); err != nil {
		return err
	}
	if version == 0 {
		return k.failed(ctx, n.uri(), err)
	}
	if err := s.mustOpen(n, version); err != nil {
		return err
	}
	return &keymgr.Error{
		Code: CodeContext, Key: n.uri(), Hint: "the wrapped key belongs to another disk, or was damaged: restore the disk's header from a backup",
		Err: keymgr.ErrContextMismatch,
	}
}

func (s keyState) info(n name) keymgr.KeyInfo {
	info := keymgr.KeyInfo{
		URI: n.uri(), KeyID: n.String(), Aliases: []string{}, State: keymgr.Enabled, Origin: "transit",
		Description: "transit key of type " + oneLine(s.Type), PrimaryVersion: strconv.Itoa(s.Latest), Versions: len(s.Keys),
	}
	if s.Imported {
		info.Origin = "external"
	}
	if s.SoftDeleted {
		info.State = keymgr.Disabled
	}
	if first, ok := s.oldest(); ok {
		info.Created = time.Unix(first, 0).UTC()
	}
	info.RotationDays = int(time.Duration(s.AutoRotate) * time.Second / (24 * time.Hour))
	return info
}

func (s keyState) oldest() (seconds int64, ok bool) {
	for _, raw := range s.Keys {
		var at int64
		if json.Unmarshal(raw, &at) == nil && (!ok || at < seconds) {
			seconds, ok = at, true
		}
	}
	return seconds, ok
}
