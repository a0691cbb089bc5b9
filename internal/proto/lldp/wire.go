// Package lldp speaks LLDP (802.1AB-2016): the wire format, and the agent of one port with
// its neighbours. It does no I/O: frames and seconds go in; frames and neighbours come out.
// An Agent belongs to one goroutine and remembers a bounded number of neighbours.
package lldp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vswitch/vswitch/port"
)

// Group is the address of the nearest bridge (802.1AB-2016 table 7-1): no bridge forwards
// it, so the neighbour is at the other end of the cable.
const Group port.MAC = 0x0180_c200_000e

// EtherType is that of LLDP (802.1AB-2016 clause 7.3).
const EtherType uint16 = 0x88cc

// PDU is an LLDPDU. Texts and identifiers are as received, so a user must see them only by
// way of String or Text.
type PDU struct {
	Chassis ID
	Port    ID
	TTL     uint16 // seconds; 0: the sender stops

	PortDescription   string
	SystemName        string
	SystemDescription string
	Capabilities      Capabilities // of the system
	Enabled           Capabilities
	Addresses         []netip.Addr // management addresses
	PVID              uint16       // the VLAN of untagged frames; 0: none
	VLANs             []VLAN       // with names
	MaxFrame          uint16       // longest frame in bytes, with its FCS; 0: not said
	Aggregated        uint32       // the number of the port whose frames it carries beside others; 0: none
	MED               Device       // what the system is in LLDP-MED; 0: it does not speak that
}

// Device is a type of device in LLDP-MED (TIA-1057 clause 10.2.2).
type Device uint8

// NetworkConnectivity is a device by which others reach the network, as a switch is.
const NetworkConnectivity Device = 4

// VLAN is a VLAN that a port carries.
type VLAN struct {
	ID   uint16
	Name string
}

// Kind is how to read an ID.
type Kind uint8

// The kinds of IDs. Aliases, components and circuits are read as KindLocal.
const (
	KindLocal   Kind = iota // whatever the sender likes
	KindMAC                 // an address
	KindAddress             // a family, and an address of it
	KindIfName              // an interface's name
)

// The subtypes of the kinds (802.1AB-2016 tables 8-2 and 8-3).
var (
	chassisSubtypes = [...]byte{KindLocal: 7, KindMAC: 4, KindAddress: 5, KindIfName: 6}
	portSubtypes    = [...]byte{KindLocal: 7, KindMAC: 3, KindAddress: 4, KindIfName: 5}
)

// ID identifies a chassis, or a port of it.
type ID struct {
	Kind  Kind
	Value string // bytes; 1 to 255
}

// String returns the ID in the form that is usual for its kind, in printable characters.
func (id ID) String() string {
	b := []byte(id.Value)
	switch {
	case id.Kind == KindMAC && len(b) == 6:
		return port.MACFrom(b).String()
	case id.Kind == KindAddress:
		if a, ok := address(b); ok {
			return a.String()
		}
	case utf8.Valid(b) && !strings.ContainsFunc(id.Value, func(r rune) bool { return !unicode.IsPrint(r) }):
		return id.Value
	}
	return fmt.Sprintf("%x", b)
}

// Text returns a text of a PDU in printable characters.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimRight(s, "\x00"))
}

// Capabilities is a set of what a system does (802.1AB-2016 table 8-4).
type Capabilities uint16

// Bridge is the capability of a switch that forwards by addresses.
const Bridge Capabilities = 1 << 2

var capabilities = [...]string{"other", "repeater", "bridge", "wlan-ap", "router", "telephone", "docsis", "station", "c-vlan", "s-vlan", "relay"}

// Names returns the names of the capabilities.
func (c Capabilities) Names() (all []string) {
	for i, name := range capabilities {
		if c>>i&1 != 0 {
			all = append(all, name)
		}
	}
	return all
}

// TLV types (802.1AB-2016 table 8-1), and the subtypes of three organisations (802.1Q-2018
// annex D, 802.3-2018 clause 79, TIA-1057 clause 10.2). Aggregation has the one of 802.1AX-2014 annex E; older
// neighbours have one of 802.3, which is the same but for its number.
const (
	tlvEnd = iota
	tlvChassis
	tlvPort
	tlvTTL
	tlvPortDescription
	tlvSystemName
	tlvSystemDescription
	tlvCapabilities
	tlvAddress
	tlvOrganisation = 127

	orgPVID        = 0x0080c2_01
	orgVLANName    = 0x0080c2_03
	orgMaxFrame    = 0x00120f_04
	orgAggregated  = 0x0080c2_07
	orgAggregated3 = 0x00120f_03
	orgMED         = 0x0012bb_01
)

