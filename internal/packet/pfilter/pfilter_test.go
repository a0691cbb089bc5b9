package pfilter

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// wire puts a frame together from 52:54:00:00:00:01 to 52:54:00:00:00:02.
func wire(etherType uint16, payload ...byte) []byte {
	b := []byte{0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1}
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

// tagged puts a tag in front of a frame's EtherType.
func tagged(tpid, tci uint16, frame []byte) []byte {
	b := append([]byte{}, frame[:12]...)
	b = binary.BigEndian.AppendUint16(b, tpid)
	return append(binary.BigEndian.AppendUint16(b, tci), frame[12:]...)
}

// ip4 is a packet from 10.0.0.1 to 10.0.9.2.
func ip4(proto byte, fragment uint16, payload ...byte) []byte {
	h := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, byte(fragment >> 8), byte(fragment), 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 9, 2}
	return wire(0x0800, append(h, payload...)...)
}

// ip6 is a packet from fd00::1 to fd00:0:0:9::2.
func ip6(next byte, payload ...byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), next, 64}
	src, dst := netip.MustParseAddr("fd00::1").As16(), netip.MustParseAddr("fd00:0:0:9::2").As16()
	return wire(0x86dd, append(append(append(h, src[:]...), dst[:]...), payload...)...)
}

var ports = []byte{0x10, 0, 0, 53} // 4096 to 53

// arp asks by 10.0.0.1 for 10.0.9.2.
var arp = wire(0x0806, append(append([]byte{0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 1}, make([]byte, 6)...), 10, 0, 9, 2)...)

var frames = map[string][]byte{
	"arp":       arp,
	"udp4":      ip4(17, 0, ports...),
	"tcp4":      ip4(6, 0, ports...),
	"icmp4":     ip4(1, 0, 8, 0, 0, 0),
	"tcp6":      ip6(6, ports...),
	"udp6hop":   ip6(0, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, ports...)...),
	"icmp6":     ip6(58, 128, 0, 0, 0),
	"first4":    ip4(17, 0x2000, ports...),
	"later4":    ip4(17, 0x0001, ports...),
	"first6":    ip6(44, append([]byte{17, 0, 0, 1, 0, 0, 0, 0}, ports...)...),
	"later6":    ip6(44, append([]byte{17, 0, 0, 9, 0, 0, 0, 0}, ports...)...),
	"udp4vlan":  tagged(0x8100, 0x6006, ip4(17, 0, ports...)),
	"arpqinq":   tagged(0x88a8, 5, tagged(0x8100, 6, arp)),
	"lldp":      wire(0x88cc, 2, 7),
	"broadcast": append([]byte{255, 255, 255, 255, 255, 255}, wire(0x88cc)[6:]...),
	"group":     append([]byte{1, 0, 0x5e, 1, 2, 3}, wire(0x88cc)[6:]...),
	"runt":      wire(0x0800)[:13],
	"empty":     {},
}

