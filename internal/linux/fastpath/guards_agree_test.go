package fastpath

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// path tells a Path what a table says, as the guard's feature does.
type path struct{ *Path }

func (p path) Publish(number uint16, s *guard.Snapshot) {
	g := &vswitch.FastGuard{MACs: s.MACs, VLANs: s.VLANs, MACOnly: s.MACOnly, MoreTypes: s.MoreTypes, Exceptions: s.Exceptions}
	for _, b := range s.Bindings {
		if b.Prefix.IsSingleIP() {
			g.Senders = append(g.Senders, vswitch.FastSender{VLAN: b.VLAN, MAC: b.MAC, Addr: b.Prefix.Addr(), From: b.From, Until: b.Expiry})
		} else {
			g.Prefixes = append(g.Prefixes, vswitch.FastPrefix{VLAN: b.VLAN, MAC: b.MAC, Prefix: b.Prefix, Until: b.Expiry})
		}
	}
	p.Guard(number, g)
}

func (p path) Heard(uint16, *guard.Binding) (time.Duration, bool) { return 0, false }

// interesting are bytes that mean something where they may stand.
var interesting = []byte{
	0, 1, 2, 4, 5, 6, 9, 17, 22, 34, 41, 43, 44, 47, 50, 51, 54, 58, 59, 60, 67, 68, 103, 112, 128, 130, 133, 134, 135, 136, 137, 143,
	0x0a, 0x0b, 0x20, 0x40, 0x45, 0x46, 0x60, 0x80, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0xfd, 0xfe, 0xff,
}

// draft draws a frame to B, nearly always from A: one of those above or of DHCP or ND, with
// bytes changed, cut or padded, tagged, or one of a Drawer, and with an offload header that may
// be a lie.
func draft(draw *rand.Rand) (wire []byte, o port.Offload) {
	d := Drawer{Rand: draw, Own: macA, Peer: macB, Addr4: []string{"10.0.0.1", "10.0.0.2", "192.0.2.3"}, Addr6: []string{"fd00::1", "fd00::2"}}
	if draw.IntN(4) == 0 {
		for len(wire) < port.HeaderLen || wire[0]&1 != 0 { // the program decides about one station alone
			wire = d.Draw()
		}
	} else {
		wire = alter(draw)
	}
	if draw.IntN(3) == 0 {
		o = d.Offload(wire)
	}
	return wire, o
}

// alter draws one of some frames, and alters it.
func alter(draw *rand.Rand) (wire []byte) {
	udp := udpDatagram()
	bases := [][]byte{
		IPv4("10.0.0.1", "10.0.0.2", 6, tcpSegment()), IPv4("10.0.0.1", "10.0.0.2", 17, udp), IPv4("10.0.0.2", "10.0.0.3", 17, udp),
		IPv4("10.0.0.1", "10.0.0.2", 17, UDP(68, 67, make([]byte, 240))), IPv4("10.0.0.1", "10.0.0.2", 1, []byte{8, 0, 0, 0, 0, 0, 0, 0}),
		IPv4("192.0.2.3", "10.0.0.2", 17, udp), IPv4("192.0.2.99", "10.0.0.2", 17, udp),
		withOptions(IPv4("10.0.0.1", "10.0.0.2", 17, udp)), fragment4(IPv4("10.0.0.1", "10.0.0.2", 17, udp), 2),
		IPv6("fd00::1", "fd00::2", 6, tcpSegment()), IPv6("fd00::1", "fd00::2", 17, udp), IPv6("fd00::9", "fd00::2", 17, udp),
		IPv6("fd00::1", "fd00::2", 17, UDP(546, 547, make([]byte, 20))), IPv6("::ffff:10.0.0.1", "fd00::2", 17, udp),
		IPv6("fd00::1", "fd00::2", 60, Extension(17, udp)), IPv6("fd00::1", "fd00::2", 44, Fragment(17, 8, false, udp)),
		ICMPv6("fd00::1", "fd00::2", 128, make([]byte, 8)), ICMPv6("fd00::1", "fd00::2", 136, ND("fd00::1", LinkLayer(2, macA)...)),
		ARP(2, macA, "10.0.0.1", macB, "10.0.0.2"), make([]byte, 46),
	}
	types := []uint16{typeIPv4, typeIPv4, typeIPv4, typeIPv4, typeIPv4, typeIPv4, typeIPv4, typeIPv4, typeIPv4,
		typeIPv6, typeIPv6, typeIPv6, typeIPv6, typeIPv6, typeIPv6, typeIPv6, typeIPv6, typeIPv6, typeARP, 0x88b5}
	i := draw.IntN(len(bases))
	wire = Bare(macB, macA, types[i], bases[i])
	for range draw.IntN(4) {
		at := 6 + draw.IntN(min(len(wire), 70)-6)
		if draw.IntN(20) != 0 {
			at = 12 + draw.IntN(min(len(wire), 70)-12)
		}
		wire[at] = interesting[draw.IntN(len(interesting))]
	}
	switch draw.IntN(6) {
	case 0:
		wire = wire[:max(port.HeaderLen, draw.IntN(len(wire)))]
	case 1:
		wire = append(wire, make([]byte, draw.IntN(40))...)
	}
	if draw.IntN(4) == 0 {
		tpid := []uint32{0x8100, 0x8100, 0x8100, 0x88a8, 0x9100}[draw.IntN(5)]
		vid := []uint32{0, 1, 2, 10, 10, 10}[draw.IntN(6)]
		wire = Tag(wire, port.Tag(tpid<<16|uint32(draw.IntN(8))<<13|vid))
	}
	return wire
}

