package fastpath

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A CPU remembers how it floods a flow. What changes counts for the next frame of the flow, and so
// does what is in that frame.
func TestFloodRemembered(t *testing.T) {
	t.Parallel()
	const group, group6 = port.MAC(0x0100_5e01_0203), port.MAC(0x3333_0007_0203)
	r, guests := crowded(t)
	r.onCPU(0)
	ports := func(n int, change func(*vswitch.FastPort)) func() {
		return func() { change(&r.ports[n]) }
	}
	joined := func(numbers ...uint16) func() {
		return func() { r.joined(map[port.MAC][]uint16{group: numbers, group6: numbers}, nil, true) }
	}
	bare := func(dst port.MAC) []byte { return frame(dst, macA, frameLen) }
	ipv4 := func(dst port.MAC, protocol byte) []byte {
		b := bare(dst)
		b[12], b[13], b[23] = 0x08, 0x00, protocol
		return b
	}
	ipv6 := func(scope byte) []byte {
		b := bare(group6)
		b[12], b[13], b[20], b[38], b[39] = 0x86, 0xdd, 17, 0xff, scope
		return b
	}
	within := bare(group)
	within[12], within[13], within[15] = 0x88, 0xa8, 7
	all, long := bare(port.Broadcast), frame(port.Broadcast, macA, 1000)
	const udp, igmp = 17, 2
	moved := r.ports[3]
	moved.PVID, moved.Native, moved.VLANs = 2, 2, vlans(2)
	stays := r.ports[3]
	for _, step := range []struct {
		what   string
		change func()
		wire   []byte
		to     string // the ports by which it leaves; "": handed up
		drop   port.Drop
	}{
		{"at first", nil, all, "123", 0},
		{"not flooded", ports(1, func(p *vswitch.FastPort) { p.NoFlood = vswitch.Broadcast }), all, "23", 0},
		{"flooded", ports(1, func(p *vswitch.FastPort) { p.NoFlood = 0 }), all, "123", 0},
		{"deaf", ports(2, func(p *vswitch.FastPort) { p.Deaf, p.To = true, false }), all, "13", 0},
		{"not deaf", ports(2, func(p *vswitch.FastPort) { p.Deaf, p.To = false, true }), all, "123", 0},
		{"in another VLAN", func() { r.ports[3] = moved }, all, "12", 0},
		{"back in this one", func() { r.ports[3] = stays }, all, "123", 0},
		{"punted", ports(0, func(p *vswitch.FastPort) { p.Punt = vswitch.Broadcast }), all, "", 0},
		{"not punted", ports(0, func(p *vswitch.FastPort) { p.Punt = 0 }), all, "123", 0},
		{"no VLAN", func() { r.flood.VLANs = port.VLANSet{} }, all, "", 0},
		{"the VLAN", func() { r.flood.VLANs = *vlans(1) }, all, "123", 0},
		{"the sender moves", func() { r.learn(1, macA, 2) }, all, "", 0},
		{"it comes back", func() { r.learn(1, macA, 0) }, all, "123", 0},
		{"it is gone", func() { r.forget(macA) }, all, "", 0},
		{"it is heard", func() { r.learn(1, macA, 0) }, all, "123", 0},
		{"longer", nil, long, "123", 0},
		{"longer than one device takes", func() {
			r.ns.Run("ip", "link", "set", "vm3", "mtu", "500")
			r.path.bump() // in place of the time after which it counts
		}, long, "", 0},
		{"shorter", nil, all, "123", 0},
		{"long again", func() { r.ns.Run("ip", "link", "set", "vm3", "mtu", "1500") }, long, "123", 0},

		{"a group", nil, ipv4(group, udp), "123", 0},
		{"trapped", func() { r.flood.Traps = []port.MAC{group} }, ipv4(group, udp), "", 0},
		{"not trapped", func() { r.flood.Traps = nil }, ipv4(group, udp), "123", 0},
		{"snooped", joined(2), ipv4(group, udp), "2", 0},
		{"one joins", joined(2, 3), ipv4(group, udp), "23", 0},
		{"one leaves", joined(3), ipv4(group, udp), "3", 0},
		{"a message", nil, ipv4(group, igmp), "", 0},
		{"no message", nil, ipv4(group, udp), "3", 0},
		{"with a tag within", nil, within, "123", 0},
		{"without", nil, ipv4(group, udp), "3", 0},
		{"to all", nil, ipv4(port.Broadcast, udp), "123", 0},
		{"a message to all", nil, ipv4(port.Broadcast, igmp), "", 0},
		{"of IPv6", nil, ipv6(5), "3", 0},
		{"of a link", nil, ipv6(2), "123", 0},
		{"of no link", nil, ipv6(5), "3", 0},
		{"all leave", func() { r.joined(nil, nil, false) }, ipv4(group, udp), "", port.DropNoDestination},
		{"not snooped", func() { r.flood.Groups = nil }, ipv4(group, udp), "123", 0},
		{"a port goes", func() { r.ports = r.ports[:3] }, all, "12", 0},
		{"policed", func() { r.police(0, kilobyte, time.Second, time.Hour) }, all, "", port.DropPoliced},
	} {
		if step.change != nil {
			step.change()
		}
		r.publish(r.ports)
		for range 2 {
			var before [4]uint64
			for n := range before {
				before[n] = r.path.Counters(uint16(n)).TX.Frames
			}
			want := uint32(tcxPass)
			switch {
			case step.drop != port.DropNone:
				want = tcxDrop
			case step.to != "":
				want = tcxRedirect
			}
			if got := r.send(0, step.wire); got != want {
				t.Errorf("%s: the decision is %d, want %d", step.what, got, want)
			}
			by := ""
			for n := range before {
				if r.path.Counters(uint16(n)).TX.Frames != before[n] {
					by += fmt.Sprint(n)
				}
			}
			if by != step.to {
				t.Errorf("%s: it leaves by %q, want %q", step.what, by, step.to)
			}
			for _, fd := range guests {
				read(t, fd)
			}
		}
	}
}

// A device that goes takes no copy with it, nor does one of another get its copies: until the
// switch knows, the frame goes to the others, or is handed up whole.
func TestFloodDeviceGoes(t *testing.T) {
	t.Parallel()
	r, guests := crowded(t)
	r.onCPU(0)
	r.publish(r.ports)
	elsewhere := testenv.NewNetns(t)
	for n, want := range [][4]int{{0, 1, 1, 0}, {0, 1, 0, 0}, {0, 1, 0, 0}} { // a run by hand sends vm3 none
		o := ebpf.RunOptions{
			Data: frame(port.Broadcast, macA, frameLen), DataOut: make([]byte, 200),
			Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex())},
		}
		decision := r.execute(&o)
		if n > 0 && decision == tcxPass {
			want = [4]int{}
		}
		var got [4]int
		for n, fd := range guests {
			got[n] = len(read(t, fd))
		}
		if got != want {
			t.Errorf("guests hear %d, want %d; the decision is %d", got, want, decision)
		}
		in, tx := r.path.Counters(0).RX, uint64(0)
		for n := range uint16(3) {
			tx += r.path.Counters(n + 1).TX.Frames
		}
		if in.Frames+in.Copies != tx {
			t.Errorf("port 0 counts %+v, and %d frames are sent", in, tx)
		}
		r.ns.Run("ip", "link", "set", []string{"vm2", "vm3", "vm1"}[n], "netns", elsewhere.Name)
	}
}
