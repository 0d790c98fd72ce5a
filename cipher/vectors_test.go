package cipher

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// vector is one data unit of a NIST or IEEE test.
type vector struct {
	name          string
	key           []byte
	lo, hi        uint64 // the tweak before encryption
	plain, secret []byte
}

func TestVectors(t *testing.T) {
	for _, file := range []struct {
		name string
		want int
	}{
		{"IEEE1619.rsp", 5},
		{"XTSGenAES256.rsp", 600},
		{"XTSGenAES256SeqNo.rsp", 600},
	} {
		vectors := readVectors(t, "testdata/"+file.name)
		if len(vectors) != file.want {
			t.Errorf("%s: read %d vectors, want %d", file.name, len(vectors), file.want)
		}
		forEachEngine(t, func(t *testing.T, e engine) {
			for _, v := range vectors {
				v.run(t, e)
			}
		})
	}
}

func (v *vector) run(t *testing.T, e engine) {
	t.Helper()
	if got := cryptUnit(t, e, v.key, v.plain, v.lo, v.hi, false); !bytes.Equal(got, v.secret) {
		t.Errorf("%s: encrypts to\n%x, want\n%x", v.name, got, v.secret)
	}
	if got := cryptUnit(t, e, v.key, v.secret, v.lo, v.hi, true); !bytes.Equal(got, v.plain) {
		t.Errorf("%s: decrypts to\n%x, want\n%x", v.name, got, v.plain)
	}
}

// cryptUnit runs one data unit of any number of blocks through the entry point of
// an engine. Engines take units that are a multiple of 256 bytes; in XTS a block
// does not depend on the ones after it, so the unit is padded and cut again.
func cryptUnit(t testing.TB, e engine, key, unit []byte, lo, hi uint64, decrypt bool) []byte {
	t.Helper()
	x := mustXTS(t, e, key, UnitMin)
	size := (len(unit) + 255) &^ 255
	buf := make([]byte, size)
	copy(buf, unit)
	if decrypt {
		decryptUnits(e, x.state, &buf[0], &buf[0], 1, uint64(size), lo, hi, 1, x.after(buf, nil))
	} else {
		encryptUnits(e, x.state, &buf[0], &buf[0], 1, uint64(size), lo, hi, x.after(buf, nil))
	}
	return buf[:len(unit)]
}

// readVectors reads a response file of NIST's CAVP.
func readVectors(t testing.TB, path string) (vectors []*vector) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " = ")
		switch {
		case strings.HasPrefix(name, "["):
			section = name
		case strings.HasPrefix(name, "#") || name == "":
		case name == "COUNT":
			vectors = append(vectors, &vector{name: path + section + value})
		default:
			if err := vectors[len(vectors)-1].set(name, value); err != nil {
				t.Fatalf("%s: %q: %v", path, lines.Text(), err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func (v *vector) set(name, value string) (err error) {
	switch name {
	case "DataUnitLen":
	case "DataUnitSeqNumber":
		_, err = fmt.Sscan(value, &v.lo)
	case "Key":
		v.key, err = hex.DecodeString(value)
	case "i":
		var tweak []byte
		tweak, err = hex.DecodeString(value)
		v.lo, v.hi = binary.LittleEndian.Uint64(tweak), binary.LittleEndian.Uint64(tweak[8:])
	case "PT":
		v.plain, err = hex.DecodeString(value)
	case "CT":
		v.secret, err = hex.DecodeString(value)
	default:
		err = fmt.Errorf("unknown field %q", name)
	}
	return err
}
