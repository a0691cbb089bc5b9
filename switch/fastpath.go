package vswitch

import (
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// FastPath forwards known unicast below the switch, between ports on kernel devices,
// by a copy of the FDB; the rest comes to the ports' queues as ever. The switch is the
// same without. Its methods do not call the switch.
type FastPath interface {
	// The FDB's changes are told as they happen; Bind names the table, first of all.
	fdb.Observer
	Bind(*fdb.Table)

	// Publish brings exactly these ports into force before it returns.
	Publish([]FastPort)

	// Settle returns when every change of the FDB before it is in force.
	Settle()

	// Refresh tells the FDB which stations were heard so far.
	Refresh()

	// Counters are of the port's frames that came to no queue of the switch. Release
	// returns them for the last time: the port's device is gone.
	Counters(number uint16) PortStats
	Release(number uint16) PortStats
}

// FastPort is a port on a kernel device as a fast path must treat it; VLANs as in
// vlanRules.
type FastPort struct {
	Number uint16
	Device port.KernelEnd

	From bool // what comes by the port needs nothing but forwarding
	To   bool // what leaves by it needs nothing but its tag
	Isolated,
	UntaggedOnly bool
	PVID, Native, TPID uint16
	VLANs              *port.VLANSet // those it carries; never changed
}

// What keeps a port's frames on the path through the workers.
const (
	slowFrom = flagBlocked | flagNoLearn | flagPolice | flagMirrorTarget | flagMirrorIn
	slowTo   = flagBlocked | flagMirrorTarget | flagMirrorOut
)

// keepsOff are the flags that keep a port's frames on the path through the workers, in
// words. Those in both slowFrom and slowTo keep off both directions.
var keepsOff = []struct {
	flag  flags
	words string
}{
	{flagBlocked, "spanning tree does not forward by it"},
	{flagNoLearn, "--learning off"},
	{flagPolice, "--rate-in"},
	{flagMirrorTarget, "mirrored frames leave by it"},
	{flagMirrorIn | flagMirrorOut, "it is mirrored"},
}

// KeptOff returns what keeps known unicast of the port from the fast path, in words; nil
// where nothing does. It is also nil where there is no fast path at all.
func (p *Port) KeptOff() (why []string) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fast == nil || p.at == nil {
		return nil
	}
	dev, ok := p.at.dev.(port.KernelEnd)
	if !ok {
		return []string{"its frames come by memory or a socket, not by a device of the kernel"}
	}
	if !dev.HandedUp() {
		why = append(why, "it shares its device with the host")
	}
	if !p.active() {
		return append(why, "it does not forward")
	}
	m := s.ports.Load().byNumber[p.number]
	for _, k := range keepsOff {
		if m.flags&k.flag != 0 {
			why = append(why, k.words)
		}
	}
	if p.shaper != nil {
		why = append(why, "--rate-out")
	}
	return why
}

// publishFast tells the fast path of the ports. The caller holds mu.
func (s *Switch) publishFast(set *portSet) {
	if s.fast == nil {
		return
	}
	var ports []FastPort
	for _, m := range set.flood {
		dev, ok := m.dev.(port.KernelEnd)
		if !ok {
			continue
		}
		ports = append(ports, FastPort{
			Number:       m.number,
			Device:       dev,
			From:         m.flags&slowFrom == 0,
			To:           m.flags&slowTo == 0 && m.port.shaper == nil,
			Isolated:     m.flags&flagIsolated != 0,
			UntaggedOnly: m.flags&flagUntaggedOnly != 0,
			PVID:         m.pvid,
			Native:       m.native,
			TPID:         m.tpid,
			VLANs:        m.vlans,
		})
	}
	s.fast.Publish(ports)
}

// Settle returns when no frame goes by what was in the FDB before the call.
func (s *Switch) Settle() {
	if s.fast != nil {
		s.fast.Settle()
	}
}

// refreshEvery returns how long after one Refresh, which took so long, the next is due:
// soon beside the ageing time, so that what the kernel hears does not age. It bounds what
// walks of a large table cost to one part in 20 of the time.
func refreshEvery(aging, took time.Duration) time.Duration {
	const longest, share = 5 * time.Second, 20
	every := longest
	if aging >= 0 {
		every = min(aging/8, longest)
	}
	return max(every, share*took) - time.Second/2 // the tick that is nearest
}

// Refresh brings the ages of FDB entries up to date, where a fast path hears stations.
func (s *Switch) Refresh() {
	if s.fast != nil {
		s.fast.Refresh()
	}
}

// add adds the counters of o.
func (st *PortStats) add(o PortStats) {
	st.Fast += o.Fast
	for _, d := range []struct {
		to   *Counters
		from *Counters
	}{{&st.RX, &o.RX}, {&st.TX, &o.TX}} {
		d.to.Frames += d.from.Frames
		d.to.Bytes += d.from.Bytes
		d.to.Copies += d.from.Copies
		for why, n := range d.from.Dropped {
			d.to.Dropped[why] += n
		}
	}
}
