package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/synctest"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

func (r *rig) mirror(t *testing.T, m ...vswitch.Mirror) {
	t.Helper()
	if err := r.SetMirrors(m); err != nil {
		t.Fatal(err)
	}
}

func trunk(native uint16, carried ...uint16) vswitch.PortConfig {
	return vswitch.PortConfig{VLAN: port.VLAN{Trunk: vlans(carried...), Native: native}}
}

// However many of a mirror's sources a frame passes, the mirror copies it once; another
// mirror copies it too.
func TestMirrorsOnce(t *testing.T) {
	inRig(t, 5, func(t *testing.T, r *rig) {
		for i := range 3 {
			r.pass(i, frame(port.Broadcast, station(i), 0, 60))
		}
		all, one := frame(port.Broadcast, station(0), 0, 60), frame(station(1), station(0), 0, 60)
		for name, m := range map[string]vswitch.Mirror{
			"two ports":   {Ports: []string{"p0", "p1"}},
			"three ports": {Ports: []string{"p0", "p1", "p2"}},
			"a VLAN":      {VLANs: vlans(1)},
			"both":        {Ports: []string{"p0"}, VLANs: vlans(1)},
			"short":       {Ports: []string{"p0", "p1", "p2"}, SnapLen: 20},
		} {
			m.Name, m.To, m.In, m.Out = "m", "p3", true, true
			other := m
			other.Name, other.To = "n", "p4"
			r.mirror(t, m)
			wantPass(t, r, 0, one, 0, 1, 0, 1, 0)
			wantPass(t, r, 0, all, 0, 1, 1, 1, 1)
			r.mirror(t, m, other)
			wantPass(t, r, 0, one, 0, 1, 0, 1, 1)
			wantPass(t, r, 0, all, 0, 1, 1, 1, 1)
			m.In = false
			r.mirror(t, m)
			if t.Failed() {
				t.Fatal(name)
			}
			// Each of a batch is a frame of its own.
			r.lines[0].Put(0, memory.Packet{Wire: bytes.Clone(one)}, memory.Packet{Wire: bytes.Clone(one)}, memory.Packet{Wire: bytes.Clone(all)})
			synctest.Wait()
			if name != "both" && name != "short" {
				if n := len(r.taken(3)); n != 3 {
					t.Errorf("%s, out: %d copies of three frames", name, n)
				}
			}
			for i := range r.lines {
				r.taken(i)
			}
		}
		// A filter sees a frame as it is at each source; the first that lets it pass counts.
		r.configure(t, 1, trunk(0, 1))
		r.mirror(t, vswitch.Mirror{Name: "m", Ports: []string{"p0", "p1"}, In: true, Out: true, To: "p3",
			Filter: func(_ *port.Frame, tag port.Tag) bool { return tag.VID() == 1 }})
		wantPass(t, r, 0, all, 0, 1, 1, 1, 1)
		wantPass(t, r, 2, all, 1, 1, 0, 1, 1)
		wantBalance(t, r)
	})
}

