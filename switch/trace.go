package vswitch

import (
	"bytes"
	"slices"
	"sync/atomic"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// Trace says what the switch would do with a frame now.
type Trace struct {
	Drop port.Drop // why no copy of it leaves; DropNone if one does
	VLAN uint16    // 0: it belongs to none

	Source  Whereabouts // of its sender, before the frame
	Dest    Whereabouts // of its destination, if that is one station
	Learned bool        // whether the sender is known behind the port afterwards
	Flood   Class       // the class in which it is flooded, or sent to a group's ports; 0: neither

	Copies []TraceCopy    // what leaves, by port
	Others []TraceRefusal // of a frame with a class: the ports that it does not leave by

	Fast FastVerdict // of the fast path, which decides first
}

// Whereabouts are what the FDB knows of a station.
type Whereabouts struct {
	Known bool
	fdb.Entry
}

// TraceCopy is a frame that leaves by a port.
type TraceCopy struct {
	Port   *Port
	Frames int      // more than one: of several mirrors
	Tag    port.Tag // the outer tag
	Push   bool     // in front of the tag that the frame came with
	Mirror bool     // a mirror made it
	Shaped bool     // it waits in the port's queue for its turn
}

// TraceRefusal is why a frame does not leave by a port.
type TraceRefusal struct {
	Port *Port
	Drop port.Drop // DropPortDown: the port does not forward; DropNone: see below

	NotFlooded bool // the port wants no flooded frames of the class
	NoMember   bool // nobody behind it joined the group
}

// traceFDB is the capacity of a rehearsal's FDB, which has two stations.
const traceFDB = 64

// Trace passes a frame through the stages as if it had come by the port just now, with its
// tag in place, without sending it, counting it, learning its sender or telling anybody. It
// runs the workers' code by the workers' rules, on copies of all that a frame changes. What
// becomes of it at a device, such as a full queue, is not foreseen.
func (p *Port) Trace(wire []byte) Trace {
	s := p.sw
	set := s.ports.Load()
	from := set.member(p.number)
	var f port.Frame
	f.SetWire(bytes.Clone(wire)) // SetWire writes to it
	var t Trace
	if from != nil && f.Drop == port.DropNone && classify(&f, from) == port.DropNone {
		t.VLAN = f.VLAN
		t.Source, t.Dest = s.whereabouts(key(&f, f.Src)), s.whereabouts(key(&f, f.Dst))
	}
	r := p.rehearse(set, wire, &t, false)
	t.Drop = r.drop
	if e, known := r.fdb.Get(key(&f, f.Src)); t.VLAN != 0 {
		t.Learned = known && e.Port == p.number
	}
	t.Copies = r.copies()
	if t.Drop == port.DropNone || t.Drop == port.DropNoDestination {
		t.Flood = s.floodClass(&f, &t)
		t.addOthers(s, set, from, &f)
	}
	if set.mirrors > 0 {
		for _, c := range p.rehearse(set, wire, &t, true).copies() {
			if !slices.Contains(t.Copies, c) {
				c.Mirror = true
				t.Copies = append(t.Copies, c)
			}
		}
	}
	if s.fast != nil {
		s.fast.Settle() // it knows what the FDB does
		t.Fast = s.fast.Explain(p.number, wire)
	}
	slices.SortStableFunc(t.Copies, func(a, b TraceCopy) int { return int(a.Port.number) - int(b.Port.number) })
	return t
}

func (s *Switch) whereabouts(k fdb.Key) (w Whereabouts) {
	w.Entry, w.Known = s.fdb.Get(k)
	return w
}

// rehearsal is what came of a frame that nobody sends.
type rehearsal struct {
	drop port.Drop
	fdb  *fdb.Table
	out  *outputs // never flushed
}

// rehearse passes a frame through the stages, with mirrors or without.
func (p *Port) rehearse(set *portSet, wire []byte, t *Trace, mirrors bool) *rehearsal {
	dry := &Switch{fast: p.sw.fast, start: p.sw.start, fdb: fdb.New(fdb.Config{Capacity: traceFDB})}
	dry.events.init(nil)
	dry.control.init(nil)
	p.putStations(dry.fdb, t)
	set = set.copied(mirrors)
	from := set.member(p.number)
	if from != nil {
		from.port = p.copied(dry)
	}
	w := &worker{sw: dry, port: p, in: p.number, set: set, rx: new(rxCounters)}
	r := &rehearsal{fdb: dry.fdb, out: new(outputs)}
	r.out.begin(set, from, 0)
	var f port.Frame
	f.SetWire(bytes.Clone(wire))
	_, r.drop = w.switchFrame(r.out, &f, from)
	return r
}

// putStations puts what the FDB knows of the frame's stations into another one, and whether
// the port may learn a further station.
func (p *Port) putStations(into *fdb.Table, t *Trace) {
	for _, w := range []Whereabouts{t.Source, t.Dest} {
		switch {
		case !w.Known:
		case w.Kind == fdb.Dynamic:
			into.Learn(w.Key, w.Port)
		default:
			_ = into.Add(w.Key, w.Port, w.Kind) // it was possible before, and there is room
		}
	}
	p.sw.mu.Lock()
	limit := p.config.LearnLimit
	p.sw.mu.Unlock()
	if limit == 0 || p.sw.fdb.Count(p.number) < limit {
		return
	}
	if into.Count(p.number) == 0 {
		into.Learn(fdb.MakeKey(port.MaxVID+1, 2), p.number) // in no VLAN: a station that the frame is not of
	}
	into.SetLimit(p.number, into.Count(p.number))
}

// copied returns a set in which nothing is shared with the workers that a frame changes.
func (s *portSet) copied(mirrors bool) *portSet {
	all := *s
	c := &all
	c.byNumber, c.flood, c.watches = make([]*member, len(s.byNumber)), nil, nil
	for _, m := range s.flood {
		n := *m
		n.tx, n.queues = make([]txCounters, txShards), nil
		n.police = m.police.copied()
		n.storm = storm{m.storm.broadcast.copied(), m.storm.multicast.copied(), m.storm.unicast.copied()}
		n.stage = nil
		if m.stage != nil && m.stage.Why != nil {
			n.stage = &Stage{Check: func(f *port.Frame, classified port.Drop) (port.Drop, bool) { return m.stage.Why(f, classified), false }}
		} else {
			n.flags &^= flagStage
		}
		if !mirrors {
			n.flags &^= flagMirrorIn | flagMirrorOut
		}
		c.byNumber[m.number] = &n
		c.flood = append(c.flood, &n)
	}
	for _, m := range c.flood {
		m.mirrorIn, m.mirrorOut = c.copiedTaps(m.mirrorIn), c.copiedTaps(m.mirrorOut)
	}
	return c
}

// copiedTaps returns taps between members of the set.
func (s *portSet) copiedTaps(taps []tap) []tap {
	taps = slices.Clone(taps)
	for i := range taps {
		t := &taps[i]
		t.at, t.to = s.byNumber[t.at.number], slices.Clone(t.to)
		for j, to := range t.to {
			t.to[j] = s.byNumber[to.number]
		}
	}
	return taps
}

// copied returns a bucket of its own that is as full.
func (b *bucket) copied() *bucket {
	if b == nil {
		return nil
	}
	c := &bucket{rate: b.rate, burst: b.burst, late: b.late, until: new(atomic.Int64)}
	c.until.Store(b.until.Load())
	c.over.Store(b.over.Load())
	return c
}

// copied returns a port of another switch that has only what a worker needs of its own.
func (p *Port) copied(to *Switch) *Port {
	c := &Port{sw: to, name: p.name, number: p.number}
	for q := range c.lanes {
		c.lanes[q].port, c.lanes[q].queue = c, Queue(q)
	}
	return c
}

// copies returns what would be sent.
func (r *rehearsal) copies() (all []TraceCopy) {
	for _, v := range r.out.vecs {
		for i := range v.out {
			o := &v.out[i]
			c := TraceCopy{Port: v.to.port, Frames: 1, Tag: o.Tag, Push: o.Flags&port.Push != 0, Shaped: v.to.port.shaped()}
			if n := len(all); n > 0 && all[n-1].Port == c.Port && all[n-1].Tag == c.Tag && all[n-1].Push == c.Push {
				all[n-1].Frames++
				continue
			}
			all = append(all, c)
		}
	}
	return all
}

// shaped reports whether the port has an egress rate.
func (p *Port) shaped() bool {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	return p.shaper != nil || p.config.ShapedBelow && p.config.Shape != port.Rate{}
}

// floodClass returns the class in which f is flooded, or 0.
func (s *Switch) floodClass(f *port.Frame, t *Trace) Class {
	switch {
	case f.Dst == port.Broadcast:
		return Broadcast
	case f.Dst.IsGroup():
		return Multicast
	case !t.Dest.Known:
		return UnknownUnicast
	}
	return 0
}

// addOthers says of each port that a frame with a class does not leave by why not.
func (t *Trace) addOthers(s *Switch, set *portSet, from *member, f *port.Frame) {
	if t.Flood == 0 {
		return
	}
	members, all := []uint16(nil), true
	if g := set.groups; t.Flood == Multicast && g.snoops(f) {
		members, all = g.Lookup(f.VLAN, uint64(f.Dst))
		all = all || isLinkControl(f)
	}
	for _, p := range s.Ports() {
		if p.number == from.number || slices.ContainsFunc(t.Copies, func(c TraceCopy) bool { return c.Port == p }) {
			continue
		}
		why := TraceRefusal{Port: p}
		switch to := set.member(p.number); {
		case to == nil:
			why.Drop = port.DropPortDown
		case !all && !slices.Contains(members, p.number):
			why.NoMember = true
		case all && to.flags&(flags(t.Flood)<<flagNoFloodShift) != 0:
			why.NotFlooded = true
		default:
			why.Drop = whyNot(f, from, to)
		}
		t.Others = append(t.Others, why)
	}
}
