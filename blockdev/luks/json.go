package luks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// maxDepth is how deep the metadata may nest. The specification's objects need six
// levels; json-c, which cryptsetup uses, stops at 32.
const maxDepth = 32

// object is a JSON object that keeps the order and the very bytes of its members,
// so that what we do not understand is written back as it was.
type object []member

type member struct {
	name string
	// key and value are JSON text.
	key, value []byte
}

var (
	errNotJSON   = errors.New("metadata is not valid JSON")
	errTooDeep   = errors.New("metadata nests too deep")
	errNotObject = errors.New("metadata has another value where an object is due")
)

// parseObject checks JSON text from outside and splits it.
func parseObject(raw []byte) (object, error) {
	if depth(raw) > maxDepth {
		return nil, errTooDeep
	}
	if !json.Valid(raw) {
		return nil, errNotJSON
	}
	return split(raw)
}

// depth is the nesting of the text, valid or not. It bounds the recursion of what
// looks at the text later.
func depth(raw []byte) int {
	n, deepest := 0, 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			i = stringEnd(raw, i) - 1
		case '{', '[':
			n++
			deepest = max(deepest, n)
		case '}', ']':
			n--
		}
	}
	return deepest
}

// split takes valid JSON text apart, one level of it.
func split(raw []byte) (object, error) {
	i := skipSpace(raw, 0)
	if raw[i] != '{' {
		return nil, errNotObject
	}
	var o object
	seen := make(map[string]bool)
	for i = skipSpace(raw, i+1); raw[i] != '}'; {
		end := stringEnd(raw, i)
		m := member{key: raw[i:end]}
		i = skipSpace(raw, end)
		i = skipSpace(raw, i+1) // the colon
		end = valueEnd(raw, i)
		m.value = raw[i:end]
		if err := json.Unmarshal(m.key, &m.name); err != nil {
			return nil, errNotJSON
		}
		if seen[m.name] {
			return nil, fmt.Errorf("metadata has two members %q", m.name)
		}
		seen[m.name] = true
		o = append(o, m)
		if i = skipSpace(raw, end); raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return o, nil
}

func skipSpace(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\r' || raw[i] == '\n') {
		i++
	}
	return i
}

// stringEnd is the index behind the string that starts at i.
func stringEnd(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

// valueEnd is the index behind the value that starts at i.
func valueEnd(raw []byte, i int) int {
	nested := 0
	for i < len(raw) {
		switch raw[i] {
		case '"':
			i = stringEnd(raw, i)
		case '{', '[':
			nested++
			i++
		case '}', ']':
			nested--
			i++
		default:
			i = scalarEnd(raw, i)
		}
		if nested == 0 {
			return i
		}
	}
	return i
}

// scalarEnd passes a number or literal; inside an array or object it passes the
// punctuation and the space between values too, at least one byte.
func scalarEnd(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		if bytes.IndexByte([]byte(",]}{[\" \t\r\n"), raw[i]) >= 0 {
			return i
		}
	}
	return i
}

func (o object) get(name string) ([]byte, bool) {
	for _, m := range o {
		if m.name == name {
			return m.value, true
		}
	}
	return nil, false
}

// with returns the object with one member set, in its old place if it had one.
func (o object) with(name string, value []byte) object {
	n := append(object(nil), o...)
	for i := range n {
		if n[i].name == name {
			n[i].value = value
			return n
		}
	}
	return append(n, member{name: name, key: quote(name), value: value})
}

// section is a member that is an object itself.
func (o object) section(name string) (object, error) {
	raw, ok := o.get(name)
	if !ok {
		return nil, fmt.Errorf("metadata has no %q", name)
	}
	s, err := split(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (o object) encode() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(m.key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// quote is a string as JSON text, without the escapes for HTML.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// A string always encodes, into a buffer always.
	_ = enc.Encode(s)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func (o object) str(name string) (string, error) {
	var s string
	return s, o.decode(name, '"', &s)
}

func (o object) strs(name string) ([]string, error) {
	var s []*string
	if err := o.decode(name, '[', &s); err != nil {
		return nil, err
	}
	out := make([]string, len(s))
	for i, p := range s {
		if p == nil {
			return nil, fmt.Errorf("%q holds a null", name)
		}
		out[i] = *p
	}
	return out, nil
}

// decode reads a member whose text starts with first.
func (o object) decode(name string, first byte, to any) error {
	raw, ok := o.get(name)
	if !ok {
		return fmt.Errorf("%q is missing", name)
	}
	if raw[0] != first || json.Unmarshal(raw, to) != nil {
		return fmt.Errorf("%q has a value of the wrong type", name)
	}
	return nil
}

// number is a small number, written as one.
func (o object) number(name string) (int64, error) {
	raw, ok := o.get(name)
	if !ok {
		return 0, fmt.Errorf("%q is missing", name)
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a whole number in range", name)
	}
	return n, nil
}

// size is a 64-bit number, which LUKS2 writes as a string of decimals. No disk
// needs more than 63 bits.
func (o object) size(name string) (int64, error) {
	s, err := o.str(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of bytes in range", name)
	}
	return int64(n), nil
}
