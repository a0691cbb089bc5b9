package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	cilium "github.com/cilium/ebpf/link"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/hoststack/hoststacktest"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

const (
	tcxNext   = 0xffffffff
	outerLen  = 50
	tunnelVNI = 10010
)

// tunnelRig is a rig whose port 1 is a tunnel to a host behind ul0, where B is. A is behind port 0.
type tunnelRig struct {
	*rig
	tunnel *Tunnel
	header port.Encapsulation
	path   uint16 // to the host
	ul0    int
	mac    port.MAC // of ul0
}

func newTunnelRig(t *testing.T, e port.Encapsulation, vlan uint16) *tunnelRig {
	t.Helper()
	r := &tunnelRig{rig: newRig(t, 2), header: e, mac: 0x02_00_00_00_00_77}
	r.ns.Run("ip", "link", "add", "ul0", "address", "02:00:00:00:00:77", "mtu", "1600", "type", "veth", "peer", "name", "ul1")
	r.ul0 = r.ifindex("ul0")
	local, host := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	r.ports[1].Tunnel = true
	if vlan != 0 {
		r.ports[0].PVID, r.ports[0].Native, r.ports[0].VLANs = vlan, vlan, vlans(vlan)
		r.ports[1].PVID, r.ports[1].Native, r.ports[1].VLANs = 0, 0, vlans(vlan)
		r.ports[1].TPID = port.TPIDCustomer
	}
	r.publish(r.ports)
	r.learn(max(vlan, 1), macA, 0)
	r.learn(max(vlan, 1), macB, 1)
	var err error
	if r.tunnel, err = r.rig.path.Tunnel(r.ports[1].Device.Ifindex(), local); err != nil {
		t.Fatal(err)
	}
	if r.path, err = r.tunnel.Join(host, tunnelVNI, vlan, 1514); err != nil {
		t.Fatal(err)
	}
	r.tunnel.SetStation(fdb.MakeKey(vlan, uint64(macB)), r.path, 0)
	r.tunnel.Commit()
	r.confirm()
	return r
}

// confirm says that the host is reached by ul0.
func (r *tunnelRig) confirm() {
	r.t.Helper()
	host := netip.MustParseAddr("192.0.2.2")
	r.ns.Do(func() {
		if !r.tunnel.SetWays(r.header, 4789, map[netip.Addr]link.Way{host: {Ifindex: r.ul0, Via: host}}) {
			r.t.Error("the ways are not in force")
		}
	})
}

// packet returns a packet of the host with a frame inside.
func (r *tunnelRig) packet(inner []byte) []byte {
	header := uint64(8<<56 | tunnelVNI<<8)
	if r.header == port.Geneve {
		header = 0x6558<<32 | tunnelVNI<<8
	}
	udp := packettest.UDP(40000, 4789, append(binary.BigEndian.AppendUint64(nil, header), inner...))
	copy(udp[6:], []byte{0, 0})
	return packettest.Bare(r.mac, 0x02_00_00_00_00_78, typeIPv4, packettest.IPv4("192.0.2.2", "192.0.2.1", 17, udp))
}

// unwrap gives the program at ul0 a packet of a flow that left no trail.
func (r *tunnelRig) unwrap(wire []byte) (uint32, []byte) {
	r.t.Helper()
	if err := r.rig.path.bpf.Trails.Put(uint32(0), make([]bpfTrail, ebpf.MustPossibleCPU())); err != nil {
		r.t.Fatal(err)
	}
	return r.unwrapNext(wire, 0)
}

func (r *tunnelRig) unwrapNext(wire []byte, gso uint32) (got uint32, out []byte) {
	r.t.Helper()
	o := ebpf.RunOptions{Data: wire, DataOut: make([]byte, len(wire)+64), Context: skb{Ifindex: uint32(r.ul0), GSOSize: gso}}
	var err error
	r.ns.Do(func() { got, err = program(r.t, r.rig.path, "vswitch_unwrap").Run(&o) })
	if err != nil {
		r.t.Fatal(err)
	}
	return got, o.DataOut
}

func innerFrame(dst, src port.MAC, etherType uint16) []byte {
	payload := packettest.IPv4("10.0.0.2", "10.0.0.1", 17, packettest.UDP(1, 2, make([]byte, 30)))
	if etherType == typeIPv6 {
		payload = packettest.IPv6("fd00::2", "fd00::1", 17, packettest.UDP(1, 2, make([]byte, 30)))
	}
	return packettest.Bare(dst, src, etherType, payload)
}

