package ip_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/vswitch/vswitch/internal/packet/ip"
)

var (
	v4 = []byte("\x45\x00\x00\x1c\x12\x34\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x35\x00\x35\x00\x08\x00\x00")
	v6 = append(append([]byte("\x60\x00\x00\x00\x00\x08\x11\x40"), make([]byte, 32)...), "\x00\x35\x00\x35\x00\x08\x00\x00"...)
)

// chained returns an IPv6 packet with extension headers of these types in front of UDP.
func chained(headers ...string) []byte {
	b := bytes.Clone(v6[:40])
	next := byte(ip.UDP)
	at := 6
	for _, h := range headers {
		b[at], at = h[0], len(b)
		b = append(b, next)
		b = append(b, h[1:]...)
	}
	b = append(b, v6[40:]...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

func TestParse6Chain(t *testing.T) {
	const (
		hop   = "\x00\x00\x01\x04\x00\x00\x00\x00"
		dest  = "\x3c\x00\x01\x04\x00\x00\x00\x00"
		auth  = "\x33\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		first = "\x2c\x00\x00\x01\x00\x00\x00\x07"
		later = "\x2c\x00\x00\x08\x00\x00\x00\x07"
	)
	many := make([]string, 9)
	for i := range many {
		many[i] = dest
	}
	for name, c := range map[string]struct {
		b     []byte
		fault ip.Fault
		part  ip.Part
	}{
		"none":                   {v6, ip.OK, ip.Whole},
		"hop-by-hop":             {chained(hop), ip.OK, ip.Whole},
		"two":                    {chained(hop, dest), ip.OK, ip.Whole},
		"authentication":         {chained(auth), ip.OK, ip.Whole},
		"fragment":               {chained(first), ip.OK, ip.First},
		"behind a fragment":      {chained(first, dest), ip.OK, ip.First},
		"later fragment":         {chained(later, dest), ip.OK, ip.Later},
		"hop-by-hop second":      {chained(dest, hop), ip.BadChain, ip.Whole},
		"two fragment headers":   {chained(first, first), ip.BadChain, ip.First},
		"more than eight":        {chained(many...), ip.BadChain, ip.Whole},
		"eight":                  {chained(many[:8]...), ip.OK, ip.Whole},
		"beyond the packet":      {chained("\x3c\x05\x01\x04\x00\x00\x00\x00"), ip.BadChain, ip.Whole},
		"jumbogram":              {append(append(bytes.Clone(v6[:4]), 0, 0, 0, 64), v6[8:]...), ip.BadChain, ip.Whole},
		"longer than the frame":  {append(append(bytes.Clone(v6[:4]), 0, 9), v6[6:]...), ip.Bad, ip.Whole},
		"version 4":              {append([]byte{0x40}, v6[1:]...), ip.Bad, ip.Whole},
		"shorter than a header":  {v6[:39], ip.Bad, ip.Whole},
		"hidden in the padding":  {append(chained("\x2c\x00\x00\x01\x00\x00\x00\x07")[:48], "\x3a\x00\x01\x04"...), ip.Bad, ip.Whole},
		"headers end the packet": {chained(dest)[:48], ip.Bad, ip.Whole},
	} {
		p, fault := ip.Parse6(c.b, len(c.b), 498)
		if fault != c.fault || fault == ip.OK && p.Part != c.part {
			t.Errorf("%s: %v, %+v", name, fault, p)
		}
		if fault == ip.OK && p.Part != ip.Later && (p.Proto != ip.UDP || !bytes.Equal(p.Body, v6[40:])) {
			t.Errorf("%s: the body is %x of %d", name, p.Body, p.Proto)
		}
	}
	// A header beyond what may be looked at.
	if _, fault := ip.Parse6(chained(hop), 56, 47); fault != ip.BadChain {
		t.Errorf("a chain longer than allowed: %v", fault)
	}
	// The packet ends before the frame: padding is not part of it.
	if p, fault := ip.Parse6(append(bytes.Clone(v6), 1, 2, 3), 51, 498); fault != ip.OK || len(p.Body) != 8 || p.Short {
		t.Errorf("padded: %v, %+v", fault, p)
	}
	// The packet goes on behind what is at hand.
	if p, fault := ip.Parse6(v6[:44], len(v6), 498); fault != ip.OK || len(p.Body) != 4 || !p.Short {
		t.Errorf("cut off: %v, %+v", fault, p)
	}
}

func TestParse4(t *testing.T) {
	change := func(at int, to ...byte) []byte {
		return append(append(bytes.Clone(v4[:at]), to...), v4[at+len(to):]...)
	}
	for name, c := range map[string]struct {
		b     []byte
		fault ip.Fault
		part  ip.Part
	}{
		"plain":                   {v4, ip.OK, ip.Whole},
		"don't fragment":          {change(6, 0x40), ip.OK, ip.Whole},
		"first":                   {change(6, 0x20), ip.OK, ip.First},
		"last":                    {change(7, 1), ip.OK, ip.Later},
		"19 bytes":                {v4[:19], ip.Bad, 0},
		"header of 16":            {change(0, 0x44), ip.Bad, 0},
		"header beyond the end":   {change(0, 0x4f), ip.Bad, 0},
		"length below header":     {change(2, 0, 19), ip.Bad, 0},
		"length beyond frame":     {change(2, 0, 29), ip.Bad, 0},
		"version 6":               {change(0, 0x65), ip.Bad, 0},
		"options to the very end": {change(0, 0x47), ip.OK, ip.Whole},
	} {
		p, fault := ip.Parse4(c.b, len(c.b))
		if fault != c.fault || fault == ip.OK && p.Part != c.part {
			t.Errorf("%s: %v, %+v", name, fault, p)
		}
	}
}

func addr(a ip.Addr) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b).Unmap()
}

