// Package lag is the port kind for several network interfaces that are one link: a link
// aggregation group (802.1AX). Its members are there, as for a netdev port, and belong to the
// switch alone. They are chosen by LACP, by their carrier, or one of them carries all frames.
// The kind takes the frames of slow protocols itself. Its methods act on the calling thread's
// network namespace; an open port stays there.
package lag

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/port"
)

// maxMembers is the most members of a port.
const maxMembers = lacp.MaxMembers

// Options configure the kind. Switch must be set.
type Options struct {
	Switch string // the name of the switch that the ports belong to

	// Ingress decides which frames to punt to the switch; nil: all frames come.
	Ingress Ingress
}

// Ingress is a fast path that can forward by several devices.
type Ingress interface {
	hoststack.Ingress

	// Bundled hears that the devices that carry a port changed.
	Bundled(port.Aggregate)
}

// kind implements port.Kind.
type kind struct{ Options }

// New returns the kind.
func New(o Options) (port.Kind, error) {
	if o.Switch == "" {
		return nil, errors.New("lag ports need the name of their switch, which marks their devices")
	}
	return kind{o}, nil
}

// Settings are the settings of lag ports.
type Settings struct {
	Members  Names `json:"members,omitempty" arg:"NAME,..." help:"network interfaces that are one link together, in order of preference"`
	Mode     Mode  `json:"lag_mode,omitempty" arg:"MODE" default:"lacp" help:"who chooses the members that carry frames: both ends by LACP, static (all with a carrier), or active-backup (one of them)"`
	Hash     Hash  `json:"hash,omitempty" arg:"LAYERS" default:"layer2+3" help:"what spreads frames over members: addresses of Ethernet, also those of IP, or addresses and ports of IP"`
	MinLinks int   `json:"min_links,omitempty" arg:"N" min:"1" max:"8" default:"1" help:"members below which the port carries nothing"`
	LACPRate Rate  `json:"lacp_rate,omitempty" arg:"RATE" default:"slow" help:"how often the other end is to send LACPDUs: every second (fast) or every 30 s; it is given up after three"`
	MTU      int   `json:"mtu,omitempty" arg:"BYTES" min:"68" max:"65535" default:"the device's own" help:"longest payload"`
}

// AfterMerge implements setting.Merged: without LACP its rate is unset.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	if former.(Settings).Mode.isLACP() && !s.Mode.isLACP() && !given("lacp_rate") {
		s.LACPRate = ""
	}
}

// Names are names of interfaces, separated by commas on the command line.
type Names []string

// ReadFlag implements setting.FlagReader.
func (n *Names) ReadFlag(text string) error {
	*n = nil
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			*n = append(*n, name)
		}
	}
	return nil
}

// FlagText implements setting.FlagWriter.
func (Names) FlagText(v any) string {
	b, _ := json.Marshal(v)
	var n Names
	_ = json.Unmarshal(b, &n)
	return strings.Join(n, ",")
}

// Mode says who chooses the members that carry frames.
type Mode string

const (
	modeLACP   Mode = "lacp" // also ""
	modeStatic Mode = "static"
	modeBackup Mode = "active-backup"
)

// Values implements setting.Enum.
func (Mode) Values() []string {
	return []string{string(modeLACP), string(modeStatic), string(modeBackup)}
}

// isLACP reports whether LACP chooses.
func (m Mode) isLACP() bool { return m == modeLACP || m == "" }

// Hash says what spreads frames over members.
type Hash string

const (
	hashMAC   Hash = "layer2"
	hashIP    Hash = "layer2+3" // also ""
	hashPorts Hash = "layer3+4"
)

// Values implements setting.Enum.
func (Hash) Values() []string { return []string{string(hashMAC), string(hashIP), string(hashPorts)} }

// Rate is how often the partner is to send LACPDUs.
type Rate string

// Values implements setting.Enum.
func (Rate) Values() []string { return []string{"slow", "fast"} }

// Name implements port.Kind.
func (kind) Name() string { return "lag" }

// Describe implements port.Kind.
func (kind) Describe() port.Description {
	return port.Description{
		Help:     "several network interfaces that are one link: a bond, with LACP\nor without.",
		Settings: Settings{},
	}
}

// Check implements port.Kind.
func (kind) Check(s port.Spec) error {
	o := port.SettingsOf[Settings](s)
	if len(o.Members) == 0 {
		return errors.New("a lag port needs interfaces; name them with --members, such as --members eth0,eth1")
	}
	if len(o.Members) > maxMembers {
		return fmt.Errorf("a lag port has at most %d members, not %d", maxMembers, len(o.Members))
	}
	for _, name := range o.Members {
		if port.CheckName(name) != nil {
			return fmt.Errorf("%q cannot be an interface's name; write --members as eth0,eth1", name)
		}
	}
	if o.MinLinks > len(o.Members) {
		return fmt.Errorf("--min-links %d is more than the %d members; the port would never carry a frame", o.MinLinks, len(o.Members))
	}
	if !o.Mode.isLACP() && o.LACPRate != "" {
		return fmt.Errorf("--lacp-rate is for --lag-mode lacp, not %s", o.Mode)
	}
	return nil
}

// taker takes the members' devices.
func (k kind) taker() nic.Taker { return nic.Taker{Switch: k.Switch, Ingress: k.Ingress} }

// use says how members are used: none of their frames are for the host.
func (o *Settings) use() nic.Config { return nic.Config{MTU: o.MTU, Exclusive: true} }

// Needs implements port.Sized: a thread waits for the frames of each member.
func (kind) Needs(s port.Spec, _ int) port.Needs {
	n := len(port.SettingsOf[Settings](s).Members)
	return port.Needs{Threads: n, Files: 8*n + 4}
}

// Find implements port.Finder.
func (kind) Find(s port.Spec, _ port.Trace) (index int, is bool) {
	for _, name := range port.SettingsOf[Settings](s).Members {
		if l, err := link.ByName(name); err == nil {
			return l.Index, true
		}
	}
	return 0, false
}

// Open implements port.Kind. Members that are not there, or that cannot be had, come later.
// If there is none, that is an error.
func (k kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	p, err := open(k, s, trace, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Set implements port.Kind.
func (kind) Set(p port.Port, _, to port.Spec) error {
	return p.(*Port).set(port.SettingsOf[Settings](to))
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	o := port.SettingsOf[Settings](s)
	var errs []error
	for _, m := range membersOf(t) {
		errs = append(errs, k.giveBack(m.Called(), &o, m))
	}
	return errors.Join(errs...)
}

// giveBack gives the device of a member back.
func (k kind) giveBack(name string, o *Settings, t port.Trace) error {
	l, err := k.find(name, t)
	if errors.Is(err, link.ErrNotFound) {
		return k.taker().ReturnStray(o.use(), t)
	}
	if err != nil {
		return err
	}
	return k.taker().Return(l, o.use(), t)
}

// find looks up the device of a member, also one that was renamed: within a process its index
// tells.
func (k kind) find(name string, t port.Trace) (link.Link, error) {
	if t.Ifindex != 0 {
		if l, err := link.ByIndex(t.Ifindex); !errors.Is(err, link.ErrNotFound) {
			return l, err
		}
	}
	return k.taker().Find(name, t)
}

// membersOf returns what a port changed on its members.
func membersOf(t port.Trace) []port.Trace {
	if t.Members == nil {
		return nil
	}
	return *t.Members
}
