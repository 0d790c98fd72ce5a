package local

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
)

// chunkSize is how many bytes of a stream are sealed at a time. The last chunk is
// shorter, if need be empty, and no other is: so its length tells that it is the last.
const chunkSize = 64 << 10

// chunkAAD binds a chunk to its place and to what stands in front of the first one.
func chunkAAD(opening []byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(opening[:len(opening):len(opening)], number)
}

// chunkWriter seals a stream of any length.
type chunkWriter struct {
	to            io.Writer
	aead          cipher.AEAD
	opening       []byte
	number        uint64
	plain, sealed []byte
}

func newChunkWriter(to io.Writer, aead cipher.AEAD, opening []byte) *chunkWriter {
	return &chunkWriter{
		to: to, aead: aead, opening: opening,
		plain: make([]byte, 0, chunkSize), sealed: make([]byte, 0, chunkSize+sealOverhead),
	}
}

func (c *chunkWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		some := min(len(p)-n, chunkSize-len(c.plain))
		c.plain = append(c.plain, p[n:n+some]...)
		n += some
		if len(c.plain) < chunkSize {
			break
		}
		if err := c.finish(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// finish writes a chunk of what has gathered. Called at the end, it is the last.
func (c *chunkWriter) finish() error {
	sealed := c.aead.Seal(c.sealed, nil, c.plain, chunkAAD(c.opening, c.number))
	c.number++
	c.plain = c.plain[:0]
	_, err := c.to.Write(sealed)
	return err
}

// chunkReader opens what a chunkWriter sealed. It gives nothing that is not authentic;
// a stream that was cut ends with an error, not with io.EOF.
type chunkReader struct {
	from          io.Reader
	aead          cipher.AEAD
	opening       []byte
	number        uint64
	sealed, plain []byte
	rest          []byte // of plain, not read yet
	last          bool
}

func newChunkReader(from io.Reader, aead cipher.AEAD, opening []byte) *chunkReader {
	return &chunkReader{
		from: from, aead: aead, opening: opening,
		sealed: make([]byte, chunkSize+sealOverhead), plain: make([]byte, 0, chunkSize),
	}
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.last {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *chunkReader) next() error {
	n, err := io.ReadFull(c.from, c.sealed)
	if err != nil && !ended(err) {
		return fmt.Errorf("read backup: %w", err)
	}
	if n < sealOverhead {
		return badBackup("it was cut")
	}
	c.last = n < len(c.sealed)
	if c.rest, err = c.aead.Open(c.plain, nil, c.sealed[:n], chunkAAD(c.opening, c.number)); err != nil {
		return badBackup("it was altered or cut")
	}
	c.number++
	return nil
}
