package mcast

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/packet/eth"
)

// TestLinuxFrames reads what a Linux 6 host sends when a program joins and leaves.
func TestLinuxFrames(t *testing.T) {
	g4, g4s, g6 := addr("239.1.2.3"), addr("239.1.2.4"), addr("ff05::1:3")
	source := addr("10.9.0.77")
	for _, c := range []struct {
		name, frame string
		kind        kind
		version     int
		group       netip.Addr
		record      rec
	}{
		{"IGMPv3 join", "01005e00001662b896575a1b080046c00028000040000102f9ef0a090001e0000016940400002200e8f90000000104000000ef010203",
			report3, 3, netip.Addr{}, rec{toEx, g4, nil}},
		{"IGMPv3 leave", "01005e00001662b896575a1b080046c00028000040000102f9ef0a090001e0000016940400002200e9f90000000103000000ef010203",
			report3, 3, netip.Addr{}, rec{toIn, g4, nil}},
		{"IGMPv3 join of a source", "01005e00001662b896575a1b080046c0002c000040000102f9eb0a090001e0000016940400002200dda10000000105000001ef0102040a09004d",
			report3, 3, netip.Addr{}, rec{allow, g4s, []netip.Addr{source}}},
		{"IGMPv3 leave of a source", "01005e00001662b896575a1b080046c0002c000040000102f9eb0a090001e0000016940400002200dca10000000106000001ef0102040a09004d",
			report3, 3, netip.Addr{}, rec{block, g4s, []netip.Addr{source}}},
		{"IGMPv2 join", "01005e01020362b896575a1b080046c00020000040000102e9090a090001ef010203940400001600f8faef010203",
			report, 2, g4, rec{}},
		{"IGMPv2 leave", "01005e00000262b896575a1b080046c00020000040000102fa0b0a090001e0000002940400001700f7faef010203",
			leave, 2, g4, rec{}},
		{"MLDv2 join", "33330000001662b896575a1b86dd6000000000240001fe8000000000000060b896fffe575a1bff0200000000000000000000000000163a000502000001008f001fd90000000104000000ff050000000000000000000000010003",
			report3, 3, netip.Addr{}, rec{toEx, g6, nil}},
		{"MLDv2 leave", "33330000001662b896575a1b86dd6000000000240001fe8000000000000060b896fffe575a1bff0200000000000000000000000000163a000502000001008f0020d90000000103000000ff050000000000000000000000010003",
			report3, 3, netip.Addr{}, rec{toIn, g6, nil}},
		{"MLDv1 join", "33330001000362b896575a1b86dd6000000000200001fe8000000000000060b896fffe575a1bff0500000000000000000000000100033a0005020000010083002fed00000000ff050000000000000000000000010003",
			report, 2, g6, rec{}},
		{"MLDv1 done", "33330000000262b896575a1b86dd6000000000200001fe8000000000000060b896fffe575a1bff0200000000000000000000000000023a0005020000010084002ef200000000ff050000000000000000000000010003",
			leave, 2, g6, rec{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame, err := hex.DecodeString(c.frame)
			if err != nil {
				t.Fatal(err)
			}
			if !IsControl(frame) {
				t.Error("is no control frame")
			}
			m, reason := parse(frame)
			if reason != Accepted || m.kind != c.kind || m.version != c.version || m.group != c.group {
				t.Fatalf("%+v, %v", m, reason)
			}
			if m.kind != report3 {
				return
			}
			r, rest, ok := nextRecord(m.family, m.records)
			if !ok || len(rest) != 0 || m.count != 1 || r.typ != c.record.typ || r.group != c.record.group ||
				r.sources.len() != len(c.record.sources) || r.sources.len() > 0 && r.sources.at(0) != c.record.sources[0] {
				t.Errorf("record %+v, %v", r, ok)
			}
		})
	}
}

