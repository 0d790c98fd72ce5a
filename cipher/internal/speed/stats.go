package speed

import (
	"math"
	"slices"
)

// Spread is the middle of some samples and the range of the middle eight tenths.
type Spread struct{ Median, Low, High float64 }

// SpreadOf returns NaNs for no samples.
func SpreadOf(samples []float64) Spread {
	if len(samples) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(samples))
	at := func(q float64) float64 { return s[int(math.Round(q*float64(len(s)-1)))] }
	return Spread{Median: at(0.5), Low: at(0.1), High: at(0.9)}
}

// Ratio is the spread of a[i]/b[i].
func Ratio(a, b []float64) Spread {
	ratios := make([]float64, min(len(a), len(b)))
	for i := range ratios {
		ratios[i] = a[i] / b[i]
	}
	return SpreadOf(ratios)
}
