package port_test

import (
	"bytes"
	"testing"

	"github.com/mdlayher/ethernet"

	"github.com/vswitch/vswitch/port"
)

// FuzzSetWire holds the frame view to an independent decoder: whatever comes from
// the wire, the view reads the same, and writes back the same bytes.
func FuzzSetWire(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 13))
	f.Add(make([]byte, 14))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x01\x08\x06payload"))
	f.Add([]byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x81\x00\x00\x64\x08\x00payload"))
	f.Add([]byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x88\xa8\x00\x64\x81\x00\x00\x05\x08\x00payload"))
	f.Add([]byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x81\x00\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		var fr port.Frame
		fr.SetWire(bytes.Clone(wire))
		if fr.Drop != port.DropNone {
			if fr.Drop != port.DropRunt {
				t.Fatalf("drop %v", fr.Drop)
			}
			tagged := len(wire) >= 14 && (wire[12] == 0x81 && wire[13] == 0 || wire[12] == 0x88 && wire[13] == 0xa8)
			if len(wire) >= 18 || len(wire) >= 14 && !tagged {
				t.Fatalf("a frame of %d bytes is no runt", len(wire))
			}
			return
		}
		if fr.Len() != len(wire) {
			t.Fatalf("%d bytes on the wire, Len says %d", len(wire), fr.Len())
		}
		out := port.Out{Frame: &fr, Tag: fr.Tag}
		var head [port.MaxHeader]byte
		n := out.PutHeader(head[:])
		if n != 12+out.TagLen() || out.Len() != len(wire) {
			t.Fatalf("a header of %d bytes, tags %d, frame %d of %d", n, out.TagLen(), out.Len(), len(wire))
		}
		if back := append(head[:n], fr.Data[12:]...); !bytes.Equal(back, wire) {
			t.Fatalf("read %x, wrote %x", wire, back)
		}
		// The oracle refuses some frames that a switch must carry.
		var o ethernet.Frame
		if o.UnmarshalBinary(wire) != nil {
			return
		}
		if fr.Dst.String() != o.Destination.String() || fr.Src.String() != o.Source.String() {
			t.Fatalf("addresses %v %v, want %v %v", fr.Dst, fr.Src, o.Destination, o.Source)
		}
		outer := o.ServiceVLAN
		if outer == nil {
			outer = o.VLAN
		}
		if (outer != nil) != fr.Tag.Present() {
			t.Fatalf("tag %#x, want %v", fr.Tag, outer)
		}
		if outer != nil && (outer.ID != fr.Tag.VID() || uint16(outer.Priority) != fr.Tag.TCI()>>13) {
			t.Fatalf("tag %#x, want %v", fr.Tag, outer)
		}
	})
}

func TestSetStripped(t *testing.T) {
	var f port.Frame
	f.Drop, f.Offload.Flags = port.DropOversize, port.NeedsCsum
	data := []byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x08\x00payload")
	f.SetStripped(data, port.MakeTag(port.TPIDService, 0xe123))
	if f.Dst != 0x5254_0000_0002 || f.Src != 0x5254_0000_0001 || f.Drop != port.DropNone || f.Offload != (port.Offload{}) {
		t.Errorf("%+v", f)
	}
	if f.Tag.TPID() != port.TPIDService || f.Tag.VID() != 0x123 || f.Tag.TCI() != 0xe123 || f.Len() != len(data)+4 {
		t.Errorf("tag %#x, length %d", f.Tag, f.Len())
	}
	f.SetStripped(data[:13], 0)
	if f.Drop != port.DropRunt {
		t.Errorf("13 bytes: %v", f.Drop)
	}
}

func TestParseMAC(t *testing.T) {
	m, err := port.ParseMAC("52:54:00:ab:cd:ef")
	if err != nil || m != 0x5254_00ab_cdef || m.String() != "52:54:00:ab:cd:ef" || m.IsGroup() {
		t.Errorf("%v, %v", m, err)
	}
	if !port.Broadcast.IsGroup() || !port.MAC(0x0100_5e00_0001).IsGroup() {
		t.Error("a group address is none")
	}
	for _, bad := range []string{"", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:00:01", "vm0"} {
		if _, err := port.ParseMAC(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	var back port.MAC
	text, _ := m.MarshalText()
	if err := back.UnmarshalText(text); err != nil || back != m {
		t.Errorf("%s came back as %v, %v", text, back, err)
	}
}

func TestOffloadNeeds(t *testing.T) {
	for _, c := range []struct {
		o    port.Offload
		want port.Caps
	}{
		{port.Offload{}, port.CapsNone},
		{port.Offload{Flags: port.DataValid}, port.CapsNone},
		{port.Offload{Flags: port.NeedsCsum}, port.CapCsum},
		{port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4}, port.CapCsum | port.CapTSO4},
		{port.Offload{GSOType: port.GSOTCPv6 | port.GSOECN}, port.CapTSO6 | port.CapTSOECN},
		{port.Offload{GSOType: port.GSOUDPL4}, port.CapUSO},
		{port.Offload{GSOType: port.GSOUDP}, port.CapUFO},
		{port.Offload{GSOType: 0x42}, ^port.Caps(0)},
	} {
		if got := c.o.Needs(); got != c.want {
			t.Errorf("%+v needs %b, want %b", c.o, got, c.want)
		}
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]bool{}
	for d := range port.NumDrops {
		name := d.String()
		if name == "" || seen[name] || bytes.ContainsAny([]byte(name), " (-") {
			t.Errorf("reason %d is called %q", d, name)
		}
		seen[name] = true
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"vm0", "eth0.100", "a", "fifteen-bytes-x", "br_0", "6in4-wan@2+1"} {
		if err := port.CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a:b", "vm%d", "vm\x00", "vm\n0", "tür", "vm0,vm1", "vm=0", `vm"0`, "vm'0", "vm$0", "vm*", "-vm", "all", "default"} {
		if err := port.CheckName(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
