package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func TestNewIsZeroAlignedAndOfTheSizeAsked(t *testing.T) {
	for _, size := range []int{1, 63, 64, 65, 4096, 4097, MaxSize} {
		onEach(t, size, func(t *testing.T, b *Buffer) {
			if b.Len() != size || len(b.Bytes()) != size || cap(b.Bytes()) != size {
				t.Errorf("Len %d, len %d, cap %d, want %d", b.Len(), len(b.Bytes()), cap(b.Bytes()), size)
			}
			if address(b)%Align != 0 {
				t.Errorf("address %#x is not a multiple of %d", address(b), Align)
			}
			if !bytes.Equal(b.Bytes(), make([]byte, size)) {
				t.Error("new buffer is not zeros")
			}
		})
	}
}

func TestNewRefusesSizes(t *testing.T) {
	for _, size := range []int{-1, 0, MaxSize + 1} {
		if b, err := New(size); !errors.Is(err, ErrSize) || b != nil {
			t.Errorf("New(%d) = %v, %v", size, b, err)
		}
	}
}

func TestNewPrefersMemfdSecret(t *testing.T) {
	b, err := New(32)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	have := backings(t)
	if want := have[len(have)-1]; b.Backing() != want {
		t.Errorf("backing %v, want %v", b.Backing(), want)
	}
}

func TestDestroyedBufferIsEmpty(t *testing.T) {
	b, err := Random(64)
	if err != nil {
		t.Fatal(err)
	}
	b.Destroy()
	b.Destroy()
	var none *Buffer
	none.Destroy()
	for name, b := range map[string]*Buffer{"destroyed": b, "nil": none, "zero": {}} {
		if b.Bytes() != nil || b.Len() != 0 || b.Equal(b) {
			t.Errorf("%s buffer: bytes %v, len %d, equal %v", name, b.Bytes() != nil, b.Len(), b.Equal(b))
		}
	}
}

func TestDestroyFromManyGoroutines(t *testing.T) {
	b, err := New(64)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := Live()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(b.Destroy)
	}
	wg.Wait()
	if after, _ := Live(); after != before-1 {
		t.Errorf("%d live buffers after one of %d was destroyed", after, before)
	}
}

func TestLiveCounts(t *testing.T) {
	n0, s0 := Live()
	a, err := New(10)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(20)
	if err != nil {
		t.Fatal(err)
	}
	if n, s := Live(); n != n0+2 || s != s0+30 {
		t.Errorf("Live = %d, %d", n-n0, s-s0)
	}
	a.Destroy()
	if n, s := Live(); n != n0+1 || s != s0+20 {
		t.Errorf("Live = %d, %d", n-n0, s-s0)
	}
	b.Destroy()
}

func TestRandomFillsAllOfIt(t *testing.T) {
	for _, size := range []int{32, 64, 4096} {
		a, err := Random(size)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Random(size)
		if err != nil {
			t.Fatal(err)
		}
		if a.Equal(b) || !a.Equal(a) {
			t.Error("two random secrets are equal, or one differs from itself")
		}
		if tail := a.Bytes()[size-16:]; bytes.Equal(tail, make([]byte, 16)) {
			t.Error("the end was not filled")
		}
		a.Destroy()
		b.Destroy()
	}
}

func TestEqual(t *testing.T) {
	a, b, c := known(t, "sesame"), known(t, "sesame"), known(t, "sesamf")
	d := known(t, "sesame!")
	if !a.Equal(b) || a.Equal(c) || a.Equal(d) || a.Equal(nil) {
		t.Error("Equal is wrong")
	}
}

// known is a buffer with known content.
func known(t *testing.T, s string) *Buffer {
	t.Helper()
	b, err := New(len(s))
	if err != nil {
		t.Fatal(err)
	}
	copy(b.Bytes(), s)
	t.Cleanup(b.Destroy)
	return b
}

func TestNothingPrintsASecret(t *testing.T) {
	const marker = "OPEN-SESAME-0123456789"
	b := known(t, marker)
	holder := struct {
		Public  *Buffer
		private *Buffer
		Value   Buffer
		value   Buffer
	}{b, b, *b, *b}
	var out bytes.Buffer
	for _, v := range []any{b, *b, holder, &holder, []*Buffer{b}, map[string]*Buffer{"k": b}, fmt.Errorf("with %v", b)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("m", "v", v)
		}
		js, err := json.Marshal(v)
		fmt.Fprintln(&out, string(js), err)
		fmt.Fprintln(&out, gob.NewEncoder(&out).Encode(v))
	}
	text, err := b.MarshalText()
	fmt.Fprintln(&out, string(text), err, b.String(), b.GoString())
	for _, leak := range forms(marker) {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(leak)) {
			t.Errorf("output holds %q", leak)
		}
	}
}

// forms are the ways in which a printer could show the marker.
func forms(marker string) []string {
	decimal := strings.Trim(fmt.Sprintf("%d", []byte(marker)), "[]")
	return []string{marker, fmt.Sprintf("%x", marker), decimal, strings.ReplaceAll(decimal, " ", ","), "T1BFTi1TRVNBTUUt"}
}
