package bench

import "math/bits"

// Histogram counts durations in nanoseconds in buckets that are at most 1/128 as wide
// as what they hold. Record does not allocate.
type Histogram struct {
	buckets [histogramBuckets]uint64
	n       uint64
	sum     uint64
	max     int64
}

const (
	// Values below linearBuckets have a bucket each; each power of two above has
	// linearBuckets/2.
	linearBits       = 8
	linearBuckets    = 1 << linearBits
	halfBuckets      = linearBuckets / 2
	histogramBuckets = linearBuckets + (63-linearBits)*halfBuckets
)

func bucketOf(ns int64) int {
	if ns < linearBuckets {
		return int(ns)
	}
	shift := bits.Len64(uint64(ns)) - linearBits
	return shift*halfBuckets + int(uint64(ns)>>shift)
}

// bucketRange is what a bucket holds: from low to below high.
func bucketRange(i int) (low, high int64) {
	if i < linearBuckets {
		return int64(i), int64(i) + 1
	}
	shift := i/halfBuckets - 1
	low = int64(i-shift*halfBuckets) << shift
	return low, low + 1<<shift
}

// Record counts a duration. A negative one counts as 0.
func (h *Histogram) Record(ns int64) {
	ns = max(ns, 0)
	h.buckets[bucketOf(ns)]++
	h.n++
	h.sum += uint64(ns)
	h.max = max(h.max, ns)
}

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }

// Add counts what another histogram has counted.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest of them, exactly.
func (h *Histogram) Max() int64 { return h.max }

// Mean is their mean; 0 of none.
func (h *Histogram) Mean() float64 {
	if h.n == 0 {
		return 0
	}
	return float64(h.sum) / float64(h.n)
}

// Quantile is the duration that a share q of all, from 0 to 1, does not exceed: the
// middle of the bucket it lies in, never more than Max. It is 0 of none.
func (h *Histogram) Quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	rank := max(1, uint64(q*float64(h.n)+0.5))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank {
			return h.middle(i)
		}
	}
	return float64(h.max)
}

func (h *Histogram) middle(i int) float64 {
	low, high := bucketRange(i)
	return min(float64(low+high-1)/2, float64(h.max))
}

// Distribution is the share of durations that do not exceed each of at most n
// durations, for a plot.
func (h *Histogram) Distribution(n int) (ns, share []float64) {
	var seen, shown uint64
	for i, c := range h.buckets {
		if c == 0 {
			continue
		}
		seen += c
		if (seen-shown)*uint64(n) >= h.n || seen == h.n || shown == 0 {
			shown = seen
			ns, share = append(ns, h.middle(i)), append(share, float64(seen)/float64(h.n))
		}
	}
	return ns, share
}
