package frontend

import "fmt"

// Request is one block request: a slot that its user fills, submits and gets back
// from Poll, again and again.
type Request struct {
	// Type is one of the Type constants, or anything else to see it refused.
	Type uint32
	// Sector is where the request begins, in units of 512 bytes.
	Sector uint64
	// Length is how many bytes of Data are transferred.
	Length int
	// Data is the request's own buffer in guest memory.
	Data []byte
	// Segments replaces Data[:Length] by any guest memory when it is not nil.
	Segments []Segment
	// Tag is the user's own.
	Tag uint64

	// Status is the device's answer; set by Poll.
	Status byte
	// Written is how many bytes the device says it wrote, status included; set by
	// Poll.
	Written uint32

	header, data, status Block
}

// dataAlign lets the data of a request begin at a page.
const dataAlign = 4096

// NewRequest allocates a request with a buffer of n bytes. Header, data and status
// adjoin in guest memory.
func NewRequest(m *Memory, n int) (*Request, error) {
	b, err := m.Alloc(uint64(dataAlign+n+statusSize), dataAlign)
	if err != nil {
		return nil, fmt.Errorf("allocate request: %w", err)
	}
	r := &Request{
		Length: n,
		header: b.Part(dataAlign-headerSize, headerSize),
		data:   b.Part(dataAlign, uint64(n)),
		status: b.Part(uint64(dataAlign+n), statusSize),
	}
	r.Data = r.data.Bytes
	return r, nil
}

// Err is the request's outcome as an error.
func (r *Request) Err() error { return statusError(r.Status) }

func statusError(status byte) error {
	switch status {
	case StatusOK:
		return nil
	case StatusIOErr:
		return ErrIO
	case StatusUnsupp:
		return ErrUnsupported
	case statusUnset:
		return fmt.Errorf("request was returned without a status: %w", ErrBackend)
	}
	return fmt.Errorf("request was returned with status %d: %w", status, ErrBackend)
}

// prepare fills header and status and appends the chain to dst. The first readable
// segments of it are for the device to read.
func (r *Request) prepare(dst []Segment, scratch *parts, f Framing) (chain []Segment, readable int) {
	putHeader(r.header.Bytes, r.Type, r.Sector)
	r.status.Bytes[0] = statusUnset
	out, in := scratch.out[:0], scratch.in[:0]
	out = append(out, r.header.Segment())
	if deviceReads(r.Type) {
		out = r.appendData(out)
	} else {
		in = r.appendData(in)
	}
	in = append(in, r.status.Segment())
	scratch.out, scratch.in = out, in
	chain = f(dst, out)
	readable = len(chain)
	return appendFramed(chain, in, f), readable
}

// parts is memory for prepare that lives as long as the queue.
type parts struct{ out, in []Segment }

// appendFramed frames behind dst. A framing looks at what it appended last, so it
// gets an empty slice of the same array.
func appendFramed(dst, parts []Segment, f Framing) []Segment {
	tail := f(dst[len(dst):], parts)
	return append(dst, tail...)
}

func (r *Request) appendData(dst []Segment) []Segment {
	if r.Segments != nil {
		return append(dst, r.Segments...)
	}
	if r.Length == 0 {
		return dst
	}
	return append(dst, Segment{Addr: r.data.GuestAddr, Len: uint32(r.Length)})
}

// complete takes the device's answer.
func (r *Request) complete(written uint32) {
	r.Status, r.Written = r.status.Bytes[0], written
}