// TestRefused has one flaw in each frame. Checksums are right unless they are the flaw.
func TestRefused(t *testing.T) {
	g4, g6 := addr("239.1.2.3"), addr("ff05::1:3")
	all4, all6 := addr("224.0.0.1"), addr("ff02::1")
	edit := func(frame []byte, f func(b []byte)) []byte { b := slices.Clone(frame); f(b); return b }
	ipsum := func(b []byte) {
		b[24], b[25] = 0, 0
		binary.BigEndian.PutUint16(b[24:], rfc1071(b[14:38]))
	}
	q4 := []byte{0x11, 100, 0, 0, 0, 0, 0, 0}
	q6 := make([]byte, 24)
	q6[0] = 130
	for _, c := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"IPv4 cut off", oldReport(2, g4)[:44], Truncated},
		{"IPv4 header cut off", oldReport(2, g4)[:30], Truncated},
		{"IPv4 without a message", func() []byte {
			b := oldReport(2, g4)[:38]
			b[17] = 24
			ipsum(b)
			return b
		}(), BadLength},
		{"IPv4 header alone, without options", func() []byte {
			b := oldReport(2, g4)[:34]
			b[14], b[17], b[24], b[25] = 0x45, 20, 0, 0
			binary.BigEndian.PutUint16(b[24:], rfc1071(b[14:]))
			return b
		}(), BadLength},
		{"IPv6 cut off", oldReport(2, g6)[:80], Truncated},
		{"IPv4 header cut off after its protocol", oldReport(2, g4)[:24], Truncated},
		{"IPv4 header of 16 bytes", edit(oldReport(2, g4), func(b []byte) { b[14] = 0x44; ipsum(b) }), BadHeader},
		{"IPv4 shorter than its header", edit(oldReport(2, g4), func(b []byte) { b[17] = 23; ipsum(b) }), BadHeader},
		{"version 5", edit(oldReport(2, g4), func(b []byte) { b[14] = 0x56; ipsum(b) }), BadHeader},
		{"version 4 as IPv6", edit(oldReport(2, g6), func(b []byte) { b[14] = 0x40 }), BadHeader},
		{"IPv4 checksum", edit(oldReport(2, g4), func(b []byte) { b[25] ^= 1 }), BadIPChecksum},
		{"first fragment", edit(oldReport(2, g4), func(b []byte) { b[20] = 0x20; ipsum(b) }), Fragmented},
		{"last fragment", edit(oldReport(2, g4), func(b []byte) { b[21] = 1; ipsum(b) }), Fragmented},
		{"IGMP checksum", edit(oldReport(2, g4), func(b []byte) { b[45] ^= 1 }), BadChecksum},
		{"MLD checksum", edit(oldReport(2, g6), func(b []byte) { b[85] ^= 1 }), BadChecksum},
		{"MLD checksum, another destination", edit(oldReport(2, g6), func(b []byte) { b[53] ^= 1 }), BadChecksum},
		{"PIM checksum", edit(pimHello("10.0.0.2"), func(b []byte) { b[45] ^= 1 }), BadChecksum},
		{"PIMv6 checksum", edit(pimHello("fe80::2"), func(b []byte) { b[70] ^= 1 }), BadChecksum},
		{"TTL 2", ip4(host4, g4, 2, 2, append([]byte{0x16, 0, 0, 0}, g4.AsSlice()...), 2), BadHopLimit},
		{"hop limit 255", ip6(host6, g6, 255, 58, append([]byte{131, 0, 0, 0, 0, 0, 0, 0}, g6.AsSlice()...), 2), BadHopLimit},
		{"PIM with TTL 64", ip4(host4, addr("224.0.0.13"), 64, 103, []byte{0x20, 0, 0, 0}, 2), BadHopLimit},
		{"MLD without Router Alert", edit(oldReport(2, g6), func(b []byte) { copy(b[56:], []byte{1, 4, 0, 0, 0, 0}) }), NoRouterAlert},
		{"MLD with options that overrun their header", edit(oldReport(2, g6), func(b []byte) { copy(b[56:], []byte{0, 5, 9, 0, 0, 0}) }), NoRouterAlert},
		{"MLD with an option of one byte at the end", edit(oldReport(2, g6), func(b []byte) { copy(b[56:], []byte{1, 3, 0, 0, 0, 5}) }), NoRouterAlert},
		{"MLD with a Router Alert of four bytes", edit(oldReport(2, g6), func(b []byte) { copy(b[56:], []byte{5, 4, 0, 0, 0, 0}) }), NoRouterAlert},
		{"MLD with a Router Alert of no use yet", edit(oldReport(2, g6), func(b []byte) { b[58] = 1 }), NoRouterAlert},
		{"PIMv6 header alone", edit(pimHello("fe80::2"), func(b []byte) { b[18], b[19], b[20] = 0, 0, 103 })[:54], BadLength},
		{"PIMv6 without a message, behind options", edit(pimHello("fe80::2"), func(b []byte) { b[18], b[19] = 0, 8 })[:62], BadLength},
		{"MLD with an RSVP Router Alert", edit(oldReport(2, g6), func(b []byte) { b[59] = 1 }), NoRouterAlert},
		{"IGMP from a group", ip4(g4, g4, 1, 2, append([]byte{0x16, 0, 0, 0}, g4.AsSlice()...), 2), BadSource},
		{"IGMP from broadcast", ip4(addr("255.255.255.255"), g4, 1, 2, append([]byte{0x16, 0, 0, 0}, g4.AsSlice()...), 2), BadSource},
		{"MLD report from a global address", ip6(addr("2001:db8::1"), g6, 1, 58, append([]byte{131, 0, 0, 0, 0, 0, 0, 0}, g6.AsSlice()...), 2), BadSource},
		{"MLD query from ::", ip6(addr("::"), all6, 1, 58, q6, 2), BadSource},
		{"MLD query from a global address", ip6(addr("2001:db8::1"), all6, 1, 58, q6, 2), BadSource},
		{"MLD from a group", ip6(g6, g6, 1, 58, q6, 2), BadSource},
		{"general IGMP query to a group", ip4(host4, g4, 1, 2, q4, 2), BadDestination},
		{"general MLD query to a group", ip6(host6, g6, 1, 58, q6, 2), BadDestination},
		{"general IGMP query to another group's MAC", toOtherMAC(queryFrom("10.0.0.2")), BadDestination},
		{"general MLD query to another group's MAC", toOtherMAC(queryFrom("fe80::2")), BadDestination},
		{"IGMP query for a group, to another's MAC", toOtherMAC(specificQuery("10.0.0.2", g4, 10)), BadDestination},
		{"MLD query for a group, to another's MAC", toOtherMAC(specificQuery("fe80::2", g6, 10)), BadDestination},
		{"IGMP query for a group, to another", ip4(host4, addr("239.9.9.9"), 1, 2, append([]byte{0x11, 100, 0, 0}, g4.AsSlice()...), 2), BadDestination},
		{"MLD query for a group, to another", ip6(host6, addr("ff05::9:9"), 1, 58, slices.Concat(q6[:8], g6.AsSlice()), 2), BadDestination},
		{"IGMP report to another group's MAC", toOtherMAC(oldReport(2, g4)), BadDestination},
		{"MLD report to another group's MAC", toOtherMAC(reportFrame(rec{toEx, g6, nil})), BadDestination},
		{"an unknown IGMP type to another group's MAC", toOtherMAC(ip4(host4, g4, 1, 2, []byte{0x55, 0, 0, 0, 0, 0, 0, 0}, 2)), BadDestination},
		{"IGMP to a station, by a group's MAC", ip4(host4, addr("10.0.0.1"), 1, 2, q4, 2), BadDestination},
		{"MLD to a station, by a group's MAC", ip6(host6, addr("fe80::1"), 1, 58, q6, 2), BadDestination},
		{"PIM hello to another group's MAC", toOtherMAC(pimHello("10.0.0.2")), BadDestination},
		{"PIM join to another group's MAC", toOtherMAC(ip4(host4, addr("224.0.0.13"), 1, 103, []byte{0x23, 0, 0, 0}, 2)), BadDestination},
		{"IGMPv2 report of a station", ip4(host4, g4, 1, 2, []byte{0x16, 0, 0, 0, 10, 0, 0, 1}, 2), BadGroup},
		{"IGMPv2 leave of 0.0.0.0", ip4(host4, g4, 1, 2, []byte{0x17, 0, 0, 0, 0, 0, 0, 0}, 2), BadGroup},
		{"IGMPv3 record of a station", reportFrame(rec{toEx, g4, nil}, rec{toEx, addr("10.0.0.1"), nil}), BadGroup},
		{"MLDv2 record of a station", reportFrame(rec{toEx, addr("fe80::1"), nil}), BadGroup},
		{"IGMP of 7 bytes", ip4(host4, all4, 1, 2, q4[:7], 2), BadLength},
		{"MLD of 7 bytes", ip6(host6, all6, 1, 58, q6[:7], 2), BadLength},
		{"PIM of 3 bytes", ip4(host4, addr("224.0.0.13"), 1, 103, []byte{0x20, 0, 0}, 0), BadLength},
		{"IGMP query of 10 bytes", ip4(host4, all4, 1, 2, append(slices.Clone(q4), 0, 0), 2), BadLength},
		{"MLD query of 26 bytes", ip6(host6, all6, 1, 58, append(slices.Clone(q6), 0, 0), 2), BadLength},
		{"MLD query of 20 bytes", ip6(host6, all6, 1, 58, q6[:20], 2), BadLength},
		{"IGMPv3 query that lacks a source", ip4(host4, all4, 1, 2, append(slices.Clone(q4), 0, 0, 0, 1), 2), BadLength},
		{"IGMPv3 report that lacks a record", ip4(host4, g4, 1, 2, []byte{0x22, 0, 0, 0, 0, 0, 0, 1}, 2), BadLength},
		{"IGMPv3 record that lacks a source", ip4(host4, g4, 1, 2, []byte{0x22, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 239, 1, 2, 3}, 2), BadLength},
		{"IGMPv3 record that lacks its auxiliary data", ip4(host4, g4, 1, 2, []byte{0x22, 0, 0, 0, 0, 0, 0, 1, 4, 1, 0, 0, 239, 1, 2, 3}, 2), BadLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := filtering(t, VLANConfig{})
			if !IsControl(c.frame) {
				t.Error("is no control frame, so that it would be forwarded unseen")
			}
			res := r.Receive(1, 3, c.frame)
			if res.Verdict != Drop || res.Reason != c.want {
				t.Errorf("%+v, want %v", res, c.want)
			}
			if n := r.Stats().Dropped[c.want]; n != 1 {
				t.Errorf("counted %d times", n)
			}
			if g := r.Groups(); len(g) != 0 || len(r.Routers()) != 0 {
				t.Errorf("learned %v, %v", g, r.Routers())
			}
		})
	}
}

