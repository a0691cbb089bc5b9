package pfilter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// asTcpdump are expressions that tcpdump understands as well. Where it does not look into
// IPv6 packets, or wants a word escaped, or takes a service for one of TCP alone, the
// second expression says in its words what ours means.
var asTcpdump = []struct{ expr, theirs string }{
	{"arp", ""}, {"rarp", ""}, {"ip", ""}, {"ip6", ""}, {"tcp", ""}, {"udp", ""}, {"sctp", ""}, {"icmp", ""}, {"icmp6", ""},
	{"igmp", ""}, {"pim", ""}, {"vrrp", ""}, {"esp", ""}, {"ah", ""}, {"igrp", ""}, {"stp", ""},

	{"host 10.0.0.1", ""}, {"src host 10.0.0.1", ""}, {"dst host 10.0.9.2", ""}, {"src or dst host 10.0.9.2", ""},
	{"src and dst host 10.0.0.1", ""}, {"src 10.0.0.1", ""}, {"dst 10.0.0.1", ""}, {"src 10.0", ""}, {"dst 10.0.8.0/21", "dst net 10.0.8.0/21"},
	{"ip host 10.0.0.1", ""}, {"arp host 10.0.0.1", ""}, {"arp src host 10.0.0.1", ""}, {"rarp dst host 10.0.9.2", ""}, {"ip src 10.0.0.1", ""},
	{"host fd00::1", ""}, {"ip6 host fd00::1", ""}, {"src fd00::1", ""}, {"dst host fd00:0:0:9::2", ""}, {"host fd00::7 or fd00::1", ""},
	{"net 10", ""}, {"net 10.0", ""}, {"net 10.0.0.0/8", ""}, {"src net 10.0.0.0/22", ""}, {"net 10.0.8.0 mask 255.255.248.0", ""},
	{"net 10.0.0.1", ""}, {"net 0.0.0.0/0", ""}, {"dst net fd00:0:0:8::/61", ""}, {"net fd00::/8", ""}, {"ip6 net fd00::/64", ""},
	{"ip net 10.0.0", ""}, {"arp net 10.0.0", ""}, {"src and dst net 10", ""},

	{"port 80", ""}, {"src port 80", ""}, {"dst port 53", ""}, {"tcp port 80", ""}, {"udp dst port 53", ""}, {"sctp port 80", ""},
	{"tcp src or dst port 443", ""}, {"src and dst port 53", ""}, {"port 0x50", ""}, {"port 80 or 443", ""}, {"tcp port 80 or 443 or 22", ""},
	{"port (80 or 443) and host 10.0.0.1", ""}, {"not port 22", ""}, {"port 22 or not 80", ""}, {"tcp dst port not 80", ""},
	{"portrange 20-80", ""}, {"tcp portrange 400-500", ""}, {"udp src portrange 53-53", ""}, {"portrange 500-400", ""}, {"dst portrange 1-1023", ""},
	{"tcp port ssh", "tcp port 22"}, {"port domain", "port 53"}, {"tcp dst port https", "tcp dst port 443"}, {"portrange ssh-http", "portrange 22-80"},

	{"proto 17", ""}, {"ip proto 1", ""}, {"ip6 proto 58", ""}, {"ip proto 47", ""}, {"proto 89", ""},
	{`ip proto \tcp`, ""}, {"ip proto udp", `ip proto \udp`}, {"proto gre", "proto 47"},
	{"ether proto 0x88cc", ""}, {`ether proto \arp`, ""}, {"ether proto ip6", `ether proto \ip6`}, {"ether proto 0x42", ""}, {"ether proto 0xfe", ""},
	{"ether host 52:54:00:00:00:01", ""}, {"ether src 52:54:00:00:00:01", ""}, {"ether dst host 52:54:00:00:00:01", ""},
	{"ether src or dst 52-54-00-00-00-02", ""}, {"ether host 5254.0000.0001", ""}, {"ether src and dst host 52:54:00:00:00:02", ""},
	{"ether broadcast", ""}, {"broadcast", ""}, {"ether multicast", ""}, {"multicast", ""}, {"ip multicast", ""}, {"ip6 multicast", ""},

	{"less 60", ""}, {"greater 60", ""}, {"len = 42", ""}, {"len != 42 and len > 40", ""}, {"len - 14 <= 30", ""},
	{"tcp[13] & 2 != 0", "tcp[13] & 2 != 0 or (ip6 proto 6 and ip6[53] & 2 != 0)"},
	{"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[13] & 3 != 0 or (ip6 proto 6 and ip6[53] & 3 != 0)"},
	{"tcp[tcpflags] & tcp-syn != 0 and ip", ""}, {"ip and tcp[tcpflags] == tcp-syn|tcp-ack", ""},
	{"udp[0:2] = 53 or tcp[0:2] = 443", "udp src port 53 or tcp src port 443"},
	{"ip and not tcp[13] = 2", ""}, {"icmp[icmptype] = icmp-echo", ""}, {"icmp[0] != 8", ""}, {"icmp6[icmp6type] = icmp6-neighborsolicit", ""},
	{"ip[6:2] & 0x1fff != 0", ""}, {"ip[0] & 0xf > 5", ""}, {"ip[2:2] < 40", ""}, {"ip6[6] = 58", ""}, {"arp[6:2] = 1", ""}, {"arp[7] == 2", ""},
	{"ether[0] & 1 = 0", ""}, {"ether[12:2] > 1500", ""}, {"ether[8:4] = 1", ""}, {"link[12:2] = 0x806", ""},
	{"ip[12:4] = 0x0a000001", ""}, {"ip[(ip[0] & 0xf) + 7] = 10", ""}, {"80 = tcp[2:2] and ip", ""}, {"(ip[0] & 0xf) << 2 >= 24", ""},
	{"ip[8] * 2 - 1 > 100", ""}, {"ip[8] / 3 = 21 and ip[8] % 3 = 1", ""}, {"ip[0] | 3 = 0x47", ""}, {"-1 = ip[0] - 70", ""}, {"ip[9] ^ 6 = 0", ""},
	{"4 + ip[0] * 2 & 0xff | 1 = 143", ""}, {"udp[4:2] > 8 and ip", ""}, {"sctp[0:2] >= 80 and ip", ""}, {"igmp[0] = 0x16", ""},

	{"arp or ip and port 53", ""}, {"port 53 or arp and ip", ""}, {"arp or (ip and port 53)", ""}, {"not arp and not ip6", ""}, {"not (arp or ip6)", ""},
	{"! arp && ! icmp", ""}, {"tcp || udp and ip6", ""}, {"host 10.0.0.1 and not port 22 and not port 53", ""},
	{"(tcp or udp) and (src host 10.0.0.1 or dst net fd00::/16)", ""}, {"icmp or icmp6 or arp or port 67 or port 68", ""},

	{"vlan", ""}, {"vlan 5", ""}, {"vlan and arp", ""}, {"vlan 5 and tcp port 80", ""}, {"vlan 6 and host 10.0.0.1", ""}, {"vlan 5 and vlan 6", ""},
	{"vlan and vlan and ip6", ""}, {"vlan 5 and (udp or icmp6)", ""}, {"vlan and ether host 52:54:00:00:00:01", ""}, {"vlan and len > 60", ""},
	{"vlan and ether[12:2] = 0x8100", ""}, {"vlan and ip[9] = 17", ""},
}

