package vnet_test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// FuzzHeader: a header of any bytes survives decoding and encoding, a valid one
// stays valid when a tag goes in, and comes back when the tag comes out.
func FuzzHeader(f *testing.F) {
	f.Add(make([]byte, vnet.HeaderLen), uint32(60))
	f.Add([]byte{1, 1, 54, 0, 180, 5, 34, 0, 16, 0}, uint32(60000))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 255, 255, 255, 255}, uint32(1514))
	f.Add([]byte{0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}, uint32(64))
	f.Fuzz(func(t *testing.T, b []byte, n uint32) {
		n %= port.MaxFrame
		if len(b) < vnet.HeaderLen {
			return
		}
		b = b[:vnet.HeaderLen]
		o := vnet.Decode(b)
		var back [vnet.HeaderLen]byte
		vnet.Encode(back[:], o)
		if string(back[:]) != string(b) {
			t.Fatalf("%x came back as %x", b, back)
		}
		if !vnet.Valid(o, int(n)) {
			return
		}
		if o.Flags&port.NeedsCsum != 0 && int(o.CsumStart)+int(o.CsumOffset)+2 > int(n) {
			t.Fatalf("%+v lies outside %d bytes", o, n)
		}
		tagged := vnet.Tag(o, 4)
		if !vnet.Valid(tagged, int(n)+4) {
			t.Fatalf("%+v with a tag is not valid: %+v", o, tagged)
		}
		if plain, ok := vnet.Untag(tagged); !ok || plain.CsumStart != o.CsumStart {
			t.Fatalf("%+v came back as %+v, %v", o, plain, ok)
		}
	})
}

func TestValid(t *testing.T) {
	csum := func(start, offset uint16) port.Offload {
		return port.Offload{Flags: port.NeedsCsum, CsumStart: start, CsumOffset: offset}
	}
	for _, c := range []struct {
		o    port.Offload
		n    int
		want bool
	}{
		{port.Offload{}, 14, true},
		{port.Offload{Flags: port.DataValid}, 60, true},
		{csum(34, 16), 52, true},
		{csum(34, 16), 51, false},
		{csum(13, 0), 60, false}, // inside the Ethernet header
		{csum(14, 0), 60, true},
		{csum(0xffff-8, 0), 0xffff, true}, // two tags move it to the end of its field
		{csum(0xffff-7, 0), 0xffff, false},
		{csum(0xffff, 0xffff), 65535, false},
		{port.Offload{GSOType: port.GSOTCPv4, GSOSize: 1460}, 3000, true},
		{port.Offload{GSOType: port.GSOTCPv4 | port.GSOECN, GSOSize: 1}, 3000, true},
		{port.Offload{GSOType: port.GSOTCPv4}, 3000, false},
		{port.Offload{GSOType: port.GSOECN, GSOSize: 1460}, 3000, false},
		{port.Offload{GSOType: 2, GSOSize: 1460}, 3000, false},
		{port.Offload{GSOType: 0x7f, GSOSize: 1460}, 3000, false},
		{port.Offload{GSOType: port.GSOTCPv6, GSOSize: 0xffff}, 3000, false}, // GSO_BY_FRAGS
		{port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1460, CsumStart: 34, CsumOffset: 16}, 3000, true},
		{port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1460, CsumStart: 34, CsumOffset: 6}, 3000, false},
		{port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOUDPL4, GSOSize: 1460, CsumStart: 34, CsumOffset: 6}, 3000, true},
		{port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOUDPL4 | port.GSOECN, GSOSize: 1460, CsumStart: 34, CsumOffset: 6}, 3000, false},
		{port.Offload{GSOType: port.GSOUDPL4, GSOSize: 1460}, 3000, false}, // the checksum is not asked for
		{port.Offload{GSOType: port.GSOUDP, GSOSize: 1480}, 3000, true},
	} {
		if got := vnet.Valid(c.o, c.n); got != c.want {
			t.Errorf("Valid(%+v, %d) = %v", c.o, c.n, got)
		}
	}
}

func TestUntag(t *testing.T) {
	// A checksum that begins inside the tag belongs to no frame.
	for start, want := range map[uint16]bool{17: false, 18: true, 38: true} {
		if _, ok := vnet.Untag(port.Offload{Flags: port.NeedsCsum, CsumStart: start}); ok != want {
			t.Errorf("csum_start %d: %v", start, ok)
		}
	}
	if o, _ := vnet.Untag(port.Offload{HdrLen: 58}); o.HdrLen != 54 {
		t.Errorf("hdr_len 58 became %d", o.HdrLen)
	}
	o := port.Offload{Flags: port.NeedsCsum, CsumStart: 34, HdrLen: 54}
	if got := vnet.Tag(o, 8); got.CsumStart != 42 || got.HdrLen != 62 {
		t.Errorf("with two tags: %+v", got)
	}
	if got, ok := vnet.Untag(vnet.Tag(o, 4)); !ok || got != o {
		t.Errorf("with a tag and without it again: %+v, %v", got, ok)
	}
}
