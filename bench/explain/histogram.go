package explain

import "math/bits"

// Latency is how long things took, in microseconds. Percentiles are within 7 %.
type Latency struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// histogram is one or more of the kernel's, added up.
type histogram struct {
	counts      [buckets]uint64
	n, sum, max uint64
}

// add takes a histogram of n times whose sum and maximum are known, in nanoseconds.
func (h *histogram) add(counts *[buckets]uint32, n, sum, largest uint64) {
	for i, c := range counts {
		h.counts[i] += uint64(c)
	}
	h.n += n
	h.sum += sum
	h.max = max(h.max, largest)
}

func (h *histogram) latency() Latency {
	l := Latency{Count: h.n, P50: h.quantile(0.50), P99: h.quantile(0.99), Max: float64(h.max) / 1e3}
	if h.n > 0 {
		l.Mean = float64(h.sum) / float64(h.n) / 1e3
	}
	return l
}

// quantile is in microseconds: the middle of the bucket, and never above the maximum.
func (h *histogram) quantile(q float64) float64 {
	var total, seen uint64
	for _, c := range h.counts {
		total += c
	}
	for i, c := range h.counts {
		if seen += c; c > 0 && float64(seen) >= q*float64(total) {
			low, high := bucketRange(i)
			return min(float64(low+high)/2, float64(h.max)) / 1e3
		}
	}
	return 0
}

// bucketOf is the kernel program's bucket of a time in nanoseconds.
func bucketOf(ns uint64) int {
	if ns < 8 {
		return int(ns)
	}
	high := bits.Len64(ns) - 1
	return min(buckets-1, (high-2)*8+int(ns>>(high-3)&7))
}

// bucketRange is what a bucket holds: from low to high.
func bucketRange(i int) (low, high uint64) {
	if i < 8 {
		return uint64(i), uint64(i)
	}
	shift := i/8 - 1
	low = uint64(8+i%8) << shift
	return low, low + 1<<shift - 1
}
