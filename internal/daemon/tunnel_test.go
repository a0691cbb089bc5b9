package daemon

import (
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// stationKind is a kind with a station behind its ports.
type stationKind struct{ port.Kind }

func (stationKind) Describe() port.Description { return port.Description{Station: true} }

// networkKind is one with a network.
type networkKind struct{ port.Kind }

func (networkKind) Describe() port.Description { return port.Description{} }

// TestGuestMTU: a machine's MTU is that of the narrowest tunnel in its VLANs, if that is less
// than its own.
func TestGuestMTU(t *testing.T) {
	vlans := func(text string) port.VLANSet {
		s, err := port.ParseVLANSet(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	wide, narrow := passage{vlans("1-4094"), 1450}, passage{vlans("20-29"), 1370}
	sw := vswitch.New(vswitch.Config{})
	defer sw.Close()
	core, err := sw.AddPort("vm0")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		kind   port.Kind
		access uint16
		own    int
		all    []passage
		want   int
	}{
		{"no tunnel", stationKind{}, 10, 1500, nil, 0},
		{"one", stationKind{}, 10, 1500, []passage{wide, narrow}, 1450},
		{"the narrower", stationKind{}, 25, 1500, []passage{wide, narrow}, 1370},
		{"without an interface", stationKind{}, 10, 0, []passage{wide}, 1450},
		{"as much as it takes", stationKind{}, 10, 1450, []passage{wide}, 0},
		{"less than it takes", stationKind{}, 10, 1400, []passage{wide}, 0},
		{"in no VLAN of it", stationKind{}, 10, 1500, []passage{narrow}, 0},
		{"a network", networkKind{}, 10, 1500, []passage{wide}, 0},
	} {
		if err := core.Configure(vswitch.PortConfig{VLAN: port.VLAN{Access: c.access}}); err != nil {
			t.Fatal(err)
		}
		p := &managed{kind: c.kind, sw: core, link: link.Link{MTU: c.own}}
		if got := guestMTU(p, c.all); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
