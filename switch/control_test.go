package vswitch_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Guests that flood the switch with joins do not keep BPDUs from it.
func TestBPDUsGoFirst(t *testing.T) {
	const group, bpdus = port.MAC(0x0100_5e01_0203), port.MAC(0x0180_c200_0000)
	synctest.Test(t, func(t *testing.T) {
		busy, first := make(chan struct{}), make(chan struct{})
		var order []port.MAC
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) {
			if order = append(order, port.MACFrom(c.Data)); len(order) == 1 {
				close(first)
				<-busy
			}
		}}, 2, memory.Options{Depth: 1024})
		defer r.Close()
		var one port.VLANSet
		one.Add(1)
		r.SetGroups(&vswitch.Groups{VLANs: one, IsControl: func([]byte) bool { return true }})
		r.ports[1].SetTree(vswitch.TreeForwarding, true)
		wantPass(t, r, 0, frame(group, station(0), 0, 60), 0, 0)
		<-first
		for range 300 {
			r.pass(0, frame(group, station(0), 0, 60))
		}
		if n := r.ports[0].Stats().RX.Dropped[port.DropControlFull]; n != 300-256 {
			t.Errorf("%d joins were too many, want %d", n, 300-256)
		}
		wantPass(t, r, 1, frame(bpdus, station(1), 0, 60), 0, 0)
		wantDrops(t, r, 1, port.DropConsumed, 1)
		close(busy)
		synctest.Wait()
		if len(order) != 258 || order[1] != bpdus {
			t.Errorf("%d control frames, the second to %v", len(order), order[1])
		}
	})
}

// A BPDU has no tag: one that has is of a network that is carried through.
func TestTaggedBPDU(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		r.ports[0].SetTree(vswitch.TreeForwarding, true)
		bpdu := frame(0x0180_c200_0000, station(0), 0, 60)
		wantPass(t, r, 0, slices.Concat(bpdu[:12], []byte{0x81, 0, 0, 5}, bpdu[12:]), 0, 0)
		wantDrops(t, r, 0, port.DropReserved, 1)
		wantPass(t, r, 0, bpdu, 0, 0)
		wantDrops(t, r, 0, port.DropConsumed, 1)
	})
}

// What a VLAN carries inside another tag is not snooped: it is flooded, joins too.
func TestGroupsOfTunnels(t *testing.T) {
	const group = port.MAC(0x0100_5e01_0203)
	tagged := func(size int, tags ...byte) []byte {
		f := frame(group, station(0), 0, size)
		return slices.Concat(f[:12], tags, f[12:])
	}
	inRig(t, 3, func(t *testing.T, r *rig) {
		var one port.VLANSet
		one.Add(1)
		isControl := func(data []byte) bool { return len(data) > 80 }
		lookup := func(uint16, uint64) ([]uint16, bool) { return []uint16{2}, false }
		r.SetGroups(&vswitch.Groups{VLANs: one, IsControl: isControl, Lookup: lookup})
		wantPass(t, r, 0, tagged(60), 0, 0, 1)
		wantPass(t, r, 0, tagged(60, 0x81, 0, 0, 5), 0, 1, 1)
		wantPass(t, r, 0, tagged(100, 0x81, 0, 0, 5), 0, 1, 1)
		wantPass(t, r, 0, tagged(100), 0, 0, 0)
		// The same inside a service VLAN's tag.
		r.configure(t, 0, vswitch.PortConfig{VLAN: vswitch.VLAN{Mode: vswitch.Trunk, VID: 1, Allowed: one, Service: true}})
		wantPass(t, r, 0, tagged(60, 0x88, 0xa8, 0, 1), 0, 0, 1)
		wantPass(t, r, 0, tagged(60, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 5), 0, 1, 1)
		wantPass(t, r, 0, tagged(100, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 5), 0, 1, 1)
	})
}

// Frames to a well-known group of link scope flood, though a group of wider scope with
// the same MAC has members.
func TestLinkControlFloods(t *testing.T) {
	const group = port.MAC(0x3333_0001_0003)
	packet := func(dst ...byte) []byte {
		f := frame(group, station(0), 0, 14+40)
		f[12], f[13] = 0x86, 0xdd
		copy(f[14+24:], append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3))
		return f
	}
	inRig(t, 3, func(t *testing.T, r *rig) {
		var one port.VLANSet
		one.Add(1)
		r.SetGroups(&vswitch.Groups{
			VLANs: one, IsControl: func([]byte) bool { return false },
			Lookup: func(uint16, uint64) ([]uint16, bool) { return []uint16{2}, false },
		})
		wantPass(t, r, 0, packet(0xff, 2), 0, 1, 1)
		wantPass(t, r, 0, packet(0xff, 5), 0, 0, 1)
		wantPass(t, r, 0, packet(0xff, 0x12), 0, 0, 1) // transient, so that its members report
		wantPass(t, r, 0, packet(0xff, 2)[:39], 0, 0, 1)
		wantPass(t, r, 0, packet(0xff, 2)[:40], 0, 1, 1)
		ipv4 := packet(0xff, 2)
		ipv4[12], ipv4[13] = 8, 0
		wantPass(t, r, 0, ipv4, 0, 0, 1)
	})
}

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
