package vnet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// TestKernelCutsTheSame sends super-frames through veth devices that cut them and
// compares what the kernel makes of them with the Segmenter, byte for byte:
//
//	full0     ── full1        no offload: segments with complete checksums
//	partial0  ── partial1     checksum offload alone: partial ones
func TestKernelCutsTheSame(t *testing.T) {
	ns := testenv.NewNetns(t)
	testenv.Tool(t, "ethtool")
	// Nothing but the test speaks here.
	for _, scope := range []string{"all", "default"} {
		file := "/proc/sys/net/ipv6/conf/" + scope + "/disable_ipv6"
		ns.Do(func() {
			if err := os.WriteFile(file, []byte("1"), 0); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	var full, partial link
	for _, l := range []struct {
		*link
		name string
		off  []string
	}{
		{&full, "full", []string{"tx", "off", "gso", "off", "tso", "off"}},
		{&partial, "partial", []string{"tso", "off", "tx-udp-segmentation", "off"}},
	} {
		a, b := l.name+"0", l.name+"1"
		ns.Run("ip", "link", "add", a, "mtu", "65535", "type", "veth", "peer", "name", b, "mtu", "65535")
		ns.Run("ethtool", append([]string{"-K", a}, l.off...)...)
		ns.Run("ip", "link", "set", a, "up")
		ns.Run("ip", "link", "set", b, "up")
		ns.Do(func() { l.in, l.out = tuntest.Listen(t, a), tuntest.Listen(t, b) })
		ready(t, l.out, func() error { return l.in.Send(end, port.Offload{}) })
	}

	const syn, fin, psh, ack, ece, cwr = 0x02, 0x01, 0x08, 0x10, 0x40, 0x80
	timestamp := []byte("\x01\x01\x08\x0a\x01\x02\x03\x04\x05\x06\x07\x08")
	for _, c := range []struct {
		name string
		f    superFrame
		gso  uint8
		size int
		tag  port.Tag
	}{
		{"TCP", superFrame{proto: protoTCP, id: 7, flags: ack, payload: pattern(60000)}, port.GSOTCPv4, 1460, 0},
		{"TCP, options, last one full", superFrame{proto: protoTCP, dfFlags: 0x4000, tcpOptions: timestamp, flags: ack | psh | fin, payload: pattern(4 * 1448)}, port.GSOTCPv4, 1448, 0},
		{"TCP, numbers wrap", superFrame{proto: protoTCP, id: 0xfffe, seq: 0xffff_f000, flags: ack | psh, payload: pattern(20001)}, port.GSOTCPv4, 1000, 0},
		{"TCP, congestion window reduced", superFrame{proto: protoTCP, flags: ack | cwr | ece | psh | 0x20, payload: pattern(5000)}, port.GSOTCPv4 | port.GSOECN, 1460, 0},
		{"TCP, SYN with data", superFrame{proto: protoTCP, flags: syn, payload: pattern(5000)}, port.GSOTCPv4, 1460, 0},
		{"TCP, IPv4 options", superFrame{proto: protoTCP, options: []byte("\x94\x04\x00\x00\x07\x07\x04\x00\x00\x00\x00\x00"), flags: ack, payload: pattern(9000)}, port.GSOTCPv4, 536, 0},
		{"TCP, tag", superFrame{proto: protoTCP, flags: ack, payload: pattern(30000)}, port.GSOTCPv4, 1460, port.MakeTag(port.TPIDCustomer, 0xe064)},
		{"TCP, two tags", superFrame{proto: protoTCP, tags: []port.Tag{port.MakeTag(port.TPIDCustomer, 5)}, flags: ack, payload: pattern(30000)}, port.GSOTCPv4, 1460, port.MakeTag(port.TPIDService, 100)},
		{"TCP, odd segments", superFrame{proto: protoTCP, flags: ack, payload: pattern(3001)}, port.GSOTCPv4, 333, 0},
		{"TCP, one segment", superFrame{proto: protoTCP, flags: ack | psh | cwr, payload: pattern(1000)}, port.GSOTCPv4, 1460, 0},
		{"TCPv6", superFrame{proto: protoTCP, v6: true, flags: ack | psh, tcpOptions: timestamp, payload: pattern(60000)}, port.GSOTCPv6, 1428, 0},
		{"TCPv6, extension headers", superFrame{proto: protoTCP, v6: true, ext: []uint8{protoHopByHop, protoDestOpt}, flags: ack, payload: pattern(9000)}, port.GSOTCPv6, 1400, 0},
		{"TCPv6, routing header, tag", superFrame{proto: protoTCP, v6: true, ext: []uint8{protoRouting}, last: [16]byte(addr6(9)), flags: ack, payload: pattern(9000)}, port.GSOTCPv6, 1400, port.MakeTag(port.TPIDCustomer, 7)},
		{"UDP", superFrame{proto: protoUDP, id: 0xffff, payload: pattern(60000)}, port.GSOUDPL4, 1472, 0},
		{"UDP, tag", superFrame{proto: protoUDP, dfFlags: 0x4000, payload: pattern(10001)}, port.GSOUDPL4, 1001, port.MakeTag(port.TPIDCustomer, 1)},
		{"UDP, one datagram", superFrame{proto: protoUDP, payload: pattern(1000)}, port.GSOUDPL4, 1472, 0},
		{"UDPv6", superFrame{proto: protoUDP, v6: true, ext: []uint8{protoDestOpt}, payload: pattern(20000)}, port.GSOUDPL4, 1452, 0},
		{"fragments", superFrame{proto: protoUDP, id: 99, dfFlags: 0x4000, payload: pattern(20000)}, port.GSOUDP, 1480, 0},
		{"fragments, IPv4 options, tag", superFrame{proto: protoUDP, options: []byte("\x94\x04\x00\x00"), payload: pattern(9000)}, port.GSOUDP, 1472, port.MakeTag(port.TPIDService, 8)},
		{"fragments, IPv6", superFrame{proto: protoUDP, v6: true, payload: pattern(20000)}, port.GSOUDP, 1448, 0},
		// Not with IPv6 extension headers: the kernel adds their length to every
		// offset (ipv6_gso_segment), which no receiver can put together.
		{"checksum alone", superFrame{proto: protoUDP, payload: pattern(999)}, port.GSONone, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			full.compare(t, &c.f, c.gso, c.size, c.tag, port.CapsNone)
			partial.compare(t, &c.f, c.gso, c.size, c.tag, port.CapCsum)
		})
	}
	t.Run("random", func(t *testing.T) {
		r := rand.New(rand.NewPCG(4, 2))
		for range 60 {
			f := superFrame{
				v6: r.IntN(2) == 0, id: uint16(r.Uint32()), seq: r.Uint32(), flags: uint8(r.Uint32()),
				proto: []uint8{protoTCP, protoUDP}[r.IntN(2)], payload: make([]byte, 2000+r.IntN(40000)),
			}
			for i := range f.payload {
				f.payload[i] = byte(r.Uint32())
			}
			gso := f.tso()
			if f.proto == protoUDP {
				gso = port.GSOUDPL4
			} else {
				f.tcpOptions = bytes.Repeat([]byte{1}, 4*r.IntN(11))
			}
			size := len(f.payload)/100 + r.IntN(1500)
			full.compare(t, &f, gso, size, 0, port.CapsNone)
			partial.compare(t, &f, gso, size, 0, port.CapCsum)
		}
	})
}

// TestKernelSegmentsTunnelsTheSame does so for super-frames in UDP tunnels. A guest that
// may send those is bridged to a veth device that has no offload:
//
//	guest ── vm0 ── bridge ── full0 ── full1
func TestKernelSegmentsTunnelsTheSame(t *testing.T) {
	ns := testenv.NewNetns(t)
	testenv.Tool(t, "ethtool")
	var guest tuntest.TunnelGuest
	var out *tuntest.Station
	ns.Do(func() {
		for _, scope := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+scope+"/disable_ipv6", []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
		ns.Run("ip", "link", "add", "full0", "mtu", "65535", "type", "veth", "peer", "name", "full1", "mtu", "65535")
		ns.Run("ethtool", "-K", "full0", "tx", "off", "gso", "off", "tso", "off", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off")
		ns.Run("ip", "link", "add", "br0", "type", "bridge")
		for _, name := range []string{"vm0", "full0"} {
			ns.Run("ip", "link", "set", name, "mtu", "65521", "master", "br0")
		}
		for _, name := range []string{"br0", "full0", "full1", "vm0"} {
			ns.Run("ip", "link", "set", name, "up")
		}
		guest, out = tuntest.BootTunnels(t, "vm0"), tuntest.Listen(t, "full1")
	})
	ready(t, out, func() error { return guest.Plain(end) })

	compare := func(t *testing.T, f *tunnelFrame, gso uint8, size int) {
		t.Helper()
		data, o := f.build(), f.offload(gso, size)
		want, _ := segments(t, data, o, port.CapsNone)
		if err := guest.Send(data, o, f.outer.v6, f.csum, f.l4(), f.innerAt()+f.inner.l3()); err != nil {
			t.Fatalf("the kernel refuses %+v: %v", o, err)
		}
		if err := guest.Plain(end); err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			got, left, err := recv(out)
			if err != nil {
				t.Fatalf("segment %d of %d: %v", i, len(want), err)
			}
			if bytes.Equal(got, end) {
				if i != len(want) {
					t.Fatalf("the kernel makes %d segments, not %d", i, len(want))
				}
				return
			}
			if i >= len(want) || !bytes.Equal(got, want[i]) || left.Flags&port.NeedsCsum != 0 {
				ours := want[min(i, len(want)-1)]
				t.Fatalf("segment %d of %d, %s, %+v left\nkernel %x\nours   %x", i, len(want), firstDifference(got, ours), left, got, ours)
			}
		}
	}
	vxlan := []byte{8, 0, 0, 0, 0, 0, 42, 0}
	geneve := []byte("\x03\x00\x65\x58\x00\x00\x2a\x00\x01\x02\x80\x01\x00\x00\x00\x07\x00\x00\x00\x00")
	tag := []port.Tag{port.MakeTag(port.TPIDCustomer, 0xe064)}
	const fin, psh, ack, ece, cwr = 0x01, 0x08, 0x10, 0x40, 0x80
	for _, c := range []struct {
		name string
		f    tunnelFrame
		gso  uint8
		size int
	}{
		{"VXLAN", tunnelFrame{csum: true, shim: vxlan, inner: superFrame{proto: protoTCP, id: 7, flags: ack, payload: pattern(60000)}, outer: superFrame{id: 0xfffe}}, port.GSOTCPv4, 1410},
		{"VXLAN without checksum", tunnelFrame{shim: vxlan, inner: superFrame{proto: protoTCP, id: 0xffff, dfFlags: 0x4000, flags: ack | psh | fin, seq: 0xffff_f000, payload: pattern(30001)}, outer: superFrame{dfFlags: 0x4000}}, port.GSOTCPv4, 1410},
		{"VXLAN, IPv6 inside", tunnelFrame{csum: true, shim: vxlan, inner: superFrame{proto: protoTCP, v6: true, ext: []uint8{protoDestOpt}, flags: ack, payload: pattern(20000)}}, port.GSOTCPv6, 1333},
		{"VXLAN over IPv6", tunnelFrame{csum: true, shim: vxlan, inner: superFrame{proto: protoTCP, flags: ack | cwr | ece, payload: pattern(20000)}, outer: superFrame{v6: true}}, port.GSOTCPv4 | port.GSOECN, 1370},
		{"VXLAN over IPv6 without checksum", tunnelFrame{shim: vxlan, inner: superFrame{proto: protoTCP, v6: true, flags: ack, payload: pattern(20000)}, outer: superFrame{v6: true}}, port.GSOTCPv6, 1350},
		{"VXLAN, options outside and inside", tunnelFrame{csum: true, shim: vxlan,
			inner: superFrame{proto: protoTCP, options: []byte("\x94\x04\x00\x00"), tcpOptions: []byte("\x01\x01\x08\x0a\x01\x02\x03\x04\x05\x06\x07\x08"), flags: ack, payload: pattern(9000)},
			outer: superFrame{options: []byte("\x94\x04\x00\x00\x07\x07\x04\x00\x00\x00\x00\x00")}}, port.GSOTCPv4, 997},
		{"VXLAN, tag outside", tunnelFrame{csum: true, shim: vxlan, inner: superFrame{proto: protoTCP, flags: ack, payload: pattern(9000)}, outer: superFrame{tags: tag}}, port.GSOTCPv4, 1400},
		{"GENEVE with an option", tunnelFrame{csum: true, shim: geneve, inner: superFrame{proto: protoTCP, flags: ack | psh, payload: pattern(40000)}}, port.GSOTCPv4, 1400},
		{"datagrams in VXLAN", tunnelFrame{csum: true, shim: vxlan, inner: superFrame{proto: protoUDP, payload: pattern(20001)}}, port.GSOUDPL4, 1201},
		{"datagrams in GENEVE without checksum", tunnelFrame{shim: geneve, inner: superFrame{proto: protoUDP, v6: true, payload: pattern(20000)}, outer: superFrame{v6: true}}, port.GSOUDPL4, 1200},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.proto, c.f.ether = protoUDP, true
			compare(t, &c.f, c.gso, c.size)
		})
	}
	t.Run("random", func(t *testing.T) {
		r := rand.New(rand.NewPCG(4, 3))
		for range 60 {
			f := tunnelFrame{
				proto: protoUDP, ether: true, csum: r.IntN(2) == 0, shim: vxlan,
				inner: superFrame{
					v6: r.IntN(2) == 0, id: uint16(r.Uint32()), seq: r.Uint32(), flags: uint8(r.Uint32()) &^ cwr,
					proto: []uint8{protoTCP, protoUDP}[r.IntN(2)], payload: make([]byte, 2000+r.IntN(40000)),
				},
				outer: superFrame{v6: r.IntN(2) == 0, id: uint16(r.Uint32())},
			}
			for i := range f.inner.payload {
				f.inner.payload[i] = byte(r.Uint32())
			}
			gso := f.inner.tso()
			if f.inner.proto == protoUDP {
				gso = port.GSOUDPL4
			}
			compare(t, &f, gso, len(f.inner.payload)/100+r.IntN(1400))
		}
	})
}

