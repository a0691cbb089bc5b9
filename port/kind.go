package port

import (
	"cmp"

	"github.com/vswitch/vswitch/internal/qemu"
)

// Kind makes ports of one kind from their Specs. The daemon calls its methods one at a
// time; they may take as long as the kernel does, no longer. Errors are one line that says
// what is wrong and how to fix it.
type Kind interface {
	// Name is the kind's name on the command line.
	Name() string

	// Describe returns what users must know about the kind.
	Describe() Description

	// Check returns an error if spec is invalid, without touching the system. Kinds has
	// already checked each setting by itself.
	Check(spec Spec) error

	// Open makes what spec needs if absent, and attaches to it. It records in trace what
	// Delete must undo; trace comes from an earlier Open of the same port, perhaps by an
	// earlier process, and is empty at first. An error leaves the system and trace as
	// they were; if it wraps ErrGone, the device is absent but may appear, unless it wraps
	// ErrEnded. What nobody else would put back after a kill, Open and the Port tell
	// Trace.Intend before they change it.
	Open(spec Spec, trace *Trace) (Port, error)

	// Set changes an open port from one spec to another that Check accepts, without
	// interrupting traffic. An error leaves it as it was.
	Set(p Port, from, to Spec) error

	// Delete undoes what Open did, after the Port was closed: it deletes a device that
	// the switch made, and restores a device that existed before. A device that is
	// already gone is no error.
	Delete(spec Spec, trace Trace) error
}

// Description is what users must know about a kind of port.
type Description struct {
	// Help says in one or two lines what such a port is for.
	Help string

	// Settings is the zero value of the kind's settings struct (see internal/setting);
	// nil if the kind has none.
	Settings any

	// QEMU returns the flags for a machine behind a port that Check accepts; nil if no
	// machine can be behind such a port.
	QEMU func(Spec, qemu.Guest) (qemu.Flags, error)

	// Libvirt returns the <interface> of such a machine, without its address and model; nil
	// if libvirt has none for these ports.
	Libvirt func(Spec, qemu.Guest) qemu.Interface

	// Station is true if one station is behind the port. Otherwise a network is, which
	// may have its own bridges and routers.
	Station bool

	// Own is true if that station is the host, at the port's network interface: nobody else
	// has the interface's address.
	Own bool

	// Tunnel is true if the network behind the port is that of other switches, which are
	// reached without a link of their own. Such a port takes no part in a spanning tree:
	// it neither sends nor accepts BPDUs, and forwards always.
	Tunnel bool

	// Complete sets in a spec what the kind's settings imply for the Policy and the user does
	// not say; nil: they imply nothing. former is the spec before the change to be completed, and
	// given reports whether the change has a key.
	Complete func(s *Spec, former Spec, given func(key string) bool)
}

// Finder is implemented by kinds whose ports stand on a network interface.
type Finder interface {
	// Find reports whether the interface that Open would take is there, and returns its index;
	// 0 if that is in another namespace than the process. If the system does not tell, it is there.
	Find(spec Spec, trace Trace) (index int, is bool)
}

// Mover is implemented by kinds that change more on a device than its alias, and give it back also
// where somebody moved it to another network namespace.
type Mover interface {
	// ReturnMoved is Delete for such a device, in the namespace of the calling thread, where it
	// has the given index.
	ReturnMoved(index int, spec Spec, trace Trace) error
}

// Attended is implemented by kinds whose device a machine can hold whether the port is
// open or not.
type Attended interface {
	// Attended says who holds the device of a port, and what Delete would do to him; it
	// is empty where nobody holds it. It asks the system and changes nothing.
	Attended(spec Spec, trace Trace) string
}

// Sized is implemented by kinds whose ports use threads, file descriptors or much memory of the
// process. The daemon counts them before it opens a port.
type Sized interface {
	// Needs returns the most that an open port uses; queues is its number of queues, 0
	// before it is open.
	Needs(spec Spec, queues int) Needs
}

// Needs are the process resources that a port uses.
type Needs struct {
	Threads int // threads that sleep in the kernel; running ones have a processor each
	Files   int // descriptors
	Memory  int // bytes that count against a limit of memory and stay taken, as those of full queues
}

// Gone wraps err so that errors.Is(err, ErrGone) holds.
func Gone(err error) error { return gone{err} }

// Ended wraps err so that errors.Is(err, ErrEnded) and errors.Is(err, ErrGone) hold.
func Ended(err error) error { return ended{err} }

type ended struct{ error }

func (ended) Unwrap() []error { return []error{ErrEnded, ErrGone} }

type gone struct{ error }

func (gone) Unwrap() error { return ErrGone }

// Substitute is implemented by ports without a device where the kind can have one.
type Substitute interface {
	// Substitutes says in one line what stands in for the device, and why.
	Substitutes() string
}

// Routed is implemented by ports whose frames reach their stations by the host's routes.
type Routed interface {
	// Ways says in one line by what the frames leave that the fast path forwards, and why.
	Ways() string
}

