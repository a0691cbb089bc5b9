package vswitch

import "github.com/vswitch/vswitch/port"

// Event is something that happened while frames flow: MACMoved or PortLost.
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
	Err  error
}

func (MACMoved) isEvent() {}
func (PortLost) isEvent() {}

// moveBacklog is how many MAC moves may wait to be reported. A worker does not
// wait for the reader: in a storm the moves beyond it go unreported.
const moveBacklog = 256

// events carries events from workers to the one goroutine that reports them.
type events struct {
	moves  chan MACMoved
	losses chan PortLost
	report func(Event)
}

func (e *events) init(report func(Event)) {
	if report == nil {
		report = func(Event) {}
	}
	e.moves, e.losses, e.report = make(chan MACMoved, moveBacklog), make(chan PortLost), report
}

// run reports until stop is closed.
func (e *events) run(stop <-chan struct{}) {
	for {
		select {
		case m := <-e.moves:
			e.report(m)
		case l := <-e.losses:
			e.report(l)
		case <-stop:
			return
		}
	}
}

func (e *events) moved(m MACMoved) {
	select {
	case e.moves <- m:
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
