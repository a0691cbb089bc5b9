package vswitch

import "github.com/vswitch/vswitch/port"

// Event is something that happened while frames flow: MACMoved, LimitHit, StormHit,
// OwnAddress, PortLost.
type Event interface{ isEvent() }

// MACMoved tells that a station was learned behind another port than before.
// From and To are port numbers.
type MACMoved struct {
	MAC      port.MAC
	VLAN     uint16
	From, To uint16
}

// PortLost tells that a port's device ended by itself, with the error of its
// Recv. It stays attached, and carries nothing, until Detach.
type PortLost struct {
	Port *Port
	Dev  port.Port
	Err  error
}

// LimitHit tells that a new station was refused by a port whose learn action is
// LearnShutdown. It is reported for each frame that the backlog has room for.
type LimitHit struct {
	Port uint16
	MAC  port.MAC
	VLAN uint16
}

func (MACMoved) isEvent() {}
func (LimitHit) isEvent() {}

// StormHit tells that a port with StormShutdown dropped a frame beyond one of its
// storm rates, with the reason it was dropped for. It is reported as LimitHit is.
type StormHit struct {
	Port uint16
	Why  port.Drop
}

// OwnAddress reports that a frame came in whose sender is an address of the switch
// itself. Further ones go unreported until this one was taken.
type OwnAddress struct {
	Port uint16
	VLAN uint16
}

func (StormHit) isEvent()   {}
func (OwnAddress) isEvent() {}
func (PortLost) isEvent()   {}

// moveShare of moveBacklog moves to one port may wait: who makes up moves does not hide
// those of others.
const moveShare, moveBacklog = 64, 1024

// eventBacklog is how many events of frames may wait to be reported. A worker does
// not wait for the reader: in a storm those beyond it go unreported.
const eventBacklog = 256

// events carries events from workers to the one goroutine that reports them.
type events struct {
	moves  chan portMove
	guards chan Event // LimitHit, StormHit
	owns   chan OwnAddress
	losses chan PortLost
	report func(Event)
}

type portMove struct {
	MACMoved
	to *Port
}

func (e *events) init(report func(Event)) {
	if report == nil {
		report = func(Event) {}
	}
	e.moves, e.guards = make(chan portMove, moveBacklog), make(chan Event, eventBacklog)
	e.owns = make(chan OwnAddress, 1)
	e.losses, e.report = make(chan PortLost), report
}

// run reports until stop is closed.
func (e *events) run(stop <-chan struct{}) {
	for {
		select {
		case m := <-e.moves:
			m.to.moves.Add(-1)
			e.report(m.MACMoved)
		case g := <-e.guards:
			e.report(g)
		case o := <-e.owns:
			e.report(o)
		case l := <-e.losses:
			e.report(l)
		case <-stop:
			return
		}
	}
}

func (e *events) moved(m MACMoved, to *Port) {
	if to.moves.Load() >= moveShare {
		return
	}
	to.moves.Add(1)
	select {
	case e.moves <- portMove{m, to}:
	default:
		to.moves.Add(-1)
	}
}

func (e *events) own(o OwnAddress) {
	select {
	case e.owns <- o:
	default:
	}
}

// guard reports what a guard has to act on. A backlog that is full says enough.
func (e *events) guard(ev Event) {
	if len(e.guards) == cap(e.guards) {
		return // without the allocation of an interface value
	}
	select {
	case e.guards <- ev:
	default:
	}
}

// lost hands l over without fail, and without holding up the worker that ended:
// the report may be waiting for just that in Detach.
func (e *events) lost(l PortLost, stop <-chan struct{}) {
	go func() {
		select {
		case e.losses <- l:
		case <-stop:
		}
	}()
}
