// Package eth holds the parts of Ethernet that several packages must agree on:
// EtherTypes, reserved addresses, and views of headers over borrowed bytes. It
// allocates nothing, does no I/O and imports nothing of the project; any goroutine may
// call it.
package eth

import "encoding/binary"

// EtherTypes (IEEE registration authority).
const (
	TypeIPv4 uint16 = 0x0800
	TypeARP  uint16 = 0x0806
	TypeVLAN uint16 = 0x8100
	TypeIPv6 uint16 = 0x86dd
	TypeQinQ uint16 = 0x88a8
)

// IsReserved reports whether addr, 48 bits with the first octet on top, is one of
// 01:80:c2:00:00:00 to 0f, which a bridge never forwards (802.1Q-2018 table 8-1).
func IsReserved(addr uint64) bool { return addr&^0xf == 0x0180_c200_0000 }

// MaxPriorities bounds the tags that Priorities skips.
const MaxPriorities = 4

// Priorities returns how many bytes of priority tags precede a frame's EtherType: tags
// that name VLAN 0, and so none (802.1Q-2018 table 9-2). Hosts read on behind them, however
// many there are. Behind MaxPriorities of them it gives up.
func Priorities(frame []byte) (n int) {
	for n < MaxPriorities*tagLen && len(frame) >= headerLen+n+tagLen && IsTag(binary.BigEndian.Uint16(frame[12+n:])) &&
		binary.BigEndian.Uint16(frame[headerLen+n:])&0xfff == 0 {
		n += tagLen
	}
	return n
}

// IsTag reports whether what an EtherType announces is a VLAN tag.
func IsTag(etherType uint16) bool { return etherType == TypeVLAN || etherType == TypeQinQ }

const tagLen = 4
