package luks

import (
	"bytes"
	"errors"
	"math/rand"
	"slices"
	"testing"
)

const deviceSector = 512

// maxSubsets bounds the states tried between two syncs; below it all are tried.
const maxSubsets = 4096

// crashes calls check with every state that the file may be in after a power cut
// during the recorded events: the writes since the last sync have reached the medium
// in any subset of their sectors. durable counts the syncs that returned.
func crashes(t *testing.T, start []byte, events []event, check func(state []byte, durable int)) {
	t.Helper()
	rng := rand.New(rand.NewSource(1))
	base, durable := slices.Clone(start), 0
	var pending []event
	for _, e := range events {
		if e.data != nil {
			pending = append(pending, sectors(e)...)
			continue
		}
		tornStates(rng, base, pending, func(state []byte) { check(state, durable) })
		for _, p := range pending {
			base = apply(base, p.off, p.data)
		}
		pending = nil
		durable++
	}
	if pending != nil {
		t.Error("the last write was not synced")
	}
	check(base, durable)
}

func sectors(e event) []event {
	var s []event
	for i := 0; i < len(e.data); i += deviceSector {
		s = append(s, event{e.off + int64(i), e.data[i:min(i+deviceSector, len(e.data))]})
	}
	return s
}

// tornStates applies every subset of the sectors that differ from what is there.
func tornStates(rng *rand.Rand, base []byte, pending []event, check func([]byte)) {
	var differ []event
	for _, p := range pending {
		if end := int(p.off) + len(p.data); end > len(base) || !bytes.Equal(base[p.off:end], p.data) {
			differ = append(differ, p)
		}
	}
	all := 1 << min(len(differ), 62)
	for i := range min(all, maxSubsets) {
		pick := i
		if all > maxSubsets {
			pick = rng.Intn(all)
		}
		state := slices.Clone(base)
		for j, p := range differ {
			if pick>>min(j, 62)&1 == 1 {
				state = apply(state, p.off, p.data)
			}
		}
		check(state)
	}
}

// TestUpdateSurvivesPowerCut: from whole copies and from each kind of bad copy, at
// every moment the header is the old one or the new one, and it is the new one as
// soon as the first copy of it is durable.
func TestUpdateSurvivesPowerCut(t *testing.T) {
	for name, spoil := range map[string]func(f *memFile){
		"both good":    func(*memFile) {},
		"first bad":    func(f *memFile) { f.b[0x1003]++ },
		"second bad":   func(f *memFile) { f.b[0x5003]++ },
		"first older":  func(f *memFile) { makeOlder(t, f, 0) },
		"second older": func(f *memFile) { makeOlder(t, f, 0x4000) },
	} {
		t.Run(name, func(t *testing.T) {
			f := headOf(t, testParams(), testKey(1))
			spoil(f)
			f.events = nil
			start := slices.Clone(f.b)
			h := mustOpen(t, f)
			was := h.Seqid()
			next := testToken()
			next.KeyVersion = "3"
			next.WrappedKey = bytes.Repeat([]byte("new"), 100)
			if err := Update(f, h, func(h *Header) error { return h.SetToken(next) }); err != nil {
				t.Fatal(err)
			}
			seen := map[uint64]int{}
			crashes(t, start, f.events, func(state []byte, durable int) {
				h := mustOpen(t, &memFile{b: state})
				seen[h.Seqid()]++
				want := map[uint64]string{was: "2", was + 1: "3"}[h.Seqid()]
				// The last two syncs are those of the copies.
				left := syncs(f.events) - durable
				if got := mustToken(t, h).KeyVersion; got != want || left < 2 && got != "3" {
					t.Fatalf("after %d syncs: seqid %d with key version %q", durable, h.Seqid(), got)
				}
				if left == 0 && h.Warnings() != nil {
					t.Fatalf("after the update: %q", h.Warnings())
				}
			})
			if seen[was] < 2 || seen[was+1] < 2 {
				t.Errorf("states seen: %v; the simulation does not reach both headers", seen)
			}
		})
	}
}

