package port

import "github.com/vswitch/vswitch/internal/qemu"

// Kind makes ports of one kind out of what a user asked for. The daemon calls its
// methods one at a time; they may take as long as the kernel does, no longer.
// Errors are one line that says what is wrong and how to mend it.
type Kind interface {
	// Name is the kind's name on the command line.
	Name() string

	// Describe says what users must know of the kind.
	Describe() Description

	// Check reports what is wrong with spec, without touching the system. Kinds has
	// checked each setting by itself before.
	Check(spec Spec) error

	// Open makes what spec needs where it is absent, and attaches to it. It
	// notes in trace what Delete must undo; trace comes from an earlier Open
	// of the same port, perhaps by an earlier process, and is empty at first.
	// An error leaves the system and trace as they were; one that wraps
	// ErrGone says that the device is not there but may come.
	Open(spec Spec, trace *Trace) (Port, error)

	// Set brings an open port from one spec to another that Check accepts,
	// without interrupting traffic. An error leaves it as it was.
	Set(p Port, from, to Spec) error

	// Delete takes back what Open did, after the Port was closed: a device
	// that the switch made goes, one that was there is as it was before. What
	// is gone already is no error.
	Delete(spec Spec, trace Trace) error
}

// Description is what users must know of a kind of port.
type Description struct {
	// Help says in one or two lines what such a port is for.
	Help string

	// Settings is the zero value of the struct of the kind's settings (see
	// internal/setting); nil where it has none.
	Settings any

	// QEMU returns the flags of a machine behind a port that Check accepts; nil where no
	// machine can stand there.
	QEMU func(Spec, qemu.Guest) (qemu.Flags, error)

	// Station: one station is behind the port. Else a network is, which may have
	// bridges and routers of its own.
	Station bool
}

// Finder is implemented by kinds whose ports stand on a network interface.
type Finder interface {
	// Find returns the number of the interface that Open would take, 0 where there
	// is none in the namespace of the process.
	Find(spec Spec, trace Trace) int
}

// Attended is implemented by kinds whose device a machine can hold whether the port is
// open or not.
type Attended interface {
	// Attended says who holds the device of a port, and what Delete would do to him; it
	// is empty where nobody holds it. It asks the system and changes nothing.
	Attended(spec Spec, trace Trace) string
}

// Sized is implemented by kinds whose ports take threads or files of the process. The
// daemon counts them before it opens a port.
type Sized interface {
	// Needs returns the most that an open port takes; queues is how many it has, 0
	// before it is open.
	Needs(spec Spec, queues int) Needs
}

// Needs are what a port takes of the process.
type Needs struct {
	Threads int // that sleep in the kernel; those that work have a processor each
	Files   int // descriptors
}

// Gone wraps err so that errors.Is(err, ErrGone) holds.
func Gone(err error) error { return gone{err} }

type gone struct{ error }

func (gone) Unwrap() error { return ErrGone }

// Trace is what a port left on the host, kept with the port's Spec so that even a
// later process can take it back.
type Trace struct {
	// Created: the switch made the device.
	Created bool `json:"created,omitempty"`

	// Ifname is the device's name when it was last seen, for a device that
	// was renamed.
	Ifname string `json:"ifname,omitempty"`

	// Before is what the switch changed on a device that was there before.
	Before *DeviceSettings `json:"before,omitempty"`

	// Ifindex is the number of the device that this process opened last, 0 where it
	// opened none. Only with it is Created more than another process's word, which
	// Delete checks against the device.
	Ifindex int `json:"-"`

	// Away names the boot of the host in which the device was moved to another
	// network namespace, from where it may come back; empty where it was not.
	Away string `json:"away,omitempty"`
}

// DeviceSettings are the settings of a network interface that the switch changes.
type DeviceSettings struct {
	Up          bool   `json:"up"`
	MTU         int    `json:"mtu"`
	DisableIPv6 string `json:"disable_ipv6,omitempty"` // the sysctl's text; empty: there is none
	ARPIgnore   string `json:"arp_ignore,omitempty"`
	AddrGenMode string `json:"addr_gen_mode,omitempty"`

	// StaticIPv6 are the addresses that went when disable_ipv6 was set, in CIDR
	// form, separated by spaces.
	StaticIPv6 string `json:"static_ipv6,omitempty"`

	// Alias stood where the switch put its mark.
	Alias string `json:"alias,omitempty"`

	// Features are what the device offloaded and the switch turned off, by their names
	// as ethtool(8) has them, separated by spaces.
	Features string `json:"features,omitempty"`
}

// Device is implemented by ports that stand on a network interface. Link events
// are matched by Ifindex, which stays the same when the interface is renamed.
type Device interface {
	// Ifindex is the interface's number in the namespace of the process, 0
	// where it is elsewhere.
	Ifindex() int
}

// Bound is implemented by ports that know whether they still stand on the device that they
// were opened on: its number can be another device's within milliseconds.
type Bound interface {
	Bound() bool
}

// Exclusive is implemented by ports that can have their device for themselves.
type Exclusive interface {
	// Exclusive reports whether the device's frames are the switch's alone.
	Exclusive() bool
}

// Contested is implemented by ports that can tell whether another switch takes frames of
// their device.
type Contested interface {
	// Contested returns an error that says who does, nil where nobody does. It asks
	// the system.
	Contested() error
}

// KernelEnd is implemented by ports that stand on the kernel's end of their device: what
// the kernel sends by the device reaches the port's station, and what the kernel takes
// from it itself does not come to the switch.
type KernelEnd interface {
	Device

	// HandedUp tells whether a program at the device's ingress decides what comes to
	// the switch. Else the switch gets every frame, whatever the kernel does with it.
	HandedUp() bool
}