// FuzzParse4: what is read is what gopacket reads, which accepts more.
func FuzzParse4(f *testing.F) {
	f.Add(v4, 0)
	f.Add(append(bytes.Clone(v4), 1, 2, 3), 1000)
	f.Fuzz(func(t *testing.T, b []byte, more int) {
		p, fault := ip.Parse4(b, len(b)+more&0xffff)
		if fault != ip.OK {
			return
		}
		var want layers.IPv4
		if b[0] != 0x45 {
			return // it reads options, and stops at their end
		}
		if err := want.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
			t.Fatalf("%x: gopacket refuses it: %v", b, err)
		}
		later, first := want.FragOffset != 0, want.Flags&layers.IPv4MoreFragments != 0
		if addr(p.Src) != mustAddr(want.SrcIP) || addr(p.Dst) != mustAddr(want.DstIP) || p.Proto != byte(want.Protocol) ||
			(p.Part == ip.Later) != later || (p.Part == ip.First) != (first && !later) || !bytes.Equal(p.Body, want.Payload) {
			t.Fatalf("%+v, want %+v", p, want)
		}
	})
}

func mustAddr(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }

// FuzzParse6: the body lies in the packet behind headers that are walked one by one, here by
// gopacket, which knows some of them.
func FuzzParse6(f *testing.F) {
	f.Add(v6)
	f.Add(chained("\x00\x00\x01\x04\x00\x00\x00\x00", "\x3c\x00\x01\x04\x00\x00\x00\x00"))
	f.Add(chained("\x2c\x00\x00\x01\x00\x00\x00\x07"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, fault := ip.Parse6(b, len(b), 498)
		if fault == ip.Bad {
			return
		}
		length := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if length > len(b) {
			t.Fatal("longer than the frame")
		}
		if fault != ip.OK {
			return
		}
		if p.Short || len(p.Body) > length-40 || !bytes.Equal(p.Body, b[length-len(p.Body):length]) {
			t.Fatalf("%+v does not end with the packet", p)
		}
		// Walk again, by other code.
		next, rest, fragments := b[6], b[40:length], 0
		for range 9 {
			if p.Part == ip.Later && next == p.Proto && bytes.Equal(rest, p.Body) {
				break
			}
			var h struct {
				next byte
				n    int
			}
			switch next {
			case 0, 43, 60, 135, 139, 140:
				h.next, h.n = rest[0], 8+8*int(rest[1])
			case 51:
				h.next, h.n = rest[0], 8+4*int(rest[1])
			case 44:
				h.next, h.n = rest[0], 8
				fragments++
			}
			if h.n == 0 {
				break
			}
			next, rest = h.next, rest[h.n:]
		}
		if next != p.Proto || !bytes.Equal(rest, p.Body) || (fragments != 0) != (p.Part != ip.Whole) {
			t.Fatalf("%+v; walked to %d with %x", p, next, rest)
		}
	})
}
