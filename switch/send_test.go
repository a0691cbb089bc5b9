package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// tagged puts a tag into a frame.
func tagged(f []byte, tags ...port.Tag) []byte {
	var b []byte
	for _, t := range tags {
		b = binary.BigEndian.AppendUint32(b, uint32(t))
	}
	return slices.Concat(f[:12], b, f[12:])
}

func vlans(ids ...uint16) (set port.VLANSet) {
	for _, id := range ids {
		set.Add(id)
	}
	return set
}

// A control frame that OnControl passes on leaves as it would have if it had been data:
// by the same ports, with the same tags, and as often by mirrors.
func TestPassedOnAsData(t *testing.T) {
	const group = port.MAC(0x0100_5e01_0203)
	const priority = 5 << 13
	trunk := func(native uint16, carried ...uint16) vswitch.PortConfig {
		return vswitch.PortConfig{VLAN: port.VLAN{Trunk: vlans(carried...), Native: native}}
	}
	access := func(vid uint16) vswitch.PortConfig {
		return vswitch.PortConfig{VLAN: port.VLAN{Access: vid}}
	}
	service := trunk(0, 1, 10)
	service.VLAN.TrunkTPID = port.TPID(port.TPIDService)
	for _, c := range []struct {
		name    string
		ports   map[int]vswitch.PortConfig
		blocked []int
		mirrors []vswitch.Mirror
		tags    []port.Tag
	}{
		{name: "plain"},
		{name: "isolation", ports: map[int]vswitch.PortConfig{0: {Isolated: true}, 1: {Isolated: true}}},
		{name: "a tree", blocked: []int{1, 3}},
		{name: "no flood", ports: map[int]vswitch.PortConfig{1: {NoFlood: vswitch.Multicast}, 2: {NoFlood: vswitch.Broadcast}}},
		{name: "another VLAN", ports: map[int]vswitch.PortConfig{1: access(10)}},
		{name: "trunks", ports: map[int]vswitch.PortConfig{0: trunk(0, 1, 10), 1: trunk(0, 10), 2: trunk(10, 1), 3: access(10)},
			tags: []port.Tag{port.MakeTag(port.TPIDCustomer, priority|10)}},
		{name: "a priority tag", ports: map[int]vswitch.PortConfig{0: trunk(1, 10), 1: trunk(0, 1), 2: service},
			tags: []port.Tag{port.MakeTag(port.TPIDCustomer, priority|1<<12)}},
		{name: "service VLANs", ports: map[int]vswitch.PortConfig{0: service, 1: trunk(0, 10), 2: service, 3: access(10)},
			tags: []port.Tag{port.MakeTag(port.TPIDService, priority|10)}},
		{name: "mirrors to a port", mirrors: []vswitch.Mirror{
			{Name: "a", Ports: []string{"p0", "p1"}, In: true, Out: true, To: "p3"},
			{Name: "b", Ports: []string{"p2"}, Out: true, To: "p3", SnapLen: 20}}},
		{name: "mirrors to a VLAN", ports: map[int]vswitch.PortConfig{2: trunk(1, 999), 3: trunk(0, 999)},
			mirrors: []vswitch.Mirror{{Name: "a", VLANs: vlans(1), Out: true, ToVLAN: 999}}},
		{name: "a shaped port", ports: map[int]vswitch.PortConfig{1: {Shape: port.Rate{PerSecond: 1_000_000}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				r = newRig(t, vswitch.Config{OnControl: func(f vswitch.ControlFrame) { r.Flood(f) }}, 4, memory.Options{})
				defer r.Close()
				for i := range r.ports {
					r.configure(t, i, c.ports[i])
				}
				for _, i := range c.blocked {
					r.ports[i].SetTree(vswitch.TreeDiscarding, true)
				}
				if err := r.SetMirrors(c.mirrors); err != nil {
					t.Fatal(err)
				}
				r.SetGroups(&vswitch.Groups{
					VLANs:     vlans(1, 10),
					IsControl: func(data []byte) bool { return data[len(data)-1] == 1 },
					Lookup:    func(uint16, uint64) ([]uint16, bool) { return nil, true },
				})
				seen := 0
				var got [2][4][][]byte // by the frame's last byte and port
				for control := range got {
					f := tagged(frame(group, station(0), 0, 60), c.tags...)
					f[len(f)-1] = byte(control)
					if r.lines[0].Put(0, memory.Packet{Wire: f}) != 1 {
						t.Fatal("not taken")
					}
					synctest.Wait()
					for i := range r.lines {
						for _, b := range r.taken(i) {
							seen++
							b[len(b)-1] = 0
							got[control][i] = append(got[control][i], b)
						}
						// Copies of mirrors come in any order.
						slices.SortFunc(got[control][i], bytes.Compare)
					}
				}
				for i := range r.lines {
					if !slices.EqualFunc(got[0][i], got[1][i], bytes.Equal) {
						t.Errorf("port %d: %x, as data %x", i, got[1][i], got[0][i])
					}
				}
				if seen == 0 || r.Injected() == 0 {
					t.Errorf("%d frames were sent, %d of them passed on", seen, r.Injected())
				}
				wantBalance(t, r)
			})
		})
	}
}

func TestSend(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.configure(t, 1, vswitch.PortConfig{NoFlood: vswitch.Multicast})
		r.configure(t, 2, vswitch.PortConfig{Isolated: true, VLAN: port.VLAN{Trunk: vlans(1)}})
		wire := frame(0x0100_5e00_0001, station(9), 0, 60)
		sent := func(want ...int) {
			t.Helper()
			var got []int
			for i := range r.lines {
				got = append(got, len(r.taken(i)))
			}
			if !slices.Equal(got, want) {
				t.Errorf("copies %v, want %v", got, want)
			}
		}
		r.Flood(vswitch.ControlFrame{VLAN: 1, Data: wire}) // the switch asks everybody
		sent(1, 1, 1)
		r.Send(vswitch.ControlFrame{VLAN: 1, Data: wire}, 0, 2, 77)
		sent(1, 0, 1)
		r.Send(vswitch.ControlFrame{VLAN: 1, Data: wire})
		sent(0, 0, 0)
		r.Send(vswitch.ControlFrame{Port: r.ports[0], VLAN: 1, Data: wire}, 0, 1, 2)
		sent(0, 1, 1)
		r.Flood(vswitch.ControlFrame{Port: r.ports[0], VLAN: 1, Data: wire})
		sent(0, 0, 1)
		r.Flood(vswitch.ControlFrame{VLAN: 2, Data: wire})
		sent(0, 0, 0)
		r.Flood(vswitch.ControlFrame{VLAN: 1, Data: wire[:13]})
		sent(0, 0, 0)
		wantBalance(t, r)
		if n := r.Injected(); n != 8 {
			t.Errorf("%d injected", n)
		}

		// What came by a port that forwards no more goes nowhere, nor by one with its number.
		gone := r.ports[0]
		gone.SetForwarding(false)
		r.Flood(vswitch.ControlFrame{Port: gone, VLAN: 1, Data: wire})
		sent(0, 0, 0)
		if err := r.RemovePort("p0"); err != nil {
			t.Fatal(err)
		}
		next, err := r.AddPort("next")
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Attach(memory.New(memory.Options{})); err != nil {
			t.Fatal(err)
		}
		next.SetForwarding(true)
		if next.Number() != gone.Number() {
			t.Fatalf("port %d", next.Number())
		}
		r.Flood(vswitch.ControlFrame{Port: gone, VLAN: 1, Data: wire})
		sent(0, 0, 0)
	})
}
