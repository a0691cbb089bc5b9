//go:build race

package testenv

// RaceEnabled tells whether the race detector is built in: it allocates, so tests of
// allocations leave those to the run without it.
const RaceEnabled = true
