package luks

import (
	"errors"
	"fmt"
	"io"
)

// What may be wrong with one copy.
var (
	errMagic    = errors.New("no LUKS2 magic")
	errChecksum = errors.New("checksum does not match")
)

// found is one copy, taken apart as far as it makes sense by itself.
type found struct {
	off uint64
	img image
	doc object
	err error
}

// Open reads the header of a disk. It never writes. See [Header.Warnings] for the
// state of the copies.
func Open(f io.ReaderAt) (*Header, error) {
	first, second := readCopies(f)
	if first.err != nil && second.err != nil {
		return nil, bothBad(first, second)
	}
	use, other := first, second
	if first.err != nil || second.err == nil && second.img.seqid() > first.img.seqid() {
		use, other = second, first
	}
	if other.err == nil {
		other.err = compare(use, other)
	}
	meta, err := interpret(use.doc, use.img.hdrSize())
	if err != nil {
		return nil, err
	}
	h := &Header{bin: use.img, doc: use.doc, meta: meta}
	for _, c := range []found{use, other} {
		h.copies[c.index()] = c.state(c.off == use.off)
	}
	return h, nil
}

func (c found) index() int {
	if c.off == 0 {
		return 0
	}
	return 1
}

func (c found) state(used bool) Copy {
	s := Copy{Offset: int64(c.off), Err: c.err, Used: used}
	if c.img != nil {
		s.Seqid = c.img.seqid()
	}
	return s
}

// compare says why the other copy, valid by itself, is not as good as the one in use.
func compare(use, other found) error {
	if a, b := use.img.seqid(), other.img.seqid(); a != b {
		return fmt.Errorf("it is older (sequence number %d, the other's is %d)", b, a)
	}
	if use.img.uuid() != other.img.uuid() || string(use.doc.encode()) != string(other.doc.encode()) {
		return errors.New("it differs from the other, with the same sequence number")
	}
	return nil
}

func bothBad(first, second found) error {
	if errors.Is(first.err, errMagic) && errors.Is(second.err, errMagic) {
		return ErrNoHeader
	}
	if errors.Is(first.err, versionError(1)) {
		return unsupported("it is LUKS1: convert it with \"cryptsetup convert --type luks2\"")
	}
	return fmt.Errorf("%w: first copy at byte 0: %w; second copy at byte %d: %w", ErrDamaged, first.err, second.off, second.err)
}

// readCopies finds both copies. Where the second one lies is the first one's size;
// when the first one cannot say, every legal place is tried.
func readCopies(f io.ReaderAt) (first, second found) {
	first = readCopy(f, 0)
	if first.err == nil {
		return first, readCopy(f, first.img.hdrSize())
	}
	for _, off := range hdrSizes {
		c := readCopy(f, off)
		if c.err == nil {
			return first, c
		}
		// What is reported is the place that looks most like a copy.
		if second.err == nil || errors.Is(second.err, errMagic) && !errors.Is(c.err, errMagic) && !errors.Is(c.err, io.ErrUnexpectedEOF) {
			second = c
		}
	}
	return first, second
}

// readCopy reads the copy at off and checks all that concerns it alone.
func readCopy(f io.ReaderAt, off uint64) found {
	c := found{off: off}
	var img image
	if img, c.err = readImage(f, off); c.err != nil {
		return c
	}
	var doc []byte
	if doc, c.err = img.json(); c.err != nil {
		return c
	}
	if c.doc, c.err = parseObject(doc); c.err == nil {
		c.img = img
	}
	return c
}

func readImage(f io.ReaderAt, off uint64) (image, error) {
	bin := make(image, binarySize)
	if err := readFull(f, bin, int64(off)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: %w", errMagic, err)
		}
		return nil, err
	}
	if err := bin.checkBinary(off); err != nil {
		return nil, err
	}
	img := make(image, bin.hdrSize())
	if err := readFull(f, img, int64(off)); err != nil {
		return nil, err
	}
	// The second read is the one that counts: the file may have changed.
	if img.hdrSize() != bin.hdrSize() {
		return nil, errChecksum
	}
	if err := img.checkBinary(off); err != nil {
		return nil, err
	}
	return img, img.checkSum()
}

// traces tells whether there is, or was, a LUKS header of any version.
func traces(f io.ReaderAt) (bool, error) {
	for _, off := range append([]uint64{0}, hdrSizes...) {
		var b [len(magicFirst)]byte
		err := readFull(f, b[:], int64(off))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("look for a LUKS header: %w", err)
		}
		if m := string(b[:]); off == 0 && m == magicFirst || off != 0 && m == magicSecond {
			return true, nil
		}
	}
	return false, nil
}
