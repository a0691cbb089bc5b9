package daemon

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
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

// tunnelEnd is a tunnel of a known MTU; 0: it is not known.
type tunnelEnd struct {
	*fakePort
	port.Tunnel // nothing else is called
	mtu         int
}

func (e *tunnelEnd) Close() error         { return e.fakePort.Close() }
func (e *tunnelEnd) Queues() []port.Queue { return e.fakePort.Queues() }
func (e *tunnelEnd) Caps() port.Caps      { return e.fakePort.Caps() }
func (e *tunnelEnd) MTU() int             { return e.mtu }

// A tunnel shows its own MTU, and ports of machines what that leaves them in their VLANs.
func TestTunnelTellsItsMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		tunnels := map[string]int{"vx0": 1450, "vx1": 0}
		h.wrap = func(p *fakePort) port.Port {
			for name, mtu := range tunnels {
				if l, err := h.byName(name); err == nil && l.Index == p.index {
					return &tunnelEnd{fakePort: p, mtu: mtu}
				}
			}
			return p
		}
		r := start(t, h, store.State{})
		for _, name := range []string{"vm0", "vx0", "vx1", "vm1"} {
			s := spec(name)
			s.Access = 10
			if name == "vm1" {
				s.Access = 20
			}
			if err := r.addReq(wanted(s)); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]struct{ mtu, guest int }{"vm0": {1500, 1450}, "vm1": {1500, 0}, "vx0": {1450, 1450}, "vx1": {0, 1450}} {
			if p := r.port(name); p.MTU != want.mtu || p.GuestMTU != want.guest {
				t.Errorf("%s has MTU %d, its machine %d; want %d and %d", name, p.MTU, p.GuestMTU, want.mtu, want.guest)
			}
		}
		all, err := ask(r.manager, func() ([]api.Port, error) { return r.describeAll(), nil })
		if i := slices.IndexFunc(all, func(p api.Port) bool { return p.Name == "vm0" }); err != nil || i < 0 || all[i].GuestMTU != 1450 {
			t.Errorf("among all ports: %+v, %v", all, err)
		}
	})
}
