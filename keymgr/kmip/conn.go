package kmip

import (
	"encoding/binary"
	"net"
)

// conn is a connection that wipes the buffers of the client library behind it. The
// library makes a new buffer for each message, decodes copies out of it and forgets it;
// messages carry data keys and wrapping keys.
//
// The library reads from one goroutine, and one message at a time: when it asks for the
// first bytes of the next message it is done with the last one.
type conn struct {
	net.Conn
	header [8]byte  // of the message that is being read: tag, type, length
	have   int      // bytes of it that are there
	left   int      // bytes of the message behind the header that are not there yet
	filled [][]byte // what was read of this message
}

// Write sends p and wipes it: nobody looks at a message that was sent. It never fails:
// of a failure the library's writer would tell a caller that may have gone, and wait for
// it for ever. The reader hears of it.
func (c *conn) Write(p []byte) (int, error) {
	defer clear(p)
	if _, err := c.Conn.Write(p); err != nil {
		c.Conn.Close()
	}
	return len(p), nil
}

func (c *conn) Read(p []byte) (int, error) {
	if c.have == len(c.header) && c.left == 0 {
		c.wipe()
	}
	n, err := c.Conn.Read(p)
	c.filled = append(c.filled, p[:n])
	c.follow(p[:n])
	return n, err
}

func (c *conn) wipe() {
	for _, p := range c.filled {
		clear(p)
	}
	c.filled, c.have = nil, 0
}

// follow keeps count of where in a message the reader is. The library never reads
// beyond the end of one.
func (c *conn) follow(p []byte) {
	if c.have < len(c.header) {
		n := copy(c.header[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have < len(c.header) {
			return
		}
		length := int(binary.BigEndian.Uint32(c.header[4:]))
		c.left = (length + 7) &^ 7
	}
	c.left -= min(c.left, len(p))
}
