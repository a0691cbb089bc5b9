package mcast

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Frames as hosts and routers send them, made apart from the code under test.

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

// rec is a group record.
type rec struct {
	typ     recordType
	group   netip.Addr
	sources []netip.Addr
}

func rfc1071(parts ...[]byte) uint16 {
	var n uint64
	for i, b := range slices.Concat(parts...) {
		if i%2 == 0 {
			n += uint64(b) << 8
		} else {
			n += uint64(b)
		}
	}
	for n > 0xffff {
		n = n&0xffff + n>>16
	}
	return ^uint16(n)
}

func be16(v int) []byte { return []byte{byte(v >> 8), byte(v)} }

func ethernet(dst netip.Addr, typ int, payload []byte) []byte {
	raw := dst.AsSlice()
	mac := []byte{0x33, 0x33, 0, 0, 0, 0}
	if dst.Is4() {
		mac = []byte{1, 0, 0x5e, raw[1] & 0x7f, raw[2], raw[3]}
	} else {
		copy(mac[2:], raw[12:])
	}
	return slices.Concat(mac, []byte{0x52, 0x54, 0, 0, 0, 9}, be16(typ), payload)
}

// ip4 puts a payload whose checksum, if at is not 0, is at offset at into a packet
// with Router Alert.
func ip4(src, dst netip.Addr, ttl, proto byte, payload []byte, at int) []byte {
	payload = slices.Clone(payload)
	if at > 0 {
		binary.BigEndian.PutUint16(payload[at:], rfc1071(payload))
	}
	h := slices.Concat([]byte{0x46, 0xc0}, be16(24+len(payload)), []byte{0, 0, 0x40, 0, ttl, proto, 0, 0},
		src.AsSlice(), dst.AsSlice(), []byte{0x94, 4, 0, 0})
	binary.BigEndian.PutUint16(h[10:], rfc1071(h))
	return ethernet(dst, 0x800, append(h, payload...))
}

// ip6 is the same, with the pseudo header in the checksum and a hop-by-hop header.
func ip6(src, dst netip.Addr, hops, proto byte, payload []byte, at int) []byte {
	payload = slices.Clone(payload)
	binary.BigEndian.PutUint16(payload[at:], rfc1071(src.AsSlice(), dst.AsSlice(),
		[]byte{0, 0}, be16(len(payload)), []byte{0, 0, 0, proto}, payload))
	return ethernet(dst, 0x86dd, slices.Concat([]byte{0x60, 0, 0, 0}, be16(8+len(payload)), []byte{0, hops},
		src.AsSlice(), dst.AsSlice(), []byte{proto, 0, 5, 2, 0, 0, 1, 0}, payload))
}

var (
	host4 = addr("10.0.0.99")
	host6 = addr("fe80::99")
)

func records(list []rec) []byte {
	b := be16(len(list))
	for _, r := range list {
		b = slices.Concat(b, []byte{byte(r.typ), 0}, be16(len(r.sources)), r.group.AsSlice())
		for _, s := range r.sources {
			b = append(b, s.AsSlice()...)
		}
	}
	return b
}

// reportFrame is an IGMPv3 or MLDv2 report, by the family of its first record.
func reportFrame(list ...rec) []byte {
	if list[0].group.Is4() {
		return ip4(host4, addr("224.0.0.22"), 1, 2, append([]byte{0x22, 0, 0, 0, 0, 0}, records(list)...), 2)
	}
	return ip6(host6, addr("ff02::16"), 1, 58, append([]byte{143, 0, 0, 0, 0, 0}, records(list)...), 2)
}

// oldReport is a report of IGMPv1, IGMPv2 (version 2) or MLDv1 (version 2).
func oldReport(version int, group netip.Addr) []byte {
	if group.Is4() {
		typ := map[int]byte{1: 0x12, 2: 0x16}[version]
		return ip4(host4, group, 1, 2, append([]byte{typ, 0, 0, 0}, group.AsSlice()...), 2)
	}
	return ip6(host6, group, 1, 58, append([]byte{131, 0, 0, 0, 0, 0, 0, 0}, group.AsSlice()...), 2)
}

func leaveFrame(group netip.Addr) []byte {
	if group.Is4() {
		return ip4(host4, addr("224.0.0.2"), 1, 2, append([]byte{0x17, 0, 0, 0}, group.AsSlice()...), 2)
	}
	return ip6(host6, addr("ff02::2"), 1, 58, append([]byte{132, 0, 0, 0, 0, 0, 0, 0}, group.AsSlice()...), 2)
}

// queryFrom is a general query of IGMPv3 or MLDv2, by the family of src, with the
// default intervals: 10 s to answer, 125 s between two.
func queryFrom(src string) []byte { return specificQuery(src, netip.Addr{}, 100) }

// specificQuery is a query for a group, and sources; its response time is in tenths
// of a second.
func specificQuery(src string, group netip.Addr, tenths int, sources ...netip.Addr) []byte {
	from := addr(src)
	tail := slices.Concat([]byte{2, 125}, be16(len(sources)))
	for _, s := range sources {
		tail = append(tail, s.AsSlice()...)
	}
	if from.Is4() {
		dst := group
		if !group.IsValid() {
			dst, group = addr("224.0.0.1"), addr("0.0.0.0")
		}
		return ip4(from, dst, 1, 2, slices.Concat([]byte{0x11, byte(tenths), 0, 0}, group.AsSlice(), tail), 2)
	}
	dst := group
	if !group.IsValid() {
		dst, group = addr("ff02::1"), addr("::")
	}
	return ip6(from, dst, 1, 58, slices.Concat([]byte{130, 0, 0, 0}, be16(tenths*100), []byte{0, 0}, group.AsSlice(), tail), 2)
}

