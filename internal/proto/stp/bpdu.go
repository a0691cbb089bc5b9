package stp

import (
	"encoding/binary"
	"errors"
)

// Group is the Bridge Group Address, to which BPDUs are sent (7.12.3).
var Group = [6]byte{0x01, 0x80, 0xc2, 0x00, 0x00, 0x00}

// Type is the BPDU type (9.3).
type Type uint8

// The BPDU types.
const (
	TypeConfig Type = 0x00 // STP
	TypeRST    Type = 0x02
	TypeTCN    Type = 0x80 // STP
)

// Flags is the octet of flags in Config and RST BPDUs (9.3.1, 9.3.3).
type Flags uint8

// The flags. A Config BPDU uses only the two of topology change.
const (
	FlagTC         Flags = 1 << 0
	FlagProposal   Flags = 1 << 1
	FlagLearning   Flags = 1 << 4
	FlagForwarding Flags = 1 << 5
	FlagAgreement  Flags = 1 << 6
	FlagTCAck      Flags = 1 << 7

	flagRole Flags = 3 << 2
)

// Values of the flags' port role (9.2.9).
const (
	roleUnknown         Flags = 0 << 2
	roleAlternateBackup Flags = 1 << 2
	roleRoot            Flags = 2 << 2
	roleDesignated      Flags = 3 << 2
)

// BPDU is a bridge protocol data unit as on the wire (clause 9). A TCN BPDU consists of
// its Type alone. Times are in units of 1/256 s (9.2.8).
type BPDU struct {
	Type     Type
	Flags    Flags
	Root     BridgeID
	RootCost uint32
	Bridge   BridgeID // the sender
	Port     PortID   // of the sender

	MessageAge, MaxAge, HelloTime, ForwardDelay uint16
}

// designated reports whether a message is from a designated port; Config BPDUs always
// are.
func (m *BPDU) designated() bool {
	return m.Type == TypeConfig || m.Type == TypeRST && m.Flags&flagRole == roleDesignated
}

// Lengths in bytes: of BPDUs (9.3), of the headers before them, and the minimum of a
// frame without FCS (802.3 clause 4.4.2).
const (
	tcnLen    = 4
	configLen = 35
	rstLen    = 36

	macLen = 14 // addresses and length
	llcLen = 3  // DSAP, SSAP, control: 42-42-03 (7.12.3)

	// FrameLen is the length of every BPDU frame: the longest fits in it.
	FrameLen = 60
)

// ErrNotBPDU is Parse's error for a frame that is no BPDU of any kind.
var ErrNotBPDU = errors.New("not a BPDU: an address, the length or the LLC header is another")

// ErrInvalid is Parse's error for a BPDU that fails the checks of 9.3.4.
var ErrInvalid = errors.New("invalid BPDU: too short, or of an unknown protocol or type")

// Parse parses a frame, padded or not. It accepts what 9.3.4 accepts: unknown versions
// and further octets are ignored, so an MSTP BPDU reads as an RST BPDU, and an RST BPDU
// of unknown role as a Config BPDU (9.3.3).
func Parse(frame []byte) (BPDU, error) {
	if len(frame) < macLen+llcLen || [6]byte(frame) != Group || frame[6]&1 != 0 {
		return BPDU{}, ErrNotBPDU
	}
	b := frame[macLen:]
	if n := int(binary.BigEndian.Uint16(frame[12:])); n < llcLen || n > len(b) {
		return BPDU{}, ErrNotBPDU
	} else {
		b = b[:n]
	}
	if b[0] != 0x42 || b[1] != 0x42 || b[2] != 0x03 {
		return BPDU{}, ErrNotBPDU
	}
	b = b[llcLen:]
	if len(b) < tcnLen || binary.BigEndian.Uint16(b) != 0 {
		return BPDU{}, ErrInvalid
	}
	version, m := b[2], BPDU{Type: Type(b[3])}
	switch {
	case m.Type == TypeTCN:
		return m, nil
	case m.Type == TypeConfig && len(b) >= configLen:
	case m.Type == TypeRST && version >= 2 && len(b) >= rstLen:
	default:
		return BPDU{}, ErrInvalid
	}
	m.Flags = Flags(b[4])
	m.Root = BridgeID(binary.BigEndian.Uint64(b[5:]))
	m.RootCost = binary.BigEndian.Uint32(b[13:])
	m.Bridge = BridgeID(binary.BigEndian.Uint64(b[17:]))
	m.Port = PortID(binary.BigEndian.Uint16(b[25:]))
	m.MessageAge = binary.BigEndian.Uint16(b[27:])
	m.MaxAge = binary.BigEndian.Uint16(b[29:])
	m.HelloTime = binary.BigEndian.Uint16(b[31:])
	m.ForwardDelay = binary.BigEndian.Uint16(b[33:])
	if m.Type == TypeRST && m.Flags&flagRole == roleUnknown {
		m.Type = TypeConfig
	}
	if m.Type == TypeConfig {
		m.Flags &= FlagTC | FlagTCAck
	}
	return m, nil
}

// Put writes the frame of m, with source address src, to b and returns it, padded.
func (m *BPDU) Put(b *[FrameLen]byte, src [6]byte) []byte {
	*b = [FrameLen]byte{}
	copy(b[:], Group[:])
	copy(b[6:], src[:])
	copy(b[macLen:], "\x42\x42\x03")
	d := b[macLen+llcLen:]
	d[3] = byte(m.Type)
	n := configLen
	switch m.Type {
	case TypeTCN:
		n = tcnLen
	case TypeRST:
		n, d[2] = rstLen, 2
	}
	binary.BigEndian.PutUint16(b[12:], uint16(llcLen+n))
	if m.Type == TypeTCN {
		return b[:]
	}
	d[4] = byte(m.Flags)
	binary.BigEndian.PutUint64(d[5:], uint64(m.Root))
	binary.BigEndian.PutUint32(d[13:], m.RootCost)
	binary.BigEndian.PutUint64(d[17:], uint64(m.Bridge))
	binary.BigEndian.PutUint16(d[25:], uint16(m.Port))
	binary.BigEndian.PutUint16(d[27:], m.MessageAge)
	binary.BigEndian.PutUint16(d[29:], m.MaxAge)
	binary.BigEndian.PutUint16(d[31:], m.HelloTime)
	binary.BigEndian.PutUint16(d[33:], m.ForwardDelay)
	return b[:]
}
