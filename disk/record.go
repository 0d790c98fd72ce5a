package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"time"

	"sealblk/blockdev/luks"
)

// Category says where a disk lives.
type Category string

const (
	// Cloud disks outlive their VM. They may be encrypted.
	Cloud Category = "cloud"
	// Local disks are ephemeral. They cannot be encrypted.
	Local Category = "local"
)

// Role says what a VM uses a disk for.
type Role string

const (
	System Role = "system"
	Data   Role = "data"
)

// DiscardPolicy says what becomes of the ranges that a guest discards.
type DiscardPolicy string

const (
	// DiscardUnmap gives their space back; they read as zeros. Who sees the backing
	// file sees what is not in use.
	DiscardUnmap DiscardPolicy = "unmap"
	// DiscardIgnore leaves them as they are.
	DiscardIgnore DiscardPolicy = "ignore"
)

// ZeroesPolicy says how an encrypted disk keeps the zeros that a guest asks for where
// it allows to deallocate. On a plain disk a hole is zeros to every reader.
type ZeroesPolicy string

const (
	// ZeroesWrite stores the ciphertext of zeros: every reader of the format agrees.
	ZeroesWrite ZeroesPolicy = "write"
	// ZeroesUnmap makes holes, which are zeros through this program only.
	ZeroesUnmap ZeroesPolicy = "unmap"
)

// KeyLossPolicy says what becomes of an encrypted disk that is in use when its CMK can
// no longer be used: disabled, to be deleted, without material, out of reach by policy.
type KeyLossPolicy string

const (
	// KeyLossKeep goes on: the next export fails.
	KeyLossKeep KeyLossPolicy = "keep"
	// KeyLossPause wipes the key and lets the guest wait until the CMK is back.
	KeyLossPause KeyLossPolicy = "pause"
	// KeyLossDetach wipes the key after a while and fails what the guest asks for, for
	// good.
	KeyLossDetach KeyLossPolicy = "detach"
)

const recordFormat = 1

// serialSize is the length of a virtio-blk serial number (virtio 1.2, 5.2.6.1:
// VIRTIO_BLK_ID_BYTES).
const serialSize = 20

// maxEncryptedSize is the most that IEEE 1619-2025 allows under one XTS key.
const maxEncryptedSize = luks.MaxKeyScopeBlocks * luks.BlockSize

// maxSize keeps sums of offsets and sizes far from overflow.
const maxSize = 1 << 56

// Record is what the catalogue keeps about a disk.
type Record struct {
	Format int    `json:"format"`
	Name   string `json:"name"`
	// ID is unique for ever; Lineage is the ID of the first disk that used this data
	// key, and what the wrapped key is bound to.
	ID        string `json:"id"`
	Lineage   string `json:"lineage"`
	SizeBytes int64  `json:"size_bytes"`
	Encrypted bool   `json:"encrypted"`
	// KeyID and KeyURI name the CMK when the record was written; the header's token
	// is what counts.
	KeyID  string `json:"key_id"`
	KeyURI string `json:"key_uri"`
	// KeyVersion of the CMK; empty in records of old, and where the KMS does not tell.
	KeyVersion string `json:"key_version,omitempty"`
	// KeyScopeBlocks is how many blocks of 16 bytes the data key covers.
	KeyScopeBlocks int64 `json:"key_scope_blocks,omitempty"`
	// EscrowKeyURI names a second CMK that wraps the data key too; empty for none.
	EscrowKeyURI string `json:"escrow_key_uri,omitempty"`
	// RewrappingTo is the CMK that a re-wrap under way, or interrupted, is about to put
	// the data key under; empty for none.
	RewrappingTo string `json:"rewrapping_to,omitempty"`
	// DigestPending: nobody has seen the data key yet, the first who opens the disk makes
	// the header's digest.
	DigestPending bool `json:"digest_pending,omitempty"`
	// SectorSize is the data unit and the logical block size: 512 or 4096 bytes.
	SectorSize int       `json:"sector_size"`
	Category   Category  `json:"category"`
	Role       Role      `json:"role"`
	Serial     string    `json:"serial"`
	Backend    string    `json:"backend"`
	Created    time.Time `json:"created"`
	// Discard and Zeroes are missing in records of old: the defaults are meant.
	Discard DiscardPolicy `json:"discard"`
	Zeroes  ZeroesPolicy  `json:"zeroes"`
	// OnKeyLoss is missing in records of old: the default is meant. A plain disk has no
	// other.
	OnKeyLoss KeyLossPolicy `json:"on_key_loss"`
	// GrowingTo is the size that a resize under way, or interrupted, is about to give
	// the disk; 0 for none.
	GrowingTo int64 `json:"growing_to,omitempty"`
}