const patience = 30 * time.Second

// end is a frame that tells where the segments of the one before end.
var end = []byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x88\xb5end of segments")

// recv takes the next frame from the test's sender: bridges and hosts speak too.
func recv(s *tuntest.Station) (wire []byte, o port.Offload, err error) {
	for deadline := time.Now().Add(patience); ; {
		wire, o, err = s.Recv(time.Until(deadline))
		if err != nil || bytes.Equal(wire[6:12], end[6:12]) {
			return wire, o, err
		}
	}
}

// ready sends until frames arrive, and takes those that do: links that were just set up
// lose some.
func ready(t *testing.T, out *tuntest.Station, send func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := out.Recv(50 * time.Millisecond); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no frame arrives")
		}
	}
	for {
		if _, _, err := out.Recv(50 * time.Millisecond); err != nil {
			return
		}
	}
}

// link is a pair of devices: what goes in at one comes out at the other.
type link struct{ in, out *tuntest.Station }

// compare has a frame cut by the kernel and by the Segmenter.
func (l *link) compare(t *testing.T, f *superFrame, gso uint8, size int, tag port.Tag, caps port.Caps) {
	t.Helper()
	data, o := f.build(), f.offload(gso, size)
	want, left := segments(t, data, o, caps)
	if tag.Present() {
		o = vnet.Tag(o, tag.Len())
		if left.Flags&port.NeedsCsum != 0 {
			left = vnet.Tag(left, tag.Len())
		}
	}
	if err := l.in.Send(withTag(data, tag), o); err != nil {
		t.Fatalf("the kernel refuses %+v: %v", o, err)
	}
	if err := l.in.Send(end, port.Offload{}); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		got, kernelLeft, err := recv(l.out)
		if err != nil {
			t.Fatalf("segment %d of %d: %v", i, len(want), err)
		}
		if bytes.Equal(got, end) {
			if i != len(want) {
				t.Fatalf("the kernel makes %d segments, not %d", i, len(want))
			}
			return
		}
		if i >= len(want) {
			t.Fatalf("the kernel makes more than %d segments", i)
		}
		wire := withTag(want[i], tag)
		if gso == port.GSOUDP && f.v6 && len(want) > 1 {
			// Each draws its own identification.
			at := f.l4() + tag.Len() + 4
			copy(wire[at:at+4], got[at:at+4])
		}
		if !bytes.Equal(got, wire) {
			t.Fatalf("segment %d of %d, %s\nkernel %x\nours   %x", i, len(want), firstDifference(got, wire), got, wire)
		}
		kernelLeft.Flags &= port.NeedsCsum
		kernelLeft.HdrLen = 0
		if kernelLeft != left {
			t.Fatalf("segment %d of %d: the kernel leaves %+v, we %+v", i, len(want), kernelLeft, left)
		}
	}
}

// withTag puts an outer tag into a frame.
func withTag(data []byte, tag port.Tag) []byte {
	b := bytes.Clone(data[:12])
	if tag.Present() {
		b = binary.BigEndian.AppendUint32(b, uint32(tag))
	}
	return append(b, data[12:]...)
}

func firstDifference(a, b []byte) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("byte %d: %#x and %#x", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d and %d bytes", len(a), len(b))
}