// TestGuardAgrees draws frames. What the program sends on or drops the guard's own check
// accepts or refuses for the same reason; and what arrives, changed by a checksum, it accepts
// as well.
func TestGuardAgrees(t *testing.T) {
	t.Parallel()
	const now = 1_800_000_000
	address := func(text string, vlan uint16) guard.Address {
		return guard.Address{Prefix: netip.MustParsePrefix(text), VLAN: vlan}
	}
	for name, c := range map[string]struct {
		vlan   port.VLAN
		change func(c *guard.Config)
	}{
		"transparent": {},
		"access":      {vlan: port.VLAN{Access: 1}},
		"trunk":       {vlan: port.VLAN{Trunk: *vlans(10), Native: 1}},
		"MAC only":    {change: func(c *guard.Config) { c.MACOnly = true }},
		"more types":  {change: func(c *guard.Config) { c.EtherTypes = []uint16{0x88b5} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			core, err := vswitch.New(vswitch.Config{}).AddPort("vm0")
			if err == nil {
				err = core.Configure(vswitch.PortConfig{VLAN: c.vlan})
			}
			if err != nil {
				t.Fatal(err)
			}
			config := guard.Config{
				MACs: []port.MAC{macA}, VLANs: *vlans(1),
				Addresses: []guard.Address{address("10.0.0.1/32", 1), address("fd00::1/128", 0), address("192.0.2.0/28", 0)},
			}
			if !c.vlan.Transparent() {
				r.ports[0].TPID = port.TPIDCustomer
			}
			r.ports[0].UntaggedOnly = c.vlan.Access != 0
			if c.vlan.Native != 0 {
				r.ports[0].VLANs, config.VLANs = vlans(1, 10), *vlans(1, 10)
				r.ports[1].VLANs, r.ports[1].TPID = vlans(1, 10), port.TPIDCustomer
			}
			if c.change != nil {
				c.change(&config)
			}
			table := guard.New(func() time.Time { return time.Unix(now, 0) }, nil)
			table.SetMirror(path{r.path})
			tenant := table.Guard(0, "vm0", config)
			r.ports[0].Guarded = true
			r.publish(r.ports)
			for _, vlan := range []uint16{1, 10} {
				r.learn(vlan, macA, 0)
				r.learn(vlan, macB, 1)
			}
			from, to := r.plug(t, "vm0"), r.plug(t, "vm1")

			check := func(wire []byte, o port.Offload) port.Drop {
				f := new(port.Frame)
				f.SetWire(bytes.Clone(wire))
				if f.Drop != port.DropNone {
					return f.Drop
				}
				if f.Offload = o; f.Tag.Present() && o.Flags&port.NeedsCsum != 0 {
					f.Offload.CsumStart -= 4 // SetWire takes the tag out
				}
				return tenant.Why(f, core.Classify(f))
			}
			seed := uint64(time.Now().UnixNano())
			draw := rand.New(rand.NewPCG(seed, 0))
			var sent, dropped int
			for range 8_000 {
				wire, o := draft(draw)
				packet := make([]byte, vnet.HeaderLen, vnet.HeaderLen+len(wire))
				vnet.Encode(packet, o)
				before := r.path.Counters(0)
				if _, err := unix.Write(from, append(packet, wire...)); err != nil {
					continue // the kernel itself refuses it
				}
				got, after := read(t, to), r.path.Counters(0)
				if len(got) == 1 {
					sent++
					if why := check(wire, o); why != port.DropNone {
						t.Fatalf("seed %d: sent on is %x, %+v, which the guard drops as %v", seed, wire, o, why)
					}
					if c.vlan.Native != 0 {
						continue // it may have another tag
					}
					if why := check(got[0], port.Offload{}); why != port.DropNone {
						t.Fatalf("seed %d: %x, %+v arrives as %x, which the guard drops as %v", seed, wire, o, got[0], why)
					}
				}
				for _, why := range guardDrops {
					if after.RX.Dropped[why] == before.RX.Dropped[why] {
						continue
					}
					dropped++
					if is := check(wire, o); is != why {
						t.Fatalf("seed %d: dropped as %v is %x, %+v, which the guard thinks is %v", seed, why, wire, o, is)
					}
				}
			}
			if sent < 100 || dropped < 100 {
				t.Errorf("seed %d: %d frames were sent on, and %d dropped", seed, sent, dropped)
			}
		})
	}
}
