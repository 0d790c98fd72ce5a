package file

import "golang.org/x/sys/unix"

// iovMax is the number of buffers that one system call takes (IOV_MAX).
const iovMax = 1024

// cursor is a place in a list of buffers.
type cursor struct {
	buf  int // index of the buffer
	skip int // bytes of it that are behind
}

// fill appends to iov the buffers from c on, as many as one system call takes, and
// a multiple of unit bytes unless the list ends before that.
func (c cursor) fill(iov []unix.Iovec, bufs [][]byte, unit int64) []unix.Iovec {
	var total int64
	skip := c.skip
	for _, b := range bufs[c.buf:] {
		b, skip = b[skip:], 0
		if len(b) == 0 {
			continue
		}
		if len(iov) == iovMax {
			return trim(iov, total%unit)
		}
		iov = append(iov, iovec(b))
		total += int64(len(b))
	}
	return iov
}

// trim takes excess bytes off the end.
func trim(iov []unix.Iovec, excess int64) []unix.Iovec {
	for excess > 0 {
		last := &iov[len(iov)-1]
		if int64(last.Len) > excess {
			last.SetLen(int(int64(last.Len) - excess))
			return iov
		}
		excess -= int64(last.Len)
		iov = iov[:len(iov)-1]
	}
	return iov
}

// advance moves c by n bytes, which are in the list.
func (c *cursor) advance(bufs [][]byte, n int64) {
	for n > 0 {
		left := int64(len(bufs[c.buf]) - c.skip)
		if n < left {
			c.skip += int(n)
			return
		}
		n -= left
		c.buf, c.skip = c.buf+1, 0
	}
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}