// TestUnwrap: a packet of a known host with a frame between known stations becomes that frame.
// Any other is left for the tunnel's device, as it was.
func TestUnwrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vlan uint16
		e    port.Encapsulation
	}{{0, port.VXLAN}, {10, port.VXLAN}, {0, port.Geneve}} {
		for _, etherType := range []uint16{typeIPv4, typeIPv6} {
			t.Run(fmt.Sprintf("VLAN %d, encapsulation %d, type %#x", c.vlan, c.e, etherType), func(t *testing.T) {
				t.Parallel()
				r := newTunnelRig(t, c.e, c.vlan)
				inner := innerFrame(macA, macB, etherType)
				before := r.rig.path.Counters(1).Fast
				if got, out := r.unwrap(r.packet(inner)); got != tcxRedirect || !bytes.Equal(out, inner) {
					t.Errorf("it gets %d and is\n% x, want\n% x", got, out, inner)
				}
				if n := r.rig.path.Counters(1).Fast - before; n != 1 {
					t.Errorf("%d frames count", n)
				}
				for what, inner := range map[string][]byte{
					"for a stranger":        innerFrame(macC, macB, etherType),
					"from a stranger":       innerFrame(macA, macC, etherType),
					"to all":                innerFrame(port.Broadcast, macB, etherType),
					"of another protocol":   innerFrame(macA, macB, 0x88b5),
					"for its own place":     innerFrame(macB, macB, etherType),
					"with a tag":            packettest.Tag(innerFrame(macA, macB, etherType), port.MakeTag(port.TPIDCustomer, 10)),
					"too long for the port": append(innerFrame(macA, macB, etherType), make([]byte, 1500)...),
					"cut short":             inner[:14],
				} {
					wire := r.packet(inner)
					if got, out := r.unwrap(wire); got != tcxNext || !bytes.Equal(out, wire) {
						t.Errorf("a frame %s: it gets %d and is\n% x, was\n% x", what, got, out, wire)
					}
				}
			})
		}
	}
}

// TestUnwrapHostile flips each bit of a packet's headers, and cuts the packet at each byte. Whoever
// sends it may choose its own MAC address and UDP port, nothing else.
func TestUnwrapHostile(t *testing.T) {
	t.Parallel()
	for _, e := range []port.Encapsulation{port.VXLAN, port.Geneve} {
		t.Run(fmt.Sprint("encapsulation ", e), func(t *testing.T) {
			t.Parallel()
			testUnwrapHostile(t, newTunnelRig(t, e, 0))
		})
	}
}

func testUnwrapHostile(t *testing.T, r *tunnelRig) {
	wire := r.packet(innerFrame(macA, macB, typeIPv4))
	const headers = 14 + outerLen
	for bit := range headers * 8 {
		at := bit / 8
		free := at >= 6 && at < 12 || at == 34 || at == 35
		bad := bytes.Clone(wire)
		bad[at] ^= 1 << (bit % 8)
		got, out := r.unwrap(bad)
		switch {
		case free && got != tcxRedirect:
			t.Errorf("with bit %d of byte %d it gets %d", bit%8, at, got)
		case !free && (got != tcxNext || !bytes.Equal(out, bad)):
			t.Errorf("with bit %d of byte %d it gets %d", bit%8, at, got)
		}
	}
	for n := 14 + 20; n < len(wire); n++ { // the kernel runs no program on less than an IP header
		if got, _ := r.unwrap(wire[:n]); got != tcxNext {
			t.Errorf("with %d bytes it gets %d", n, got)
		}
	}
	longer := append(bytes.Clone(wire), 0)
	if got, _ := r.unwrap(longer); got != tcxNext {
		t.Errorf("with a byte that no length covers it gets %d", got)
	}
	// The checks that a right checksum would hide.
	for what, change := range map[string]func(ip []byte){
		"congestion":     func(ip []byte) { ip[1] |= 3 },
		"a fragment":     func(ip []byte) { ip[7] = 1 },
		"more fragments": func(ip []byte) { ip[6] = 0x20 },
		"another host":   func(ip []byte) { ip[15] = 3 },
		"another port":   func(ip []byte) { ip[22] ^= 1 },
		"a UDP checksum": func(ip []byte) { ip[26] = 1 },
	} {
		bad := bytes.Clone(wire)
		change(bad[14:])
		copy(bad[24:], []byte{0, 0})
		binary.BigEndian.PutUint16(bad[24:], ipSum(bad[14:34]))
		if got, _ := r.unwrap(bad); got != tcxNext {
			t.Errorf("with %s it gets %d", what, got)
		}
	}
}

