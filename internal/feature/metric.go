package feature

import "strings"

// Metric describes a number that the switch reports to Prometheus. Its series differ in the
// values of its labels. Prometheus keeps each series for weeks, so no label has an address, a
// time, or anything else that a guest can make up.
type Metric struct {
	Name   string // begins with vswitch_; a counter's ends in _total
	Help   string
	Labels []string
}

// Counter reports whether the number only grows while the daemon runs.
func (m *Metric) Counter() bool { return strings.HasSuffix(m.Name, "_total") }

// Add reports the value of one series, named by the values of m.Labels.
type Add func(m *Metric, value float64, labels ...string)

// AddDistribution is Add for values that come again and again.
type AddDistribution func(m *Metric, d Distribution, labels ...string)

// Distribution says how often a value was how great.
type Distribution struct {
	AtMost map[float64]uint64 // how many values were at most so great
	Count  uint64             // of all values
	Sum    float64
}
