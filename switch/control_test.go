package vswitch_test

import (
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

func TestControlGroup(t *testing.T) {
	const own, other = port.MAC(0x0300_0000_0001), port.MAC(0x0300_0000_0002)
	synctest.Test(t, func(t *testing.T) {
		var by []string
		r := newRig(t, vswitch.Config{ControlGroup: own, OnControl: func(c vswitch.ControlFrame) {
			if c.VLAN != 1 || port.MACFrom(c.Data) != own {
				t.Errorf("%+v", c)
			}
			by = append(by, c.Port.Name())
		}}, 3, memory.Options{})
		defer r.Close()
		wantPass(t, r, 1, frame(own, station(1), 0, 60), 0, 0, 0)
		wantPass(t, r, 1, frame(other, station(1), 0, 60), 1, 0, 1)
		wantDrops(t, r, 1, port.DropConsumed, 1)
		if len(by) != 1 || by[0] != "p1" {
			t.Errorf("control frames by %v", by)
		}
	})
}
