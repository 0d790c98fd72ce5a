package luks

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// TokenType is the type of our token in the header.
	TokenType = "sealblk"
	// TokenVersion is the newest format of the token that this release reads. It writes
	// version 1 where that says all there is to say.
	TokenVersion = 2

	// BlockSize is a block of AES in bytes, and MaxKeyScopeBlocks how many of them one
	// key of XTS may cover at most (IEEE 1619-2025).
	BlockSize         = 16
	MaxKeyScopeBlocks = 1 << 44

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
	// Escrow is the DK under a second CMK; nil for none.
	Escrow *Escrow
	// DigestPending: the header's digest is to be made when the DK is first seen. It
	// always agrees with [Header.DigestPending].
	DigestPending bool
	// KeyScopeBlocks is how many blocks of BlockSize bytes, from the first on, the DK
	// covers: at least the disk's, at most MaxKeyScopeBlocks. 0 in a token of version
	// 1, which does not say.
	KeyScopeBlocks int64
	Disk           Disk
}

// Escrow is another wrapping of the same DK, under the same context.
type Escrow struct {
	KeyURI     string
	KeyVersion string
	WrappedKey []byte
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

// The members of a token of version 1, all of them mandatory; those that version 2
// adds; and those that version 2 may have.
var (
	tokenMembers    = []string{"type", "keyslots", "version", "key_uri", "key_version", "context", "wrapped_key", "disk"}
	addedMembers    = []string{"key_scope_blocks"}
	optionalMembers = []string{"escrow", "digest"}
	escrowMembers   = []string{"key_uri", "key_version", "wrapped_key"}
	diskMembers     = []string{"id", "lineage", "name", "size", "sector_size", "role", "serial", "created"}
)

// digestPending is the value of the member "digest", which is missing otherwise.
const digestPending = "pending"

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
	version, err := tokenVersion(o)
	if err != nil {
		return Token{}, err
	}
	var t Token
	if err := t.read(o, version); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}

func tokenVersion(o object) (int64, error) {
	if typ, err := o.str("type"); err != nil || typ != TokenType {
		return 0, fmt.Errorf("%w: type is not %q", ErrToken, TokenType)
	}
	v, err := o.number("version")
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if v < 1 || v > TokenVersion {
		return 0, fmt.Errorf("%w: %d", ErrTokenVersion, v)
	}
	return v, nil
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

// members are those that a token of a version has, with the optional ones that are
// there.
func members(o object, version int64) []string {
	if version == 1 {
		return tokenMembers
	}
	want := slices.Concat(tokenMembers, addedMembers)
	for _, name := range optionalMembers {
		if _, there := o.get(name); there {
			want = append(want, name)
		}
	}
	return want
}

func (t *Token) read(o object, version int64) (err error) {
	if err := o.exactly(members(o, version)); err != nil {
		return err
	}
	if err := t.readAdded(o, version); err != nil {
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

// readAdded reads what version 2 has added.
func (t *Token) readAdded(o object, version int64) (err error) {
	if version == 1 {
		return nil
	}
	if t.KeyScopeBlocks, err = o.size("key_scope_blocks"); err != nil {
		return err
	}
	if t.KeyScopeBlocks == 0 {
		return fmt.Errorf("key scope of no blocks")
	}
	if _, there := o.get("digest"); there {
		if v, err := o.str("digest"); err != nil || v != digestPending {
			return fmt.Errorf("digest is not %q", digestPending)
		}
		t.DigestPending = true
	}
	if _, there := o.get("escrow"); !there {
		return nil
	}
	e, err := o.section("escrow")
	if err != nil {
		return err
	}
	t.Escrow = &Escrow{}
	return t.Escrow.read(e)
}

func (e *Escrow) read(o object) (err error) {
	if err := o.exactly(escrowMembers); err != nil {
		return err
	}
	if e.KeyURI, err = o.str("key_uri"); err != nil {
		return err
	}
	if e.KeyVersion, err = o.str("key_version"); err != nil {
		return err
	}
	e.WrappedKey, err = o.base64("wrapped_key")
	return err
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
	if err := checkWrapped(t.KeyURI, t.KeyVersion, t.WrappedKey); err != nil {
		return err
	}
	if e := t.Escrow; e != nil {
		if err := checkWrapped(e.KeyURI, e.KeyVersion, e.WrappedKey); err != nil {
			return fmt.Errorf("escrow: %w", err)
		}
	}
	if n := t.KeyScopeBlocks; n != 0 && n < t.Disk.Blocks() || n > MaxKeyScopeBlocks {
		return fmt.Errorf("key scope of %d blocks, the disk has %d, one key covers at most %d", n, t.Disk.Blocks(), int64(MaxKeyScopeBlocks))
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
		{"disk id", d.ID, true}, {"lineage", d.Lineage, true},
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

// checkWrapped checks one wrapping of the DK.
func checkWrapped(uri, version string, blob []byte) error {
	if len(blob) == 0 || len(blob) > maxWrapped {
		return fmt.Errorf("wrapped key of %d bytes, want 1 to %d", len(blob), maxWrapped)
	}
	if uri == "" {
		return fmt.Errorf("key URI is empty")
	}
	if err := checkText("key URI", uri); err != nil {
		return err
	}
	return checkText("key version", version)
}

// Blocks is how many blocks of BlockSize bytes the disk has.
func (d *Disk) Blocks() int64 { return d.Size / BlockSize }

func (d *Disk) check() error {
	switch d.SectorSize {
	case 512, 1024, 2048, 4096:
	default:
		return fmt.Errorf("sector size %d, want 512, 1024, 2048 or 4096", d.SectorSize)
	}
	if d.Size <= 0 || d.Size%int64(d.SectorSize) != 0 {
		return fmt.Errorf("size %d is not a multiple of the sector size %d", d.Size, d.SectorSize)
	}
	if d.Blocks() > MaxKeyScopeBlocks {
		return fmt.Errorf("size %d is more than one key may cover, %d bytes", d.Size, int64(MaxKeyScopeBlocks)*BlockSize)
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
	o := object(nil).
		with("type", quote(TokenType)).
		with("keyslots", keyslots).
		with("version", []byte(strconv.Itoa(t.version()))).
		with("key_uri", quote(t.KeyURI)).
		with("key_version", quote(t.KeyVersion)).
		with("context", encodeContext(t.Context)).
		with("wrapped_key", quoteBytes(t.WrappedKey)).
		with("disk", t.Disk.encode())
	if t.version() == 1 {
		return o.encode(), nil
	}
	o = o.with("key_scope_blocks", quoteSize(max(t.KeyScopeBlocks, t.Disk.Blocks())))
	if t.DigestPending {
		o = o.with("digest", quote(digestPending))
	}
	if t.Escrow != nil {
		o = o.with("escrow", t.Escrow.encode())
	}
	return o.encode(), nil
}

// version is the oldest that says all of the token: a disk that needs nothing new opens
// with an older release.
func (t *Token) version() int {
	if t.KeyScopeBlocks == 0 && !t.DigestPending && t.Escrow == nil {
		return 1
	}
	return TokenVersion
}

func (e *Escrow) encode() []byte {
	return object(nil).
		with("key_uri", quote(e.KeyURI)).
		with("key_version", quote(e.KeyVersion)).
		with("wrapped_key", quoteBytes(e.WrappedKey)).
		encode()
}

func quoteBytes(b []byte) []byte { return quote(base64.StdEncoding.EncodeToString(b)) }

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
