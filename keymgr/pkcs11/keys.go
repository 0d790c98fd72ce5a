//go:build pkcs11

package pkcs11

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr"
)

// maxVersions is how many objects may share a label.
const maxVersions = 4096

// version is one object of a key.
type version struct {
	object           pkcs11.ObjectHandle
	label            string
	id               []byte
	encrypt, decrypt bool
	start, end       time.Time // zero: not bounded
	// unfit says why it is no version to use, if it is none. That keeps nobody from
	// opening what another one wraps.
	unfit error
	// twin says that another one has the same CKA_ID, so that it may not wrap.
	twin error
}

func (v *version) name() string { return hex.EncodeToString(v.id) }

// current: the dates of the version allow it to wrap.
func (v *version) current(now time.Time) bool {
	return !now.Before(v.start) && (v.end.IsZero() || now.Before(v.end.AddDate(0, 0, 1)))
}

// compareIDs orders big-endian numbers.
func compareIDs(a, b []byte) int {
	a, b = bytes.TrimLeft(a, "\x00"), bytes.TrimLeft(b, "\x00")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// versions finds the objects of a key, oldest first; there is at least one.
func (s session) versions(key string) ([]version, error) {
	name, err := parseName(key)
	if err != nil {
		return nil, err
	}
	objects, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		return nil, s.missing(key)
	}
	found := make([]version, len(objects))
	for i, o := range objects {
		if found[i], err = s.describe(key, o); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b version) int { return compareIDs(a.id, b.id) })
	for i := 1; i < len(found); i++ {
		if a, b := &found[i-1], &found[i]; compareIDs(a.id, b.id) == 0 {
			a.twin = unfit(key, fmt.Sprintf("two objects have the CKA_ID %x", b.id), "give each a CKA_ID of its own by the tools of the HSM")
			b.twin = a.twin
		}
	}
	return found, nil
}

// fit refuses a key of which a version is not to be used: it may be the one that was meant
// to wrap.
func fit(all []version) error {
	for _, v := range all {
		if err := cmp.Or(v.unfit, v.twin); err != nil {
			return err
		}
	}
	return nil
}

func (s session) find(name keyName) ([]pkcs11.ObjectHandle, error) {
	wanted := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY)}
	if name.id != nil {
		wanted = append(wanted, pkcs11.NewAttribute(pkcs11.CKA_ID, name.id))
	} else {
		wanted = append(wanted, pkcs11.NewAttribute(pkcs11.CKA_LABEL, name.label))
	}
	if err := s.ctx.FindObjectsInit(s.handle, wanted); err != nil {
		return nil, err
	}
	objects, _, err := s.ctx.FindObjects(s.handle, maxVersions)
	return objects, errors.Join(err, s.ctx.FindObjectsFinal(s.handle))
}

