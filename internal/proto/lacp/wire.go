// Package lacp speaks LACP (802.1AX-2014 clause 6): the wire format, and the machines that
// decide which members of a link aggregation group carry frames. It does no I/O: frames and
// time go in; frames and what members may do come out. A Group belongs to one goroutine,
// has a bounded number of members and remembers one partner of each.
package lacp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vswitch/vswitch/port"
)

// Group address and EtherType of the slow protocols (802.3-2018 annex 57A): no bridge
// forwards them.
const (
	Address   port.MAC = 0x0180_c200_0002
	EtherType uint16   = 0x8809
)

// Subtypes of the slow protocols that an aggregator speaks.
const (
	subtypeLACP   = 1
	subtypeMarker = 2
)

// Len is the length of an LACPDU or a marker with its Ethernet header, without FCS
// (802.1AX-2014 figures 6-7 and 6-21).
const Len = port.HeaderLen + 110

// State holds the flags of a port's state (802.1AX-2014 clause 6.4.2.3), a bit each.
type State uint8

const (
	Active       State = 1 << iota // sends without being asked
	ShortTimeout                   // wants a PDU every second, rather than every 30 s
	Aggregation                    // can be one of several
	Synchronized                   // is in the right group
	Collecting                     // takes frames
	Distributing                   // sends frames
	Defaulted                      // has not heard from its partner
	Expired                        // has not heard from it for too long
)

var stateNames = [...]string{"active", "short_timeout", "aggregation", "in_sync", "collecting", "distributing", "defaulted", "expired"}

// Names returns the names of the flags that are set.
func (s State) Names() []string {
	var all []string
	for i, name := range stateNames {
		if s>>i&1 != 0 {
			all = append(all, name)
		}
	}
	return all
}

func (s State) String() string { return strings.Join(s.Names(), ",") }

// Info is what one end says about itself, or about the other end.
type Info struct {
	SystemPriority uint16
	System         port.MAC
	Key            uint16 // ports of a system with the same key can form a group
	PortPriority   uint16
	Port           uint16
	State          State
}

// names reports whether i and o name the same port in the same role.
func (i Info) names(o Info) bool {
	i.State, o.State = i.State&Aggregation, o.State&Aggregation
	return i == o
}

// PDU is an LACPDU.
type PDU struct {
	Actor   Info // the sender
	Partner Info // the receiver, as the sender knows it
}

// The layout of an LACPDU behind the Ethernet header.
const (
	offVersion   = 1
	offActor     = 2
	offPartner   = 22
	offCollector = 42
	infoLen      = 20
	collectorLen = 16

	typeActor     = 1
	typePartner   = 2
	typeCollector = 3
)

// Types of the TLV of a marker (802.1AX-2014 clause 6.5.3.2).
const (
	typeMarker   = 1
	typeResponse = 2
	markerLen    = 16
)

// Append appends an LACPDU from src to b.
func Append(b []byte, src port.MAC, p PDU) []byte {
	n := len(b)
	b = append(b, make([]byte, Len)...)
	body := header(b[n:], src, subtypeLACP)
	putInfo(body[offActor:], typeActor, p.Actor)
	putInfo(body[offPartner:], typePartner, p.Partner)
	body[offCollector], body[offCollector+1] = typeCollector, collectorLen
	return b
}

// header writes the Ethernet header and what all slow protocols begin with. It returns
// what follows the Ethernet header.
func header(b []byte, src port.MAC, subtype byte) []byte {
	copy(b, Address.HardwareAddr())
	copy(b[6:], src.HardwareAddr())
	binary.BigEndian.PutUint16(b[12:], EtherType)
	body := b[port.HeaderLen:]
	body[0], body[offVersion] = subtype, 1
	return body
}

func putInfo(b []byte, typ byte, i Info) {
	b[0], b[1] = typ, infoLen
	binary.BigEndian.PutUint16(b[2:], i.SystemPriority)
	copy(b[4:], i.System.HardwareAddr())
	binary.BigEndian.PutUint16(b[10:], i.Key)
	binary.BigEndian.PutUint16(b[12:], i.PortPriority)
	binary.BigEndian.PutUint16(b[14:], i.Port)
	b[16] = byte(i.State)
}

// IsSlow reports whether a frame belongs to a slow protocol.
func IsSlow(frame []byte) bool {
	return len(frame) >= port.HeaderLen && port.MACFrom(frame) == Address && binary.BigEndian.Uint16(frame[12:]) == EtherType
}

// isOurs reports whether a frame is an LACPDU or a marker.
func isOurs(frame []byte) bool {
	return IsSlow(frame) && len(frame) > port.HeaderLen &&
		(frame[port.HeaderLen] == subtypeLACP || frame[port.HeaderLen] == subtypeMarker)
}

var errOther = errors.New("it is no LACPDU")

// Parse reads an LACPDU. A later version begins as this one (802.1AX-2014 clause 6.4.2.3).
func Parse(frame []byte) (PDU, error) {
	if !IsSlow(frame) {
		return PDU{}, errOther
	}
	body := frame[port.HeaderLen:]
	switch {
	case len(body) < offCollector:
		return PDU{}, fmt.Errorf("an LACPDU of %d bytes is cut off", len(frame))
	case body[0] != subtypeLACP:
		return PDU{}, errOther
	case body[offVersion] == 0:
		return PDU{}, errors.New("an LACPDU has version 0")
	}
	actor, err := infoFrom(body[offActor:], typeActor)
	if err != nil {
		return PDU{}, err
	}
	partner, err := infoFrom(body[offPartner:], typePartner)
	if err != nil {
		return PDU{}, err
	}
	if actor.System == 0 || actor.System.IsGroup() {
		return PDU{}, fmt.Errorf("an LACPDU names %v as its system, which is no address of a station", actor.System)
	}
	return PDU{Actor: actor, Partner: partner}, nil
}

func infoFrom(b []byte, typ byte) (Info, error) {
	if b[0] != typ || b[1] != infoLen {
		return Info{}, fmt.Errorf("an LACPDU has a part of type %d and length %d where type %d and length %d belong", b[0], b[1], typ, infoLen)
	}
	return Info{
		SystemPriority: binary.BigEndian.Uint16(b[2:]),
		System:         port.MACFrom(b[4:]),
		Key:            binary.BigEndian.Uint16(b[10:]),
		PortPriority:   binary.BigEndian.Uint16(b[12:]),
		Port:           binary.BigEndian.Uint16(b[14:]),
		State:          State(b[16]),
	}, nil
}

// respond returns the response to a marker, or nil if the frame is none (802.1AX-2014
// clause 6.5.4.2: every system answers markers).
func respond(frame []byte, src port.MAC) []byte {
	if !IsSlow(frame) || len(frame) < Len {
		return nil
	}
	body := frame[port.HeaderLen:Len]
	if body[0] != subtypeMarker || body[2] != typeMarker || body[3] != markerLen {
		return nil
	}
	b := make([]byte, Len)
	answer := header(b, src, subtypeMarker)
	answer[2] = typeResponse
	copy(answer[3:2+markerLen], body[3:])
	return b
}
