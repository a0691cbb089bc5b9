package bfd

import (
	"encoding/binary"
	"errors"
	"time"
)

// PacketLen is the length in bytes of a packet without authentication (RFC 5880 section 4.1).
const PacketLen = 24

// State is the state of a session (RFC 5880 section 6.2).
type State uint8

const (
	AdminDown State = iota
	Down
	Init
	Up
)

func (s State) String() string { return [...]string{"admindown", "down", "init", "up"}[s&3] }

// Diagnostic says why a session last left Up (RFC 5880 section 4.1).
type Diagnostic uint8

const (
	NoDiagnostic     Diagnostic = 0
	DetectionExpired Diagnostic = 1
	NeighborSignaled Diagnostic = 3
)

// Packet is a BFD control packet without authentication.
type Packet struct {
	Diagnostic  Diagnostic
	State       State
	Poll, Final bool
	Demand      bool
	Mult        uint8 // detection time multiplier
	My, Your    uint32
	MinTX       time.Duration // desired, whole microseconds
	MinRX       time.Duration // required
}

const (
	version = 1

	bitPoll       = 0x20
	bitFinal      = 0x10
	bitAuth       = 0x04
	bitDemand     = 0x02
	bitMultipoint = 0x01
)

var errPacket = errors.New("not a BFD control packet that can be used")

// Parse reads a packet. It refuses what RFC 5880 section 6.8.6 says to discard whatever the
// session is.
func Parse(b []byte) (p Packet, err error) {
	if len(b) < PacketLen || b[0]>>5 != version || int(b[3]) < PacketLen || int(b[3]) > len(b) {
		return p, errPacket
	}
	flags := b[1]
	p = Packet{
		Diagnostic: Diagnostic(b[0] & 0x1f), State: State(flags >> 6),
		Poll: flags&bitPoll != 0, Final: flags&bitFinal != 0, Demand: flags&bitDemand != 0,
		Mult: b[2], My: binary.BigEndian.Uint32(b[4:]), Your: binary.BigEndian.Uint32(b[8:]),
		MinTX: micros(b[12:]), MinRX: micros(b[16:]),
	}
	switch {
	case flags&(bitAuth|bitMultipoint) != 0, p.Mult == 0, p.My == 0, p.Poll && p.Final,
		p.Your == 0 && p.State != Down && p.State != AdminDown:
		return Packet{}, errPacket
	}
	return p, nil
}

func micros(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

// Put writes the packet. It asks for no echo packets.
func (p *Packet) Put() (b [PacketLen]byte) {
	b[0] = version<<5 | byte(p.Diagnostic)
	b[1] = byte(p.State) << 6
	for _, f := range []struct {
		on  bool
		bit byte
	}{{p.Poll, bitPoll}, {p.Final, bitFinal}, {p.Demand, bitDemand}} {
		if f.on {
			b[1] |= f.bit
		}
	}
	b[2], b[3] = p.Mult, PacketLen
	binary.BigEndian.PutUint32(b[4:], p.My)
	binary.BigEndian.PutUint32(b[8:], p.Your)
	binary.BigEndian.PutUint32(b[12:], uint32(p.MinTX/time.Microsecond))
	binary.BigEndian.PutUint32(b[16:], uint32(p.MinRX/time.Microsecond))
	return b
}
