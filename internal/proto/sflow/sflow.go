// Package sflow writes datagrams of sFlow version 5 (sflow.org/sflow_version_5.txt) with flow
// samples, counter samples, and notifications of dropped packets (sflow.org/sflow_drops.txt).
// It does no I/O and allocates nothing once a datagram has its memory.
package sflow

import (
	"encoding/binary"
	"net/netip"
)

// Port is the UDP port of collectors.
const Port = 6343

// MaxDatagram is how many bytes a datagram has at most, so that it is in one piece on any
// usual path.
const MaxDatagram = 1400

// The formats of samples and records, all of enterprise 0.
const (
	formatFlow     = 1
	formatCounters = 2
	formatDiscard  = 5

	formatHeader   = 1    // in a flow sample
	formatSwitch   = 1001 // in a flow sample
	formatGeneric  = 1    // in a counter sample
	formatEthernet = 2    // in a counter sample
	formatName     = 1005 // in a counter sample
)

// Unknown is the value of a counter that is not counted.
const Unknown = 0xffff_ffff

// Interface is where a packet comes from or goes to. The zero Interface is unknown.
type Interface uint32

// Internal is the switch itself.
const Internal Interface = 0x3fff_ffff

// Several are more than one interface, which are not known further.
const Several Interface = 2 << 30

// Index returns the interface with an ifIndex.
func Index(n uint32) Interface { return Interface(n & 0x3fff_ffff) }

// Discarded says that a packet goes nowhere, and why.
func Discarded(why Reason) Interface { return 1<<30 | Interface(why) }

// Source is a data source by its ifIndex, as a sample names it.
type Source uint32

// Packet is the beginning of a sampled Ethernet frame.
type Packet struct {
	Header []byte
	Length int // of the whole frame, without FCS
}

// Flow is a packet flow sample.
type Flow struct {
	Sequence      uint32 // of the source's flow samples
	Source        Source
	Rate          uint32 // one of so many packets is drawn
	Pool          uint32 // packets that could have been drawn
	Drops         uint32 // samples that were lost
	Input, Output Interface
	Packet        Packet

	// The VLAN and priority of the packet as it came and as it goes.
	VLANIn, PriorityIn, VLANOut, PriorityOut uint32
}

// Counters is a counter sample of an interface.
type Counters struct {
	Sequence  uint32 // of the source's counter samples
	Source    Source
	Name      string
	Speed     uint64 // bit/s
	Up, Admin bool
	In, Out   Traffic

	TooLong       uint32 // frames that exceed the longest that the interface takes
	TransmitFails uint32 // frames that an error of the interface kept from being sent
}

// Traffic is what an interface received or sent. Packets are of all kinds.
type Traffic struct {
	Octets            uint64
	Packets, Discards uint32
}

// Discard is a notification of a packet that was dropped.
type Discard struct {
	Sequence      uint32 // of the source's notifications
	Source        Source
	Drops         uint32 // dropped packets without a notification
	Input, Output uint32 // ifIndex; 0: unknown
	Reason        Reason
	Packet        Packet
}

// Header is how a datagram begins.
type Header struct {
	Agent    netip.Addr
	SubAgent uint32
	Sequence uint32 // of the datagrams
	Uptime   uint32 // of the agent in ms
}

// Datagram is a datagram that is being written. The zero Datagram has no header and takes no
// samples.
type Datagram struct {
	b     []byte
	count int // where the number of samples is
	n     uint32
}

// Reset begins a datagram.
func (d *Datagram) Reset(h Header) {
	d.n = 0
	d.b = append(d.b[:0], 0, 0, 0, 5)
	agent := h.Agent.Unmap()
	if agent.Is4() {
		a := agent.As4()
		d.put(1)
		d.b = append(d.b, a[:]...)
	} else {
		a := agent.As16()
		d.put(2)
		d.b = append(d.b, a[:]...)
	}
	d.put(h.SubAgent, h.Sequence, h.Uptime)
	d.count = len(d.b)
	d.put(0)
}

// Samples returns how many samples the datagram has.
func (d *Datagram) Samples() int { return int(d.n) }