// TestTolerated has frames that differ from what the RFCs ask of a sender, or that
// say nothing to a snooper, and are taken all the same.
func TestTolerated(t *testing.T) {
	g4, g6, all4 := addr("239.1.2.3"), addr("ff05::1:3"), addr("224.0.0.1")
	bare := func(payload []byte) []byte { // no options: no Router Alert
		b := ip4(host4, g4, 1, 2, payload, 2)
		b = append(b[:34:34], b[38:]...)
		b[14], b[17] = 0x45, byte(20+len(payload))
		b[24], b[25] = 0, 0
		binary.BigEndian.PutUint16(b[24:], rfc1071(b[14:34]))
		return b
	}
	padded := oldReport(2, g6)
	copy(padded[56:], []byte{0, 5, 2, 0, 0, 0})
	atEnd := oldReport(2, g6)
	copy(atEnd[56:], []byte{1, 0, 5, 2, 0, 0})
	// The Router Alert stands at the end of a header of 24 bytes.
	long := oldReport(2, g6)
	long = slices.Concat(long[:54], []byte{58, 2, 1, 16}, make([]byte, 16), []byte{5, 2, 0, 0}, long[62:])
	long[19] += 16
	report2 := append([]byte{0x16, 0, 0, 0}, g4.AsSlice()...)
	for _, c := range []struct {
		name  string
		frame []byte
		joins int
		want  Verdict
	}{
		{"IGMP without Router Alert", bare(report2), 1, ToRouters},
		{"padded to 60 bytes and beyond", append(oldReport(2, g4), make([]byte, 30)...), 1, ToRouters},
		{"bytes behind the records", ip4(host4, g4, 1, 2, []byte{0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3, 7, 7}, 2), 1, ToRouters},
		{"auxiliary data", ip4(host4, g4, 1, 2, []byte{0x22, 0, 0, 0, 0, 0, 0, 2, 4, 1, 0, 0, 239, 1, 2, 3, 9, 9, 9, 9, 4, 0, 0, 0, 239, 1, 2, 4}, 2), 2, ToRouters},
		{"an unknown record type among others", reportFrame(rec{9, g4, addrs("10.0.0.1")}, rec{toEx, g4, nil}), 1, ToRouters},
		{"Router Alert behind a pad", padded, 1, ToRouters},
		{"Router Alert at the end", atEnd, 1, ToRouters},
		{"Router Alert in a long header", long, 1, ToRouters},
		{"no record", ip4(host4, g4, 1, 2, []byte{0x22, 0, 0, 0, 0, 0, 0, 0}, 2), 0, ToRouters},
		{"IGMP from 0.0.0.0", ip4(addr("0.0.0.0"), g4, 1, 2, report2, 2), 1, ToRouters},
		{"MLDv2 report from ::", ip6(addr("::"), addr("ff02::16"), 1, 58, append([]byte{143, 0, 0, 0, 0, 0}, records([]rec{{toEx, g6, nil}})...), 2), 1, ToRouters},
		{"MLDv1 report from ::", ip6(addr("::"), g6, 1, 58, append([]byte{131, 0, 0, 0, 0, 0, 0, 0}, g6.AsSlice()...), 2), 1, ToRouters},
		{"an unknown IGMP type, TTL 5", ip4(host4, g4, 5, 2, []byte{0x55, 0, 0, 0, 0, 0, 0, 0}, 2), 0, Flood},
		{"DVMRP", ip4(host4, addr("224.0.0.4"), 1, 2, []byte{0x13, 0, 0, 0, 0, 0, 0, 0}, 2), 0, Flood},
		{"IGMP query for a group, to all systems", ip4(host4, all4, 1, 2, append([]byte{0x11, 100, 0, 0}, g4.AsSlice()...), 2), 0, Flood},
		{"PIM join/prune", ip4(host4, addr("224.0.0.13"), 1, 103, []byte{0x23, 0, 0, 0}, 2), 0, Flood},
		{"router solicitation of RFC 4286", ip6(host6, addr("ff02::2"), 1, 58, []byte{152, 0, 0, 0, 0, 0, 0, 0}, 2), 0, Flood},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := filtering(t, VLANConfig{})
			res := r.accept(3, c.frame)
			if res.Verdict != c.want || len(r.Groups()) != c.joins {
				t.Errorf("%+v, %d groups", res, len(r.Groups()))
			}
		})
	}
}

