package port

import (
	"encoding/binary"
	"fmt"
	"net"
)

// Frame is one Ethernet frame inside the switch: borrowed bytes, and fields read from them
// once. The frame's sender may share the memory, so the core decides by Dst, Src and Tag,
// and a kind writes those on output; nobody reads them from Data a second time.
type Frame struct {
	// Data is the frame from the destination address on, without the outer VLAN tag and
	// the frame check sequence, at least HeaderLen bytes. It is not padded: an ARP
	// request is 42 bytes. Valid until Release.
	Data []byte

	// Tail follows Data in a super-frame whose payload its sender still holds; nil in
	// all other frames. Ports without CapTail never get one.
	Tail Tail

	Dst, Src MAC
	Tag      Tag     // the outer VLAN tag, taken out of Data
	Offload  Offload // what the sender left undone; offsets refer to Data
	Drop     Drop    // set by Recv on frames that must not be switched

	// The core sets these: the frame's VLAN, and whether Tag did not name that VLAN but
	// is part of what the VLAN carries (a tunnel's customer tag, or a tag whose TPID the
	// ingress port does not recognise).
	VLAN   uint16
	Opaque bool
}

// HeaderLen is the length of an untagged Ethernet header in bytes (802.3 clause 3.1.1).
const HeaderLen = 14

// MinHead is the least length of Data in a frame with a Tail: Data holds all headers that
// the switch reads, or repeats when it segments (vnet.MaxHeader).
const MinHead = 512

// Tail is payload in the memory of the frame's sender, who can change it until it is
// copied, or take it away. No decision depends on it. The goroutine that received the
// frame calls its methods, until Release.
type Tail interface {
	// Len returns the length in bytes. It does not change.
	Len() int

	// CopyTo copies it to the slices of dst in order, which have room for at least Len
	// bytes. It returns false if the memory is gone: then the frame is lost as
	// DropMemoryGone, and the sender's own port deals with the sender.
	CopyTo(dst [][]byte) bool
}

// DataLen returns the length in bytes of Data and Tail together.
func (f *Frame) DataLen() int {
	if f.Tail != nil {
		return len(f.Data) + f.Tail.Len()
	}
	return len(f.Data)
}

// Len returns the frame's length on the wire in bytes, with its tag, without FCS.
func (f *Frame) Len() int { return f.DataLen() + f.Tag.Len() }

// CopyTo copies Data and Tail to dst, which has room for DataLen bytes. It returns false
// if the Tail is gone. The contents of scratch do not matter, before or after.
func (f *Frame) CopyTo(dst []byte, scratch *[1][]byte) bool {
	n := copy(dst, f.Data)
	if f.Tail == nil {
		return true
	}
	scratch[0] = dst[n:]
	return f.Tail.CopyTo(scratch[:])
}

// Needs returns the abilities that a port needs to take this frame unchanged.
func (f *Frame) Needs() Caps {
	c := f.Offload.Needs()
	if f.Tail != nil {
		c |= CapTail
	}
	return c
}

// SetWire sets f to the frame in b as it looks on the wire, tag inline. It takes an outer
// tag out of b by moving the addresses up, so it writes to b. It resets all fields but the
// core's. A b shorter than a header becomes a DropRunt frame. The kind sets Offload
// afterwards, with vnet.Untag if a tag was taken out.
func (f *Frame) SetWire(b []byte) {
	f.Tail, f.Tag, f.Offload, f.Drop = nil, 0, Offload{}, DropNone
	if len(b) < HeaderLen {
		f.Data, f.Dst, f.Src, f.Drop = b, 0, 0, DropRunt
		return
	}
	head := binary.BigEndian.Uint64(b)
	next := binary.BigEndian.Uint64(b[6:])
	f.Dst, f.Src = MAC(head>>16), MAC(next>>16)
	if tpid := uint16(next); tpid == TPIDCustomer || tpid == TPIDService {
		if len(b) < HeaderLen+4 {
			f.Data, f.Drop = b, DropRunt
			return
		}
		f.Tag = MakeTag(tpid, binary.BigEndian.Uint16(b[14:]))
		copy(b[4:16], b[:12])
		b = b[4:]
	}
	f.Data = b
}

