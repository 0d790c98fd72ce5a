package blk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"sealblk/vhost/virtqueue"
)

// cut makes pieces of b as long as the bytes of sizes say, none of them empty.
func cut(b, sizes []byte) (pieces [][]byte) {
	for i := 0; len(b) > 0; i++ {
		n := len(b)
		if i < len(sizes) {
			n = min(n, 1+int(sizes[i]))
		}
		pieces = append(pieces, b[:n:n])
		b = b[n:]
	}
	return pieces
}

func TestParse(t *testing.T) {
	header := binary.LittleEndian.AppendUint64([]byte{1, 0, 0, 0, 9, 9, 9, 9}, 0x1122334455667788)
	chain := &virtqueue.Chain{
		Readable: cut(append(header, "data"...), []byte{3, 6, 7}),
		Writable: cut([]byte("in?"), []byte{1}),
	}
	r, err := parse(chain)
	if err != nil || !r.complete || r.typ != typeOut || r.sector != 0x1122334455667788 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := bytes.Join(r.out, nil); string(got) != "data" || r.outLen != 4 {
		t.Errorf("out %q, %d", got, r.outLen)
	}
	if got := bytes.Join(r.in, nil); string(got) != "in" || r.inLen != 2 || string(r.status) != "?" {
		t.Errorf("in %q, %d, status %q", got, r.inLen, r.status)
	}
}

// FuzzParse cuts a request anywhere and wants the same parts of it.
func FuzzParse(f *testing.F) {
	f.Add([]byte("0123456789abcdefdata"), []byte("data?"), []byte{3, 0, 200}, []byte{0, 0})
	f.Add([]byte("short"), []byte("?"), []byte{}, []byte{})
	f.Add([]byte{}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, readable, writable, cutR, cutW []byte) {
		chain := &virtqueue.Chain{Readable: cut(readable, cutR), Writable: cut(writable, cutW)}
		r, err := parse(chain)
		if errors.Is(err, ErrNoStatus) != (len(writable) == 0) {
			t.Fatalf("error %v with %d writable bytes", err, len(writable))
		}
		if err != nil {
			return
		}
		end := len(writable) - 1
		if len(r.status) != 1 || &r.status[0] != &writable[end] {
			t.Fatal("status is not the last writable byte")
		}
		if !bytes.Equal(bytes.Join(r.in, nil), writable[:end]) || r.inLen != uint64(end) {
			t.Fatal("in is not what precedes it")
		}
		if r.complete != (len(readable) >= headerSize) {
			t.Fatalf("complete %v with %d readable bytes", r.complete, len(readable))
		}
		if !r.complete {
			return
		}
		if r.typ != binary.LittleEndian.Uint32(readable) || r.sector != binary.LittleEndian.Uint64(readable[8:]) {
			t.Fatal("header is not the first 16 bytes")
		}
		if !bytes.Equal(bytes.Join(r.out, nil), readable[headerSize:]) || r.outLen != uint64(len(readable)-headerSize) {
			t.Fatal("out is not what follows the header")
		}
		for _, p := range append(r.in, r.out...) {
			if len(p) == 0 {
				t.Fatal("an empty piece")
			}
		}
	})
}