// MaxVLANs is how many VLANs a PDU names at most.
const MaxVLANs = 64

// More bounds of a PDU. What a neighbour sends beyond them is ignored.
const (
	maxTLV       = 511
	maxText      = 255
	maxID        = 255
	maxPDU       = 1500 // bytes to send
	maxVLANName  = 32
	maxAddresses = 8
)

// Append appends the frame of a PDU from the address src. It leaves out VLANs that it has
// no room for, and cuts texts that are too long.
func Append(b []byte, src port.MAC, p *PDU) []byte {
	start := len(b)
	b = append(b, Group.HardwareAddr()...)
	b = append(b, src.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, EtherType)
	b = appendID(b, tlvChassis, chassisSubtypes[p.Chassis.Kind], p.Chassis.Value)
	b = appendID(b, tlvPort, portSubtypes[p.Port.Kind], p.Port.Value)
	b = appendTLV(b, tlvTTL, byte(p.TTL>>8), byte(p.TTL))
	for _, t := range []struct {
		typ  int
		text string
	}{{tlvPortDescription, p.PortDescription}, {tlvSystemName, p.SystemName}, {tlvSystemDescription, p.SystemDescription}} {
		if t.text != "" {
			b = appendTLV(b, t.typ, []byte(cut(t.text, maxText))...)
		}
	}
	if p.Capabilities != 0 {
		b = appendTLV(b, tlvCapabilities, byte(p.Capabilities>>8), byte(p.Capabilities), byte(p.Enabled>>8), byte(p.Enabled))
	}
	for _, a := range p.Addresses[:min(len(p.Addresses), maxAddresses)] {
		family := byte(1) // IANA address family numbers: IPv4, IPv6
		if a.Is6() {
			family = 2
		}
		v := append([]byte{byte(1 + a.BitLen()/8), family}, a.AsSlice()...)
		v = append(v, 1, 0, 0, 0, 0, 0) // of no interface by number; no object identifier
		b = appendTLV(b, tlvAddress, v...)
	}
	if p.PVID != 0 {
		b = appendOrg(b, orgPVID, byte(p.PVID>>8), byte(p.PVID))
	}
	if p.MaxFrame != 0 {
		b = appendOrg(b, orgMaxFrame, byte(p.MaxFrame>>8), byte(p.MaxFrame))
	}
	if p.Aggregated != 0 {
		b = appendOrg(b, orgAggregated, binary.BigEndian.AppendUint32([]byte{aggregates}, p.Aggregated)...)
	}
	if p.MED != 0 {
		b = appendOrg(b, orgMED, 0, medCapabilities, byte(p.MED))
	}
	for _, v := range p.VLANs[:min(len(p.VLANs), MaxVLANs)] {
		name := cut(v.Name, maxVLANName)
		if len(b)-start-port.HeaderLen+9+len(name)+2 > maxPDU {
			break
		}
		b = appendOrg(b, orgVLANName, append([]byte{byte(v.ID >> 8), byte(v.ID), byte(len(name))}, name...)...)
	}
	b = append(b, 0, 0) // the end
	for len(b)-start < minFrame {
		b = append(b, 0)
	}
	return b
}

// aggregates is the status of a port that can be, and is, one of several (802.1AX-2014 table E-1).
const aggregates = 3

// medCapabilities are the TLVs of LLDP-MED that the switch sends (TIA-1057 clause 10.2.2): the one that
// lists them.
const medCapabilities = 1

// minFrame is the length of the shortest frame without its FCS.
const minFrame = 60

func appendID(b []byte, typ int, subtype byte, value string) []byte {
	return appendTLV(b, typ, append([]byte{subtype}, cut(value, maxID)...)...)
}

func appendOrg(b []byte, org uint32, value ...byte) []byte {
	return appendTLV(b, tlvOrganisation, append(binary.BigEndian.AppendUint32(nil, org), value...)...)
}

func appendTLV(b []byte, typ int, value ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(typ<<9|len(value))), value...)
}

// cut returns the start of a text, at most n bytes.
func cut(s string, n int) string { return s[:min(len(s), n)] }