// complete fills in what a record does not say.
func (r *Record) complete() {
	r.Discard = orDefault(r.Discard, DiscardUnmap)
	r.Zeroes = orDefault(r.Zeroes, ZeroesWrite)
	if r.Encrypted {
		r.KeyScopeBlocks = max(r.KeyScopeBlocks, r.SizeBytes/luks.BlockSize)
	}
	r.OnKeyLoss = orDefault(r.OnKeyLoss, KeyLossKeep)
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName says whether a disk may be called so.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return withHint(fmt.Errorf("%w: disk name %q", ErrInvalid, name),
			"use 1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
	}
	return nil
}

// newID makes an id that fits a virtio serial number: "d-" and 18 hex digits.
func newID() string {
	var b [9]byte
	rand.Read(b[:])
	return "d-" + hex.EncodeToString(b[:])
}

var idPattern = regexp.MustCompile(`^d-[0-9a-f]{18}$`)

// parseRecord reads a record strictly: it comes from a file that anything may have
// happened to.
func parseRecord(data []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Record{}, fmt.Errorf("%w: data after the record", ErrRecord)
	}
	r.complete()
	if err := r.validate(); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return r, nil
}

func (r *Record) validate() error {
	if r.Format != recordFormat {
		return fmt.Errorf("format %d, this program knows %d", r.Format, recordFormat)
	}
	if err := CheckName(r.Name); err != nil {
		return err
	}
	if !idPattern.MatchString(r.ID) {
		return fmt.Errorf("id %q", r.ID)
	}
	if r.Encrypted && !idPattern.MatchString(r.Lineage) {
		return fmt.Errorf("lineage %q", r.Lineage)
	}
	if r.Encrypted && r.KeyURI == "" {
		return fmt.Errorf("encrypted without a key")
	}
	if !r.Encrypted && (r.KeyURI != "" || r.KeyVersion != "" || r.KeyScopeBlocks != 0 || r.EscrowKeyURI != "" || r.RewrappingTo != "" || r.DigestPending) {
		return fmt.Errorf("a key without encryption")
	}
	if err := r.validateShape(); err != nil {
		return err
	}
	if n := r.KeyScopeBlocks; r.Encrypted && (n < r.SizeBytes/luks.BlockSize || n > luks.MaxKeyScopeBlocks) {
		return fmt.Errorf("key scope of %d blocks", n)
	}
	return nil
}

func (r *Record) validateShape() error {
	if r.SectorSize != 512 && r.SectorSize != 4096 {
		return withHint(fmt.Errorf("%w: sector size %d", ErrInvalid, r.SectorSize), "use 512 or 4096")
	}
	if r.SizeBytes <= 0 || r.SizeBytes > maxSize || r.SizeBytes%int64(r.SectorSize) != 0 {
		return withHint(fmt.Errorf("%w: size %d bytes", ErrInvalid, r.SizeBytes),
			fmt.Sprintf("use a multiple of %d, at most 64 PiB", r.SectorSize))
	}
	if r.Encrypted && r.SizeBytes > maxEncryptedSize {
		return withHint(fmt.Errorf("%w: size %d bytes is beyond what one XTS key may cover", ErrInvalid, r.SizeBytes),
			"use at most 256 TiB for an encrypted disk (IEEE 1619-2025)")
	}
	if r.GrowingTo != 0 {
		grown := *r
		grown.SizeBytes, grown.GrowingTo = r.GrowingTo, 0
		if err := grown.validateShape(); err != nil || r.GrowingTo < r.SizeBytes {
			return fmt.Errorf("%w: growing to %d bytes", ErrInvalid, r.GrowingTo)
		}
	}
	if r.Category != Cloud && r.Category != Local {
		return withHint(fmt.Errorf("%w: category %q", ErrInvalid, r.Category), "use cloud or local")
	}
	if r.Category == Local && r.Encrypted {
		return withHint(ErrLocalEncrypted, "use --category cloud, or leave encryption out")
	}
	if r.Role != System && r.Role != Data {
		return withHint(fmt.Errorf("%w: role %q", ErrInvalid, r.Role), "use system or data")
	}
	if r.Discard != DiscardUnmap && r.Discard != DiscardIgnore {
		return withHint(fmt.Errorf("%w: discard %q", ErrInvalid, r.Discard), "use unmap or ignore")
	}
	if r.Zeroes != ZeroesWrite && r.Zeroes != ZeroesUnmap {
		return withHint(fmt.Errorf("%w: zeroes %q", ErrInvalid, r.Zeroes), "use write or unmap")
	}
	if err := r.OnKeyLoss.Check(); err != nil {
		return err
	}
	if !r.Encrypted && r.OnKeyLoss != KeyLossKeep {
		return withHint(fmt.Errorf("%w: there is no key to lose", ErrNotEncrypted), "leave --on-key-loss out")
	}
	if len(r.Serial) > serialSize || !printable(r.Serial) {
		return withHint(fmt.Errorf("%w: serial %q", ErrInvalid, r.Serial), "use at most 20 printable ASCII characters")
	}
	_, err := parseBackend(r.Backend)
	return err
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

func (r *Record) encode() []byte {
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // a Record has no value that JSON cannot hold
	}
	return append(out, '\n')
}
