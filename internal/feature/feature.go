// Package feature is the contract between the daemon and the features it hosts beside ports,
// such as a protocol or a guard. A feature is one folder here and one line in cmd/vswitch's
// list; it imports this package, switch, fdb, port and pure protocol packages, and no other
// feature. The daemon calls an Instance with its turn, one call at a time. A feature returns
// soon and never waits for a disk or the kernel during a call.
package feature

import (
	"iter"
	"log/slog"
	"time"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature describes a feature of the program.
type Feature struct {
	Name string // in logs; one word
	Help string // what it is for, in one line

	// Switch is the zero value of its struct of switch settings (see internal/setting); with
	// the zero value the feature is off. Port settings are in port.Policy.
	Switch any

	// On reports whether these settings, of the type of Switch, turn the feature on.
	On func(settings any) bool

	// New starts the feature. The daemon calls it when the settings turn the feature on or
	// change, after it has stopped the running instance. It then calls Configured for each
	// port and Linked for those that pass frames.
	New func(Host, any) (Instance, error)
}

// Instance is a running feature. It implements those of the methods below that it needs.
type Instance interface {
	// Stop ends it. No method is called afterwards.
	Stop()
}

// Each of these is one optional ability of an Instance.
type (
	// Configured receives each port that is new or has changed settings.
	Configured interface{ Configured(Port) }

	// Linked receives the ports that start or stop passing frames.
	Linked interface{ Linked(p Port, up bool) }

	// Removed receives each port that is about to be removed.
	Removed interface{ Removed(Port) }

	// Framed receives frames: those that match Traps go to Receive and are not forwarded.
	Framed interface {
		Traps() []vswitch.Trap
		Receive(Port, vswitch.ControlFrame)
	}

	// Moved receives the stations that are learned behind another port than before. It is
	// called on the switch's event goroutine and must not wait.
	Moved interface{ Moved(vswitch.MACMoved) }
)

// Port is a port as features see it. It is valid until Removed.
type Port interface {
	Name() string
	Number() uint16
	Policy() *port.Policy // read only
	VLANs() port.VLANSet  // the VLANs it carries
	Up() bool             // whether it passes frames
	Disabled() bool       // whether a guard has shut it down

	// Station reports whether one station, rather than a network, is behind the port. Its
	// kind and the user's settings about bridges decide.
	Station() bool

	// Core returns the port in the forwarding core.
	Core() *vswitch.Port
}

// Host is what the daemon offers to features.
type Host interface {
	Log() *slog.Logger
	MAC() port.MAC // the switch's own address
	Switch() *vswitch.Switch

	Ports() iter.Seq[Port]   // by number
	Port(number uint16) Port // nil: none

	// Tree reports whether the switch takes part in a spanning tree.
	Tree() bool

	// After calls f with the turn once d has passed, unless stop is called before.
	After(d time.Duration, f func()) (stop func())

	// Shut disables a port until a user or the recovery time brings it back.
	Shut(p Port, why string)
}
