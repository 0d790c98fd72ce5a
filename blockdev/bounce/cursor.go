package bounce

// cursor is a place in a list of buffers.
type cursor struct{ buffer, offset int }

// rest is what is left of the buffer at the cursor; it is not empty as long as
// there are bytes left in the list.
func (c *cursor) rest(buffers [][]byte) []byte {
	for c.offset == len(buffers[c.buffer]) {
		c.buffer++
		c.offset = 0
	}
	return buffers[c.buffer][c.offset:]
}

// skip moves the cursor by n bytes.
func (c *cursor) skip(buffers [][]byte, n int) {
	for n > 0 {
		step := min(n, len(c.rest(buffers)))
		c.offset += step
		n -= step
	}
}

// take fills dst from the buffers.
func (c *cursor) take(dst []byte, buffers [][]byte) {
	for len(dst) > 0 {
		n := copy(dst, c.rest(buffers))
		c.offset += n
		dst = dst[n:]
	}
}

// put fills the buffers from src.
func (c *cursor) put(buffers [][]byte, src []byte) {
	for len(src) > 0 {
		n := copy(c.rest(buffers), src)
		c.offset += n
		src = src[n:]
	}
}

// gather fills mem, whole units, with the outgoing form of the bytes at the
// cursor. Runs of units that are whole in the buffers go through the transform
// into mem; units that lie across buffers are collected in mem first.
func gather(t Transform, unit int, mem []byte, buffers [][]byte, at *cursor, offset int64) {
	for pos := 0; pos < len(mem); {
		start := pos
		if src := at.rest(buffers); len(src) >= unit {
			n := min(len(src), len(mem)-pos) &^ (unit - 1)
			t.Outgoing(mem[pos:pos+n], src[:n], offset+int64(pos))
			at.offset += n
			pos += n
			continue
		}
		for pos < len(mem) && len(at.rest(buffers)) < unit {
			at.take(mem[pos:pos+unit], buffers)
			pos += unit
		}
		t.Outgoing(mem[start:pos], mem[start:pos], offset+int64(start))
	}
}

// scatter fills the bytes at the cursor with the incoming form of mem, whole
// units. Units that lie across buffers are transformed in mem. next is what is
// transformed after that.
func scatter(t Transform, unit int, mem []byte, buffers [][]byte, at *cursor, offset int64, next []byte) {
	for pos := 0; pos < len(mem); {
		start := pos
		if dst := at.rest(buffers); len(dst) >= unit {
			n := min(len(dst), len(mem)-pos) &^ (unit - 1)
			t.Incoming(dst[:n], mem[pos:pos+n], offset+int64(pos), or(mem[pos+n:], next))
			at.offset += n
			pos += n
			continue
		}
		for ahead := *at; pos < len(mem) && len(ahead.rest(buffers)) < unit; pos += unit {
			ahead.skip(buffers, unit)
		}
		t.Incoming(mem[start:pos], mem[start:pos], offset+int64(start), or(mem[pos:], next))
		at.put(buffers, mem[start:pos])
	}
}
