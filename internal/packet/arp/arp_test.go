package arp_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/vswitch/vswitch/internal/packet/arp"
)

func TestAppend(t *testing.T) {
	want := arp.Packet{
		Op: arp.Reply, SenderMAC: 0x5254_0000_0001, Sender: netip.MustParseAddr("192.0.2.1"),
		TargetMAC: 0x5254_0000_0002, Target: netip.MustParseAddr("192.0.2.2"),
	}
	got, ok := arp.Parse(want.Append(nil))
	if !ok || got != want {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
}

// decode is gopacket's, which panics over some packets that are cut off.
func decode(l *layers.ARP, b []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return l.DecodeFromBytes(b, gopacket.NilDecodeFeedback)
}

// FuzzParse: what is read is what gopacket reads.
func FuzzParse(f *testing.F) {
	valid := arp.Packet{Op: arp.Request, Sender: netip.IPv4Unspecified(), Target: netip.MustParseAddr("192.0.2.2")}.Append(nil)
	f.Add(valid)
	f.Add(valid[:27])
	f.Add(append(valid, make([]byte, 18)...))
	f.Add(append([]byte{0, 1, 0x86, 0xdd, 6, 4}, valid[6:]...))
	f.Add(append([]byte{0, 1, 8, 0, 8, 4}, valid[6:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := arp.Parse(b)
		var want layers.ARP
		err := decode(&want, b)
		plain := err == nil && want.AddrType == 1 && want.Protocol == layers.EthernetTypeIPv4 && want.HwAddressSize == 6 && want.ProtAddressSize == 4
		if ok != plain {
			t.Fatalf("%x: %v; gopacket reads %+v, %v", b, ok, want, err)
		}
		if !ok {
			return
		}
		sender, target := got.Sender.As4(), got.Target.As4()
		if got.Op != want.Operation || !bytes.Equal(got.SenderMAC.HardwareAddr(), want.SourceHwAddress) || !bytes.Equal(sender[:], want.SourceProtAddress) ||
			!bytes.Equal(got.TargetMAC.HardwareAddr(), want.DstHwAddress) || !bytes.Equal(target[:], want.DstProtAddress) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
