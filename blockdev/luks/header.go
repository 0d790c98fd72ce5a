package luks

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
)

// DataOffset is where the data of a disk begins when the header is in front of it,
// and how much room Format takes for a detached header.
const DataOffset = 16 << 20

// Header is the header of one disk, as it was when it was read.
type Header struct {
	// bin is the copy in use.
	bin    image
	doc    object
	meta   *metadata
	copies [2]Copy
}

// Copy is the state of one of the two copies.
type Copy struct {
	// Offset in the file, in bytes.
	Offset int64
	// Seqid counts updates; the higher one wins. 0 when the copy cannot be read.
	Seqid uint64
	// Used: the header was read from here.
	Used bool
	// Err says what is wrong with the copy; nil for a good one.
	Err error
}

// Extent is where the data of a disk lies.
type Extent struct {
	// Offset in the file and Size, in bytes. Size is a multiple of SectorSize.
	Offset, Size int64
	// SectorSize is the size of a data unit in bytes. The tweak counts 512-byte
	// sectors from 0 at Offset, whatever the size of a unit.
	SectorSize int
}

// UUID of the container.
func (h *Header) UUID() string { return h.bin.uuid() }

// Label of the container, for people.
func (h *Header) Label() string { return h.bin.label() }

// Seqid is the number of the update that wrote the header.
func (h *Header) Seqid() uint64 { return h.bin.seqid() }

// SectorSize is the size of a data unit in bytes: 512, 1024, 2048 or 4096.
func (h *Header) SectorSize() int { return h.meta.sectorSize }

// Detached tells that the data begins at byte 0, so that it must be in another file
// than the header.
func (h *Header) Detached() bool { return h.meta.offset == 0 }

// Size of the data in bytes, if the header fixes it. Ours do; one that cryptsetup
// made says "to the end of the device".
func (h *Header) Size() (int64, bool) { return h.meta.size, h.meta.size >= 0 }

// Keyslots are the ids of the key slots: each one is a passphrase, or a key file,
// that opens the disk without the KMS.
func (h *Header) Keyslots() []string { return append([]string(nil), h.meta.keyslots...) }

// Copies is the state of the two copies when the header was read.
func (h *Header) Copies() [2]Copy { return h.copies }

// Warnings says, one line each, what is wrong with a copy that is not in use. The
// next Update mends it.
func (h *Header) Warnings() []string {
	var w []string
	for i, c := range h.copies {
		if c.Err != nil {
			w = append(w, fmt.Sprintf("%s header copy at byte %d is not used: %v; the next update of the header rewrites it", ordinal(i), c.Offset, c.Err))
		}
	}
	return w
}

func ordinal(i int) string { return [...]string{"first", "second"}[i] }

// Data tells where the data lies in a file of that many bytes: the header's own
// file, or the data file of a detached header. It is ErrTooShort when the file does
// not hold all of it.
func (h *Header) Data(fileSize int64) (Extent, error) {
	e := Extent{Offset: h.meta.offset, Size: h.meta.size, SectorSize: h.meta.sectorSize}
	if e.Size < 0 {
		rest := fileSize - e.Offset
		e.Size = rest - rest%int64(e.SectorSize)
	}
	if e.Size <= 0 || e.Offset > fileSize-e.Size {
		return Extent{}, fmt.Errorf("%w: it has %d bytes, data of %d bytes begins at %d", ErrTooShort, fileSize, max(e.Size, 0), e.Offset)
	}
	return e, nil
}

// VerifyKey is the proof that dk is the key of the disk; it is ErrWrongKey when it
// is not, and ErrDigestPending when there is no proof yet. It takes constant time in the key and makes no copy of it on the heap.
func (h *Header) VerifyKey(dk []byte) error {
	if len(dk) != keySize {
		return ErrKey
	}
	if h.DigestPending() {
		return ErrDigestPending
	}
	return h.meta.digest.verify(dk)
}

// checkKey refuses keys that no disk may be made with.
func checkKey(dk []byte) error {
	if len(dk) != keySize || subtle.ConstantTimeCompare(dk[:keySize/2], dk[keySize/2:]) == 1 {
		return ErrKey
	}
	return nil
}

// Token is our token. It is ErrNoToken when there is none, and ErrToken when it
// contradicts the segment or there is more than one.
func (h *Header) Token() (Token, error) {
	id, err := h.tokenID()
	if err != nil {
		return Token{}, err
	}
	tokens, err := h.doc.section("tokens")
	if err != nil {
		return Token{}, damaged(err)
	}
	raw, _ := tokens.get(id)
	t, err := ParseToken(raw)
	if err != nil {
		return Token{}, err
	}
	return t, h.checkToken(&t)
}

