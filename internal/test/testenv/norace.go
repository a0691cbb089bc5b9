//go:build !race

package testenv

// RaceEnabled reports whether the race detector is built in: it allocates, so tests of
// allocations only run without it.
const RaceEnabled = false