// Copies in a VLAN leave by the ports that data of that VLAN may leave by, tagged as
// theirs is, and not by the port that the frame came by or the one that it is copied at.
func TestMirrorToVLANLikeData(t *testing.T) {
	service := trunk(0, 999)
	service.VLAN.TrunkTPID = port.TPID(port.TPIDService)
	isolated := trunk(0, 999)
	isolated.Isolated = true
	for _, c := range []struct {
		name    string
		ports   map[int]vswitch.PortConfig
		blocked int // 0: none
		mirrors []vswitch.Mirror
		in      int
		want    []uint32 // TPID and VLAN of what leaves in addition to the frame, by port
	}{
		{name: "trunk", ports: map[int]vswitch.PortConfig{2: trunk(0, 999)}, want: []uint32{2: 0x8100_03e7}},
		{name: "S-trunk", ports: map[int]vswitch.PortConfig{2: service, 3: trunk(0, 999)}, want: []uint32{2: 0x88a8_03e7, 3: 0x8100_03e7}},
		{name: "native", ports: map[int]vswitch.PortConfig{2: trunk(999, 5), 3: trunk(0, 999)}, want: []uint32{3: 0x8100_03e7}},
		{name: "blocked", ports: map[int]vswitch.PortConfig{2: trunk(0, 999), 3: trunk(0, 999)}, blocked: 2, want: []uint32{3: 0x8100_03e7}},
		{name: "isolated", ports: map[int]vswitch.PortConfig{0: {Isolated: true}, 2: isolated, 3: trunk(0, 999)}, want: []uint32{3: 0x8100_03e7}},
		{name: "one is isolated", ports: map[int]vswitch.PortConfig{2: isolated}, want: []uint32{2: 0x8100_03e7}},
		{name: "a mirror's target", ports: map[int]vswitch.PortConfig{2: trunk(0, 999), 3: trunk(0, 999)},
			mirrors: []vswitch.Mirror{{Name: "n", Ports: []string{"p1"}, In: true, To: "p2"}}, want: []uint32{3: 0x8100_03e7}},
		{name: "where it came", ports: map[int]vswitch.PortConfig{2: trunk(1, 999), 3: trunk(0, 999)}, in: 2, want: []uint32{3: 0x8100_03e7}},
	} {
		for _, direction := range []string{"in", "out", "both"} {
			inRig(t, 4, func(t *testing.T, r *rig) {
				for i := range r.ports {
					r.configure(t, i, c.ports[i])
				}
				if c.blocked != 0 {
					r.ports[c.blocked].SetTree(vswitch.TreeDiscarding, true)
				}
				m := vswitch.Mirror{Name: "m", Ports: []string{"p0", "p1"}, ToVLAN: 999, In: direction != "out", Out: direction != "in"}
				if c.in == 2 && direction != "out" {
					m.Ports = append(m.Ports, "p2")
				}
				r.mirror(t, append(c.mirrors, m)...)
				r.lines[c.in].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 60)})
				synctest.Wait()
				for i := range r.lines {
					var want, got uint32
					if i < len(c.want) {
						want = c.want[i]
					}
					for _, w := range r.taken(i) {
						if tag := binary.BigEndian.Uint32(w[12:]); uint16(tag) == 999 {
							if got != 0 {
								t.Errorf("%s, %s: port %d has two copies", c.name, direction, i)
							}
							got = tag
						}
					}
					if got != want {
						t.Errorf("%s, %s: port %d has a copy with tag %#x, want %#x", c.name, direction, i, got, want)
					}
				}
				wantBalance(t, r)
			})
		}
	}
}

// A frame that is refused before its VLAN is known is copied for its port, and for no VLAN,
// whatever came before it.
func TestMirrorWithoutVLAN(t *testing.T) {
	inRig(t, 4, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{VLAN: port.VLAN{Access: 1}})
		r.mirror(t, vswitch.Mirror{Name: "m", VLANs: vlans(1), In: true, To: "p2"}, vswitch.Mirror{Name: "n", Ports: []string{"p0"}, In: true, To: "p3"})
		for _, refused := range [][]byte{
			frame(station(1), 0, 0, 60),                // no source
			frame(0x0180_c200_0003, station(0), 0, 60), // reserved
			tagged(frame(station(1), station(0), 0, 60), port.MakeTag(port.TPIDCustomer, 7)),
		} {
			wantPass(t, r, 0, frame(station(1), station(0), 0, 60), 0, 1, 1, 1)
			wantPass(t, r, 0, refused, 0, 0, 0, 1)
		}
	})
}

// A port copied where it leaves has no copy of its own there.
func TestMirrorNotAtItsPort(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.configure(t, 1, trunk(1, 999))
		r.configure(t, 2, trunk(0, 999))
		r.mirror(t, vswitch.Mirror{Name: "m", Ports: []string{"p1"}, Out: true, ToVLAN: 999})
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 1, 1)
	})
}