func ipSum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// TestUnwrapOrder: while a flow has a packet on the way through the device, its others follow.
func TestUnwrapOrder(t *testing.T) {
	t.Parallel()
	r := newTunnelRig(t, port.VXLAN, 0)
	wire := r.packet(innerFrame(macA, macB, typeIPv4))
	// Both have to run on one CPU within a few ticks, as one of many tries does.
	for range 1000 {
		if got, _ := r.unwrapNext(wire, 1000); got != tcxNext {
			t.Fatalf("a super-frame gets %d", got)
		}
		if got, _ := r.unwrapNext(wire, 0); got == tcxNext {
			if got, _ := r.unwrap(wire); got != tcxRedirect {
				t.Errorf("without a trail it gets %d", got)
			}
			return
		}
	}
	t.Error("a frame passes a super-frame of its flow")
}

// TestWrap: a frame for a station behind a host becomes a packet, which that host would unwrap,
// unless there is a reason to leave it to the tunnel's device.
func TestWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		etherType uint16
		e         port.Encapsulation
	}{{typeIPv4, port.VXLAN}, {typeIPv6, port.VXLAN}, {typeIPv4, port.Geneve}, {typeIPv6, port.Geneve}} {
		etherType := c.etherType
		r := newTunnelRig(t, c.e, 0)
		frame := innerFrame(macB, macA, etherType)
		frame[15] |= 0x03 // congestion experienced
		if etherType == typeIPv6 {
			frame[15] = 0x30
		}
		wrap := func(frame []byte, gso uint32) []byte {
			t.Helper()
			o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex()), GSOSize: gso}}
			if got := r.execute(&o); got != tcxRedirect {
				t.Fatalf("it gets %d", got)
			}
			return o.DataOut
		}
		r.confirm()
		out := wrap(frame, 0)
		if len(out) != len(frame)+outerLen || !bytes.HasSuffix(out, frame) {
			t.Fatalf("it is % x", out)
		}
		want := r.packet(frame)
		copy(want, out[:14])        // the kernel writes the Ethernet header
		copy(want[18:22], out[18:]) // IP: identification, no fragments
		copy(want[26:34], out[26:]) // addresses, the other way round
		copy(want[34:36], out[34:]) // UDP source port
		copy(want[24:26], out[24:]) // checksum
		want[15] = 2                // ECT(0): RFC 6040
		want[22] = out[22]          // TTL
		if !bytes.Equal(out, want) || ipSum(out[14:34]) != 0 || out[22] != 64 {
			t.Errorf("it is\n% x, want\n% x", out, want)
		}
		if from := binary.BigEndian.Uint16(out[34:]); from == 0 || from < 1024 && c.e == port.VXLAN {
			t.Errorf("its UDP source port is %d", from)
		}
		if !bytes.Equal(out[26:34], []byte{192, 0, 2, 1, 192, 0, 2, 2}) {
			t.Errorf("its addresses are % d", out[26:34])
		}
		if why := r.tunnel.Detour(); why != "" {
			t.Errorf("a detour: %s", why)
		}

		detours := func(what string) {
			t.Helper()
			if out := wrap(frame, 0); !bytes.Equal(out, frame) {
				t.Errorf("%s: it is % x", what, out)
			}
		}
		if out := wrap(append(bytes.Clone(frame), make([]byte, 1400)...), 1000); len(out) > len(frame)+1400 {
			t.Error("a super-frame of unknown segments has outer headers")
		}
		r.ns.Run("ip", "xfrm", "policy", "add", "src", "198.51.100.1", "dst", "198.51.100.2", "dir", "out", "action", "allow")
		detours("with an IPsec policy")
		if why := r.tunnel.Detour(); why == "" {
			t.Error("the detour has no reason")
		}
		r.ns.Run("ip", "xfrm", "policy", "flush")
		r.confirm()
		if out := wrap(frame, 0); len(out) != len(frame)+outerLen || r.tunnel.Detour() != "" {
			t.Error("the detour goes on")
		}
		filter := r.filter()
		detours("with a netfilter hook")
		filter()

		var s bpfShortcut
		if err := r.rig.path.bpf.Ways.Lookup(uint32(0), &s); err != nil {
			t.Fatal(err)
		}
		s.Beat -= 60
		if err := r.rig.path.bpf.Ways.Put(uint32(0), &s); err != nil {
			t.Fatal(err)
		}
		detours("a way that nobody confirms")
		r.ns.Do(func() { r.tunnel.SetWays(r.header, 4789, nil) })
		detours("without a way")
	}
}

// TestWrapBetweenTicks confirms ways when a second has begun that the programs, whose clock is up to a
// tick behind, have not seen: ways are in force at once. A busy machine may miss that moment.
func TestWrapBetweenTicks(t *testing.T) {
	t.Parallel()
	r := newTunnelRig(t, port.VXLAN, 0)
	frame := innerFrame(macB, macA, typeIPv4)
	const unit = 1 << heardShift
	soon := monotonic()/unit*unit + unit
	time.Sleep(soon - monotonic() - 2*time.Millisecond)
	for monotonic() < soon+10*time.Millisecond && monotonic()/unit == coarse()/unit {
	}
	r.confirm()
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex())}}
	if got := r.execute(&o); got != tcxRedirect || len(o.DataOut) != len(frame)+outerLen {
		t.Errorf("it gets %d and is % x", got, o.DataOut)
	}
}