func pimHello(src string) []byte {
	hello := []byte{0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105}
	if from := addr(src); from.Is6() {
		return ip6(from, addr("ff02::d"), 1, 103, hello, 2)
	}
	return ip4(addr(src), addr("224.0.0.13"), 1, 103, hello, 2)
}

// toOtherMAC changes the MAC that a frame goes to, to that of a group nobody listens to.
func toOtherMAC(frame []byte) []byte {
	for i := range frame[3:6] {
		frame[3+i] ^= 0x55
	}
	return frame
}

// sent is a query that the Snooper sent.
type sent struct {
	at         time.Duration
	vlan, port uint16
	m          message
}

// rig is a Snooper with VLAN 1, and what it sent.
type rig struct {
	*Snooper
	t    testing.TB
	sent []sent
}

const switchMAC = 0x5256_789a_bcde

func newRig(t testing.TB, cfg VLANConfig) *rig {
	t.Helper()
	return newRigOf(t, Config{}, cfg)
}

func newRigOf(t testing.TB, c Config, cfg VLANConfig) *rig {
	t.Helper()
	r := &rig{t: t}
	c.MAC = switchMAC
	c.Send = func(vlan, port uint16, frame []byte) {
		if !IsControl(frame) {
			t.Errorf("%x was sent and is no control frame", frame)
		}
		m, reason := parse(frame)
		if reason != Accepted || m.kind != query {
			t.Errorf("%x was sent: %v", frame, reason)
		}
		r.sent = append(r.sent, sent{r.now, vlan, port, m})
	}
	r.Snooper = New(c)
	if err := r.SetVLAN(1, cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// filtering makes a rig whose switch queries, at the time its hosts had to answer.
func filtering(t testing.TB, cfg VLANConfig) *rig {
	t.Helper()
	cfg.Querier, cfg.IPv4 = true, addr("10.0.0.1")
	r := newRig(t, cfg)
	r.to(20 * time.Second)
	r.sent = nil
	return r
}

// to lets the time pass until at, stopping at each moment something is due.
func (r *rig) to(at time.Duration) {
	r.t.Helper()
	for range 100_000 {
		next, ok := r.Next()
		if !ok || next > at {
			r.Advance(at)
			r.replace()
			return
		}
		r.Advance(next)
		r.replace()
	}
	r.t.Fatal("time stands still")
}

func (r *rig) pass(d time.Duration) { r.t.Helper(); r.to(r.now + d) }

// hear gives the Snooper a frame, whatever becomes of it.
func (r *rig) hear(port uint16, frame []byte) Result {
	r.t.Helper()
	if !IsControl(frame) {
		r.t.Fatalf("%x is no control frame", frame)
	}
	defer r.replace()
	return r.Receive(1, port, frame)
}

// accept gives the Snooper a frame that must be accepted.
func (r *rig) accept(port uint16, frame []byte) Result {
	r.t.Helper()
	res := r.hear(port, frame)
	if res.Verdict == Drop {
		r.t.Fatalf("%x was dropped: %v", frame, res.Reason)
	}
	return res
}

// flood is what gets returns where all ports get the group.
const flood = AllPorts

func (r *rig) gets(group netip.Addr) []uint16 {
	r.t.Helper()
	ports, all := r.Table().Lookup(1, groupMAC(group))
	r.wantListed(group, ports, all)
	if all {
		return []uint16{flood}
	}
	return slices.Clone(ports)
}

// wantListed checks that Each and Rest say the same of a group in VLAN 1 as Lookup.
func (r *rig) wantListed(group netip.Addr, want []uint16, wantAll bool) {
	r.t.Helper()
	listed := 0
	r.Table().Each(func(vlan uint16, dst uint64, ports []uint16) {
		if vlan == 1 && dst == groupMAC(group) {
			if listed++; wantAll || !slices.Equal(ports, want) {
				r.t.Errorf("at %v Each has %v for %v, want %v, all: %v", r.now, ports, group, want, wantAll)
			}
		}
	})
	ports, all := r.Table().Rest(1, group.Is6())
	key := uint32(groupMAC(group))
	if group.Is4() {
		key &= 0x7fffff
	}
	mayFlood := wantAll && (key <= lastLocal || group.Is6() && (isNDKey(key) || isServiceKey(key)))
	if listed > 1 || listed == 0 && !mayFlood && (all != wantAll || !all && !slices.Equal(ports, want)) {
		r.t.Errorf("at %v Each has %v %d times, and Rest %v, %v, want %v, %v", r.now, group, listed, ports, all, want, wantAll)
	}
}

func (r *rig) mustGet(group netip.Addr, ports ...uint16) {
	r.t.Helper()
	if got := r.gets(group); !slices.Equal(got, ports) {
		r.t.Fatalf("at %v %v goes to %v, want %v", r.now, group, got, ports)
	}
}

func (r *rig) of(port uint16, group netip.Addr) (Membership, bool) {
	for _, m := range r.Groups() {
		if m.Port == port && m.Group == group {
			return m, true
		}
	}
	return Membership{}, false
}
