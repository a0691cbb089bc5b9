// Package pcapng writes and reads captures of Ethernet frames in the pcapng format
// (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read. It has no state but a
// Reader's, and writing allocates nothing beside the caller's buffer. A Reader takes
// whatever comes, as files may be from anywhere.
package pcapng

import (
	"encoding/binary"
	"time"
)

// Types of blocks.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockStats     = 5
	blockPacket    = 6
)

// Options.
const (
	optEnd     = 0
	optComment = 1

	optApplication = 4 // of a section

	optName        = 2 // of an interface
	optDescription = 3
	optResolution  = 9
	optFilter      = 11

	optFlags     = 2 // of a packet
	optDropCount = 4

	optReceived = 4 // of statistics
	optLost     = 5
)

const (
	byteOrder    = 0x1a2b3c4d
	linkEthernet = 1 // LINKTYPE_ETHERNET
	nanoseconds  = 9 // 10^-9 s
)

// MaxSnapLen is the greatest length of a frame that is captured, in bytes, and what
// tcpdump takes as such.
const MaxSnapLen = 262144

// Direction is the way a packet went at its interface.
type Direction uint8

const (
	Unknown Direction = iota
	In                // the capturing side received it
	Out               // the capturing side sent it
)

// Fault is what was wrong with a packet, as far as the format has a flag for it.
type Fault uint8

const (
	NoFault Fault = iota
	TooLong
	TooShort
)

// FaultOf returns the fault of a packet that was dropped for a reason of the switch.
func FaultOf(reason string) Fault {
	switch reason {
	case "runt":
		return TooShort
	case "oversize", "too_big":
		return TooLong
	}
	return NoFault
}

// Interface describes an interface. Packets refer to it by its number: 0 for the first.
// tcpdump reads only captures whose interfaces have the same SnapLen.
type Interface struct {
	Name, Description string
	Filter            string // in tcpdump's language; empty: none
	SnapLen           int    // bytes; 0: all
}

// Packet is one captured frame.
type Packet struct {
	Interface int
	Time      time.Time
	Direction Direction
	Data      []byte // as much of it as was captured
	Len       int    // of the whole frame on the wire
	Comment   string
	Fault     Fault
	Lost      uint64 // packets that were not captured between this one and the one before
}

var le = binary.LittleEndian

// AppendSection appends the block with which a capture begins.
func AppendSection(b []byte, application string) []byte {
	b, at := begin(b, blockSection)
	b = le.AppendUint32(b, byteOrder)
	b = le.AppendUint16(b, 1) // version 1.0
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, ^uint64(0)) // the section's length is not known
	b = appendText(b, optApplication, application)
	return end(b, at, true)
}

// AppendInterface appends the description of the next interface.
func AppendInterface(b []byte, i *Interface) []byte {
	b, at := begin(b, blockInterface)
	b = le.AppendUint16(b, linkEthernet)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, uint32(i.SnapLen))
	b = appendText(b, optName, i.Name)
	b = appendText(b, optDescription, i.Description)
	if i.Filter != "" {
		b = appendHead(b, optFilter, 1+len(i.Filter))
		b = append(b, 0) // a text of libpcap's language
		b = pad(append(b, i.Filter...), 1+len(i.Filter))
	}
	b = appendHead(b, optResolution, 1)
	b = append(b, nanoseconds, 0, 0, 0)
	return end(b, at, true)
}

// AppendPacket appends a packet.
func AppendPacket(b []byte, p *Packet) []byte {
	b, at := begin(b, blockPacket)
	b = le.AppendUint32(b, uint32(p.Interface))
	ns := uint64(p.Time.UnixNano())
	b = le.AppendUint32(b, uint32(ns>>32))
	b = le.AppendUint32(b, uint32(ns))
	b = le.AppendUint32(b, uint32(len(p.Data)))
	b = le.AppendUint32(b, uint32(max(p.Len, len(p.Data))))
	b = pad(append(b, p.Data...), len(p.Data))
	b = appendText(b, optComment, p.Comment)
	flags := p.flags()
	if flags != 0 {
		b = appendHead(b, optFlags, 4)
		b = le.AppendUint32(b, flags)
	}
	if p.Lost != 0 {
		b = appendHead(b, optDropCount, 8)
		b = le.AppendUint64(b, p.Lost)
	}
	return end(b, at, p.Comment != "" || flags != 0 || p.Lost != 0)
}

// Flags of a packet, beside its direction in the lowest two bits.
const (
	flagUnicast   = 1 << 2 // the way of reception, three bits
	flagMulticast = 2 << 2
	flagBroadcast = 3 << 2
	flagTooLong   = 1 << 25
	flagTooShort  = 1 << 26
)

// flags returns what the format has flags for.
func (p *Packet) flags() uint32 {
	flags := uint32(p.Direction)
	switch {
	case len(p.Data) < 6:
	case string(p.Data[:6]) == "\xff\xff\xff\xff\xff\xff":
		flags |= flagBroadcast
	case p.Data[0]&1 != 0:
		flags |= flagMulticast
	default:
		flags |= flagUnicast
	}
	switch p.Fault {
	case TooLong:
		flags |= flagTooLong
	case TooShort:
		flags |= flagTooShort
	}
	return flags
}

// AppendStats appends how many packets of an interface were captured up to a time, and how
// many were lost.
func AppendStats(b []byte, number int, now time.Time, captured, lost uint64) []byte {
	b, at := begin(b, blockStats)
	b = le.AppendUint32(b, uint32(number))
	ns := uint64(now.UnixNano())
	b = le.AppendUint32(b, uint32(ns>>32))
	b = le.AppendUint32(b, uint32(ns))
	b = appendHead(b, optReceived, 8)
	b = le.AppendUint64(b, captured+lost)
	b = appendHead(b, optLost, 8)
	b = le.AppendUint64(b, lost)
	return end(b, at, true)
}

// begin appends a block's head, with a length that end writes.
func begin(b []byte, block uint32) ([]byte, int) {
	at := len(b)
	b = le.AppendUint32(b, block)
	return le.AppendUint32(b, 0), at
}

// end appends a block's end.
func end(b []byte, at int, options bool) []byte {
	if options {
		b = le.AppendUint32(b, optEnd)
	}
	n := uint32(len(b) + 4 - at)
	le.PutUint32(b[at+4:], n)
	return le.AppendUint32(b, n)
}

// maxText bounds an option: its length has 16 bits.
const maxText = 0xffff

func appendText(b []byte, option uint16, text string) []byte {
	if text == "" {
		return b
	}
	text = text[:min(len(text), maxText)]
	b = appendHead(b, option, len(text))
	return pad(append(b, text...), len(text))
}

func appendHead(b []byte, option uint16, n int) []byte {
	b = le.AppendUint16(b, option)
	return le.AppendUint16(b, uint16(n))
}

// pad appends what fills n bytes to a multiple of four.
func pad(b []byte, n int) []byte {
	return append(b, 0, 0, 0)[:len(b)+(-n)&3]
}
