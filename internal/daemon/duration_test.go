package daemon

import (
	"maps"
	"testing"
	"time"
)

// A time counts at every bound that it is within.
func TestDuration(t *testing.T) {
	var all durations
	d := all.of("GET /v1/ports")
	for _, took := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, 2 * time.Second, time.Minute} {
		d.add(took)
	}
	if all.of("GET /v1/ports") != d {
		t.Error("a call has two durations")
	}
	all.of("GET /v1/switch")
	calls := maps.Collect(all.all())
	if len(calls) != 2 || calls["GET /v1/ports"] != d {
		t.Errorf("the calls are %v", calls)
	}
	got := d.distribution()
	want := map[float64]uint64{0.001: 2, 0.003: 3, 0.01: 3, 0.03: 3, 0.1: 3, 0.3: 3, 1: 3, 3: 4, 10: 4} // by bound in seconds
	if !maps.Equal(got.AtMost, want) || got.Count != 5 || got.Sum < 62 || got.Sum > 62.01 {
		t.Errorf("%+v", got)
	}
}
