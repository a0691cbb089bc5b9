package vxlan

import (
	"bytes"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// TestHeader: what putHeader writes is as in RFC 7348 section 5 and RFC 8926 section 3.4, and parseHeader takes that, and
// what else a receiver must take.
func TestHeader(t *testing.T) {
	const vni = 0xabcdef
	vxlan, geneve := []byte{8, 0, 0, 0, 0xab, 0xcd, 0xef, 0}, []byte{0, 0, 0x65, 0x58, 0xab, 0xcd, 0xef, 0}
	for _, c := range []struct {
		what   string
		e      port.Encapsulation
		header []byte
		change func(b []byte)
		ok     bool
	}{
		{"VXLAN", port.VXLAN, vxlan, nil, true},
		{"Geneve", port.Geneve, geneve, nil, true},
		{"no VNI", port.VXLAN, vxlan, func(b []byte) { b[0] = 0 }, false},
		{"VXLAN-GPE", port.VXLAN, vxlan, func(b []byte) { b[0] |= 4 }, false},
		{"reserved bits", port.VXLAN, vxlan, func(b []byte) { b[0] |= 0xf3; b[1], b[7] = 0xff, 0xff }, true},
		{"Geneve's for VXLAN", port.VXLAN, geneve, nil, false},
		{"VXLAN's for Geneve", port.Geneve, vxlan, nil, false},
		{"reserved bits of Geneve", port.Geneve, geneve, func(b []byte) { b[1], b[7] = 0x3f, 0xff }, true},
		{"another version", port.Geneve, geneve, func(b []byte) { b[0] = 0x40 }, false},
		{"a control packet", port.Geneve, geneve, func(b []byte) { b[1] = 0x80 }, false},
		{"critical options", port.Geneve, append(bytes.Clone(geneve), 1, 2, 0x80, 0), func(b []byte) { b[0], b[1] = 1, 0x40 }, false},
		{"options", port.Geneve, append(bytes.Clone(geneve), 1, 2, 3, 1, 9, 9, 9, 9), func(b []byte) { b[0] = 2 }, true},
		{"options beyond the end", port.Geneve, geneve, func(b []byte) { b[0] = 0x3f }, false},
		{"IPv4 inside", port.Geneve, geneve, func(b []byte) { b[2], b[3] = 8, 0 }, false},
		{"cut short", port.Geneve, geneve[:7], nil, false},
	} {
		b := append(bytes.Clone(c.header), "frame"...)
		if len(c.header) < headerLen {
			b = bytes.Clone(c.header)
		}
		if c.change != nil {
			c.change(b)
		} else if c.ok {
			var own [headerLen]byte
			if putHeader(own[:], c.e, vni); !bytes.Equal(own[:], c.header) {
				t.Errorf("%s: it is % x", c.what, own)
			}
		}
		got, frame, ok := parseHeader(b, c.e)
		if ok != c.ok || ok && (got != vni || string(frame) != "frame") {
			t.Errorf("%s: %#x, %q, %t", c.what, got, frame, ok)
		}
	}
}
