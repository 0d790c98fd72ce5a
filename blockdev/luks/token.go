package luks

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// TokenType is the type of our token in the header.
	TokenType = "sealblk"
	// TokenVersion is the format of the token that this release reads and writes.
	TokenVersion = 1

	// maxWrapped bounds the wrapped key: the largest that a KMS returns for 64 bytes
	// is below 1 KiB.
	maxWrapped = 4096
	maxText    = 1024
	maxContext = 32
)

// Token is what a disk says of itself: where its key is, and enough to list it in
// a catalogue again.
type Token struct {
	// KeyURI names the CMK that wraps the DK, KeyVersion its version.
	KeyURI     string
	KeyVersion string
	// Context is the encryption context that the wrapped DK is bound to.
	Context map[string]string
	// WrappedKey is the DK as the KMS wrapped it. It is not secret.
	WrappedKey []byte
	Disk       Disk
}

// Disk is the part of a disk's record that its header repeats.
type Disk struct {
	ID string
	// Lineage is shared by the disks and snapshots that share the DK.
	Lineage string
	Name    string
	// Size of the data in bytes, a multiple of SectorSize. It is the segment's.
	Size int64
	// SectorSize is the size of a data unit in bytes.
	SectorSize int
	Role       string
	Serial     string
	// Created, in UTC.
	Created time.Time
}

// The members of a token of version 1, all of them mandatory.
var (
	tokenMembers = []string{"type", "keyslots", "version", "key_uri", "key_version", "context", "wrapped_key", "disk"}
	diskMembers  = []string{"id", "lineage", "name", "size", "sector_size", "role", "serial", "created"}
)

// ParseToken reads the JSON of a token. It is strict: a member that is missing,
// unknown or there twice is an error, so that nothing is dropped when the token is
// written again.
func ParseToken(raw []byte) (Token, error) {
	o, err := parseObject(raw)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if !utf8.Valid(raw) {
		return Token{}, fmt.Errorf("%w: not UTF-8", ErrToken)
	}
	if err := checkTokenVersion(o); err != nil {
		return Token{}, err
	}
	var t Token
	if err := t.read(o); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}

func checkTokenVersion(o object) error {
	if typ, err := o.str("type"); err != nil || typ != TokenType {
		return fmt.Errorf("%w: type is not %q", ErrToken, TokenType)
	}
	v, err := o.number("version")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrToken, err)
	}
	if v != TokenVersion {
		return fmt.Errorf("%w: %d", ErrTokenVersion, v)
	}
	return nil
}

// exactly checks that the object has these members and no others.
func (o object) exactly(names []string) error {
	for _, n := range names {
		if _, ok := o.get(n); !ok {
			return fmt.Errorf("%q is missing", n)
		}
	}
	// Names are unique on both sides.
	if len(o) != len(names) {
		return fmt.Errorf("%d members, want %d", len(o), len(names))
	}
	return nil
}

func (t *Token) read(o object) (err error) {
	if err := o.exactly(tokenMembers); err != nil {
		return err
	}
	if _, err := o.strs("keyslots"); err != nil {
		return err
	}
	if t.KeyURI, err = o.str("key_uri"); err != nil {
		return err
	}
	if t.KeyVersion, err = o.str("key_version"); err != nil {
		return err
	}
	if t.Context, err = o.context("context"); err != nil {
		return err
	}
	if t.WrappedKey, err = o.base64("wrapped_key"); err != nil {
		return err
	}
	d, err := o.section("disk")
	if err != nil {
		return err
	}
	return t.Disk.read(d)
}

func (o object) context(name string) (map[string]string, error) {
	c, err := o.section(name)
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(c))
	for _, e := range c {
		if m[e.name], err = c.str(e.name); err != nil {
			return nil, fmt.Errorf("context: %w", err)
		}
	}
	return m, nil
}

