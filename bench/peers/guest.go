package main

import (
	"runtime"
	"sync/atomic"
	"time"
)

// phase is the phase of a measurement, which all guests read.
type phase = atomic.Int32

const (
	phaseWarm  int32 = iota // traffic flows
	phaseTimed              // traffic flows and is measured
	phaseDrain              // nothing new is sent
	phaseEnd                // guests return
)

// guest is a virtual machine with one NIC, served by one thread, as in QEMU. Its thread
// writes the counters; any thread may read them.
type guest struct {
	index byte
	end   end
	phase *phase

	data    []byte  // packet it sends; nil: none
	window  *window // nil: it sends without bound
	first   byte    // first guest that acknowledges; the others follow it
	size    int     // bytes of the frames sent to it
	sources [maxGuests]source
	answers [maxGuests][]byte // small frames, made when first needed

	poll  time.Duration   // how long it polls for frames before it sleeps
	aside bool            // what it sends does not count: it is there to disturb others
	asks  bool            // it sends requests, one at a time
	trips []time.Duration // their round-trip times

	_         [64]byte
	sent      atomic.Uint64 // frames
	delivered atomic.Uint64
	timeouts  atomic.Uint64 // times a sender heard nothing for patience
	_         [64]byte
}

// source counts the frames from one sender.
type source struct{ highest, arrived uint64 }

// maxGuests is one guest that floods, and 32 that receive.
const maxGuests = 33

// burst is how many frames a guest sends or receives before it checks the other direction:
// enough to make the check cheap, and a small part of a window.
const burst = 32

// patience is how long a sender waits for an acknowledgement and a waiting guest sleeps at
// most. It is far above any round trip through a working switch.
const patience = 20 * time.Millisecond

// sendTo makes the guest send frames of size bytes to another guest or to everyone. receivers
// guests, starting with first, acknowledge them.
func (g *guest) sendTo(to byte, size int, first byte, receivers int) {
	g.data = newPacket(g.index, to, size)
	g.first, g.window = first, newWindow(size, receivers)
}

// run is the guest's main loop.
func (g *guest) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if g.asks {
		g.request()
		return
	}
	var busy time.Time
	for g.phase.Load() != phaseEnd {
		sent, took := g.transmit(), g.receive()
		if sent+took > 0 && g.poll > 0 {
			busy = time.Now()
		}
		if sent+took > 0 || g.poll > 0 && time.Since(busy) < g.poll {
			continue
		}
		if !g.end.wait(patience) && g.window != nil && g.window.expire() {
			g.timeouts.Add(1)
		}
	}
}

// transmit sends what the window allows, at most a burst.
func (g *guest) transmit() (n int) {
	if g.data == nil || g.phase.Load() >= phaseDrain {
		return 0
	}
	room := burst
	if g.window != nil {
		room = min(room, g.window.room())
	}
	sent := g.sent.Load()
	for n < room {
		n++
		m := message{kind: kindData, from: g.index, seq: sent + uint64(n)}
		if g.aside {
			m.kind = kindHello // which nobody counts
		}
		if g.window != nil {
			var ask bool
			if m.seq, ask = g.window.next(); ask {
				m.kind = kindDataAsk
			}
		}
		m.put(g.data)
		g.end.write(g.data) // a refused frame is lost
	}
	g.end.flush()
	g.sent.Store(sent + uint64(n))
	return n
}

// receive reads what has arrived, at most a burst.
func (g *guest) receive() (n int) {
	delivered := g.delivered.Load()
	for ; n < burst; n++ {
		p := g.end.read()
		if p == nil {
			break
		}
		m, ok := parse(p)
		if !ok || !isFor(p, g.index) || int(m.from) >= maxGuests {
			continue // somebody else's, or flooded before its destination was known
		}
		switch m.kind {
		case kindData, kindDataAsk:
			if len(p) != headerLen+g.size {
				continue // truncated or split on its way: not what was sent
			}
			delivered++
			s := &g.sources[m.from]
			s.arrived++
			s.highest = max(s.highest, m.seq)
			if m.kind == kindDataAsk {
				g.answer(kindAck, m.from, s.highest, s.arrived)
			}
		case kindAck:
			if i := int(m.from) - int(g.first); g.window != nil && i >= 0 {
				g.window.ack(i, m.seq, m.count)
			}
		case kindRequest:
			delivered++
			g.answer(kindReply, m.from, m.seq, 0)
			g.sent.Add(1)
		}
	}
	g.end.flush()
	g.delivered.Store(delivered)
	return n
}

// answer sends a small frame back.
func (g *guest) answer(kind, to byte, seq, count uint64) {
	p := g.answers[to]
	if p == nil {
		p = newPacket(g.index, to, smallest)
		g.answers[to] = p
	}
	message{kind, g.index, seq, count}.put(p)
	g.end.write(p)
}

// answerTime is how long a request waits for its answer before it counts as lost: a late
// switch is only slow; one that never answers loses frames.
const answerTime = time.Second

// request sends one request at a time and records its round-trip time.
func (g *guest) request() {
	for seq := uint64(1); ; seq++ {
		at := g.phase.Load()
		if at >= phaseDrain {
			return
		}
		message{kind: kindRequest, from: g.index, seq: seq}.put(g.data)
		start := time.Now()
		g.end.write(g.data)
		g.end.flush()
		g.sent.Add(1)
		if !g.reply(seq, start) {
			g.timeouts.Add(1)
			continue
		}
		took := time.Since(start)
		g.delivered.Add(1)
		if at == phaseTimed {
			g.trips = append(g.trips, took)
		}
	}
}

// reply waits for the answer to a request and reports whether it came in time.
func (g *guest) reply(seq uint64, start time.Time) bool {
	for {
		for p := g.end.read(); p != nil; p = g.end.read() {
			if m, ok := parse(p); ok && m.kind == kindReply && m.seq == seq && isFor(p, g.index) {
				return true
			}
		}
		switch waited := time.Since(start); {
		case waited > answerTime, g.phase.Load() == phaseEnd:
			return false
		case waited >= g.poll:
			g.end.wait(patience)
		}
	}
}
