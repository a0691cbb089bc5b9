// Package arp reads ARP packets for IPv4 on Ethernet (RFC 826) over borrowed bytes. It
// allocates nothing and does no I/O; any goroutine may call it.
package arp

import (
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/port"
)

// Operations (IANA, ARP parameters). A reverse request has an EtherType of its own, RARP's
// (RFC 903).
const (
	Request        uint16 = 1
	Reply          uint16 = 2
	ReverseRequest uint16 = 3
)

// Len is the length of a packet in bytes.
const Len = 28

// Packet is an ARP packet.
type Packet struct {
	Op                   uint16
	SenderMAC, TargetMAC port.MAC
	Sender, Target       netip.Addr
}

// Parse reads the packet at the beginning of b; padding may follow. ok is false if it is
// too short, or not about IPv4 addresses on Ethernet.
func Parse(b []byte) (p Packet, ok bool) {
	// Hardware type 1, protocol 0x0800, lengths 6 and 4.
	if len(b) < Len || binary.BigEndian.Uint64(b)>>16 != 0x0001_0800_0604 {
		return p, false
	}
	return Packet{
		Op:        binary.BigEndian.Uint16(b[6:]),
		SenderMAC: port.MACFrom(b[8:]), Sender: netip.AddrFrom4([4]byte(b[14:])),
		TargetMAC: port.MACFrom(b[18:]), Target: netip.AddrFrom4([4]byte(b[24:])),
	}, true
}

// Append appends the packet to b, 28 bytes.
func (p Packet) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, 0x0001_0800_0604_0000|uint64(p.Op))
	b = append(b, p.SenderMAC.HardwareAddr()...)
	sender, target := p.Sender.As4(), p.Target.As4()
	b = append(b, sender[:]...)
	b = append(b, p.TargetMAC.HardwareAddr()...)
	return append(b, target[:]...)
}
