package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// The binary header: all numbers big-endian, strings padded with zeros.
const (
	binarySize = 4096

	offVersion   = 6
	offHdrSize   = 8
	offSeqid     = 16
	offLabel     = 24
	offCsumAlg   = 72
	offSalt      = 104
	offUUID      = 168
	offSubsystem = 208
	offHdrOffset = 256
	offCsum      = 448
	endCsum      = 512

	sizeLabel     = 48
	sizeCsumAlg   = 32
	sizeSalt      = 64
	sizeUUID      = 40
	sizeSubsystem = 48
)

const (
	magicFirst  = "LUKS\xba\xbe"
	magicSecond = "SKUL\xba\xbe"
	checksumAlg = "sha256"
)

// hdrSizes are the legal sizes of a copy, which are also the places where the
// second copy may lie.
var hdrSizes = []uint64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

// defaultHdrSize is the size of each copy that Format writes.
const defaultHdrSize = 16 << 10

// image is one copy as it lies on the disk: binary header and JSON area.
type image []byte

func (m image) seqid() uint64   { return binary.BigEndian.Uint64(m[offSeqid:]) }
func (m image) hdrSize() uint64 { return binary.BigEndian.Uint64(m[offHdrSize:]) }
func (m image) uuid() string    { return text(m[offUUID:][:sizeUUID]) }
func (m image) label() string   { return text(m[offLabel:][:sizeLabel]) }

// text is a padded string, made safe to print.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(b))
}

// checkBinary validates all of the binary header but its checksum. The file offset
// decides which magic is due.
func (m image) checkBinary(off uint64) error {
	magic := magicFirst
	if off != 0 {
		magic = magicSecond
	}
	if string(m[:len(magic)]) != magic {
		return errMagic
	}
	if v := binary.BigEndian.Uint16(m[offVersion:]); v != 2 {
		return versionError(v)
	}
	if !slices.Contains(hdrSizes, m.hdrSize()) {
		return fmt.Errorf("header size %d is not legal", m.hdrSize())
	}
	if off != 0 && m.hdrSize() != off {
		return fmt.Errorf("header size %d does not match its place at byte %d", m.hdrSize(), off)
	}
	if at := binary.BigEndian.Uint64(m[offHdrOffset:]); at != off {
		return fmt.Errorf("header for byte %d found at byte %d", at, off)
	}
	if alg := text(m[offCsumAlg:][:sizeCsumAlg]); alg != checksumAlg {
		return fmt.Errorf("checksum algorithm %q is not supported", alg)
	}
	return nil
}

// versionError is a header of another LUKS version.
type versionError uint16

func (v versionError) Error() string { return fmt.Sprintf("LUKS version %d, want 2", uint16(v)) }

// checksum covers the whole copy with the checksum field taken as zeros.
func (m image) checksum() [sha256.Size]byte {
	var zero [endCsum - offCsum]byte
	h := sha256.New()
	h.Write(m[:offCsum])
	h.Write(zero[:])
	h.Write(m[endCsum:])
	return [sha256.Size]byte(h.Sum(nil))
}

func (m image) checkSum() error {
	var want [endCsum - offCsum]byte
	sum := m.checksum()
	copy(want[:], sum[:])
	if subtle.ConstantTimeCompare(want[:], m[offCsum:endCsum]) != 1 {
		return errChecksum
	}
	return nil
}

// json is the text in the JSON area: it ends before the first zero byte, and only
// zeros follow.
func (m image) json() ([]byte, error) {
	doc, rest, ok := bytes.Cut(m[binarySize:], []byte{0})
	if !ok || !allZero(rest) {
		return nil, fmt.Errorf("JSON area is not terminated")
	}
	return doc, nil
}

// derive makes the copy for one place out of another copy's binary header: what is
// not ours to change (label, uuid, padding) stays. salt must be fresh.
func (m image) derive(off, seqid uint64, salt, doc []byte) image {
	n := make(image, m.hdrSize())
	copy(n, m[:binarySize])
	magic := magicFirst
	if off != 0 {
		magic = magicSecond
	}
	copy(n, magic)
	binary.BigEndian.PutUint64(n[offSeqid:], seqid)
	binary.BigEndian.PutUint64(n[offHdrOffset:], off)
	copy(n[offSalt:][:sizeSalt], salt)
	copy(n[binarySize:], doc)
	clear(n[offCsum:endCsum])
	sum := n.checksum()
	copy(n[offCsum:], sum[:])
	return n
}

// newBinary is the binary header of a new container.
func newBinary(uuid, label string) image {
	m := make(image, binarySize)
	binary.BigEndian.PutUint16(m[offVersion:], 2)
	binary.BigEndian.PutUint64(m[offHdrSize:], defaultHdrSize)
	copy(m[offLabel:][:sizeLabel], label)
	copy(m[offCsumAlg:][:sizeCsumAlg], checksumAlg)
	copy(m[offUUID:][:sizeUUID], uuid)
	copy(m[offSubsystem:][:sizeSubsystem], subsystem)
	return m
}