// behind returns an MLD query behind a hop-by-hop header and this one of 8 bytes.
func behind(proto byte, length byte, offset uint16) []byte {
	q := queryFrom("fe80::1")
	extension := binary.BigEndian.AppendUint16([]byte{58, length}, offset)
	b := slices.Concat(q[:54], []byte{proto, 0, 5, 2, 0, 0, 1, 0}, extension, make([]byte, 4), q[62:])
	b[19] += 8
	return b
}

// misaddressed returns a frame to another address than its group's.
func misaddressed(frame []byte, to uint64) []byte {
	return slices.Concat(binary.BigEndian.AppendUint64(nil, to)[2:], frame[6:])
}

// prior returns a frame with so many priority tags.
func prior(frame []byte, n int, tpid uint16) []byte {
	tag := binary.BigEndian.AppendUint16(nil, tpid)
	return slices.Concat(frame[:12], bytes.Repeat(append(tag, 0xe0, 0), n), frame[12:])
}

// Hosts find a router's message wherever it is hidden; it counts as none, and reaches
// nobody. One with a priority counts.
func TestHiddenMessages(t *testing.T) {
	q := queryFrom("fe80::1")
	for _, c := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"routing header", behind(43, 0, 0), BadHeader},
		{"fragment", behind(44, 0, 1), Fragmented},
		{"cut off", behind(60, 255, 0), Truncated},
		{"to everybody", misaddressed(q, 0xffff_ffff_ffff), BadDestination},
		{"IGMP to everybody", misaddressed(queryFrom("10.0.0.1"), 0xffff_ffff_ffff), BadDestination},
		{"more priorities than are read", prior(q, eth.MaxPriorities+1, 0x8100), BadHeader},
		{"priority", prior(q, 1, 0x8100), Accepted},
		{"authentication header", behind(51, 0, 0), Accepted},
	} {
		r := filtering(t, VLANConfig{})
		if got := r.Receive(1, 3, c.frame); got.Reason != c.want || got.Verdict == Data {
			t.Errorf("%s: %+v, want %v", c.name, got, c.want)
		}
	}
}

