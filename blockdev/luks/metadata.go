package luks

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	keySize = 64
	// maxKeyslotsSize is the bound that the specification gives the key slot area.
	maxKeyslotsSize = 128 << 20
	// dynamic is the segment size that means "to the end of the device".
	dynamic = "dynamic"

	encryption = "aes-xts-plain64"
	digestHash = "sha256"

	// minIterations is the least that LUKS allows. It guards a random key of 512
	// bits, which no number of guesses finds; a slow digest would only slow the
	// attach.
	minIterations = 1000
	// maxIterations bounds the time that a hostile header can cost to seconds.
	maxIterations = 10_000_000
	maxSalt       = 256
)

// metadata is what the JSON area says, checked, as far as a disk is served by it.
type metadata struct {
	segmentID  string
	offset     int64
	size       int64 // -1: dynamic
	sectorSize int

	digestID string
	digest   digest

	keyslots     []string
	keyslotsSize int64
}

// digest proves the volume key.
type digest struct {
	salt       []byte
	sum        [sha256.Size]byte
	iterations int
}

// interpret reads the metadata of a copy of the given size. Its errors are
// ErrUnsupported and ErrRequirement for what is valid but not for us, ErrDamaged for
// what no writer would have written.
func interpret(doc object, hdrSize uint64) (*metadata, error) {
	m := &metadata{}
	for _, read := range []func(*metadata, object, uint64) error{
		(*metadata).readConfig, (*metadata).readSegment, (*metadata).readKeyslots, (*metadata).readDigest, (*metadata).readTokens,
	} {
		if err := read(m, doc, hdrSize); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func damaged(err error) error { return fmt.Errorf("%w: %w", ErrDamaged, err) }

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

func (m *metadata) readConfig(doc object, hdrSize uint64) error {
	c, err := doc.section("config")
	if err != nil {
		return damaged(err)
	}
	if err := checkRequirements(c); err != nil {
		return err
	}
	jsonSize, err := c.size("json_size")
	if err != nil {
		return damaged(err)
	}
	if uint64(jsonSize) != hdrSize-binarySize {
		return damaged(fmt.Errorf("JSON area of %d bytes in a header of %d", jsonSize, hdrSize))
	}
	if m.keyslotsSize, err = c.size("keyslots_size"); err != nil {
		return damaged(err)
	}
	if m.keyslotsSize%binarySize != 0 || m.keyslotsSize > maxKeyslotsSize {
		return damaged(fmt.Errorf("key slot area of %d bytes", m.keyslotsSize))
	}
	return nil
}

// checkRequirements refuses every mandatory requirement: we know none.
func checkRequirements(config object) error {
	raw, ok := config.get("requirements")
	if !ok {
		return nil
	}
	req, err := split(raw)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrRequirement, raw)
	}
	if _, ok := req.get("mandatory"); !ok {
		return nil
	}
	list, err := req.strs("mandatory")
	if err != nil || len(list) > 0 {
		return fmt.Errorf("%w: %q", ErrRequirement, list)
	}
	return nil
}

func (m *metadata) readSegment(doc object, hdrSize uint64) error {
	all, err := doc.section("segments")
	if err != nil {
		return damaged(err)
	}
	if len(all) != 1 {
		return unsupported("it has %d data segments, want 1", len(all))
	}
	m.segmentID = all[0].name
	s, err := split(all[0].value)
	if err != nil {
		return damaged(fmt.Errorf("segment: %w", err))
	}
	if err := checkCipher(s); err != nil {
		return err
	}
	if err := m.readExtent(s); err != nil {
		return damaged(fmt.Errorf("segment: %w", err))
	}
	if end := 2*int64(hdrSize) + m.keyslotsSize; m.offset != 0 && m.offset < end {
		return damaged(fmt.Errorf("data at byte %d overlaps the header, which ends at %d", m.offset, end))
	}
	return nil
}

// checkCipher refuses what we would not decrypt as dm-crypt does.
func checkCipher(s object) error {
	for _, want := range []struct{ name, value string }{{"type", "crypt"}, {"encryption", encryption}, {"iv_tweak", "0"}} {
		got, err := s.str(want.name)
		if err != nil {
			return damaged(fmt.Errorf("segment: %w", err))
		}
		if got != want.value {
			return unsupported("segment has %s %q, want %q", want.name, got, want.value)
		}
	}
	if _, ok := s.get("integrity"); ok {
		return unsupported("segment has integrity protection")
	}
	if _, ok := s.get("flags"); ok {
		return unsupported("segment has flags")
	}
	return nil
}

func (m *metadata) readExtent(s object) error {
	n, err := s.number("sector_size")
	if err != nil {
		return err
	}
	if !slices.Contains([]int64{512, 1024, 2048, 4096}, n) {
		return fmt.Errorf("sector size %d", n)
	}
	m.sectorSize = int(n)
	if m.offset, err = s.size("offset"); err != nil {
		return err
	}
	if m.offset%512 != 0 {
		return fmt.Errorf("offset %d is not a multiple of 512", m.offset)
	}
	if v, err := s.str("size"); err == nil && v == dynamic {
		m.size = -1
		return nil
	}
	if m.size, err = s.size("size"); err != nil {
		return err
	}
	if m.size == 0 || m.size%n != 0 || m.offset+m.size < 0 {
		return fmt.Errorf("size %d at offset %d with sectors of %d", m.size, m.offset, n)
	}
	return nil
}