func (h *Header) checkToken(t *Token) error {
	if t.Disk.SectorSize != h.meta.sectorSize {
		return fmt.Errorf("%w: sector size %d, the segment's is %d", ErrToken, t.Disk.SectorSize, h.meta.sectorSize)
	}
	if h.meta.size >= 0 && t.Disk.Size != h.meta.size {
		return fmt.Errorf("%w: size %d, the segment's is %d", ErrToken, t.Disk.Size, h.meta.size)
	}
	if t.DigestPending != h.DigestPending() {
		return fmt.Errorf("%w: token and digest disagree on whether the digest is pending", ErrToken)
	}
	return nil
}

// tokenID finds our token among the others.
func (h *Header) tokenID() (string, error) {
	tokens, err := h.doc.section("tokens")
	if err != nil {
		return "", damaged(err)
	}
	id, found := "", 0
	for _, t := range tokens {
		o, err := split(t.value)
		if err != nil {
			continue
		}
		if typ, err := o.str("type"); err == nil && typ == TokenType {
			id = t.name
			found++
		}
	}
	switch found {
	case 0:
		return "", ErrNoToken
	case 1:
		return id, nil
	}
	return "", fmt.Errorf("%w: the header has %d of them", ErrToken, found)
}

// SetToken puts our token into the header, in the place of the old one if there is
// one. Its size and sector size must be the segment's. The change reaches the disk
// by Update.
func (h *Header) SetToken(t Token) error {
	if err := h.checkToken(&t); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return h.putToken(&t)
}

func (h *Header) putToken(t *Token) error {
	tokens, err := h.doc.section("tokens")
	if err != nil {
		return damaged(err)
	}
	id, err := h.tokenID()
	if errors.Is(err, ErrNoToken) {
		id, err = freeTokenID(tokens)
	}
	if err != nil {
		return err
	}
	raw, err := t.encode(oldKeyslots(tokens, id))
	if err != nil {
		return err
	}
	h.doc = h.doc.with("tokens", tokens.with(id, raw).encode())
	return nil
}

// oldKeyslots is the list of key slots of a token that will be replaced.
func oldKeyslots(tokens object, id string) []byte {
	if old, err := tokens.section(id); err == nil {
		if _, err := old.strs("keyslots"); err == nil {
			raw, _ := old.get("keyslots")
			return raw
		}
	}
	return []byte("[]")
}

// maxTokens is how many tokens cryptsetup allows.
const maxTokens = 32

func freeTokenID(tokens object) (string, error) {
	for i := range maxTokens {
		id := strconv.Itoa(i)
		if _, ok := tokens.get(id); !ok {
			return id, nil
		}
	}
	return "", fmt.Errorf("%w: it has %d tokens", ErrFull, maxTokens)
}

// Resize changes the size of the data, in bytes, in the segment and in our token if
// there is one. The change reaches the disk by Update. The caller makes the file
// longer before that, or shorter after it.
func (h *Header) Resize(size int64) error {
	if size <= 0 || size%int64(h.meta.sectorSize) != 0 || h.meta.offset+size < 0 {
		return fmt.Errorf("%w: size %d is not a multiple of the sector size %d", ErrInvalid, size, h.meta.sectorSize)
	}
	if size/BlockSize > MaxKeyScopeBlocks {
		return fmt.Errorf("%w: size %d is more than one key may cover", ErrInvalid, size)
	}
	t, err := h.Token()
	none := errors.Is(err, ErrNoToken)
	if err != nil && !none {
		return err
	}
	segments, serr := h.doc.section("segments")
	if serr != nil {
		return damaged(serr)
	}
	segment, serr := segments.section(h.meta.segmentID)
	if serr != nil {
		return damaged(serr)
	}
	segment = segment.with("size", quoteSize(size))
	h.doc = h.doc.with("segments", segments.with(h.meta.segmentID, segment.encode()).encode())
	meta := *h.meta
	meta.size = size
	h.meta = &meta
	if none {
		return nil
	}
	t.Disk.Size = size
	if t.KeyScopeBlocks != 0 {
		t.KeyScopeBlocks = max(t.KeyScopeBlocks, t.Disk.Blocks())
	}
	return h.putToken(&t)
}
