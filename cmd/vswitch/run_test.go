package main

import (
	"runtime"
	"testing"
)

// TestSpareProcessors: a host with few processors gets four, unless the user chose.
func TestSpareProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []struct {
		chosen     string
		host, want int
	}{{"", 1, 4}, {"", 4, 4}, {"", 6, 6}, {"1", 1, 1}} {
		t.Setenv("GOMAXPROCS", c.chosen)
		runtime.GOMAXPROCS(c.host)
		spareProcessors()
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("GOMAXPROCS=%q on %d processors: %d, want %d", c.chosen, c.host, got, c.want)
		}
	}
}