// program asks tcpdump for the program of an expression.
func program(t *testing.T, expr string) *bpf.VM {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("tcpdump", "-y", "EN10MB", "-ddd", "--", expr)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump %q: %v: %s", expr, err, &stderr)
	}
	var code []bpf.Instruction
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n")[1:] {
		var n [4]uint64
		for i, field := range strings.Fields(line) {
			if n[i], err = strconv.ParseUint(field, 10, 32); err != nil {
				t.Fatal(err)
			}
		}
		code = append(code, bpf.RawInstruction{Op: uint16(n[0]), Jt: uint8(n[1]), Jf: uint8(n[2]), K: uint32(n[3])}.Disassemble())
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatalf("%q: %v", expr, err)
	}
	return vm
}

// corpus returns frames as they come: of all protocols that the expressions name, from
// some stations to others, whole and without IPv6 extension headers, about which we decide
// otherwise. once and twice are some of them with one tag and with two.
func corpus() (bare, once, twice [][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...uint16) []byte { return binary.BigEndian.AppendUint16(nil, of[r.IntN(len(of))]) }
	for range 3000 {
		l4 := append(pick(80, 443, 22, 53, 4096, 68), pick(80, 443, 22, 53, 450, 67)...)
		l4 = append(l4, make([]byte, 16)...)
		for i := 4; i < len(l4); i++ {
			l4[i] = byte(r.IntN(256))
		}
		l4[5] = byte(r.IntN(3) * 8) // a UDP length
		l4[13] &= 0x3f
		if r.IntN(2) == 0 {
			l4[13] = []byte{2, 18, 16, 17}[r.IntN(4)]
		}
		proto := []byte{6, 6, 17, 17, 132, 1, 58, 2, 103, 112, 50, 51, 47, 89, 9}[r.IntN(15)]
		if proto == 1 || proto == 58 || proto == 2 {
			l4[0] = []byte{8, 0, 3, 128, 135, 136, 0x16}[r.IntN(7)]
		}
		l4 = l4[:len(l4)-r.IntN(2)*2]
		var frame []byte
		switch r.IntN(8) {
		default:
			h := []byte{0x45, 0, 0, byte(20 + len(l4)), 0, 0, 0, 0, byte(r.IntN(256)), proto, 0, 0, 10, 0, 0, 1, 10, 0, 9, 2}
			if r.IntN(5) == 0 {
				binary.BigEndian.PutUint16(h[6:], []uint16{0x2000, 0x00b9, 0x4000}[r.IntN(3)])
			}
			if r.IntN(4) == 0 {
				h[0], h[3] = 0x46, h[3]+4
				h = append(h, 0x94, 4, 0, 0)
			}
			swap(r, h[12:16], h[16:20])
			if r.IntN(6) == 0 {
				copy(h[16:], []byte{224, 0, 0, 18})
			}
			frame = wire(0x0800, append(h, l4...)...)
		case 0, 1:
			frame = ip6(proto, l4...)
			swap(r, frame[22:38], frame[38:54])
			if r.IntN(4) == 0 {
				frame[38], frame[39] = 0xff, 2
			}
		case 2:
			frame = append([]byte{}, arp...)
			frame[13] = byte(6)
			if r.IntN(4) == 0 {
				binary.BigEndian.PutUint16(frame[12:], typeRARP)
			}
			frame[21] = byte(1 + r.IntN(2))
			swap(r, frame[28:32], frame[38:42])
		case 3:
			sap := []byte{0x42, 0xfe, 0xaa, 0xf0}[r.IntN(4)]
			frame = wire([]uint16{0x88cc, 40, 1500, 0x88a1}[r.IntN(4)], append([]byte{sap, sap ^ byte(r.IntN(2)), 3}, l4...)...)
		}
		swap(r, frame[0:6], frame[6:12])
		switch r.IntN(8) {
		case 0:
			copy(frame, []byte{255, 255, 255, 255, 255, 255})
		case 1:
			copy(frame, []byte{0x33, 0x33})
		}
		bare = append(bare, frame)
		if r.IntN(2) == 0 {
			frame = tagged([]uint16{0x8100, 0x88a8}[r.IntN(2)], uint16(5+r.IntN(2)), frame)
			once = append(once, frame)
		}
		if r.IntN(4) == 0 {
			twice = append(twice, tagged([]uint16{0x8100, 0x88a8}[r.IntN(2)], uint16(5+r.IntN(2)), frame))
		}
	}
	return bare, once, twice
}

