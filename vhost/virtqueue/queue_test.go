package virtqueue

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestRefusedConfigs(t *testing.T) {
	table := newMemory(t)
	good := func() Config {
		return Config{
			Size:  8,
			Desc:  user(t, table, ringUser, DescTableSize(8)),
			Avail: user(t, table, ringUser+0x1002, AvailSize(8)),
			Used:  user(t, table, ringUser+0x2004, UsedSize(8)),
		}
	}
	if _, err := New(good(), table); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		bad  func(*Config)
		want error
	}{
		{"size 0", func(c *Config) { c.Size = 0 }, ErrSize},
		{"size 6", func(c *Config) { c.Size = 6 }, ErrSize},
		{"size 65536", func(c *Config) { c.Size = 65536 }, ErrSize},
		{"another size", func(c *Config) { c.Size = 16 }, ErrLength},
		{"short used ring", func(c *Config) { c.Used = c.Used[:len(c.Used)-2] }, ErrLength},
		{"table at 8", func(c *Config) { c.Desc = user(t, table, ringUser+8, DescTableSize(8)) }, ErrAlignment},
		{"avail ring at 1", func(c *Config) { c.Avail = user(t, table, ringUser+0x1001, AvailSize(8)) }, ErrAlignment},
		{"used ring at 2", func(c *Config) { c.Used = user(t, table, ringUser+0x2002, UsedSize(8)) }, ErrAlignment},
	} {
		cfg := good()
		c.bad(&cfg)
		if _, err := New(cfg, table); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

func TestBrokenRings(t *testing.T) {
	t.Run("head outside the table", func(t *testing.T) {
		r := newTestRing(t, 8)
		r.offer(8)
		if ok, err := r.Pop(NewChain(1)); ok || !errors.Is(err, ErrHead) {
			t.Fatalf("Pop: %v, %v", ok, err)
		}
	})
	t.Run("index too far ahead", func(t *testing.T) {
		r := newTestRing(t, 8, startAt(65530))
		r.setAvailIdx(r.idx + 9)
		if ok, err := r.Pop(NewChain(1)); ok || !errors.Is(err, ErrAvailIdx) {
			t.Fatalf("Pop: %v, %v", ok, err)
		}
		if _, err := r.EnableKicks(); !errors.Is(err, ErrAvailIdx) {
			t.Fatalf("EnableKicks: %v", err)
		}
	})
	t.Run("index goes back", func(t *testing.T) {
		r := newTestRing(t, 8, startAt(100))
		r.setAvailIdx(99)
		if ok, err := r.Pop(NewChain(1)); ok || !errors.Is(err, ErrAvailIdx) {
			t.Fatalf("Pop: %v, %v", ok, err)
		}
	})
}

func TestOneChainRoundTrip(t *testing.T) {
	r := newTestRing(t, 8, startAt(65535))
	c := NewChain(2)
	if ok, err := r.Pop(c); ok || err != nil {
		t.Fatalf("Pop of an empty ring: %v, %v", ok, err)
	}
	if r.Publish() {
		t.Fatal("a notification for nothing")
	}
	r.setDesc(5, Desc{bufGuest, 8, write, 0})
	r.offer(5)
	r.mustPop(c)
	copy(c.Writable[0], "abcdefgh")
	r.PushUsed(c.Head, 8)
	if r.usedIdxSeen() != 65535 {
		t.Fatal("the driver sees the element before it is published")
	}
	if !r.Publish() {
		t.Fatal("no notification")
	}
	if id, n := r.usedElem(65535); r.usedIdxSeen() != 0 || id != 5 || n != 8 {
		t.Fatalf("used index %d, element %d, %d", r.usedIdxSeen(), id, n)
	}
	if got := user(t, r.table, bufUser, 8); string(got) != "abcdefgh" {
		t.Fatalf("guest memory holds %q", got)
	}
}

// The used index goes on where the ring says, not where the avail index is.
func TestUsedIndexComesFromTheRing(t *testing.T) {
	r := newTestRing(t, 8, startAt(4), func(c *Config) { c.NextAvail = 7 })
	r.PushUsed(1, 0)
	r.Publish()
	if r.usedIdxSeen() != 5 {
		t.Fatalf("used index %d", r.usedIdxSeen())
	}
}

func TestNotificationFlags(t *testing.T) {
	r := newTestRing(t, 8)
	publish := func() bool { r.PushUsed(0, 0); return r.Publish() }
	if !publish() {
		t.Error("no notification, and the driver did not decline")
	}
	r.setAvailFlags(AvailNoInterrupt)
	for range 2 {
		if publish() {
			t.Error("a notification that the driver declined")
		}
	}
	r.setAvailFlags(0)
	if !publish() {
		t.Error("no notification after the driver asked again")
	}

	r.DisableKicks()
	if r.usedFlagsSeen() != UsedNoNotify || r.usedIdxSeen() != 4 {
		t.Errorf("flags %d, index %d", r.usedFlagsSeen(), r.usedIdxSeen())
	}
	publish()
	if r.usedFlagsSeen() != UsedNoNotify || r.usedIdxSeen() != 5 {
		t.Errorf("publishing changed the flags: %d, index %d", r.usedFlagsSeen(), r.usedIdxSeen())
	}
	if _, err := r.EnableKicks(); err != nil || r.usedFlagsSeen() != 0 || r.usedIdxSeen() != 5 {
		t.Errorf("flags %d, index %d, %v", r.usedFlagsSeen(), r.usedIdxSeen(), err)
	}
}

// A device that died while it declined kicks left its flag in the ring.
func TestFlagOfPredecessorIsCleared(t *testing.T) {
	r := newTestRing(t, 8, func(c *Config) { c.Used[UsedFlagsOffset] = UsedNoNotify })
	if _, err := r.EnableKicks(); err != nil || r.usedFlagsSeen() != 0 {
		t.Fatalf("flags %d, %v", r.usedFlagsSeen(), err)
	}
}

func TestNotificationEvents(t *testing.T) {
	const start = 65533
	r := newTestRing(t, 8, eventIdx, startAt(start))
	r.setUsedEvent(97)
	publish := func(n int) bool {
		for range n {
			r.PushUsed(0, 0)
		}
		return r.Publish()
	}
	r.setAvailFlags(AvailNoInterrupt) // does not count with event indexes
	if !publish(1) {
		t.Error("the first publish after a start does not notify")
	}
	r.setUsedEvent(65535)
	if publish(1) {
		t.Error("notified before the event: used index 65535, event 65535")
	}
	if !publish(3) {
		t.Error("not notified when the index passed the event")
	}
	if publish(1) {
		t.Error("notified twice for one event")
	}
}

// Whoever asks for a kick learns of the chain that came before the driver could
// see the wish.
func TestEnableKicksSeesWhatCameBefore(t *testing.T) {
	for _, opts := range [][]option{{}, {eventIdx}} {
		r := newTestRing(t, 8, opts...)
		r.setDesc(0, Desc{bufGuest, 1, 0, 0})
		r.DisableKicks()
		if pending, err := r.EnableKicks(); pending || err != nil {
			t.Fatalf("EnableKicks: %v, %v", pending, err)
		}
		r.offer(0)
		if pending, err := r.EnableKicks(); !pending || err != nil {
			t.Fatalf("EnableKicks: %v, %v", pending, err)
		}
		r.mustPop(NewChain(1))
		if pending, err := r.EnableKicks(); pending || err != nil {
			t.Fatalf("EnableKicks: %v, %v", pending, err)
		}
		if len(opts) > 0 && r.availEventSeen() != 1 {
			t.Fatalf("avail event %d", r.availEventSeen())
		}
	}
}

// The store of avail_event must not reach the bytes behind the ring.
func TestAvailEventStaysInTheRing(t *testing.T) {
	table := newMemory(t)
	r := newTestRingIn(t, table, 8, eventIdx, startAt(0xabcd))
	behind := user(t, table, ringUser+2<<20+uint64(UsedSize(8)), 2)
	behind[0], behind[1] = 0x55, 0xaa
	r.setAvailIdx(0xabcd)
	if _, err := r.EnableKicks(); err != nil {
		t.Fatal(err)
	}
	if behind[0] != 0x55 || behind[1] != 0xaa || r.availEventSeen() != 0xabcd {
		t.Fatalf("behind the ring % x, avail event %#x", behind, r.availEventSeen())
	}
}

func TestPopDoesNotAllocate(t *testing.T) {
	r := newTestRing(t, 8, indirect, eventIdx)
	r.guestIndirect(bufGuest+0x4000, chainOf(10)...)
	r.setDesc(0, Desc{bufGuest + 0x4000, 160, indir, 0})
	c := NewChain(16)
	if n := testing.AllocsPerRun(1000, func() {
		r.offer(0)
		r.mustPop(c)
		r.PushUsed(c.Head, 1)
		r.Publish()
		r.EnableKicks()
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestRingModel runs random sequences of a driver and the device against a plain
// model: chains come out in the order they went in, completions in the order of
// the device's choice, whatever the indexes are.
func TestRingModel(t *testing.T) {
	table := newMemory(t)
	rapid.Check(t, func(rt *rapid.T) {
		size := 1 << rapid.IntRange(0, 5).Draw(rt, "log size")
		events := rapid.Bool().Draw(rt, "event idx")
		start := rapid.Uint16().Draw(rt, "start")
		r := newTestRingIn(t, table, size, startAt(start), func(c *Config) { c.EventIdx = events })
		r.setUsedEvent(0)
		m := ringModel{testRing: r, size: size, seen: start}
		for i := range size {
			r.setDesc(i, Desc{bufGuest + uint64(i), 1, write, 0})
			m.free = append(m.free, uint16(i))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"offer":    m.offerSome,
			"pop":      m.popSome,
			"complete": m.completeSome,
			"sleep":    m.sleep,
			"event":    func(rt *rapid.T) { r.setUsedEvent(m.seen + rapid.Uint16Range(0, 40).Draw(rt, "event")) },
			"":         m.check,
		})
	})
}

type ringModel struct {
	*testRing
	size    int
	free    []uint16 // heads that the driver may offer
	offered []uint16 // in the avail ring, not taken
	taken   []uint16 // in the device
	pushed  []uint16 // completed, not seen by the driver
	seen    uint16   // the driver's place in the used ring
	asleep  bool
}

func (m *ringModel) offerSome(t *rapid.T) {
	n := rapid.IntRange(0, len(m.free)).Draw(t, "n")
	before := m.idx
	m.offer(m.free[:n]...)
	m.offered, m.free = append(m.offered, m.free[:n]...), m.free[n:]
	if m.asleep && n > 0 {
		if m.cfg.EventIdx && !NeedEvent(m.availEventSeen(), m.idx, before) {
			t.Fatal("the device sleeps and the driver need not kick")
		}
		if !m.cfg.EventIdx && m.usedFlagsSeen()&UsedNoNotify != 0 {
			t.Fatal("the device sleeps and declines kicks")
		}
		m.asleep = false
	}
}

func (m *ringModel) popSome(t *rapid.T) {
	m.asleep = false
	m.DisableKicks()
	for range rapid.IntRange(1, m.size).Draw(t, "n") {
		c := NewChain(1)
		ok, err := m.Pop(c)
		if err != nil || ok != (len(m.offered) > 0) {
			t.Fatalf("Pop: %v, %v with %d chains", ok, err, len(m.offered))
		}
		if !ok {
			return
		}
		if c.Head != m.offered[0] {
			t.Fatalf("head %d, want %d", c.Head, m.offered[0])
		}
		m.taken, m.offered = append(m.taken, c.Head), m.offered[1:]
	}
}

func (m *ringModel) completeSome(t *rapid.T) {
	before := m.usedIdxSeen()
	for range rapid.IntRange(0, len(m.taken)).Draw(t, "n") {
		i := rapid.IntRange(0, len(m.taken)-1).Draw(t, "which")
		m.PushUsed(m.taken[i], uint32(m.taken[i])+7)
		m.pushed = append(m.pushed, m.taken[i])
		m.taken = append(m.taken[:i:i], m.taken[i+1:]...)
	}
	first := m.neverAsked
	notify := m.Publish()
	if m.cfg.EventIdx && !first {
		event := readUint16(m.avail, UsedEventOffset(m.size))
		if want := NeedEvent(event, m.usedIdxSeen(), before); notify != want {
			t.Fatalf("notify %v, used index %d to %d, event %d", notify, before, m.usedIdxSeen(), event)
		}
	}
}

func (m *ringModel) sleep(t *rapid.T) {
	pending, err := m.EnableKicks()
	if err != nil || pending != (len(m.offered) > 0) {
		t.Fatalf("EnableKicks: %v, %v with %d chains", pending, err, len(m.offered))
	}
	m.asleep = !pending
}

// check is the driver taking what was published.
func (m *ringModel) check(t *rapid.T) {
	for m.seen != m.usedIdxSeen() {
		id, n := m.usedElem(int(m.seen))
		if id != uint32(m.pushed[0]) || n != id+7 {
			t.Fatalf("used element %d, %d, want head %d", id, n, m.pushed[0])
		}
		m.free, m.pushed = append(m.free, m.pushed[0]), m.pushed[1:]
		m.seen++
	}
	if len(m.pushed) != 0 {
		t.Fatalf("%d completions were not published", len(m.pushed))
	}
}
