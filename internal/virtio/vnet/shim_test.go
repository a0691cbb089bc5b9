package vnet_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// A container that has its routes push labels sends super-frames of TCP behind them, and so does a host
// that merges what comes in a PPPoE session.
func TestShims(t *testing.T) {
	const size, segments = 100, 7
	for name, c := range map[string]struct {
		front []byte // tags, type and labels, or a session; the protocol in it is that of the packet
		ok    bool
	}{
		"a label":               {[]byte{0x88, 0x47, 0, 0, 0x11, 64}, true},
		"two labels":            {[]byte{0x88, 0x47, 0, 0, 0x20, 64, 0, 0, 0x11, 64}, true},
		"to a group":            {[]byte{0x88, 0x48, 0, 0, 0x11, 64}, true},
		"behind a tag":          {[]byte{0x81, 0, 0, 5, 0x88, 0x47, 0, 0, 0x11, 64}, true},
		"behind two tags":       {[]byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x88, 0x47, 0, 0, 0x11, 64}, true},
		"behind three tags":     {[]byte{0x81, 0, 0, 5, 0x81, 0, 0, 5, 0x81, 0, 0, 5, 0x88, 0x47, 0, 0, 0x11, 64}, false},
		"sixteen labels":        {slices.Concat([]byte{0x88, 0x47}, bytes.Repeat([]byte{0, 0, 0x20, 64}, 15), []byte{0, 0, 0x11, 64}), true},
		"seventeen labels":      {slices.Concat([]byte{0x88, 0x47}, bytes.Repeat([]byte{0, 0, 0x20, 64}, 16), []byte{0, 0, 0x11, 64}), false},
		"labels without an end": {append([]byte{0x88, 0x47}, bytes.Repeat([]byte{0, 0, 0x20, 64}, 17)...), false},
		"another type":          {[]byte{0x88, 0x63, 0x11, 0, 0, 7, 0, 0, 0, 0}, false},

		"a session":                 {[]byte{0x88, 0x64, 0x11, 0, 0, 7, 0, 0, 0, 0}, true},
		"a session behind two tags": {[]byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x88, 0x64, 0x11, 0, 0, 7, 0, 0, 0, 0}, true},
		"another version":           {[]byte{0x88, 0x64, 0x21, 0, 0, 7, 0, 0, 0, 0}, false},
		"no session":                {[]byte{0x88, 0x64, 0x11, 9, 0, 7, 0, 0, 0, 0}, false},
		"LCP":                       {[]byte{0x88, 0x64, 0x11, 0, 0, 7, 0, 0, 0xc0, 0x21}, false},
	} {
		for _, v6 := range []bool{false, true} {
			payload := bytes.Repeat([]byte("0123456789"), size*segments/10)
			tcp := slices.Concat([]byte{4, 1, 4, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0, 9, 0, 0, 0, 0}, payload)
			kind, packet := port.GSOTCPv4, IPv4("10.0.0.1", "10.0.0.2", 6, tcp)
			if v6 {
				kind, packet = port.GSOTCPv6, IPv6("fd00::1", "fd00::2", 6, tcp)
			}
			start := 12 + len(c.front) + len(packet) - len(tcp)
			// The sender leaves the bare sum of the pseudo header.
			addresses := packet[12:20]
			if v6 {
				addresses = packet[8:40]
			}
			pseudo := func(n int) []byte {
				return binary.BigEndian.AppendUint16(slices.Clone(addresses), uint16(n+6))
			}
			binary.BigEndian.PutUint16(packet[len(packet)-len(tcp)+16:], vnet.Sum(pseudo(len(tcp))))
			front, session := slices.Clone(c.front), 0 // session: where the rest of its header begins
			if i := bytes.Index(front, []byte{0x88, 0x64}); i >= 0 {
				session = 12 + i + 2
				if proto := front[len(front)-2:]; bytes.Equal(proto, []byte{0, 0}) {
					proto[1] = 0x21
					if v6 {
						proto[1] = 0x57
					}
				}
				binary.BigEndian.PutUint16(front[i+6:], uint16(2+len(packet)))
			}
			wire := slices.Concat(make([]byte, 12), front, packet)
			o := port.Offload{Flags: port.NeedsCsum, GSOType: kind, GSOSize: size, HdrLen: uint16(start + 20), CsumStart: uint16(start), CsumOffset: 16}

			for n := range start + 20 {
				if _, ok := vnet.Inspect(wire[:n], n, o); ok || vnet.Partial(wire[:n], n, o) {
					t.Errorf("%s: cut off after %d bytes it is taken", name, n)
				}
			}
			got, ok := vnet.Inspect(wire, len(wire), o)
			if ok != c.ok || ok && got.GSOType != kind|port.GSOTunnel {
				t.Errorf("%s: %+v, %v", name, got, ok)
			}
			whole := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(start), CsumOffset: 16}
			if vnet.Partial(wire, len(wire), whole) != c.ok {
				t.Errorf("%s: a frame that is no super-frame: %v", name, !c.ok)
			}
			if whole.CsumStart -= 4; vnet.Partial(wire, len(wire), whole) {
				t.Errorf("%s: a checksum elsewhere", name)
			}
			var s vnet.Segmenter
			if err := s.Init(wire, got, ^port.Caps(0)); (err == nil) != c.ok || err != nil {
				if c.ok {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			var all []byte
			for n := range segments {
				b := make([]byte, 2048)
				length, ok := s.Next(b)
				if b = b[:length]; ok && session != 0 {
					if got := int(binary.BigEndian.Uint16(b[session+4:])); got != len(b)-session-6 {
						t.Errorf("%s: segment %d says %d bytes", name, n, got)
					}
					copy(b[session+4:session+6], wire[session+4:])
				}
				if !ok || length != start+20+size || !bytes.Equal(b[12:12+len(front)], front) {
					t.Fatalf("%s: segment %d: %x", name, n, b)
				}
				if seq := binary.BigEndian.Uint32(b[start+4:]); seq != uint32(1+n*size) {
					t.Errorf("%s: segment %d begins at %d", name, n, seq)
				}
				if sum := vnet.Sum(append(pseudo(20+size), b[start:]...)); sum != 0xffff {
					t.Errorf("%s: segment %d has a wrong checksum: %#x", name, n, sum)
				}
				all = append(all, b[start+20:]...)
			}
			if s.Count() != segments || s.Offload() != (port.Offload{}) || !bytes.Equal(all, payload) {
				t.Errorf("%s: %d segments, %+v left", name, s.Count(), s.Offload())
			}
		}
	}
}
