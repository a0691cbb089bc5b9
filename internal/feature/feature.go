// Package feature is the contract between the daemon and the features it hosts beside ports,
// such as a protocol or a guard. A feature is one folder here and one line in cmd/vswitch's
// list; it imports this package, api, switch, fdb, port and pure protocol packages, and no
// other feature. The daemon calls an Instance with its turn, one call at a time, but for what
// says otherwise. A feature returns soon and never waits for a disk or the kernel in a call.
package feature

import (
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature describes a feature of the program.
type Feature struct {
	Name string // one word, for logs and names of types
	Key  string // of what it keeps in the state; by default Name
	Help string // what it is for, in one line

	// Switch and Port are the zero values of its structs of settings of the switch and of each
	// port (see internal/setting); nil: it has none. A struct of Port may be a port.Section.
	Switch, Port any

	// Off is the answer to calls while the feature is off: how to turn it on.
	Off string

	// Learned names the keys of its State that nobody asked for. They outlive the daemon, and
	// are no part of a configuration.
	Learned []string

	// Items says that its State is a list of items, which a configuration knows one by one.
	// Nil: it is something else.
	Items *Items

	// On reports whether settings of the type of Switch turn the feature on. Nil: it is on.
	On func(settings any) bool

	// New starts the feature. The daemon calls it when the settings of the switch turn the
	// feature on or change, after it has stopped the running instance. It then calls Restore,
	// Configured for each port, and Linked for those that pass frames.
	New func(Host, any) (Instance, error)

	Routes   []Route
	Commands []Command
}

// Instance is a running feature. It implements those of the methods below that it needs.
type Instance interface {
	// Stop ends it. No method is called afterwards.
	Stop()
}

// Each of these is one optional ability of an Instance.
type (
	// Settable takes changed settings of the switch, of the type of Feature.Switch, in place of
	// Stop and New.
	Settable interface{ Set(settings any) error }

	// Configured receives each port that is new or has changed settings.
	Configured interface{ Configured(Port) }

	// Refusing can refuse a port's settings, before they apply: of a new port, or new settings
	// of one. The error says why and what to do.
	Refusing interface{ Refuse(Port) error }

	// Yielding gives up what one port will get from another, before a configuration changes
	// ports in one step after the other: otherwise no order would let two ports swap an
	// address. Next has the spec that each of those ports is about to get; nil: it goes. Each
	// port is Configured afterwards, also if it keeps its settings after all.
	Yielding interface {
		Yield(next map[string]*port.Spec)
	}

	// Linked receives the ports that start or stop passing frames.
	Linked interface{ Linked(p Port, up bool) }

	// Removed receives each port that is about to be removed.
	Removed interface{ Removed(Port) }

	// Parting hears that the daemon ends, and all ports with it: a last chance to speak. Stop
	// follows when they are closed. It is not called when another process goes on.
	Parting interface{ Part() }

	// Framed receives frames: those that match Traps go to Receive and are not forwarded. A
	// queue belongs to one feature.
	Framed interface {
		Traps() []vswitch.Trap
		Receive(Port, vswitch.ControlFrame)
	}

	// Queued receives the frames of whole queues, which come by traps of single ports or by
	// other rules of the core.
	Queued interface {
		Queues() []vswitch.Queue
		Receive(Port, vswitch.ControlFrame)
	}

	// Forgotten hears that the FDB has forgotten the stations behind a port.
	Forgotten interface{ Forgotten(Port) }

	// Pinning reports whether users decide where a station is, so that nothing else may.
	Pinning interface{ Pins(fdb.Key) bool }

	// Topology hears that stations may now be behind other ports.
	Topology interface{ TopologyChanged() }

	// Explained says in words what made a port drop frames for a reason, if it was the
	// feature; "" if it was not. Why is from the core's point of view: a frame came by the
	// port, or was to leave by it.
	Explained interface {
		Explain(p Port, why port.Drop) string
	}

	// Described fills in its part of the switch's description.
	Described interface{ Describe(*api.Switch) }

	// Kept is something that outlives the daemon. State returns what to keep, as JSON;
	// nil: nothing. Restore receives what State returned before any port is Configured; with an
	// error the feature does not start, and what was kept stays. It also takes back a change
	// that could not be kept; what State returned before the change may have been nil. Host.Save asks for a State
	// to be written.
	Kept interface {
		State() (json.RawMessage, error)
		Restore(json.RawMessage) error
	}

	// Ending is told that the feature is about to be stopped, before State is asked for what the
	// next instance begins with: at the end of the daemon, for the next process, or for other settings.
	// Nothing but State, Give and Stop is called afterwards.
	Ending interface{ End() }

	// Heir goes on where the feature of the former process was, when the switch is handed over to
	// a new one. Give returns what that needs beside State; nil: nothing. It is called before Stop,
	// after the last frame was received; Stop must then look as if nothing happened, to the
	// network as well. Take receives it after Restore, before any port is Configured, in a process
	// of the same, a former or a later version; after an error the feature starts as ever.
	Heir interface {
		Give() (*Parcel, error)
		Take(*Parcel) error
	}

	// Moved receives the stations that are learned behind another port than before. It is
	// called on the switch's event goroutine, and may wait for a turn but for nothing else.
	Moved interface{ Moved(vswitch.MACMoved) }

	// Collected reports numbers for Prometheus: it calls add for each series. It is called at
	// every scrape.
	Collected interface{ Collect(add Add) }

	// Observed hears of what happens to the switch, from whoever calls Host.Emit. It is called
	// on any goroutine, with or without the turn, and must not wait.
	Observed interface{ Observe(api.Event) }
)

// Parcel is what a feature gives to the next process.
type Parcel struct {
	Format int // of the feature's own; raised where a former program would misunderstand Data
	Data   json.RawMessage
}

// Pack puts a value into a Parcel of a format.
func Pack(format int, v any) (*Parcel, error) {
	b, err := json.Marshal(v)
	return &Parcel{format, b}, err
}

// Unpack reads the value of a Parcel of a format. Fields that v lacks do not matter.
func (p *Parcel) Unpack(format int, v any) error {
	if p.Format != format {
		return fmt.Errorf("it is in format %d, and this vswitch reads format %d", p.Format, format)
	}
	return json.Unmarshal(p.Data, v)
}

// Port is a port as features see it. It is valid until Removed.
type Port interface {
	Name() string
	Number() uint16
	Spec() *port.Spec     // read only
	Policy() *port.Policy // read only
	VLANs() port.VLANSet  // the VLANs it carries
	Up() bool             // whether somebody is there to pass frames to
	Passes() bool         // whether it passes frames, as it does even before it is up
	Disabled() bool       // whether a guard has shut it down
	MTU() int             // of its network interface; 0: it has none

	Speed() uint64 // of its link in bit/s; 0: unknown

	// Kind describes the port's kind; the zero Description if the program lacks it.
	Kind() port.Description

	// Station reports whether one station, rather than a network, is behind the port. Its
	// kind and the user's settings about bridges decide.
	Station() bool

	// Own returns the address of the host's own interface behind the port; 0: there is none,
	// or it is in a namespace where it is not seen.
	Own() port.MAC

	// Core returns the port in the forwarding core.
	Core() *vswitch.Port
}

// PortSettings returns the settings of a port that belong to a feature, T being the type of
// its Feature.Port.
func PortSettings[T any](p Port) T { return port.SectionOf[T](p.Spec()) }

// FindPort returns the port with a name, or an error for the user.
func FindPort(h Host, name string) (Port, error) {
	for p := range h.Ports() {
		if p.Name() == name {
			return p, nil
		}
	}
	return nil, NoPort(name)
}

// NoPort is the error of a request that names a port which is not there.
func NoPort(name string) error {
	if port.CheckName(name) != nil {
		name = strconv.Quote(name)
	}
	return api.Errorf(api.CodeNotFound, "there is no port %s; `vswitch ports` lists those there are", name)
}

// Host is what the daemon offers to features.
type Host interface {
	Log() *slog.Logger
	MAC() port.MAC // the switch's own address
	Switch() *vswitch.Switch

	Ports() iter.Seq[Port]   // by number
	Port(number uint16) Port // nil: none

	// StationMAC returns the address that `vswitch qemu-args` gives the station behind a port,
	// or 0 if the port's kind is not for QEMU.
	StationMAC(Port) port.MAC

	// Speak enters the switch's own address in a VLAN into the FDB, so that answers to frames
	// sent from it end here. Who sends such frames calls it before each.
	Speak(vlan uint16)

	// Pinned asks the features that are Pinning.
	Pinned(fdb.Key) bool

	// Forget removes the stations learned behind a port.
	Forget(Port)

	// TellTopology tells features that stations may now be behind other ports.
	TellTopology()

	// Why asks the features that are Explained.
	Why(p Port, why port.Drop) string

	// After calls f with the turn once d has passed, unless stop is called before.
	After(d time.Duration, f func()) (stop func())

	// Do calls f soon, with the turn. It may be called from any goroutine, and waits until f
	// has returned; it reports whether f was called: a daemon that stops calls nothing.
	Do(f func()) bool

	// Save writes the State of the features to disk, without waiting for it.
	Save()

	// Emit tells users what happened. The daemon adds Seq, Epoch and Time. It may be called
	// from any goroutine, but not more often than people can read: what guests or peers can
	// cause is limited first.
	Emit(api.Event)

	// API answers calls of the API, as the control socket does, for a feature that serves some of
	// them elsewhere. It is called on any goroutine and without the turn.
	API() http.Handler

	// Collect reports the numbers of the daemon and of all features, see Collected.
	Collect(add Add)

	// Distributions reports how values of the daemon are distributed. Any goroutine may call it,
	// without the turn.
	Distributions(add AddDistribution)

	// Shut disables a port until a user or the recovery time brings it back.
	Shut(p Port, why string)
}