// Bytes returns the datagram, which is valid until the next Reset.
func (d *Datagram) Bytes() []byte { return d.b }

func (d *Datagram) put(all ...uint32) {
	for _, v := range all {
		d.b = binary.BigEndian.AppendUint32(d.b, v)
	}
}

func (d *Datagram) put64(v uint64) { d.b = binary.BigEndian.AppendUint64(d.b, v) }

// opaque writes bytes with their number, filled up to words of four.
func (d *Datagram) opaque(b []byte) {
	d.put(uint32(len(b)))
	d.b = append(d.b, b...)
	for len(d.b)%4 != 0 {
		d.b = append(d.b, 0)
	}
}

// begin begins a structure, and returns where it is, for end.
func (d *Datagram) begin(format uint32) (at int) {
	d.put(format, 0)
	return len(d.b)
}

func (d *Datagram) end(at int) {
	binary.BigEndian.PutUint32(d.b[at-4:], uint32(len(d.b)-at))
}

// add writes a sample, unless the datagram has others and would be too long: then it stays as
// it was, and add returns false.
func (d *Datagram) add(format uint32, write func()) bool {
	before := len(d.b)
	at := d.begin(format)
	write()
	d.end(at)
	if len(d.b) > MaxDatagram && d.n > 0 {
		d.b = d.b[:before]
		return false
	}
	d.n++
	binary.BigEndian.PutUint32(d.b[d.count:], d.n)
	return true
}

// packet writes a packet's header as a record. The length of a frame counts its FCS, which
// never was there.
func (d *Datagram) packet(p *Packet) {
	const ethernet, fcs = 1, 4
	at := d.begin(formatHeader)
	d.put(ethernet, uint32(p.Length+fcs), fcs)
	d.opaque(p.Header)
	d.end(at)
}

// AddFlow adds a flow sample, or returns false if it does not fit.
func (d *Datagram) AddFlow(f *Flow) bool {
	return d.add(formatFlow, func() {
		d.put(f.Sequence, uint32(f.Source), f.Rate, f.Pool, f.Drops, uint32(f.Input), uint32(f.Output), 2)
		d.packet(&f.Packet)
		at := d.begin(formatSwitch)
		d.put(f.VLANIn, f.PriorityIn, f.VLANOut, f.PriorityOut)
		d.end(at)
	})
}

// AddDiscard adds a notification of a dropped packet, or returns false if it does not fit.
func (d *Datagram) AddDiscard(x *Discard) bool {
	const ifIndex = 0 // the class of the source
	return d.add(formatDiscard, func() {
		d.put(x.Sequence, ifIndex, uint32(x.Source), x.Drops, x.Input, x.Output, uint32(x.Reason), 1)
		d.packet(&x.Packet)
	})
}

// AddCounters adds a counter sample, or returns false if it does not fit. Packets of all kinds
// stand where unicast has its place, since kinds are not counted apart.
func (d *Datagram) AddCounters(c *Counters) bool {
	const ethernetCSMACD, fullDuplex = 6, 1
	status := uint32(0)
	if c.Admin {
		status |= 1
	}
	if c.Up {
		status |= 2
	}
	return d.add(formatCounters, func() {
		d.put(c.Sequence, uint32(c.Source), 3)
		at := d.begin(formatGeneric)
		d.put(uint32(c.Source), ethernetCSMACD)
		d.put64(c.Speed)
		d.put(fullDuplex, status)
		d.put64(c.In.Octets)
		d.put(c.In.Packets, Unknown, Unknown, c.In.Discards, 0, Unknown)
		d.put64(c.Out.Octets)
		d.put(c.Out.Packets, Unknown, Unknown, c.Out.Discards, 0)
		d.put(1) // promiscuous
		d.end(at)
		at = d.begin(formatEthernet) // nothing collides, and no bit is lost
		d.put(0, 0, 0, 0, 0, 0, 0, 0, c.TransmitFails, 0, c.TooLong, 0, 0)
		d.end(at)
		at = d.begin(formatName)
		d.opaque([]byte(c.Name))
		d.end(at)
	})
}