// filter puts a netfilter program that accepts all to the host's own packets, and returns what removes it.
func (r *tunnelRig) filter() func() {
	r.t.Helper()
	var l cilium.Link
	var err error
	r.ns.Do(func() {
		var p *ebpf.Program
		p, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		if err != nil {
			return
		}
		defer p.Close()
		l, err = cilium.AttachNetfilter(cilium.NetfilterOptions{Program: p, ProtocolFamily: 2, Hook: 3, Priority: 1})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() { _ = l.Close() }
}

// TestWays: the program is at the devices of the ways, as long as a tunnel needs it there.
func TestWays(t *testing.T) {
	t.Parallel()
	r := newTunnelRig(t, port.VXLAN, 0)
	host := netip.MustParseAddr("192.0.2.2")
	attached := func(name string, want int) {
		t.Helper()
		ifindex := r.ifindex(name)
		r.ns.Do(func() {
			is, err := cilium.QueryPrograms(cilium.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
			if err != nil || len(is.Programs) != want {
				t.Errorf("%s has %v, %v; want %d", name, is, err, want)
			}
		})
	}
	set := func(all map[netip.Addr]link.Way) { r.ns.Do(func() { r.tunnel.SetWays(r.header, 4789, all) }) }
	attached("ul0", 1)
	wire := r.packet(innerFrame(macA, macB, typeIPv4))
	set(map[netip.Addr]link.Way{host: {Ifindex: r.ifindex("ul1"), Via: host}})
	attached("ul0", 0)
	attached("ul1", 1)
	if got, _ := r.unwrap(wire); got != tcxNext {
		t.Errorf("by a device to which no route leads it gets %d", got)
	}
	set(map[netip.Addr]link.Way{host: {Ifindex: r.ul0, Via: host}})
	if got, _ := r.unwrap(wire); got != tcxRedirect {
		t.Errorf("back again it gets %d", got)
	}

	// Somebody detaches the program.
	r.ns.Do(func() { hoststacktest.Detach(t, r.ul0) })
	attached("ul0", 0)
	set(map[netip.Addr]link.Way{host: {Ifindex: r.ul0, Via: host}})
	attached("ul0", 1)

	// A device that goes takes its number along.
	r.ns.Run("ip", "link", "del", "ul0")
	r.ns.Run("ip", "link", "add", "ul0", "index", fmt.Sprint(r.ul0), "address", "02:00:00:00:00:77", "type", "veth", "peer", "name", "ul1")
	if got, _ := r.unwrap(wire); got != tcxNext {
		t.Errorf("by another device of that number it gets %d", got)
	}
	set(map[netip.Addr]link.Way{host: {Ifindex: r.ul0, Via: host}})
	attached("ul0", 1)
	if got, _ := r.unwrap(wire); got != tcxRedirect {
		t.Errorf("by the new device it gets %d", got)
	}
	r.ns.Do(func() {
		if err := r.tunnel.Detach(r.ports[1].Device.Ifindex()); err != nil {
			t.Error(err)
		}
	})
	attached("ul0", 0)
	if got, _ := r.unwrap(wire); got != tcxNext {
		t.Errorf("without the tunnel it gets %d", got)
	}
}

// TestArrivals: a CPU remembers by which path packets come only while that is so.
func TestArrivals(t *testing.T) {
	t.Parallel()
	r := newTunnelRig(t, port.VXLAN, 0)
	wire := r.packet(innerFrame(macA, macB, typeIPv4))
	// All CPUs remember the path, or will soon.
	for range 10 {
		if got, _ := r.unwrap(wire); got != tcxRedirect {
			t.Fatalf("it gets %d", got)
		}
	}
	r.tunnel.Leave(r.path)
	for range 10 {
		if got, _ := r.unwrap(wire); got != tcxNext {
			t.Fatalf("of a host that left it gets %d", got)
		}
	}
	// The host comes back by another path.
	path, err := r.tunnel.Join(netip.MustParseAddr("192.0.2.2"), tunnelVNI, 0, 1514)
	if err != nil || path == r.path {
		t.Fatal(path, err)
	}
	r.tunnel.SetStation(fdb.MakeKey(0, uint64(macB)), path, 0)
	r.tunnel.Commit()
	r.confirm()
	for range 10 {
		if got, _ := r.unwrap(wire); got != tcxRedirect {
			t.Fatalf("of a host that came back it gets %d", got)
		}
	}
}
