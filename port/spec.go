package port

import (
	"fmt"
	"strings"
)

// Spec is what a user asks of one port: its name, its kind, the kind's settings
// and the switch's. It is what the command line sends and what is kept on disk.
type Spec struct {
	Name string `json:"name"`
	Kind string `json:"kind"`

	// tap: who may open the device, by name or number; empty is root alone.
	Owner string `json:"owner,omitempty"`
	Group string `json:"group,omitempty"`

	// tap: how many queues, each with a worker of its own; 0 is one.
	Queues int `json:"queues,omitempty"`

	// tap, host, netdev: bytes of payload; 0 leaves the device's own.
	MTU int `json:"mtu,omitempty"`

	// host: addresses in CIDR form for the host's end, and the namespace,
	// by name or path, that it is moved to.
	Address []string `json:"address,omitempty"`
	Netns   string   `json:"netns,omitempty"`

	// netdev: hide the device's frames from the host's own stack.
	Exclusive bool `json:"exclusive,omitempty"`

	// vhost-user, stream, dgram: the unix socket, and whether the switch
	// connects to it; else it makes it and listens.
	Path   string `json:"path,omitempty"`
	Client bool   `json:"client,omitempty"`

	// vhost-user: how workers wait for frames, PollAdaptive or PollBusy; empty
	// is the former.
	Poll string `json:"poll,omitempty"`

	// What the switch does with the port's frames: no affair of the kind.
	Policy
}

// How workers wait for frames of shared memory.
const (
	// PollAdaptive: under load they look for them, for a bounded time, then sleep.
	PollAdaptive = "adaptive"
	// PollBusy: they never sleep while a guest is there, which takes a processor
	// for each queue in use and saves the guest the kick.
	PollBusy = "busy"
)

// MaxName is the longest name of a network interface in bytes (IFNAMSIZ-1).
const MaxName = 15

// CheckName tells whether name can be an interface's name, as the kernel's
// dev_valid_name does, and says what to write instead when not.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a port needs a name; write one of 1 to %d characters, such as vm0", MaxName)
	case len(name) > MaxName:
		return fmt.Errorf("port name %q has %d bytes; an interface name has at most %d, write a shorter one", name, len(name), MaxName)
	case name == "." || name == "..", name == "all" || name == "default":
		// The last two are what /proc/sys/net calls all interfaces and new ones.
		return fmt.Errorf("port name %q is not allowed; write one such as vm0", name)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == '%' || r >= 0x7f }); i >= 0 {
		return fmt.Errorf("port name %q has %q in it; use letters, digits, '-', '_' and '.' only", name, name[i:i+1])
	}
	return nil
}

// CheckNoSocket tells what s asks of a kind without a socket that only those on one have.
func CheckNoSocket(kind string, s Spec) error {
	switch {
	case s.Path != "" || s.Client:
		return fmt.Errorf("a %s port has no socket; leave --path and --client out, or use --kind vhost-user, stream or dgram", kind)
	case s.Poll != "":
		return fmt.Errorf("a %s port has no shared memory to poll; leave --poll out, or use --kind vhost-user", kind)
	}
	return nil
}
