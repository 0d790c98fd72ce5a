package wire

// find is findRaw for a string without an escape or a control character in it. encoding/json
// would leave copies of a key on the heap; this copies nothing.
func find(doc []byte, names ...string) ([]byte, bool) {
	text, ok := findRaw(doc, names...)
	return text, ok && isPlain(text)
}

// findRaw finds a string as it stands between its quotes.
func findRaw(doc []byte, names ...string) ([]byte, bool) {
	s := &scanner{rest: doc}
	for _, name := range names {
		if !s.enter(name) {
			return nil, false
		}
	}
	return s.text()
}

func isPlain(text []byte) bool {
	for _, c := range text {
		if c == '\\' || c < ' ' {
			return false
		}
	}
	return true
}

// scanner reads JSON from the front.
type scanner struct {
	rest []byte
	deep int
}

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\n' || s.rest[0] == '\t' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

// take reads one byte, if it is this one.
func (s *scanner) take(c byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// enter goes to the value of a name in the object that is next.
func (s *scanner) enter(name string) bool {
	if !s.take('{') {
		return false
	}
	for {
		key, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		if string(key) == name {
			return true
		}
		if !s.skip() || !s.take(',') {
			return false
		}
	}
}

// text reads a string; escapes stay as they are.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	for i := 0; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			found := s.rest[:i]
			s.rest = s.rest[i+1:]
			return found, true
		case '\\':
			i++
		}
	}
	return nil, false
}

// maxDepth of nesting in what is skipped.
const maxDepth = 100

// skip reads any value.
func (s *scanner) skip() bool {
	s.space()
	if len(s.rest) == 0 || s.deep > maxDepth {
		return false
	}
	switch s.rest[0] {
	case '"':
		_, ok := s.text()
		return ok
	case '{':
		return s.skipAll('{', '}', func() bool {
			_, ok := s.text()
			return ok && s.take(':') && s.skip()
		})
	case '[':
		return s.skipAll('[', ']', s.skip)
	}
	return s.skipWord()
}

// skipAll reads the members of an object or an array.
func (s *scanner) skipAll(begin, end byte, member func() bool) bool {
	s.deep++
	defer func() { s.deep-- }()
	if !s.take(begin) {
		return false
	}
	if s.take(end) {
		return true
	}
	for member() {
		if s.take(end) {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
	return false
}

// skipWord reads a number, true, false or null.
func (s *scanner) skipWord() bool {
	i := 0
	for i < len(s.rest) && isWord(s.rest[i]) {
		i++
	}
	s.rest = s.rest[i:]
	return i > 0
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'E'
}