// TestTwoPowerCuts: an update that a power cut undid must not come back when the
// next one is cut as well.
func TestTwoPowerCuts(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	start := slices.Clone(f.b)
	set := func(version string) func(*Header) error {
		return func(h *Header) error {
			tok := testToken()
			tok.KeyVersion = version
			return h.SetToken(tok)
		}
	}
	// Both are of one length, so that many of their sectors are the same.
	if err := Update(f, mustOpen(t, f), set("AA")); err != nil {
		t.Fatal(err)
	}
	crashes(t, start, f.events, func(state []byte, _ int) {
		f := &memFile{b: slices.Clone(state)}
		h := mustOpen(t, f)
		was := mustToken(t, h).KeyVersion
		if err := Update(f, h, set("AB")); err != nil {
			t.Fatal(err)
		}
		crashes(t, state, f.events, func(state []byte, _ int) {
			if got := mustToken(t, mustOpen(t, &memFile{b: state})).KeyVersion; got != was && got != "AB" {
				t.Fatalf("key version was %q, then AB was written and cut; it is %q", was, got)
			}
		})
	})
}

func syncs(events []event) int {
	n := 0
	for _, e := range events {
		if e.data == nil {
			n++
		}
	}
	return n
}

func makeOlder(t *testing.T, f *memFile, off int) {
	t.Helper()
	old := slices.Clone(f.b[off : off+0x4000])
	if err := Update(f, mustOpen(t, f), nil); err != nil {
		t.Fatal(err)
	}
	copy(f.b[off:], old)
}

// TestUpdateAfterPowerCut: whatever a power cut left, the next update ends with two
// good copies.
func TestUpdateAfterPowerCut(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	start := slices.Clone(f.b)
	if err := Update(f, mustOpen(t, f), func(h *Header) error { return h.Resize(4096) }); err != nil {
		t.Fatal(err)
	}
	n := 0
	crashes(t, start, f.events, func(state []byte, _ int) {
		if n++; n%7 != 0 {
			return
		}
		f := &memFile{b: state}
		h := mustOpen(t, f)
		size, _ := h.Size()
		if err := Update(f, h, nil); err != nil {
			t.Fatal(err)
		}
		h = mustOpen(t, f)
		if got, _ := h.Size(); got != size || h.Warnings() != nil || mustToken(t, h).Disk.Size != size {
			t.Fatalf("size %d became %d, warnings %q", size, got, h.Warnings())
		}
	})
}

// TestFormatSurvivesPowerCut: no header or the new one; over another disk's header,
// also the old one, and never a mixture.
func TestFormatSurvivesPowerCut(t *testing.T) {
	old := headOf(t, testParams(), testKey(2))
	oldUUID := mustOpen(t, old).UUID()
	for name, start := range map[string][]byte{"new file": nil, "over a header": old.b} {
		t.Run(name, func(t *testing.T) {
			f := &memFile{b: slices.Clone(start)}
			p := testParams()
			p.Overwrite = true
			p.UUID = "aaaaaaaa-0000-4000-8000-000000000001"
			if _, err := Format(f, p, testKey(1)); err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			crashes(t, start, shorten(f.events), func(state []byte, durable int) {
				seen[opened(t, state, map[string][]byte{oldUUID: testKey(2), p.UUID: testKey(1)})]++
			})
			if seen["none"] == 0 || seen[p.UUID] == 0 || start != nil && seen[oldUUID] == 0 {
				t.Errorf("states seen: %v", seen)
			}
		})
	}
}

// shorten leaves out the write that takes the space of the key slot area, 16 MiB
// away from what is tested.
func shorten(events []event) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.off > 1<<20 })
}

// opened is the UUID of the header in that state, checked with the key of that disk,
// or "none".
func opened(t *testing.T, state []byte, keys map[string][]byte) string {
	t.Helper()
	h, err := Open(&memFile{b: state})
	if errors.Is(err, ErrNoHeader) || errors.Is(err, ErrDamaged) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := h.VerifyKey(keys[h.UUID()]); err != nil {
		t.Fatal(err)
	}
	return h.UUID()
}

// TestEraseSurvivesPowerCut: until Erase is done the header opens or Erase can be run
// again; after it nothing is left.
func TestEraseSurvivesPowerCut(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	start := slices.Clone(f.b)
	if err := Erase(f); err != nil {
		t.Fatal(err)
	}
	n := 0
	crashes(t, start, f.events, func(state []byte, durable int) {
		n++
		left := &memFile{b: state}
		if err := Erase(left); err != nil && !errors.Is(err, ErrNoHeader) {
			t.Fatal(err)
		}
		if durable == syncs(f.events) && !allZero(state) {
			t.Fatal("Erase returned before all was gone")
		}
		if !allZero(left.b[:2*defaultHdrSize]) {
			t.Fatalf("after %d syncs: a second Erase did not finish", durable)
		}
	})
	if n < 10 {
		t.Errorf("%d states", n)
	}
}