func (d *Disk) read(o object) error {
	if err := o.exactly(diskMembers); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		to   *string
	}{{"id", &d.ID}, {"lineage", &d.Lineage}, {"name", &d.Name}, {"role", &d.Role}, {"serial", &d.Serial}} {
		v, err := o.str(s.name)
		if err != nil {
			return err
		}
		*s.to = v
	}
	var err error
	if d.Size, err = o.size("size"); err != nil {
		return err
	}
	n, err := o.number("sector_size")
	if err != nil {
		return err
	}
	// In range of an int: check refuses all but four values, this keeps the conversion safe.
	d.SectorSize = int(min(n, 1<<30))
	created, err := o.str("created")
	if err != nil {
		return err
	}
	if d.Created, err = time.Parse(time.RFC3339Nano, created); err != nil {
		return fmt.Errorf("created: %q is not a time", created)
	}
	d.Created = d.Created.UTC()
	return nil
}

// check holds for every token that is read or written.
func (t *Token) check() error {
	if len(t.WrappedKey) == 0 || len(t.WrappedKey) > maxWrapped {
		return fmt.Errorf("wrapped key of %d bytes, want 1 to %d", len(t.WrappedKey), maxWrapped)
	}
	if len(t.Context) > maxContext {
		return fmt.Errorf("context of %d entries, want at most %d", len(t.Context), maxContext)
	}
	for k, v := range t.Context {
		if err := errors.Join(checkText("context", k), checkText("context", v)); err != nil {
			return err
		}
	}
	d := &t.Disk
	for _, s := range []struct {
		name, value string
		needed      bool
	}{
		{"key URI", t.KeyURI, true}, {"key version", t.KeyVersion, false}, {"disk id", d.ID, true}, {"lineage", d.Lineage, true},
		{"name", d.Name, true}, {"role", d.Role, false}, {"serial", d.Serial, false},
	} {
		if s.needed && s.value == "" {
			return fmt.Errorf("%s is empty", s.name)
		}
		if err := checkText(s.name, s.value); err != nil {
			return err
		}
	}
	return d.check()
}

func (d *Disk) check() error {
	switch d.SectorSize {
	case 512, 1024, 2048, 4096:
	default:
		return fmt.Errorf("sector size %d, want 512, 1024, 2048 or 4096", d.SectorSize)
	}
	if d.Size <= 0 || d.Size%int64(d.SectorSize) != 0 {
		return fmt.Errorf("size %d is not a multiple of the sector size %d", d.Size, d.SectorSize)
	}
	if y := d.Created.UTC().Year(); y < 1 || y > 9999 {
		return fmt.Errorf("created in the year %d", y)
	}
	return nil
}

// checkText: names end up on terminals and in logs.
func checkText(name, s string) error {
	if len(s) > maxText {
		return fmt.Errorf("%s is longer than %d bytes", name, maxText)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", name)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("%s has a control character", name)
		}
	}
	return nil
}

// encode is the token as JSON text. keyslots, JSON text too, is what cryptsetup may
// have assigned.
func (t *Token) encode(keyslots []byte) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("%w: token: %w", ErrInvalid, err)
	}
	return object(nil).
		with("type", quote(TokenType)).
		with("keyslots", keyslots).
		with("version", []byte(strconv.Itoa(TokenVersion))).
		with("key_uri", quote(t.KeyURI)).
		with("key_version", quote(t.KeyVersion)).
		with("context", encodeContext(t.Context)).
		with("wrapped_key", quote(base64.StdEncoding.EncodeToString(t.WrappedKey))).
		with("disk", t.Disk.encode()).
		encode(), nil
}

func encodeContext(c map[string]string) []byte {
	if c == nil {
		return []byte("{}")
	}
	// Strings always encode, sorted by key.
	b, _ := json.Marshal(c)
	return b
}

func (d *Disk) encode() []byte {
	return object(nil).
		with("id", quote(d.ID)).
		with("lineage", quote(d.Lineage)).
		with("name", quote(d.Name)).
		with("size", quoteSize(d.Size)).
		with("sector_size", []byte(strconv.Itoa(d.SectorSize))).
		with("role", quote(d.Role)).
		with("serial", quote(d.Serial)).
		with("created", quote(d.Created.UTC().Format(time.RFC3339Nano))).
		encode()
}
