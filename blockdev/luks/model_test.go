package luks

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestModel runs random updates, damages, lost power and foreign writers against
// what the header should say.
func TestModel(t *testing.T) {
	fixedSeed(t)
	start := headOf(t, testParams(), testKey(1))
	rapid.Check(t, func(t *rapid.T) {
		m := &model{f: start.head(), tok: testToken(), seqid: 1, foreign: map[string]string{}}
		t.Repeat(map[string]func(*rapid.T){
			"":       m.check,
			"token":  m.setToken,
			"resize": m.resize,
			"damage": m.damage,
			"mend":   m.mend,
			"other":  m.otherWriter,
			"cut":    m.powerCut,
		})
	})
}

// fixedSeed makes a run repeatable, unless a seed is given by flag.
func fixedSeed(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.nofailfile": "true"} {
		fl := flag.Lookup(name)
		if fl == nil {
			t.Fatalf("rapid has no flag %s any more", name)
		}
		if fl.Value.String() == fl.DefValue {
			if err := fl.Value.Set(value); err != nil {
				t.Fatal(err)
			}
		}
	}
}

type model struct {
	f       *memFile
	tok     Token
	seqid   uint64
	foreign map[string]string
	bad     bool // one copy is bad
}

func (m *model) open(t *rapid.T) *Header {
	h, err := Open(m.f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (m *model) check(t *rapid.T) {
	h := m.open(t)
	tok, err := h.Token()
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := h.Size(); n != m.tok.Disk.Size || tok.Disk != m.tok.Disk || tok.KeyVersion != m.tok.KeyVersion {
		t.Fatalf("header says %+v and size %d, want %+v", tok, n, m.tok)
	}
	if h.Seqid() != m.seqid || (h.Warnings() != nil) != m.bad {
		t.Fatalf("seqid %d, want %d; warnings %q, want some: %v", h.Seqid(), m.seqid, h.Warnings(), m.bad)
	}
	tokens, _ := h.doc.section("tokens")
	for id, want := range m.foreign {
		if got, _ := tokens.get(id); string(got) != want {
			t.Fatalf("foreign token %s is %q, want %q", id, got, want)
		}
	}
}

func (m *model) update(t *rapid.T, change func(*Header) error) {
	if err := Update(m.f, m.open(t), change); err != nil {
		t.Fatal(err)
	}
	m.seqid++
	m.bad = false
}

func (m *model) setToken(t *rapid.T) {
	m.tok.KeyVersion = rapid.StringMatching(`[0-9a-zé<]{0,20}`).Draw(t, "version")
	m.update(t, func(h *Header) error { return h.SetToken(m.tok) })
}

func (m *model) resize(t *rapid.T) {
	m.tok.Disk.Size = rapid.Int64Range(1, 1<<39).Draw(t, "sectors") * 512
	m.update(t, func(h *Header) error { return h.Resize(m.tok.Disk.Size) })
}

func (m *model) mend(t *rapid.T) { m.update(t, nil) }

func (m *model) damage(t *rapid.T) {
	if m.bad {
		t.Skip("the other copy is bad already")
	}
	m.f.b[rapid.IntRange(0, 2*defaultHdrSize-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	m.bad = true
}

func (m *model) otherWriter(t *rapid.T) {
	id := fmt.Sprint(rapid.IntRange(1, 5).Draw(t, "id"))
	value := fmt.Sprintf(`{ "type" : "x", "keyslots":[], "n": %d.0 }`, rapid.IntRange(0, 99).Draw(t, "n"))
	m.foreign[id] = value
	m.update(t, func(h *Header) error {
		tokens, err := h.doc.section("tokens")
		h.doc = h.doc.with("tokens", tokens.with(id, []byte(value)).encode())
		return err
	})
}

// powerCut stops an update of the token after some sectors of its writes.
func (m *model) powerCut(t *rapid.T) {
	before := slices.Clone(m.f.b)
	m.f.events = nil
	tok := m.tok
	tok.KeyVersion = rapid.StringMatching(`[A-Z]{0,20}`).Draw(t, "version")
	if err := Update(m.f, m.open(t), func(h *Header) error { return h.SetToken(tok) }); err != nil {
		t.Fatal(err)
	}
	m.f.b = before
	m.replay(t, m.f.events, rapid.IntRange(0, len(m.f.events)).Draw(t, "events"))
	h := m.open(t)
	if now := h.Seqid(); now == m.seqid+1 {
		m.seqid, m.tok = now, tok
	}
	m.bad = h.Warnings() != nil
}

// replay does the first n events whole, and some sectors of the next.
func (m *model) replay(t *rapid.T, events []event, n int) {
	for _, e := range events[:n] {
		m.f.b = apply(m.f.b, e.off, e.data)
	}
	if n == len(events) {
		return
	}
	for _, s := range sectors(events[n]) {
		if rapid.Bool().Draw(t, "sector") {
			m.f.b = apply(m.f.b, s.off, s.data)
		}
	}
}
