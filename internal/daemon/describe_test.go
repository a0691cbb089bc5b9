package daemon

import (
	"testing"

	vswitch "github.com/vswitch/vswitch/switch"
)

// The counters of the switch are the sums of those of its ports, each of its own kind.
func TestCountersOfTheSwitch(t *testing.T) {
	of := func(n uint64) (c vswitch.Counters) {
		c.Frames, c.Bytes, c.Copies = n, 10*n, 100*n
		for why := range c.Dropped {
			c.Dropped[why] = n + uint64(why)*1000
		}
		return c
	}
	var total vswitch.Counters
	for n := range uint64(4) {
		sum(&total, of(n))
	}
	want := of(1 + 2 + 3)
	for why := range want.Dropped {
		want.Dropped[why] += 3 * uint64(why) * 1000
	}
	if total != want {
		t.Errorf("the sum is %+v, want %+v", total, want)
	}
}
