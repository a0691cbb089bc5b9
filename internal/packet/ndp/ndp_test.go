package ndp_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/vswitch/vswitch/internal/packet/ndp"
)

var (
	solicitation = append(append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, "\xfd\x99\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10"...), "\x01\x01\x52\x54\x00\x99\x00\x0a"...)
	prefix       = append(append([]byte{3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0}, "\xfd\x98"...), make([]byte, 14)...)
	advert       = append(append([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, "\x01\x01\x52\x54\x00\x00\x00\x01"...), prefix...)
)

func TestParse(t *testing.T) {
	m, ok := ndp.Parse(solicitation)
	if !ok || m.Target.String() != "fd99::10" || m.LinkLayers != 1 || m.LinkLayerType != 1 || m.LinkLayer != 0x5254_0099_000a || m.Odd {
		t.Errorf("solicitation: %+v, %v", m, ok)
	}
	m, ok = ndp.Parse(advert)
	if p := m.Prefixes(); !ok || len(p) != 1 || p[0].String() != "fd98::/64" || !p[0].Autonomous || p[0].Valid != 3600 {
		t.Errorf("advertisement: %+v, %v", m, ok)
	}
	for name, b := range map[string][]byte{
		"empty":                {},
		"no ND":                append([]byte{128}, solicitation[1:]...),
		"cut off":              solicitation[:23],
		"option of length 0":   append(bytes.Clone(solicitation[:24]), 1, 0, 0, 0, 0, 0, 0, 0),
		"option cut off":       solicitation[:30],
		"half an option":       solicitation[:25],
		"option beyond packet": append(bytes.Clone(solicitation[:24]), 1, 2, 0, 0, 0, 0, 0, 0),
	} {
		if m, ok := ndp.Parse(b); ok {
			t.Errorf("%s: %+v", name, m)
		}
	}
	// Another option first, and a second address.
	two := append(append(bytes.Clone(solicitation[:24]), 14, 1, 0, 0, 0, 0, 0, 0), "\x02\x02\x52\x54\x00\x99\x00\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\x52\x54\x00\x99\x00\x0a"...)
	if m, ok := ndp.Parse(two); !ok || m.LinkLayers != 2 || !m.Odd || m.LinkLayerType != 2 {
		t.Errorf("two addresses: %+v, %v", m, ok)
	}
}

// FuzzParse: what is read is what gopacket reads.
func FuzzParse(f *testing.F) {
	f.Add(solicitation)
	f.Add(advert)
	f.Add(append([]byte{136}, solicitation[1:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := ndp.Parse(b)
		if !ok {
			return
		}
		var options layers.ICMPv6Options
		var target []byte
		var err error
		body := b[4:] // gopacket reads the type elsewhere
		switch m.Type {
		case ndp.RouterSolicitation:
			var l layers.ICMPv6RouterSolicitation
			err = l.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
			options = l.Options
		case ndp.RouterAdvertisement:
			var l layers.ICMPv6RouterAdvertisement
			err = l.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
			options = l.Options
		case ndp.NeighborSolicitation:
			var l layers.ICMPv6NeighborSolicitation
			err = l.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
			options, target = l.Options, l.TargetAddress
		case ndp.NeighborAdvertisement:
			var l layers.ICMPv6NeighborAdvertisement
			err = l.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
			options, target = l.Options, l.TargetAddress
		case ndp.Redirect:
			var l layers.ICMPv6Redirect
			err = l.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
			options, target = l.Options, l.TargetAddress
		}
		if err != nil {
			t.Fatalf("%x: gopacket refuses it: %v", b, err)
		}
		links, prefixes := 0, 0
		for _, o := range options {
			switch {
			case o.Type == 1 || o.Type == 2:
				if links++; links == 1 && !bytes.Equal(m.LinkLayer.HardwareAddr(), o.Data[:6]) {
					t.Fatalf("%v, want %x", m.LinkLayer, o.Data)
				}
			case o.Type == 3 && m.Type == ndp.RouterAdvertisement && len(o.Data) == 30 && o.Data[0] <= 128 && prefixes < 8:
				p := m.Prefixes()[prefixes]
				if p.Bits() != int(o.Data[0]) || p.Valid != binary.BigEndian.Uint32(o.Data[2:]) || p.Autonomous != (o.Data[1]&0x40 != 0) {
					t.Fatalf("%+v, want %x", p, o.Data)
				}
				prefixes++
			}
		}
		if links != m.LinkLayers || prefixes != len(m.Prefixes()) {
			t.Fatalf("%+v; gopacket has %v", m, options)
		}
		if target != nil {
			if a := m.Target.As16(); !bytes.Equal(a[:], target) {
				t.Fatalf("target %v, want %x", m.Target, target)
			}
		}
	})
}