func (m *metadata) readKeyslots(doc object, _ uint64) error {
	all, err := doc.section("keyslots")
	if err != nil {
		return damaged(err)
	}
	for _, k := range all {
		m.keyslots = append(m.keyslots, k.name)
	}
	return nil
}

// readDigest finds the one digest of the segment. Others guard keys that are not
// for data.
func (m *metadata) readDigest(doc object, _ uint64) error {
	all, err := doc.section("digests")
	if err != nil {
		return damaged(err)
	}
	found := 0
	for _, d := range all {
		o, err := split(d.value)
		if err != nil {
			return damaged(fmt.Errorf("digest %q: %w", d.name, err))
		}
		segments, err := o.strs("segments")
		if err != nil {
			return damaged(fmt.Errorf("digest %q: %w", d.name, err))
		}
		if !slices.Contains(segments, m.segmentID) {
			continue
		}
		found++
		m.digestID = d.name
		if err := m.readVolumeDigest(doc, o); err != nil {
			return err
		}
	}
	if found != 1 {
		return damaged(fmt.Errorf("%d digests for the data segment, want 1", found))
	}
	return nil
}

func (m *metadata) readVolumeDigest(doc, o object) error {
	for _, want := range []struct{ name, value string }{{"type", "pbkdf2"}, {"hash", digestHash}} {
		got, err := o.str(want.name)
		if err != nil {
			return damaged(fmt.Errorf("digest: %w", err))
		}
		if got != want.value {
			return unsupported("digest has %s %q, want %q", want.name, got, want.value)
		}
	}
	if err := m.digest.read(o); err != nil {
		return damaged(fmt.Errorf("digest: %w", err))
	}
	return checkKeySize(doc, o)
}

func (d *digest) read(o object) error {
	n, err := o.number("iterations")
	if err != nil {
		return err
	}
	if n < minIterations || n > maxIterations {
		return fmt.Errorf("%d iterations, want %d to %d", n, minIterations, maxIterations)
	}
	d.iterations = int(n)
	if d.salt, err = o.base64("salt"); err != nil {
		return err
	}
	if len(d.salt) == 0 || len(d.salt) > maxSalt {
		return fmt.Errorf("salt of %d bytes", len(d.salt))
	}
	sum, err := o.base64("digest")
	if err != nil {
		return err
	}
	if len(sum) != len(d.sum) {
		return fmt.Errorf("%d bytes long, want %d", len(sum), len(d.sum))
	}
	copy(d.sum[:], sum)
	return nil
}

// checkKeySize: only a key slot tells the size of the volume key, so each slot of
// the segment's digest is asked.
func checkKeySize(doc, o object) error {
	slots, err := o.strs("keyslots")
	if err != nil {
		return damaged(fmt.Errorf("digest: %w", err))
	}
	all, err := doc.section("keyslots")
	if err != nil {
		return damaged(err)
	}
	for _, id := range slots {
		k, err := all.section(id)
		if err != nil {
			return damaged(fmt.Errorf("digest: key slot: %w", err))
		}
		n, err := k.number("key_size")
		if err != nil {
			return damaged(fmt.Errorf("key slot %q: %w", id, err))
		}
		if n != keySize {
			return unsupported("volume key of %d bits, want %d", n*8, keySize*8)
		}
	}
	return nil
}

// readTokens only checks that there is an object; tokens are opaque until one is asked for.
func (m *metadata) readTokens(doc object, _ uint64) error {
	if _, err := doc.section("tokens"); err != nil {
		return damaged(err)
	}
	return nil
}

func (o object) base64(name string) ([]byte, error) {
	s, err := o.str(name)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%q is not base64", name)
	}
	return b, nil
}

// newMetadata is the JSON of a new container.
func newMetadata(t *Token, offset int64, d digest) (object, error) {
	token, err := t.encode([]byte("[]"))
	if err != nil {
		return nil, err
	}
	one := func(key string, value []byte) []byte { return object(nil).with(key, value).encode() }
	segment := object(nil).
		with("type", quote("crypt")).
		with("offset", quoteSize(offset)).
		with("size", quoteSize(t.Disk.Size)).
		with("iv_tweak", quote("0")).
		with("encryption", quote(encryption)).
		with("sector_size", []byte(strconv.Itoa(t.Disk.SectorSize)))
	return object(nil).
		with("keyslots", []byte("{}")).
		with("tokens", one("0", token)).
		with("segments", one("0", segment.encode())).
		with("digests", one("0", d.encode("0"))).
		with("config", object(nil).
			with("json_size", quoteSize(defaultHdrSize-binarySize)).
			with("keyslots_size", quoteSize(DataOffset-2*defaultHdrSize)).
			encode()), nil
}

func (d *digest) encode(segment string) []byte {
	// An array of one string always encodes.
	segments, _ := json.Marshal([]string{segment})
	return object(nil).
		with("type", quote("pbkdf2")).
		with("keyslots", []byte("[]")).
		with("segments", segments).
		with("hash", quote(digestHash)).
		with("iterations", []byte(strconv.Itoa(d.iterations))).
		with("salt", quoteBytes(d.salt)).
		with("digest", quoteBytes(d.sum[:])).
		encode()
}

func quoteSize(n int64) []byte { return quote(strconv.FormatInt(n, 10)) }