func TestIsControl(t *testing.T) {
	g4, g6 := addr("239.1.2.3"), addr("ff05::1:3")
	// MLD behind another extension header: a snooper that misses it lets hosts
	// be queried behind its back.
	q := queryFrom("fe80::1")
	hidden := slices.Concat(q[:54], []byte{60, 0, 5, 2, 0, 0, 1, 0}, []byte{58, 0, 1, 4, 0, 0, 0, 0}, q[62:])
	hidden[19] += 8
	unicast := oldReport(2, g4)
	unicast[0], unicast[1] = 0x52, 0x54
	tagged := slices.Concat(q[:12], []byte{0x81, 0, 0, 5}, q[12:])
	// chain has so many extension headers before MLD.
	chain := func(n int) []byte {
		b := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(8*n + 24), 60, 1}, host6.AsSlice(), g6.AsSlice())
		for i := range n {
			next := byte(60)
			if i == n-1 {
				next = 58
			}
			b = append(b, next, 0, 1, 4, 0, 0, 0, 0)
		}
		return ethernet(g6, 0x86dd, append(append(b, 131), make([]byte, 23)...))
	}
	loop := ethernet(g6, 0x86dd, slices.Concat([]byte{0x60, 0, 0, 0, 4, 0, 0, 1}, host6.AsSlice(), g6.AsSlice(), make([]byte, 1024)))
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"IGMP report", oldReport(2, g4), true},
		{"MLD report", oldReport(2, g6), true},
		{"IGMP query", queryFrom("10.0.0.1"), true},
		{"MLD query", q, true},
		{"MLD query behind destination options", hidden, true},
		{"PIM", pimHello("10.0.0.1"), true},
		{"PIM of IPv6", pimHello("fe80::1"), true},
		{"UDP to a group", ip4(host4, g4, 1, 17, make([]byte, 8), 6), false},
		{"UDP to an IPv6 group", ip6(host6, g6, 1, 17, make([]byte, 8), 6), false},
		{"neighbour solicitation", ip6(host6, addr("ff02::1:ff00:1"), 255, 58, append([]byte{135}, make([]byte, 23)...), 2), false},
		{"IGMP to a station", unicast, false},
		{"behind a second tag", tagged, false},
		{"extension headers without end", loop, true},
		{"as many extension headers as are walked", chain(maxHeaders - 1), true},
		{"more extension headers than are walked", chain(maxHeaders), true},
		{"an extension header cut off", chain(1)[:61], true},
		{"MLD behind a routing header", behind(43, 0, 0), true},
		{"MLD in a first fragment", behind(44, 0, 1), true},
		{"MLD in all of a fragment", behind(44, 0, 0), true},
		{"a later fragment", behind(44, 0, 8), false},
		{"MLD behind an authentication header", behind(51, 0, 0), true},
		{"IGMP to everybody", misaddressed(queryFrom("10.0.0.1"), 0xffff_ffff_ffff), true},
		{"MLD to everybody", misaddressed(q, 0xffff_ffff_ffff), true},
		{"MLD to a group of IPv4", misaddressed(q, 0x0100_5e00_0001), true},
		{"IGMP to a group of another protocol", misaddressed(queryFrom("10.0.0.1"), 0x0180_c200_0030), true},
		{"with a priority", prior(q, 1, 0x8100), true},
		{"with a service priority", prior(q, 1, 0x88a8), true},
		{"with as many priorities as are read", prior(q, eth.MaxPriorities, 0x8100), true},
		{"with more priorities", prior(q, eth.MaxPriorities+1, 0x8100), true},
		{"UDP with a priority", prior(ip4(host4, g4, 1, 17, make([]byte, 8), 6), 1, 0x8100), false},
		{"ends in a priority", prior(q, 1, 0x8100)[:16], false},
		{"nothing behind an extension header", chain(1)[:62], false},
		{"the type behind an extension header", chain(1)[:63], true},
		{"IPv4, cut off before its protocol", oldReport(2, g4)[:23], false},
		{"IPv4, cut off after it", oldReport(2, g4)[:24], true},
		{"IPv6 header cut off", q[:53], false},
		{"empty", nil, false},
		{"header alone", q[:14], false},
		{"MLD cut off before its type", q[:62], false},
	} {
		if got := IsControl(c.frame); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { IsControl(hidden); IsControl(loop) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A query to a station is dropped at a port that no router is behind, and counts nowhere.
func TestIsQuery(t *testing.T) {
	const station = 0x5254_0000_0001
	to := func(frame []byte) []byte { return misaddressed(frame, station) }
	q4, q6 := to(queryFrom("10.0.0.1")), to(queryFrom("fe80::1"))
	fragment := slices.Clone(q4)
	fragment[20] |= 0x20
	bare := slices.Concat(q6[:20], []byte{58}, q6[21:54], q6[62:])
	bare[19] -= 8
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"IGMP", q4, true},
		{"MLD", q6, true},
		{"IGMP with a priority", prior(q4, 1, 0x8100), true},
		{"MLD with as many priorities as are read", prior(q6, eth.MaxPriorities, 0x88a8), true},
		{"more priorities", prior(q4, eth.MaxPriorities+1, 0x8100), true},
		{"a fragment of IGMP", fragment, true},
		{"MLD in a fragment", to(behind(44, 0, 1)), true},
		{"MLD behind destination options", to(behind(60, 0, 0x0104)), true},
		{"to a group", queryFrom("10.0.0.1"), false},
		{"a report of IGMP", to(oldReport(2, addr("239.1.2.3"))), false},
		{"a report of MLD", to(oldReport(2, addr("ff05::1:3"))), false},
		{"UDP", to(ip4(host4, addr("239.1.2.3"), 1, 17, make([]byte, 8), 6)), false},
		{"UDP of IPv6", to(ip6(host6, addr("ff05::1:3"), 1, 17, make([]byte, 8), 6)), false},
		{"behind a tag", slices.Concat(q4[:12], []byte{0x81, 0, 0, 5}, q4[12:]), false},
		{"IGMP, cut off before its type", q4[:len(q4)-12], false},
		{"cut off", q4[:23], false},
		{"MLD, cut off before its type", q6[:62], false},
		{"MLD, cut off amid its addresses", q6[:53], false},
		{"MLD without a Router Alert", bare, false},
		{"empty", nil, false},
	} {
		if got := IsQuery(c.frame); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		r := newRigOf(t, Config{}, VLANConfig{Querier: true})
		r.SetPort(3, PortConfig{Router: RouterNever})
		if got := r.Receive(1, 3, c.frame); c.name != "to a group" && c.want != (got.Verdict == Drop && got.Reason == RouterGuard) {
			t.Errorf("%s: at a port without a router %+v", c.name, got)
		}
		if got := r.Receive(1, 4, c.frame); c.want && got.Verdict != Data {
			t.Errorf("%s: at another port %+v", c.name, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { IsQuery(q4); IsQuery(q6) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFloat(t *testing.T) {
	for _, c := range []struct {
		bits       int
		code, want uint32
	}{
		{8, 0, 0}, {8, 127, 127}, {8, 128, 128}, {8, 0x8f, 248}, {8, 0xff, 31744}, // RFC 3376 section 4.1.1
		{16, 32767, 32767}, {16, 0x8000, 32768}, {16, 0xffff, 8387584}, // RFC 3810 section 5.1.3
	} {
		if got := decodeFloat(c.code, c.bits); got != c.want {
			t.Errorf("%d bits, %#x: %d, want %d", c.bits, c.code, got, c.want)
		}
	}
	for _, bits := range []int{8, 16} {
		for code := range uint32(1) << bits {
			v := decodeFloat(code, bits)
			if back := encodeFloat(v, bits); back != code {
				t.Fatalf("%d bits: %d is said as %#x, not %#x", bits, v, back, code)
			}
			if code > 0 && encodeFloat(v-1, bits) != code-1 {
				t.Fatalf("%d bits: %d is not rounded down", bits, v-1)
			}
		}
		if got := encodeFloat(1<<31, bits); got != 1<<bits-1 {
			t.Errorf("%d bits: too much is said as %#x", bits, got)
		}
	}
}

// TestOwnQueries holds the bytes of our queries to the RFCs' layout.
func TestOwnQueries(t *testing.T) {
	v4, v6 := addr("10.0.0.1"), addr("fe80::5056:78ff:fe9a:bcde")
	for _, c := range []struct {
		name string
		got  []byte
		want []byte
	}{
		{"IGMPv3, general",
			igmpQueryFrame(switchMAC, v4, queryFields{version: 3, maxResponse: 10 * time.Second, robustness: 2, interval: 125 * time.Second}),
			queryFrom("10.0.0.1")},
		{"IGMPv3, with long times",
			igmpQueryFrame(switchMAC, v4, queryFields{version: 3, maxResponse: 20 * time.Second, robustness: 2, interval: 250 * time.Second}),
			ip4(v4, addr("224.0.0.1"), 1, 2, []byte{0x11, 0x89, 0, 0, 0, 0, 0, 0, 2, 0x8f, 0, 0}, 2)},
		{"IGMPv2, for a group",
			igmpQueryFrame(switchMAC, v4, queryFields{version: 2, group: addr("239.1.2.3"), maxResponse: time.Second}),
			ip4(v4, addr("239.1.2.3"), 1, 2, []byte{0x11, 10, 0, 0, 239, 1, 2, 3}, 2)},
		{"IGMPv3, for a source",
			igmpQueryFrame(switchMAC, v4, queryFields{version: 3, group: addr("239.1.2.3"), maxResponse: time.Second, robustness: 2, interval: 125 * time.Second, sources: addrs("10.0.0.7")}),
			specificQuery("10.0.0.1", addr("239.1.2.3"), 10, addr("10.0.0.7"))},
		{"MLDv2, general",
			mldQueryFrame(switchMAC, v6, queryFields{version: 3, maxResponse: 10 * time.Second, robustness: 2, interval: 125 * time.Second}),
			queryFrom("fe80::5056:78ff:fe9a:bcde")},
		{"MLDv2, with a long time to answer",
			mldQueryFrame(switchMAC, v6, queryFields{version: 3, maxResponse: time.Minute, robustness: 2, interval: 125 * time.Second}),
			ip6(v6, addr("ff02::1"), 1, 58, slices.Concat([]byte{130, 0, 0, 0, 0x8d, 0x4c, 0, 0}, make([]byte, 16), []byte{2, 125, 0, 0}), 2)},
		{"MLDv1, for a group",
			mldQueryFrame(switchMAC, v6, queryFields{version: 2, group: addr("ff05::1:3"), maxResponse: time.Second}),
			ip6(v6, addr("ff05::1:3"), 1, 58, slices.Concat([]byte{130, 0, 0, 0, 3, 232, 0, 0}, addr("ff05::1:3").AsSlice()), 2)},
		{"MLDv2, for a source",
			mldQueryFrame(switchMAC, v6, queryFields{version: 3, group: addr("ff05::1:3"), maxResponse: time.Second, robustness: 2, interval: 125 * time.Second, sources: addrs("2001:db8::7")}),
			specificQuery("fe80::5056:78ff:fe9a:bcde", addr("ff05::1:3"), 10, addr("2001:db8::7"))},
	} {
		copy(c.want[6:], []byte{0x52, 0x56, 0x78, 0x9a, 0xbc, 0xde})
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s:\n%x, want\n%x", c.name, c.got, c.want)
		}
	}
}

// TestChecksum adds words whose sums carry once, twice and not at all.
func TestChecksum(t *testing.T) {
	words := []int{0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff}
	for _, a := range words {
		for _, b := range words {
			for _, c := range words {
				if got, want := checksum(uint32(a+b), be16(c)), rfc1071(be16(a), be16(b), be16(c)); got != want {
					t.Errorf("%x + %x + %x: %x, want %x", a, b, c, got, want)
				}
			}
		}
	}
}

// FuzzReceive feeds frames from hostile hosts, with and without their checksums
// mended, and looks for panics, growth without bound, and tables that break the rules.
func FuzzReceive(f *testing.F) {
	g4, g6 := addr("239.1.2.3"), addr("ff05::1:3")
	for _, b := range [][]byte{
		oldReport(1, g4), oldReport(2, g4), oldReport(2, g6), leaveFrame(g4), leaveFrame(g6),
		reportFrame(rec{toEx, g4, addrs("10.0.0.1", "10.0.0.2")}, rec{block, g4, addrs("10.0.0.3")}),
		reportFrame(rec{isIn, g6, addrs("2001:db8::1")}, rec{toIn, g6, nil}),
		queryFrom("10.0.0.1"), queryFrom("fe80::1"), queryFrom("0.0.0.0"),
		specificQuery("10.0.0.1", g4, 10, addr("10.0.0.1")), pimHello("10.0.0.1"), pimHello("fe80::1"), nil,
	} {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, frame []byte, mend bool) {
		if mend {
			mendChecksums(frame)
		}
		r := newRigOf(t, Config{Memberships: 8, Sources: 4}, VLANConfig{Querier: true, RouterOnly: true})
		r.Advance(15 * time.Second)
		for _, known := range []netip.Addr{g4, g6} {
			r.accept(2, reportFrame(rec{toEx, known, nil}))
		}
		res := r.Receive(1, 3, frame)
		query := IsQuery(frame) && r.config(3).Router == RouterNever
		if (res.Verdict == Data) == (IsControl(frame) || query) || (res.Verdict == Drop) != (res.Reason != Accepted) {
			t.Fatalf("%+v", res)
		}
		r.Receive(1, 3, frame)
		groups := r.Groups()
		if len(groups) > 8 {
			t.Fatalf("%d memberships", len(groups))
		}
		for _, m := range groups {
			if len(m.Sources) > 4 || m.Learned && (m.Expires <= 0 || m.Version < 1 || m.Version > 3) {
				t.Fatalf("%+v", m)
			}
			ports := r.gets(m.Group)
			if !slices.Contains(ports, m.Port) && !slices.Contains(ports, flood) {
				t.Fatalf("%v goes to %v", m, ports)
			}
		}
		r.mustGet(addr("224.0.0.5"), flood)
		r.mustGet(addr("ff02::1"), flood)
		// By a guarded port no frame changes who asks, or what others want.
		guarded := newRigOf(t, Config{Memberships: 8, Sources: 4}, VLANConfig{Querier: true})
		guarded.SetPort(3, PortConfig{Router: RouterNever})
		guarded.accept(2, reportFrame(rec{toEx, g4, nil}))
		guarded.Advance(15 * time.Second)
		before, _ := guarded.of(2, g4)
		guarded.Receive(1, 3, frame)
		after, _ := guarded.of(2, g4)
		if !before.Exclude || before.Expires != after.Expires || !guarded.querierOf(IPv4).Own || !guarded.querierOf(IPv6).Own || len(guarded.Routers()) != 0 {
			t.Fatalf("%+v became %+v; %+v, %+v", before, after, guarded.Queriers(), guarded.Routers())
		}
		// Nothing is for ever: the longest interval a query can ask for is 31744 s,
		// with a robustness of 7.
		r.Advance(8 * 31744 * time.Second)
		if groups := r.Groups(); len(groups) != 0 {
			t.Fatalf("still there: %v", groups)
		}
	})
}

// mendChecksums makes a frame pass the first tests, where it has the room.
func mendChecksums(b []byte) {
	if len(b) < 34 {
		return
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case 0x800:
		n := 14 + int(b[14]&0xf)*4
		if n < 34 || len(b) < n+8 {
			return
		}
		binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
		b[24], b[25], b[n+2], b[n+3] = 0, 0, 0, 0
		binary.BigEndian.PutUint16(b[24:], rfc1071(b[14:n]))
		binary.BigEndian.PutUint16(b[n+2:], rfc1071(b[n:]))
	case 0x86dd:
		if len(b) < 14+40+8+8 || len(b) > 60000 {
			return
		}
		binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
		b[20], b[55] = 0, 0
		m := b[62:]
		m[2], m[3] = 0, 0
		binary.BigEndian.PutUint16(m[2:], rfc1071(b[22:54], []byte{0, 0}, be16(len(m)), []byte{0, 0, 0, 58}, m))
	}
}