// SetStripped sets f to the frame in b, whose outer tag, if any, the kernel has already
// taken out. It resets all fields but the core's.
func (f *Frame) SetStripped(b []byte, tag Tag) {
	f.Data, f.Tail, f.Tag, f.Offload, f.Drop = b, nil, tag, Offload{}, DropNone
	if len(b) < HeaderLen {
		f.Dst, f.Src, f.Drop = 0, 0, DropRunt
		return
	}
	f.Dst = MAC(binary.BigEndian.Uint64(b) >> 16)
	f.Src = MAC(binary.BigEndian.Uint64(b[6:]) >> 16)
}

// MAC is a 48-bit address. The first octet on the wire is the most significant.
type MAC uint64

// Broadcast is the address of all stations (802.3 clause 3.2.3).
const Broadcast MAC = 0xffff_ffff_ffff

// ParseMAC parses an address like net.ParseMAC, but accepts only 48 bits.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return 0, fmt.Errorf("%q is not a MAC address; write it as 52:54:00:12:34:56", s)
	}
	return MACFrom(hw), nil
}

// ParseStation parses the address of one station: one that is neither zero nor a group's.
func ParseStation(s string) (MAC, error) {
	m, err := ParseMAC(s)
	if err == nil && (m == 0 || m.IsGroup()) {
		err = fmt.Errorf("%v is not the address of one station; use one whose first octet is even, such as 52:54:00:12:34:56", m)
	}
	return m, err
}

// StationMAC is the address of one station, as a setting. 0 is none; it is written as the empty text.
type StationMAC MAC

func (m StationMAC) String() string { return MAC(m).String() }

// MarshalText implements encoding.TextMarshaler.
func (m StationMAC) MarshalText() ([]byte, error) {
	if m == 0 {
		return nil, nil
	}
	return MAC(m).MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *StationMAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = 0
		return nil
	}
	v, err := ParseStation(string(b))
	*m = StationMAC(v)
	return err
}

// MACFrom reads the address in the first six octets of b.
func MACFrom(b []byte) MAC {
	return MAC(binary.BigEndian.Uint16(b))<<32 | MAC(binary.BigEndian.Uint32(b[2:]))
}

// IsGroup reports whether the address is multicast or broadcast (802.3 clause 3.2.3.1: the
// I/G bit).
func (m MAC) IsGroup() bool { return m&(1<<40) != 0 }

// HardwareAddr returns the address as package net has it.
func (m MAC) HardwareAddr() net.HardwareAddr {
	return net.HardwareAddr{byte(m >> 40), byte(m >> 32), byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}
}

func (m MAC) String() string { return m.HardwareAddr().String() }

// MarshalText writes the address as 52:54:00:12:34:56.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (m *MAC) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMAC(string(b))
	return err
}

// The tag protocol identifiers of 802.1Q-2018 table 9-1.
const (
	TPIDCustomer uint16 = 0x8100 // C-tag
	TPIDService  uint16 = 0x88a8 // S-tag
)

// Tag is a VLAN tag as on the wire: TPID in the upper, TCI in the lower 16 bits. The zero
// Tag is no tag; a tag with VID 0 (a priority tag) still counts as present.
type Tag uint32

// MakeTag makes a tag.
func MakeTag(tpid, tci uint16) Tag { return Tag(tpid)<<16 | Tag(tci) }

func (t Tag) Present() bool { return t != 0 }
func (t Tag) TPID() uint16  { return uint16(t >> 16) }
func (t Tag) TCI() uint16   { return uint16(t) }
func (t Tag) VID() uint16   { return uint16(t) & 0xfff }

// Len returns the number of bytes the tag takes on the wire.
func (t Tag) Len() int {
	if t == 0 {
		return 0
	}
	return 4
}
