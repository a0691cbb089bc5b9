// Package feature is the contract between the daemon and what it hosts beside ports: a
// protocol, a guard. A feature is one folder here and one line in cmd/vswitch's list; it
// imports this package, switch, fdb, port and pure protocol packages, and no other feature.
// The daemon calls an Instance with its turn, one call at a time; a feature returns soon,
// and does what waits for a disk or the kernel elsewhere.
package feature

import (
	"iter"
	"log/slog"
	"time"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature is a feature as the program lists it.
type Feature struct {
	Name string // in logs; one word
	Help string // what it is for, in one line

	// Switch is the zero value of the struct of its settings of the switch (see
	// internal/setting); the zero value is off. Ports' settings stand in port.Policy.
	Switch any

	// On reports whether these settings, of the type of Switch, turn it on.
	On func(settings any) bool

	// New starts it. It is called when the settings turn it on, or become others; what
	// ran before is stopped first. Then Configured is called for each port, and Linked
	// for those by which frames pass.
	New func(Host, any) (Instance, error)
}

// Instance is a feature that runs. It has those of the following methods that it needs.
type Instance interface {
	// Stop ends it. Nothing is called after that.
	Stop()
}

// Each of these is one ability of an Instance.
type (
	// Configured is told of a port that is new or has other settings.
	Configured interface{ Configured(Port) }

	// Linked is told that frames pass by a port from now on, or no more.
	Linked interface{ Linked(p Port, up bool) }

	// Removed is told that a port is about to go.
	Removed interface{ Removed(Port) }

	// Framed wants frames: those of Traps come to Receive, and are not forwarded.
	Framed interface {
		Traps() []vswitch.Trap
		Receive(Port, vswitch.ControlFrame)
	}

	// Moved is told of stations that are learned behind another port than before, on the
	// switch's event goroutine, which must not wait.
	Moved interface{ Moved(vswitch.MACMoved) }
)

// Port is a port as features see it. It is valid until Removed.
type Port interface {
	Name() string
	Number() uint16
	Policy() *port.Policy // not to be changed
	VLANs() port.VLANSet  // that it carries
	Up() bool             // frames pass
	Disabled() bool       // a guard has shut it down

	// Station reports whether one station is behind the port, by its kind and by what
	// its user says of bridges; else a network is.
	Station() bool

	// Core is the port in the forwarding core.
	Core() *vswitch.Port
}

// Host is what a feature may use of the daemon.
type Host interface {
	Log() *slog.Logger
	MAC() port.MAC // the switch's own address
	Switch() *vswitch.Switch

	Ports() iter.Seq[Port]   // in the order of their numbers
	Port(number uint16) Port // nil: none

	// Tree reports whether the switch takes part in a spanning tree.
	Tree() bool

	// After calls f with the turn once d has passed, unless stop was called before.
	After(d time.Duration, f func()) (stop func())

	// Shut disables a port until a user or the time of recovery brings it back.
	Shut(p Port, why string)
}
