package main

import (
	"cmp"
	"math"
	"slices"
)

// median returns the middle value, or the mean of the two in the middle; NaN for no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// quantile returns the smallest of the sorted values that at least the part q of them does
// not exceed.
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Ratio compares values of one peer with another's of the same round.
type Ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// ratio compares round by round; ok is false if nothing can be compared. Failed rounds are
// NaN on either side and left out.
func ratio(values, others []float64) (r Ratio, ok bool) {
	var each []float64
	for i := range min(len(values), len(others)) {
		if q := values[i] / others[i]; !math.IsNaN(q) && !math.IsInf(q, 0) {
			each = append(each, q)
		}
	}
	if len(each) == 0 {
		return r, false
	}
	return Ratio{median(each), slices.Min(each), slices.Max(each)}, true
}

// numbers returns the values without NaN.
func numbers(values []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(values), math.IsNaN)
}
