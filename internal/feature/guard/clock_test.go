package guard

import (
	"net/netip"
	"testing"
	"time"

	proto "github.com/vswitch/vswitch/internal/proto/guard"
)

// Whoever sets the clock, before a binding is kept or before it is restored, changes nothing of what is left of it.
// What is restored does not follow the clock any more.
func TestClockIsSet(t *testing.T) {
	now := time.Now()
	b := proto.Binding{VLAN: 1, MAC: 2, Prefix: netip.MustParsePrefix("192.0.2.7/32"), Source: proto.DHCP, Expiry: now.Add(time.Hour)}
	for _, by := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour} {
		wall := now.Add(by)
		kept := keep(&b, now, wall)
		if want := wall.Add(time.Hour).Unix(); kept.Expires != want {
			t.Errorf("the clock was set by %v: it expires at %d, want %d", by, kept.Expires, want)
		}
		got, err := kept.binding(left(wall.Unix(), now))
		if err != nil || got.Expiry.Sub(b.Expiry).Abs() > time.Second {
			t.Errorf("the clock was set by %v: it expires in %v (%v)", by, got.Expiry.Sub(now), err)
		}
		if got.Expiry == got.Expiry.Round(0) {
			t.Error("a clock that is set decides when a restored binding expires")
		}
	}
}