// swap makes two addresses the other way round, or alike, or leaves them.
func swap(r *rand.Rand, a, b []byte) {
	switch r.IntN(6) {
	case 0, 1:
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
	case 2:
		copy(b, a)
	}
}

// Our filters decide as libpcap's programs do, of which x/net's interpreter is the judge.
func TestTcpdump(t *testing.T) {
	testenv.Tool(t, "tcpdump")
	bare, once, twice := corpus()
	once = append(once, bare...)
	twice = append(twice, once...)
	seen := map[string]bool{}
	for _, e := range asTcpdump {
		if seen[e.expr] {
			t.Errorf("%s is in the list twice", e.expr)
		}
		seen[e.expr] = true
		t.Run(e.expr, func(t *testing.T) {
			t.Parallel()
			theirs := e.theirs
			if theirs == "" {
				theirs = e.expr
			}
			vm, filter := program(t, theirs), mustCompile(t, e.expr)
			frames := bare
			switch strings.Count(e.expr, "vlan") { // tcpdump, too, looks behind as many tags
			case 1:
				frames = once
			case 2:
				frames = twice
			}
			matched := 0
			for _, frame := range frames {
				n, err := vm.Run(frame)
				if err != nil {
					t.Fatal(err)
				}
				got := match(filter, frame)
				if got != (n != 0) {
					t.Fatalf("decides %v otherwise than tcpdump about % x", got, frame)
				}
				if got {
					matched++
				}
			}
			// A comparison of which one side is never seen compares nothing.
			if matched == 0 || matched == len(frames) {
				t.Errorf("matches %d of %d frames", matched, len(frames))
			}
		})
	}
}