// A control frame that the switch passes on does not go back as a mirror's copy to the port it
// came by, even if that is the mirror's target.
func TestMirrorNotBack(t *testing.T) {
	const lldp = port.MAC(0x0180_c200_000e)
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		r = newRig(t, vswitch.Config{
			Traps:     []vswitch.Trap{{Dst: lldp, Queue: vswitch.QueueLink}},
			OnControl: func(f vswitch.ControlFrame) { f.VLAN = 1; r.Send(f, 1) },
		}, 3, memory.Options{})
		defer r.Close()
		r.mirror(t, vswitch.Mirror{Name: "m", Ports: []string{"p1"}, Out: true, To: "p2"})
		for in, copies := range map[int]int{0: 1, 2: 0} {
			r.lines[in].Put(0, memory.Packet{Wire: frame(lldp, station(in), 0, 60)})
			synctest.Wait()
			if sent, copied := len(r.taken(1)), len(r.taken(2)); sent != 1 || copied != copies {
				t.Errorf("from port %d: %d left, %d were copied, want 1 and %d", in, sent, copied, copies)
			}
		}
	})
}

// A mirror's target that spanning tree blocks is sent nothing.
func TestMirrorTargetBlocked(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.mirror(t, vswitch.Mirror{Name: "m", Ports: []string{"p0"}, In: true, Out: true, To: "p2"})
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 1, 1)
		r.ports[2].SetTree(vswitch.TreeDiscarding, true)
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 1, 0)
	})
}

// An offload header that contradicts its frame reaches nobody, for whatever other reason
// the frame is refused; one that is right reaches the mirror's target with the frame.
func TestMirrorOffloads(t *testing.T) {
	const bpdus = port.MAC(0x0180_c200_0000)
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.mirror(t, vswitch.Mirror{Name: "m", Ports: []string{"p0"}, In: true, To: "p1"})
		hearBPDUs(r.ports[0])
		lies := []port.Offload{
			{Flags: port.NeedsCsum, CsumStart: 60000, CsumOffset: 6},
			{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 16, GSOType: 77},
			{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 16, GSOType: port.GSOTCPv4, GSOSize: 1000}, // of no IP
		}
		for _, wire := range [][]byte{
			frame(port.Broadcast, station(0), 0, 3000),
			frame(port.Broadcast, 0, 0, 3000),   // no source
			frame(bpdus, station(0), 0, 3000),   // taken
			frame(bpdus|3, station(0), 0, 3000), // reserved
			tagged(frame(station(1), station(0), 0, 3000), port.MakeTag(port.TPIDCustomer, 7)),
		} {
			for _, o := range lies {
				r.lines[0].Put(0, memory.Packet{Wire: bytes.Clone(wire), Offload: o})
				synctest.Wait()
				r.lines[1].Drain(0, 10, func(p memory.Packet) {
					t.Errorf("a frame to %v with %+v is copied as one of %d bytes with %+v", port.MACFrom(wire), o, len(p.Wire), p.Offload)
				})
			}
		}
		good := superPacket(bpdus|3, 3000)
		r.lines[0].Put(0, good)
		synctest.Wait()
		n := r.lines[1].Drain(0, 10, func(p memory.Packet) {
			if p.Offload.GSOType != port.GSOTCPv4 || !bytes.Equal(p.Wire, good.Wire) {
				t.Errorf("a super-frame is copied as one of %d bytes with %+v", len(p.Wire), p.Offload)
			}
		})
		if n != 1 {
			t.Errorf("%d copies of a super-frame to an address of neighbours", n)
		}
		// What is cut is no super-frame any more.
		r.mirror(t, vswitch.Mirror{Name: "m", Ports: []string{"p0"}, In: true, To: "p1", SnapLen: 100})
		whole := superPacket(station(5), 3000)
		r.lines[0].Put(0, whole)
		synctest.Wait()
		n = r.lines[1].Drain(0, 10, func(p memory.Packet) {
			if p.Offload != (port.Offload{}) || !bytes.Equal(p.Wire, whole.Wire[:100]) {
				t.Errorf("a super-frame cut to 100 bytes is copied as one of %d bytes with %+v", len(p.Wire), p.Offload)
			}
		})
		if n != 1 {
			t.Errorf("%d copies of a super-frame that is cut", n)
		}
	})
}