func TestFilter(t *testing.T) {
	const v4 = "udp4 tcp4 icmp4 first4 later4 udp4vlan"
	const v6 = "tcp6 udp6hop icmp6 first6 later6"
	const whole = "udp4 tcp4 tcp6 udp6hop first4 first6 udp4vlan" // with ports
	for expr, want := range map[string]string{
		"arp":                                    "arp arpqinq",
		"ip":                                     v4,
		"ip6":                                    v6,
		"tcp":                                    "tcp4 tcp6",
		"udp":                                    "udp4 udp6hop first4 later4 first6 later6 udp4vlan",
		"icmp":                                   "icmp4",
		"icmp6":                                  "icmp6",
		"vlan":                                   "udp4vlan arpqinq",
		"vlan 5 and arp":                         "arpqinq",
		"vlan 6":                                 "udp4vlan",
		"vlan 0 or vlan 4094":                    "",
		"not vlan and udp port 53 and not ip6":   "udp4 first4",
		"ether broadcast":                        "broadcast",
		"ether multicast":                        "broadcast group",
		"ether proto 0x88cc":                     "lldp broadcast group",
		"ether proto 35020":                      "lldp broadcast group",
		"ether src host 52:54:00:00:00:02":       "",
		"ether dst 52:54:00:00:00:01":            "",
		"ether host 52:54:00:00:00:02 and arp":   "arp arpqinq",
		"ether src 52:54:00:00:00:01 and not ip": "arp arpqinq lldp broadcast group " + v6,
		"host 10.0.0.1":                          "arp arpqinq " + v4,
		"src host 10.0.0.1":                      "arp arpqinq " + v4,
		"dst host 10.0.0.1":                      "",
		"dst host 10.0.9.2 and ether proto 0x806": "arp arpqinq",
		"host fd00::1":                    v6,
		"src host fd00:0:0:9::2":          "",
		"net 10.0.8.0/21":                 "arp arpqinq " + v4,
		"src net 10.0.8.0/21":             "",
		"net 0.0.0.0/0":                   "arp arpqinq " + v4,
		"dst net fd00:0:0:8::/61 and tcp": "tcp6",
		"src net fd00:0:0:8::/61":         "",
		"port 53":                         whole,
		"dst port 53":                     whole,
		"src port 53":                     "",
		"tcp port 4096":                   "tcp4 tcp6",
		"udp src port 4096 && ip6":        "udp6hop first6",
		"icmp or icmp6 and ip":            "icmp4",
		"(icmp or icmp6) and ip6":         "icmp6",
		"! ! arp":                         "arp arpqinq",
		"not (arp||ip or ip6 or ether proto 0x88cc)": "runt empty",
	} {
		f, err := Compile(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		meant := map[string]bool{}
		for _, name := range strings.Fields(want) {
			meant[name] = true
		}
		for name, frame := range frames {
			if match(f, frame) != meant[name] {
				t.Errorf("%s: frame %s matches: %v", expr, name, !meant[name])
			}
			// With its outer tag taken out it is the same frame.
			var bare port.Frame
			bare.SetWire(slices.Clone(frame))
			if len(frame) >= port.HeaderLen && f.Match(&bare, bare.Tag) != meant[name] {
				t.Errorf("%s: frame %s without its tag %#x matches: %v", expr, name, bare.Tag, !meant[name])
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, expr := range []string{
		"", "and", "arp and", "or arp", "not", "(", "()", "(arp", "arp)", "arp ip", "arp and or ip", "arp 10.0.0.1", "10.0.0.1", "arp or 10.0.0.1",
		"host", "host vm0", "host fe80::1%eth0", "host ::ffff:10.0.0.1", "host 10", "host 10.0.0.0/8", "host 10.0.0.256", "host 52:54:00:00:00:01",
		"net ::ffff:10.0.0.0/104", "net 10/33", "net fd00::/129", "net 10.0.0.0/x", "net 10.0.0.0 mask 255.0.255.0", "net fd00:: mask ffff::", "net vm0",
		"port", "port 65536", "port nosuch", "port 80-90", "portrange", "portrange 80-", "portrange 1-65536", "port 080", "port 1_0", "port 0b1",
		"src", "src arp", "src port", "src or dst", "src proto 6", "tcp src host 10.0.0.1", "icmp port 1", "tcp proto 6", "ether net 10.0.0.0/8",
		"ether", "ether host", "ether host 10.0.0.1", "ether proto", "ether proto 0x10000", "ether proto 1500", "ether proto nosuch",
		"ip host fd00::1", "ip6 host 10.0.0.1", "arp net fd00::/8", "proto 256", "proto nosuch", "ip broadcast", "tcp multicast",
		"vlan 4095", "vlan 5x", "vlan -1", "arp or lldp", "udp port -1", "less", "greater x",
		"tcp[13]", "tcp[13] &", "tcp[13] = ", "tcp[13 = 1", "tcp[] = 1", "tcp[0:3] = 1", "tcp[0:] = 1", "1 = 2 = 3", "tcp[0] / 0 = 1", "tcp[0] << 32 = 1",
		"(tcp[0] = 1", "tcp[(0] = 1", "len", "len = arp", "- = 1", "foo[0] = 1", "tcp[0] = 4294967296", "arp €", "port 80 or 443 or arp 443", "port 80 or arp or 443", "port 80 or len > 5 or 443",
		strings.Repeat("(", maxDepth+1) + "arp" + strings.Repeat(")", maxDepth+1),
		strings.Repeat("not ", maxDepth+1) + "arp",
		"port (" + strings.Repeat("80 or ", maxTerms) + "80)",
		"port " + strings.Repeat("(", maxDepth+1) + "80" + strings.Repeat(")", maxDepth+1),
		strings.Repeat("-", maxDepth+1) + "1 = 1",
		strings.Repeat("(", maxDepth+1) + "1" + strings.Repeat(")", maxDepth+1) + " = 1",
		strings.Repeat("ip[", maxDepth+1) + "1" + strings.Repeat("]", maxDepth+1) + " = 1",
		strings.Repeat("1 + ", maxTerms) + "1 = 1",
		strings.Repeat("arp or ", maxTerms) + "arp",
		"arp" + strings.Repeat(" ", maxText),
	} {
		_, err := Compile(expr)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60q: %v", expr, err)
		}
	}
}

func TestAllocs(t *testing.T) {
	f := mustCompile(t, "not (tcp port 80 or net fd00::/8) and (host 10.0.9.2 or ether host 52:54:00:00:00:02) or "+
		"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 or ip[ip[0]*4:2] > len or vlan 5 and ip6 proto 44 or portrange 1-9")
	for name, frame := range frames {
		of := &port.Frame{Data: frame}
		if n := testing.AllocsPerRun(10, func() { f.Match(of, 0) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Many groups one after the other are not nested.
func TestManyGroups(t *testing.T) {
	mustCompile(t, strings.Repeat("not arp and ", maxDepth+5)+"arp")
	mustCompile(t, strings.Repeat("(arp) or ", maxDepth+5)+"arp")
}

// Words that stand for a protocol in several places stand for the same.
func TestNamesAgree(t *testing.T) {
	for name, h := range headers {
		if len(h.protos) > 0 && h.protos[0] != ipProtos[name] {
			t.Errorf("%s[...] is of protocol %d, proto %s of %d", name, h.protos[0], name, ipProtos[name])
		}
		if h.types != 0 && h.types != etherTypes[name] {
			t.Errorf("%s[...] is of type %#x, ether proto %s of %#x", name, h.types, name, etherTypes[name])
		}
	}
	for name, n := range protocols {
		if len(n.protos) > 0 && n.protos[0] != ipProtos[name] {
			t.Errorf("%s is of protocol %d, proto %s of %d", name, n.protos[0], name, ipProtos[name])
		}
	}
	known := 0
	for name, number := range services {
		for _, proto := range []string{"tcp", "udp"} {
			if n, err := net.LookupPort(proto, name); err == nil {
				known++
				if n != int(number) {
					t.Errorf("port %s is %d, the system says %d", name, number, n)
				}
			}
		}
	}
	if known < 3 { // those that Go knows by itself
		t.Errorf("the system knows only %d of the services", known)
	}
}

// What the language lacks is named, with what to write instead.
func TestAbsent(t *testing.T) {
	for word, instead := range absent {
		_, err := Compile("arp or " + word + " 5")
		if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), instead) {
			t.Errorf("%s: %v", word, err)
		}
		if expr, ok := strings.CutPrefix(instead, "write "); ok {
			expr = strings.NewReplacer("MAC", "52:54:00:00:00:01", "ADDRESS", "10.0.0.1").Replace(expr)
			if expr == "ether" {
				continue
			}
			if _, err := Compile(expr); err != nil {
				t.Errorf("%s: what it says to write: %v", word, err)
			}
		}
	}
}

// FuzzCompile: whatever is written is understood or refused in one line.
func FuzzCompile(f *testing.F) {
	f.Add("not (tcp port 80 or net fd00::/8) and host 10.0.0.1")
	f.Add("ether src host 52:54:00:00:00:01 or ether proto 0x88cc")
	f.Add("tcp[tcpflags] & (tcp-syn | 1) != 0 or (ip[2:2] - 4) >> 1 < len")
	f.Add("src or dst portrange 80-90 or not (ssh or 443) and net 10.0 or 10.1.0.0 mask 255.255.0.0 and vlan 5 and vlan")
	f.Add("ip6 proto \\tcp or ether broadcast or less 64")
	f.Fuzz(func(t *testing.T, expr string) {
		filter, err := Compile(expr)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		opposite, err := Compile("not (" + expr + ")")
		for name, frame := range frames {
			if err == nil && match(opposite, frame) == match(filter, frame) {
				t.Fatalf("%q: %s is meant by it and by its opposite", expr, name)
			}
		}
	})
}

// FuzzFilter: every filter has an answer for whatever bytes come.
func FuzzFilter(f *testing.F) {
	for _, frame := range frames {
		f.Add(frame)
	}
	var filters []*Filter
	for _, expr := range []string{
		"arp", "ip", "ip6", "tcp", "icmp6", "ether host 52:54:00:00:00:01", "ether broadcast", "ether multicast", "ether proto 5",
		"host 10.0.0.1", "host fd00::1", "net 10.0.8.0/21", "net fd00::/7", "port 53", "tcp src port 53", "udp dst port 53", "vlan 5",
		"vlan and vlan 5", "stp", "ip6 proto 0", "ip6 multicast", "tcp[12] = tcp[13:4]", "ether[len - 1] = ether[14:2]", "ip[ip[3]:2] % ip[0] = 1",
	} {
		filters = append(filters, mustCompile(f, expr))
	}
	network := mustCompile(f, "net 10.0.0.0/24")
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, filter := range filters {
			match(filter, frame)
		}
		// A host is a part of its network.
		if match(filters[9], frame) && !match(network, frame) {
			t.Fatalf("% x is of host 10.0.0.1 and not of its network", frame)
		}
	})
}

// match reports whether f selects a frame whose tags are in place.
func match(f *Filter, frame []byte) bool { return f.Match(&port.Frame{Data: frame}, 0) }

func mustCompile(t testing.TB, expr string) *Filter {
	t.Helper()
	f, err := Compile(expr)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