// The names of numbers are tcpdump's.
func TestConstants(t *testing.T) {
	testenv.Tool(t, "tcpdump")
	known := 0
	for name, number := range constants {
		named, err := exec.Command("tcpdump", "-y", "EN10MB", "-ddd", "ether[0:4] = "+name).Output()
		if err != nil {
			continue // a newer tcpdump has it
		}
		known++
		numbered, err := exec.Command("tcpdump", "-y", "EN10MB", "-ddd", fmt.Sprintf("ether[0:4] = %d", number)).Output()
		if err != nil || !bytes.Equal(named, numbered) {
			t.Errorf("%s is not %d for tcpdump", name, number)
		}
	}
	if known < 40 {
		t.Errorf("tcpdump knows only %d of them", known)
	}
}

// A frame is the same with its tag in place and taken out, as the switch has it.
func TestTagTakenOut(t *testing.T) {
	bare, once, twice := corpus()
	frames := slices.Concat(bare[:100], once[:100], twice[:100])
	for _, e := range asTcpdump {
		filter := mustCompile(t, e.expr)
		for _, frame := range frames {
			var f port.Frame
			f.SetWire(bytes.Clone(frame))
			if want := match(filter, frame); filter.Match(&f, f.Tag) != want {
				t.Fatalf("%s: %v, but not with the tag taken out: % x", e.expr, want, frame)
			}
		}
	}
}

// Behind tags and IPv6 extension headers, tcpdump sees nothing.
func TestUnlikeTcpdump(t *testing.T) {
	syn := append([]byte{0x10, 0, 0, 80}, make([]byte, 16)...)
	syn[13] = 2
	chain := ip6(0, append([]byte{60, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0}, syn...)...)
	hop := ip6(0, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, syn...)...)
	for _, expr := range []string{"ip6 proto 0", "ip6 proto 60", "ip6 proto 44", "ip6 proto 6", "tcp port 80", "tcp[13] = 2", "not ip6 proto 43", "not udp", "not ip proto 6"} {
		if !match(mustCompile(t, expr), chain) {
			t.Errorf("%s does not match % x", expr, chain)
		}
	}
	for expr, frame := range map[string][]byte{
		"tcp port 80 and ip6":   hop,
		"tcp[13] = 2":           hop,
		"ip6 proto 0":           hop,
		"ip6 proto 6":           hop,
		"host 10.0.0.1":         tagged(0x8100, 5, ip4(6, 0, syn...)),
		"port http and ip":      tagged(0x88a8, 5, ip4(6, 0, syn...)),
		"vlan 6 or vlan 5":      tagged(0x8100, 5, arp),
		"not vlan 6 and vlan 5": tagged(0x8100, 5, arp),
		"ip[9] = 6":             tagged(0x8100, 5, ip4(6, 0, syn...)),
		"not tcp[200] = 0":      ip4(6, 0, syn...),
	} {
		if !match(mustCompile(t, expr), frame) {
			t.Errorf("%s does not match % x", expr, frame)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	frames, _, _ := corpus()
	for _, expr := range []string{"tcp port 80", "host 10.0.0.1 and not port 22", "tcp[tcpflags] & tcp-syn != 0"} {
		b.Run(fmt.Sprintf("%q", expr), func(b *testing.B) {
			filter, f := mustCompile(b, expr), &port.Frame{}
			for i := range b.N {
				f.Data = frames[i%len(frames)]
				filter.Match(f, 0)
			}
		})
	}
}
