package main

import (
	"math"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.001: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := quantile(hundred, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestRatio(t *testing.T) {
	nan := math.NaN()
	r, ok := ratio([]float64{2, 9, 4, nan, 5}, []float64{1, 3, 1, 1, nan})
	if want := (Ratio{3, 2, 4}); !ok || r != want {
		t.Errorf("%v, %v; want %v", r, ok, want)
	}
	// Nothing to compare with, and a division by nothing.
	for _, others := range [][]float64{nil, {nan, nan}, {0, 0}} {
		if r, ok := ratio([]float64{1, 2}, others); ok {
			t.Errorf("against %v: %v", others, r)
		}
	}
}
