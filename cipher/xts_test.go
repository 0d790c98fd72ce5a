package cipher

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestNewXTSRefuses(t *testing.T) {
	key := testKey()
	equal := append(bytes.Clone(key[:32]), key[:32]...)
	for _, c := range []struct {
		name     string
		mem, key []byte
		unitSize int
		want     error
	}{
		{"no key", alignedState(), nil, 512, ErrKeySize},
		{"AES-128 key", alignedState(), key[:32], 512, ErrKeySize},
		{"short key", alignedState(), key[:63], 512, ErrKeySize},
		{"long key", alignedState(), append(bytes.Clone(key), 0), 512, ErrKeySize},
		{"equal halves", alignedState(), equal, 512, ErrWeakKey},
		{"zero key", alignedState(), make([]byte, 64), 512, ErrWeakKey},
		{"unit 0", alignedState(), key, 0, ErrUnitSize},
		{"negative unit", alignedState(), key, -512, ErrUnitSize},
		{"unit 256", alignedState(), key, 256, ErrUnitSize},
		{"unit 1536", alignedState(), key, 1536, ErrUnitSize},
		{"unit 8192", alignedState(), key, 8192, ErrUnitSize},
		{"no memory", nil, key, 512, ErrStateMemory},
		{"short memory", alignedState()[:StateSize-1], key, 512, ErrStateMemory},
		{"misaligned memory", misaligned(), key, 512, ErrStateMemory},
	} {
		x, err := NewXTSIn(c.mem, c.key, c.unitSize)
		if !errors.Is(err, c.want) || x != nil {
			t.Errorf("%s: got %v and %v, want %v", c.name, x, err, c.want)
		}
		if !bytes.Equal(c.mem, make([]byte, len(c.mem))) {
			t.Errorf("%s: memory was written to", c.name)
		}
	}
}

func misaligned() []byte {
	mem := make([]byte, StateSize+2*StateAlign)
	for i := range mem {
		if stateIn(mem[i:]) != nil {
			return mem[i+StateAlign/2:][:StateSize]
		}
	}
	panic("no aligned address in twice the alignment")
}

func TestUnitSize(t *testing.T) {
	for _, n := range unitSizes {
		x, err := NewXTS(testKey(), n)
		if err != nil {
			t.Fatal(err)
		}
		if x.UnitSize() != n {
			t.Errorf("unit size %d is reported as %d", n, x.UnitSize())
		}
	}
}

func TestKeyIsNotKept(t *testing.T) {
	key := testKey()
	x, err := NewXTS(key, 512)
	if err != nil {
		t.Fatal(err)
	}
	want := oracle(t, key, make([]byte, 512), 512, 3)
	clear(key)
	got := make([]byte, 512)
	x.Encrypt(got, got, 3)
	if !bytes.Equal(got, want) {
		t.Error("the cipher changed when the caller wiped the key")
	}
}

func TestMemoryIsTheCallers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		mem := bytes.Repeat([]byte{0xa5}, StateSize+StateAlign+100)
		for stateIn(mem) == nil {
			mem = mem[1:]
		}
		x, err := newXTS(e, mem, testKey(), 512)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mem[:StateSize], bytes.Repeat([]byte{0xa5}, 8)) {
			t.Error("old contents are left in the memory")
		}
		tail := bytes.Repeat([]byte{0xa5}, len(mem)-StateSize)
		if !bytes.Equal(mem[StateSize:], tail) {
			t.Error("memory beyond StateSize was written to")
		}
		if !bytes.Contains(mem[:StateSize], testKey()[:16]) && e != engineGeneric {
			t.Error("the round keys are not in the memory")
		}
		x.Destroy()
		x.Destroy()
		if !bytes.Equal(mem[:StateSize], make([]byte, StateSize)) {
			t.Error("Destroy left something behind")
		}
		if !bytes.Equal(mem[StateSize:], tail) {
			t.Error("Destroy wrote beyond StateSize")
		}
	})
}

func TestPrintsNothing(t *testing.T) {
	x, err := NewXTS(testKey(), 512)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "cipher", x)
	if !strings.Contains(log.String(), `cipher=AES-256-XTS`) {
		t.Errorf("logged as %s", log.String())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, x); got != hidden {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if x.String() != hidden {
		t.Errorf("String is %q", x.String())
	}
}

func TestImplementations(t *testing.T) {
	names := Implementations()
	if !slices.Contains(names, "generic") {
		t.Errorf("%v does not have the generic implementation", names)
	}
	if names[0] != best().String() {
		t.Errorf("%v does not begin with the one in use, %v", names, best())
	}
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(names) {
		t.Errorf("%v has a name twice", names)
	}
}

func TestSelfTestFindsAFault(t *testing.T) {
	if err := testEngines(engines(), knownAnswers); err != nil {
		t.Fatal(err)
	}
	for i := range knownAnswers {
		wrong := slices.Clone(knownAnswers)
		wrong[i].sector++
		if err := testEngines(engines(), wrong); !errors.Is(err, ErrSelfTest) {
			t.Errorf("wrong answer %d: got %v", i, err)
		}
	}
}

func TestNothingRunsAfterAFailedSelfTest(t *testing.T) {
	healthy := selfTest
	t.Cleanup(func() { selfTest = healthy })
	selfTest = func() error { return fmt.Errorf("generic: %w", ErrSelfTest) }
	mem := alignedState()
	if x, err := NewXTSIn(mem, testKey(), 512); !errors.Is(err, ErrSelfTest) || x != nil {
		t.Errorf("NewXTSIn gives %v and %v", x, err)
	}
	if x, err := NewXTS(testKey(), 512); !errors.Is(err, ErrSelfTest) || x != nil {
		t.Errorf("NewXTS gives %v and %v", x, err)
	}
	if !bytes.Equal(mem, make([]byte, StateSize)) {
		t.Error("a refused cipher left round keys")
	}
}