// Trace records what a port changed on the host. It is kept with the port's Spec, so that
// even a later process can undo it.
type Trace struct {
	// Created is true if the switch made the device.
	Created bool `json:"created,omitempty"`

	// Ifname is the device's name when last seen, to find a device that was renamed.
	Ifname string `json:"ifname,omitempty"`

	// Before holds the former settings of a device that existed before. They are never changed,
	// only replaced.
	Before *DeviceSettings `json:"before,omitempty"`

	// Ifindex is the index of the device that this process opened last; 0 if it opened
	// none. Without it, Created is only a claim of another process, which Delete checks
	// against the device.
	Ifindex int `json:"-"`

	// Number identifies the device until the host reboots, to find it in a next process under
	// any name.
	Number string `json:"number,omitempty"`

	// MAC is the address of the device itself, in the form of net.HardwareAddr, to recognize it in
	// another network namespace; empty: not known.
	MAC string `json:"mac,omitempty"`

	// Name is what the port's settings call a device among its Members; empty: Ifname.
	Name string `json:"name,omitempty"`

	// Members is what a port on several devices changed on each of them. It is never changed,
	// only replaced.
	Members *[]Trace `json:"members,omitempty"`

	// Away identifies the boot of the host during which the device was moved to another
	// network namespace, from where it may come back; empty if it was not moved.
	Away string `json:"away,omitempty"`

	// IfMarked is true if the trace counts only for a device that has the switch's mark: without
	// it, the device was not changed yet, or was given back.
	IfMarked bool `json:"if_marked,omitempty"`

	// Keep has a trace outlive a kill of the process. It is nil if nothing does that; see Intend.
	Keep func(Trace) `json:"-"`
}

// Called returns what the port's settings call a device among its Members.
func (t Trace) Called() string { return cmp.Or(t.Name, t.Ifname) }

// Intend keeps a trace before its port changes what the trace says: a process that is killed right
// after the change cannot tell any more. It waits for a moment at most.
func (t Trace) Intend() {
	if t.Keep != nil {
		t.Keep(t)
	}
}

// IntendToMake is Intend for a device, or a socket, that the switch makes for a port.
func (t Trace) IntendToMake(name string) {
	if !t.Created { // else it is known
		t.Created, t.Ifname = true, name
		t.Intend()
	}
}

// Tracer is implemented by ports that change, while they are open, what Delete must undo.
type Tracer interface {
	// Trace returns what Delete must undo by now: Before and Members of a Trace. A Linked port's
	// LinkChanged has a value after it has changed. Any goroutine may call it.
	Trace() Trace
}

// DeviceSettings are the settings of a network interface that the switch changes.
type DeviceSettings struct {
	Up          bool   `json:"up"`
	MTU         int    `json:"mtu"`
	DisableIPv6 string `json:"disable_ipv6,omitempty"` // the sysctl's text; empty: no such sysctl
	ARPIgnore   string `json:"arp_ignore,omitempty"`
	AddrGenMode string `json:"addr_gen_mode,omitempty"`

	// StaticIPv6 lists the addresses that were lost when disable_ipv6 was set, in CIDR
	// form, separated by spaces.
	StaticIPv6 string `json:"static_ipv6,omitempty"`

	// Addresses lists all addresses of a device that gets more, in the form of StaticIPv6.
	Addresses string `json:"addresses,omitempty"`

	// Alias is the alias that the switch replaced with its mark.
	Alias string `json:"alias,omitempty"`

	// Features lists the device's offloads that the switch turned off, by their
	// ethtool(8) names, separated by spaces.
	Features string `json:"features,omitempty"`
}

// Device is implemented by ports on a network interface. Link events are matched by
// Ifindex, which survives a rename of the interface.
type Device interface {
	// Ifindex returns the interface's index in the namespace of the process; 0 if it is
	// elsewhere.
	Ifindex() int
}

// Bound is implemented by ports that know whether they are still on the device that they
// were opened on: another device can get its index within milliseconds.
type Bound interface {
	Bound() bool
}

// Exclusive is implemented by ports that can have exclusive use of their device.
type Exclusive interface {
	// Exclusive reports whether only the switch receives the device's frames.
	Exclusive() bool
}

// Contested is implemented by ports that can detect whether somebody else takes frames
// from their device.
type Contested interface {
	// Contested returns an error that says who that is, or nil if it is nobody. It asks the
	// system.
	Contested() error
}

// Overtaken is implemented by ports that can detect whether a program of others sees the frames of
// their device before the switch.
type Overtaken interface {
	// Overtaken says which one, and what to do; it is empty if there is none. It asks the system.
	Overtaken() string
}

// Programmed is implemented by ports that have programs at their device.
type Programmed interface {
	// Renew puts the programs back if somebody detached them, of which the kernel tells nobody.
	// The port must be on its device still (Bound). An error says that it gets no frames.
	Renew() error
}

// KernelEnd is implemented by ports on the kernel end of their device: frames that the
// kernel sends through the device reach the port's station, and frames that the kernel
// itself takes from the device do not reach the switch.
type KernelEnd interface {
	Device

	// Punted reports whether a program at the device's ingress decides which frames
	// are punted to the switch. Otherwise the switch gets every frame, whatever the
	// kernel does with it.
	Punted() bool
}

// Shaping is implemented by ports whose device can keep a rate itself, so that frames which the
// kernel forwards wait in one queue with those that are sent. Methods may ask the system.
type Shaping interface {
	// Shape has the device send no more than a rate in bit/s from now on; 0 ends that. Between none
	// and some, only Send may send by the device; it waits. It says in words how the device keeps the
	// rate. An error may leave the device as it was.
	Shape(bits uint64) (how string, err error)

	// Shapes reports whether the device keeps the last rate of Shape, or what an error has left of a
	// former one. Others may take it off.
	Shapes() bool

	// Shaped returns how many frames were dropped from the device's queue since the port was
	// opened, besides those that Send refused.
	Shaped() uint64
}
