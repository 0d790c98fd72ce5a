package luks

import (
	"crypto/rand"
	"fmt"
	"math"
)

// MaxLabel is the length of the longest label, in bytes.
const MaxLabel = sizeLabel - 1

// subsystem marks our containers in the binary header, where udev shows it.
const subsystem = "sealblk"

// Params is what Format needs to know besides the key. The size of the data and of
// its sectors are the token's.
type Params struct {
	// UUID of the container; empty for a random one.
	UUID string
	// Label for people, at most MaxLabel bytes.
	Label string
	// Detached: the data is in another file, from its byte 0.
	Detached bool
	// Iterations of the digest; 0 for the least that LUKS allows, 1000.
	Iterations int
	Token      Token
	// Overwrite allows to destroy a LUKS header, and with it the data it is for.
	Overwrite bool
}

// Format writes the header of a new disk in front of its data, or into a file of
// its own. It clears the whole header area and makes the file as long as that; the
// data area is not touched. dk is read in place. Interrupted, it leaves the
// header that was there before, none that opens, or the new one.
func Format(f File, p Params, dk []byte) (*Header, error) {
	if err := checkKey(dk); err != nil {
		return nil, err
	}
	p.Token.DigestPending = false
	return format(f, p, func(iterations int) (digest, error) { return newDigest(dk, iterations) })
}

func format(f File, p Params, newDigest func(iterations int) (digest, error)) (*Header, error) {
	first, second, err := p.images(newDigest)
	if err != nil {
		return nil, err
	}
	if err := refuseExisting(f, p.Overwrite); err != nil {
		return nil, err
	}
	if err := clearArea(f); err != nil {
		return nil, err
	}
	if err := writeCopy(f, second, defaultHdrSize); err != nil {
		return nil, err
	}
	if err := writeCopy(f, first, 0); err != nil {
		return nil, err
	}
	return Open(f)
}

func refuseExisting(f File, overwrite bool) error {
	if overwrite {
		return nil
	}
	there, err := traces(f)
	if err != nil {
		return err
	}
	if there {
		return ErrExists
	}
	return nil
}

// clearArea zeroes the header area and takes its space in the file.
func clearArea(f File) error {
	end, err := eraseArea(f, DataOffset)
	if err != nil {
		return err
	}
	if end == DataOffset {
		return nil
	}
	if _, err := f.WriteAt(make([]byte, binarySize), DataOffset-binarySize); err != nil {
		return fmt.Errorf("extend file to %d bytes: %w", int64(DataOffset), err)
	}
	return nil
}

// images makes both copies of a new header. All that can be wrong with the
// parameters is found here, before anything is written.
func (p *Params) images(newDigest func(iterations int) (digest, error)) (first, second image, err error) {
	if err := p.complete(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	d, err := newDigest(p.Iterations)
	if err != nil {
		return nil, nil, err
	}
	offset := int64(DataOffset)
	if p.Detached {
		offset = 0
	}
	doc, err := newMetadata(&p.Token, offset, d)
	if err != nil {
		return nil, nil, err
	}
	return encode(newBinary(p.UUID, p.Label), doc, 1)
}

func (p *Params) complete() error {
	if p.UUID == "" {
		p.UUID = newUUID()
	}
	if !validUUID(p.UUID) {
		return fmt.Errorf("UUID %q", p.UUID)
	}
	if len(p.Label) > MaxLabel || text([]byte(p.Label)) != p.Label {
		return fmt.Errorf("label %q is not printable text of at most %d bytes", p.Label, MaxLabel)
	}
	if p.Iterations == 0 {
		p.Iterations = minIterations
	}
	if p.Iterations < minIterations || p.Iterations > maxIterations {
		return fmt.Errorf("%d iterations, want %d to %d", p.Iterations, minIterations, maxIterations)
	}
	if p.Token.Disk.Size > math.MaxInt64-DataOffset {
		return fmt.Errorf("size %d", p.Token.Disk.Size)
	}
	return nil
}

// encode makes both copies of a header and checks that they will be read again.
func encode(bin image, doc object, seqid uint64) (first, second image, err error) {
	text := doc.encode()
	if room := bin.hdrSize() - binarySize - 1; uint64(len(text)) > room {
		return nil, nil, fmt.Errorf("%w: it would take %d of %d bytes", ErrFull, len(text), room)
	}
	again, err := parseObject(text)
	if err != nil {
		return nil, nil, err
	}
	if _, err := interpret(again, bin.hdrSize()); err != nil {
		return nil, nil, err
	}
	var salt [2 * sizeSalt]byte
	rand.Read(salt[:])
	return bin.derive(0, seqid, salt[:sizeSalt], text), bin.derive(bin.hdrSize(), seqid, salt[sizeSalt:], text), nil
}

// writeCopy writes one copy and waits until it is durable.
func writeCopy(f File, img image, off int64) error {
	if _, err := f.WriteAt(img, off); err != nil {
		return fmt.Errorf("write header copy at byte %d: %w", off, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync header copy at byte %d: %w", off, err)
	}
	return nil
}

// Update reads the header again, so that what others wrote since is kept, lets
// change alter it, and writes both copies under a new sequence number. A copy that
// was bad is mended by that; change may be nil for nothing but the mending. h is the
// new header afterwards.
//
// If change fails or the result is refused, nothing is written. If a write or sync
// fails, the old header or the new one is in effect: h is not changed, and the
// caller opens the header again to find out which.
func Update(f File, h *Header, change func(*Header) error) error {
	cur, err := Open(f)
	if err != nil {
		return fmt.Errorf("update header: %w", err)
	}
	if cur.UUID() != h.UUID() {
		return ErrChanged
	}
	if cur.Seqid() == math.MaxUint64 {
		return unsupported("its sequence number is used up")
	}
	if change != nil {
		if err := change(cur); err != nil {
			return err
		}
	}
	first, second, err := encode(cur.bin, cur.doc, cur.Seqid()+1)
	if err != nil {
		return err
	}
	if err := invalidate(f, cur.copies); err != nil {
		return err
	}
	if err := writeBoth(f, first, second, cur.copies[0].Used); err != nil {
		return err
	}
	if cur, err = Open(f); err != nil {
		return fmt.Errorf("read updated header: %w", err)
	}
	*h = *cur
	return nil
}

// invalidate takes the head off a bad copy before it is written again. A copy that a
// power cut left torn holds sectors of the update of that time; if this update is torn
// too, they could make that forgotten one whole, with a good checksum.
func invalidate(f File, copies [2]Copy) error {
	for _, c := range copies {
		if c.Err == nil {
			continue
		}
		if err := writeCopy(f, make(image, binarySize), c.Offset); err != nil {
			return fmt.Errorf("invalidate: %w", err)
		}
	}
	return nil
}

// writeBoth keeps the copy in use as it is until the other one is durable. That one
// may be the only good one, so its place does not decide the order.
func writeBoth(f File, first, second image, firstUsed bool) error {
	at := int64(first.hdrSize())
	if firstUsed {
		if err := writeCopy(f, second, at); err != nil {
			return err
		}
		return writeCopy(f, first, 0)
	}
	if err := writeCopy(f, first, 0); err != nil {
		return err
	}
	return writeCopy(f, second, at)
}

// newUUID is a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}