// Parse reads a frame without a tag. A PDU whose mandatory TLVs are wrong is refused;
// another TLV that is wrong is left out (802.1AB-2016 clause 9.2.7.7).
func Parse(frame []byte) (*PDU, error) {
	if len(frame) < port.HeaderLen || binary.BigEndian.Uint16(frame[12:]) != EtherType {
		return nil, errors.New("no LLDPDU: not of its EtherType")
	}
	p := &PDU{}
	rest := frame[port.HeaderLen:]
	for i := 0; i < 3 || len(rest) > 0; i++ {
		if len(rest) < 2 {
			return nil, errors.New("no LLDPDU: it ends within a TLV")
		}
		head := binary.BigEndian.Uint16(rest)
		typ, n := int(head>>9), int(head&maxTLV)
		if len(rest) < 2+n {
			return nil, errors.New("no LLDPDU: a TLV is longer than the frame")
		}
		value := rest[2 : 2+n]
		rest = rest[2+n:]
		switch {
		case i < 3 && typ != tlvChassis+i:
			return nil, errors.New("no LLDPDU: chassis, port and TTL do not come first")
		case i >= 3 && tlvChassis <= typ && typ <= tlvTTL:
			return nil, errors.New("no LLDPDU: chassis, port or TTL comes twice")
		case typ == tlvEnd:
			return p, nil
		case i < 3:
			if !p.mandatory(typ, value) {
				return nil, fmt.Errorf("no LLDPDU: TLV %d has a length of %d", typ, n)
			}
		default:
			p.optional(typ, value)
		}
	}
	return p, nil
}

// mandatory reads one of the first three TLVs and reports whether it is right.
func (p *PDU) mandatory(typ int, v []byte) bool {
	if typ == tlvTTL {
		if len(v) < 2 {
			return false
		}
		p.TTL = binary.BigEndian.Uint16(v)
		return true
	}
	if len(v) < 2 || len(v) > 1+maxID {
		return false
	}
	if typ == tlvChassis {
		p.Chassis = readID(chassisSubtypes[:], v)
	} else {
		p.Port = readID(portSubtypes[:], v)
	}
	return true
}

// readID reads the value of an ID, whose kinds have these subtypes.
func readID(subtypes, v []byte) ID {
	return ID{Kind(max(0, slices.Index(subtypes, v[0]))), string(v[1:])}
}

// optional reads another TLV; of a TLV that may come once, the first counts.
func (p *PDU) optional(typ int, v []byte) {
	set := func(to *string) {
		if *to == "" && len(v) <= maxText {
			*to = string(v)
		}
	}
	switch typ {
	case tlvPortDescription:
		set(&p.PortDescription)
	case tlvSystemName:
		set(&p.SystemName)
	case tlvSystemDescription:
		set(&p.SystemDescription)
	case tlvCapabilities:
		if len(v) >= 4 && p.Capabilities == 0 {
			p.Capabilities = Capabilities(binary.BigEndian.Uint16(v))
			p.Enabled = Capabilities(binary.BigEndian.Uint16(v[2:]))
		}
	case tlvAddress:
		if len(v) < 2 || len(v) < 1+int(v[0]) {
			return
		}
		if a, ok := address(v[1 : 1+int(v[0])]); ok && len(p.Addresses) < maxAddresses {
			p.Addresses = append(p.Addresses, a)
		}
	case tlvOrganisation:
		if len(v) >= 4 {
			p.organisation(binary.BigEndian.Uint32(v), v[4:])
		}
	}
}

func (p *PDU) organisation(org uint32, v []byte) {
	switch {
	case org == orgPVID && len(v) >= 2 && p.PVID == 0:
		if vid := binary.BigEndian.Uint16(v); vid <= port.MaxVID {
			p.PVID = vid
		}
	case org == orgMaxFrame && len(v) >= 2 && p.MaxFrame == 0:
		p.MaxFrame = binary.BigEndian.Uint16(v)
	case (org == orgAggregated || org == orgAggregated3) && len(v) >= 5 && v[0]&aggregates == aggregates && p.Aggregated == 0:
		p.Aggregated = binary.BigEndian.Uint32(v[1:])
	case org == orgMED && len(v) >= 3 && p.MED == 0:
		p.MED = Device(v[2])
	case org == orgVLANName && len(v) >= 3 && len(p.VLANs) < MaxVLANs:
		vid, n := binary.BigEndian.Uint16(v), int(v[2])
		if 1 <= vid && vid <= port.MaxVID && n <= maxVLANName && n <= len(v)-3 {
			p.VLANs = append(p.VLANs, VLAN{vid, string(v[3 : 3+n])})
		}
	}
}

// address reads an address after its family (IANA address family numbers).
func address(v []byte) (netip.Addr, bool) {
	if len(v) == 5 && v[0] == 1 || len(v) == 17 && v[0] == 2 {
		return netip.AddrFromSlice(v[1:])
	}
	return netip.Addr{}, false
}