// missing tells a key that is not there from one that the token does not show.
func (s session) missing(key string) error {
	if _, err := s.slot(s.config); err != nil {
		return err // a session may outlive its token
	}
	if !s.loggedIn() && !s.public() {
		return pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	return &keymgr.Error{
		Key: uriOf(key), Hint: "make it by the tools of the HSM: pkcs11-tool --module MODULE --login --keygen --key-type AES:32 --sensitive --label LABEL --id 01",
		Err: keymgr.ErrNotFound,
	}
}

// public: nobody needs to log in to this token.
func (s session) public() bool {
	info, err := s.ctx.GetSessionInfo(s.handle)
	if err != nil {
		return false
	}
	t, err := s.ctx.GetTokenInfo(info.SlotID)
	return err == nil && t.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0
}

// describe reads an object, and tells what is not fit for a master key.
func (s session) describe(key string, o pkcs11.ObjectHandle) (version, error) {
	a, err := s.attributes(o, pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	if err != nil {
		return version{}, err
	}
	v := version{object: o, label: string(a[pkcs11.CKA_LABEL]), id: a[pkcs11.CKA_ID], encrypt: isTrue(a[pkcs11.CKA_ENCRYPT]), decrypt: isTrue(a[pkcs11.CKA_DECRYPT])}
	size, err := s.optional(o, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return version{}, err
	}
	switch length := number(size[pkcs11.CKA_VALUE_LEN]); {
	case number(a[pkcs11.CKA_KEY_TYPE]) != pkcs11.CKK_AES || length != 0 && length != 32:
		v.unfit = unfit(key, "it is not an AES-256 key", "name one of CKK_AES with 32 bytes")
	case !isTrue(a[pkcs11.CKA_SENSITIVE]) || isTrue(a[pkcs11.CKA_EXTRACTABLE]):
		v.unfit = unfit(key, "it can be read out of the token", "name one with CKA_SENSITIVE true and CKA_EXTRACTABLE false")
	case len(v.id) < 1 || len(v.id) > maxID:
		v.unfit = unfit(key, "it has no CKA_ID by which to name its version", fmt.Sprintf("give it one of 1 to %d bytes", maxID))
	}
	dates, err := s.optional(o, pkcs11.CKA_START_DATE, pkcs11.CKA_END_DATE)
	v.start, v.end = date(dates[pkcs11.CKA_START_DATE]), date(dates[pkcs11.CKA_END_DATE])
	return v, err
}

// optional reads attributes that not every token has.
func (s session) optional(o pkcs11.ObjectHandle, types ...uint) (map[uint][]byte, error) {
	a, err := s.attributes(o, types...)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)) {
		return nil, nil
	}
	return a, err
}

func (s session) attributes(o pkcs11.ObjectHandle, types ...uint) (map[uint][]byte, error) {
	ask := make([]*pkcs11.Attribute, len(types))
	for i, t := range types {
		ask[i] = pkcs11.NewAttribute(t, nil)
	}
	got, err := s.ctx.GetAttributeValue(s.handle, o, ask)
	if err != nil {
		return nil, err
	}
	values := map[uint][]byte{}
	for _, a := range got {
		values[a.Type] = a.Value
	}
	return values, nil
}

func isTrue(b []byte) bool { return len(b) == 1 && b[0] != 0 }

// number is a CK_ULONG, 0 if there is none.
func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(b)
}

// date is a CK_DATE, "YYYYMMDD", the zero time if there is none.
func date(b []byte) time.Time {
	t, err := time.Parse("20060102", string(b))
	if err != nil {
		return time.Time{}
	}
	return t
}

func unfit(key, why, hint string) error {
	return &keymgr.Error{Code: keymgr.CodeInvalid, Key: uriOf(key), Hint: hint, Err: fmt.Errorf("use key of the token: %s: %w", why, keymgr.ErrInvalid)}
}

// primary is the version that wraps.
func primary(key string, all []version, now time.Time) (version, error) {
	if err := fit(all); err != nil {
		return version{}, err
	}
	for _, v := range slices.Backward(all) {
		if v.encrypt && v.current(now) {
			return v, nil
		}
	}
	return version{}, &keymgr.Error{
		Key: uriOf(key), Hint: "none of its versions may encrypt: look at CKA_ENCRYPT, CKA_START_DATE and CKA_END_DATE by the tools of the HSM",
		Err: keymgr.ErrDisabled,
	}
}

// byID is the version that a blob names: one object, unless others got its CKA_ID by
// mistake. Then which of them it is turns out when the blob is opened.
func byID(key string, all []version, id []byte) (found []version, err error) {
	err = &keymgr.Error{
		Key: uriOf(key), Hint: "restore the object from a backup of the HSM",
		Err: fmt.Errorf("version %x: %w", id, keymgr.ErrNotFound),
	}
	for _, v := range all {
		switch {
		case !bytes.Equal(v.id, id):
		case v.unfit != nil:
			err = v.unfit
		case !v.decrypt:
			return nil, &keymgr.Error{Key: uriOf(key), Hint: "set CKA_DECRYPT of version " + v.name() + " to true by the tools of the HSM", Err: keymgr.ErrDisabled}
		default:
			found = append(found, v)
		}
	}
	if found != nil {
		return found, nil
	}
	return nil, err
}
