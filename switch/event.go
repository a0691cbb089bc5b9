package vswitch

import "github.com/vswitch/vswitch/port"

// Event is something that happened while frames flow: MACMoved, LimitHit, StormHit,
// OwnAddress, PortLost.
type Event interface{ isEvent() }

// MACMoved reports that a station was learned behind another port than before. From and
// To are port numbers.
type MACMoved struct {
	MAC      port.MAC
	VLAN     uint16
	From, To uint16
}

// PortLost reports that a port's device failed, with the error of its Recv. The device
// stays attached, without traffic, until Detach.
type PortLost struct {
	Port *Port
	Dev  port.Port
	Err  error
}

// LimitHit reports that a port whose learn action is LearnShutdown refused a new station.
// It is reported for each such frame while the backlog has room.
type LimitHit struct {
	Port uint16
	MAC  port.MAC
	VLAN uint16
}

func (MACMoved) isEvent() {}
func (LimitHit) isEvent() {}

// StormHit reports that a port with StormShutdown dropped a frame beyond one of its storm
// rates, and the reason. Like LimitHit, it is reported while the backlog has room.
type StormHit struct {
	Port uint16
	Why  port.Drop
}

// OwnAddress reports a received frame whose source is an address of the switch. Further
// ones go unreported until this one is handled.
type OwnAddress struct {
	Port uint16
	VLAN uint16
}

func (StormHit) isEvent()   {}
func (OwnAddress) isEvent() {}
func (PortLost) isEvent()   {}

// moveBacklog is how many moves may wait to be reported, and moveShare how many of them
// may be moves to one port: a port that forges moves does not hide those of others.
const moveShare, moveBacklog = 64, 1024

// eventBacklog is how many guard events may wait to be reported. Workers do not wait for
// the reader: in a storm, further events go unreported.
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

// run reports events until stop is closed.
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

// guard queues an event for the guards. When the queue is full the event is dropped,
// since one is enough to act.
func (e *events) guard(ev Event) {
	if len(e.guards) == cap(e.guards) {
		return // saves allocating an interface value
	}
	select {
	case e.guards <- ev:
	default:
	}
}

// lost delivers l reliably without delaying the end of the worker: the reporter may be in
// Detach, waiting for that worker to end.
func (e *events) lost(l PortLost, stop <-chan struct{}) {
	go func() {
		select {
		case e.losses <- l:
		case <-stop:
		}
	}()
}
