package bench

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestBucketsHoldWhatIsPutIntoThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Int64Range(0, math.MaxInt64).Draw(t, "ns") >> rapid.IntRange(0, 62).Draw(t, "shift")
		i := bucketOf(ns)
		if i < 0 || i >= histogramBuckets {
			t.Fatalf("%d goes to bucket %d", ns, i)
		}
		low, high := bucketRange(i)
		if ns < low || ns > high-1 && high > low {
			t.Fatalf("%d goes to bucket %d, from %d to %d", ns, i, low, high)
		}
		if width := high - low; width > 1 && float64(width) > float64(low)/128+0.5 {
			t.Fatalf("bucket %d is %d wide from %d", i, width, low)
		}
	})
}

// A bucket begins where the one before ends.
func TestBucketsAdjoin(t *testing.T) {
	_, end := bucketRange(0)
	for i := 1; i < histogramBuckets; i++ {
		low, high := bucketRange(i)
		if low != end || bucketOf(low) != i {
			t.Fatalf("bucket %d begins at %d, not %d, which is in bucket %d", i, low, end, bucketOf(low))
		}
		end = high
	}
}

func TestQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(1, 1e9), 1, 200).Draw(t, "values")
		var a, b Histogram
		for i, v := range values {
			[]*Histogram{&a, &b}[i%2].Record(v)
		}
		a.Add(&b)
		slices.Sort(values)
		if int(a.Count()) != len(values) || a.Max() != values[len(values)-1] {
			t.Fatalf("count %d, max %d of %v", a.Count(), a.Max(), values)
		}
		for _, q := range []float64{0.001, 0.5, 0.99, 0.999, 1} {
			rank := max(1, int(q*float64(len(values))+0.5))
			want := float64(values[rank-1])
			if got := a.Quantile(q); math.Abs(got-want) > want/128+1 {
				t.Fatalf("quantile %v is %v, want %v", q, got, want)
			}
		}
		checkDistribution(t, &a)
	})
}

func checkDistribution(t *rapid.T, h *Histogram) {
	t.Helper()
	ns, share := h.Distribution(16)
	if len(ns) == 0 || len(ns) > 34 || share[len(share)-1] != 1 {
		t.Fatalf("distribution %v %v", ns, share)
	}
	if !slices.IsSorted(ns) || !slices.IsSorted(share) {
		t.Fatalf("distribution goes back: %v %v", ns, share)
	}
	for i, s := range share {
		if got := h.Quantile(s); got != ns[i] {
			t.Fatalf("share %v at %v, but the quantile is %v", s, ns[i], got)
		}
	}
}

func TestHistogramCosts(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram has quantiles")
	}
	h.Record(-5)
	if h.Count() != 1 || h.Quantile(1) != 0 {
		t.Error("time that went backwards is not 0")
	}
	if n := testing.AllocsPerRun(100, func() { h.Record(12345) }); n != 0 {
		t.Errorf("Record allocates %v times", n)
	}
}
