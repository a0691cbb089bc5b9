// Package api is vswitch's control API: the types of its JSON, and a client for Go programs.
// A daemon serves it as HTTP on a unix socket; openapi.yaml describes it for other languages.
// Keys are stable: new ones are added, and none changes its meaning. A Client may be used
// from any goroutine.
package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/vswitch/vswitch/port"
)

// OpenAPI describes the API. A daemon serves it at /v1/openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte

// State is the state of a port.
type State string

const (
	StateUp        State = "up"         // it passes frames
	StateNoCarrier State = "no-carrier" // its device is there, but nobody holds the other end
	StateWaiting   State = "waiting"    // its device or peer is gone; it re-attaches by itself
	StateDown      State = "down"       // its device was set down by somebody else, or a guard shut it down
)

// States lists all states, best first.
var States = []State{StateUp, StateNoCarrier, StateWaiting, StateDown}

// Port is a running port.
type Port struct {
	Name   string `json:"name"`
	Number uint16 `json:"number"`
	Kind   string `json:"kind"`
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // why it is waiting, or what shut it down

	// Ifname and MTU describe its network interface now; they are empty and 0 if the switch
	// sees none. The MTU of a tunnel is what fits through it.
	Ifname string `json:"ifname"`
	MTU    int    `json:"mtu"`

	// GuestMAC is the address for the NIC of the virtual machine behind it, as qemu-args
	// gives it. The switch accepts other addresses, too.
	GuestMAC port.MAC `json:"guest_mac,omitzero"`

	// GuestMTU is the MTU for that NIC where a tunnel in a VLAN of the port takes less than
	// the machine would send; 0: the machine's own will do. qemu-args passes it to the machine.
	GuestMTU int `json:"guest_mtu,omitzero"`

	// Station reports whether one station, rather than a network, is behind it.
	Station bool `json:"station"`

	VLAN     VLAN         `json:"vlan"`
	FastPath PortFastPath `json:"fastpath"`

	Members []Member `json:"members,omitempty"` // of a port that several interfaces carry together

	RX   Counters `json:"rx"`   // into the switch
	TX   Counters `json:"tx"`   // out of it
	Spec Spec     `json:"spec"` // its settings as requested
}

// Member shows one of the interfaces that carry a port.
type Member struct {
	Ifname string           `json:"ifname"`
	State  port.MemberState `json:"state"`
	Reason string           `json:"reason,omitempty"` // why it carries no frames
	LACP   *LACP            `json:"lacp,omitempty"`   // with LACP, once the interface is there
}

// LACP shows what the two ends of a member know of each other.
type LACP struct {
	State     []string     `json:"state"`             // flags of this end
	Partner   *LACPPartner `json:"partner,omitempty"` // the other end, if it speaks
	Churn     bool         `json:"churn,omitempty"`   // one of the ends has not joined for a minute
	Sent      uint64       `json:"sent"`              // LACPDUs
	Received  uint64       `json:"received"`
	Discarded uint64       `json:"discarded"`
}

// LACPPartner is the other end of a member, as it describes itself.
type LACPPartner struct {
	System port.MAC `json:"system"`
	Key    uint16   `json:"key"`
	Port   uint16   `json:"port"`
	State  []string `json:"state"` // its flags
}

// PortFastPath shows whether the kernel forwards a port's known unicast.
type PortFastPath struct {
	On     bool     `json:"on"`
	Off    []string `json:"off,omitempty"` // reasons why it is off
	By     string   `json:"by,omitempty"`  // of a tunnel: by what its frames leave and come, and why
	Frames uint64   `json:"frames"`        // received frames that the kernel handled
}

// VLAN shows how a port takes part in VLANs. Fields that its mode lacks are 0 or empty.
//
//	transparent  tags pass unchanged, and every frame belongs to VLAN Native
//	access       untagged frames of VLAN Access
//	trunk        tagged frames of Trunk, and untagged ones of Native
//	qinq         all frames, whatever their tag, under the service VLAN QinQ
type VLAN struct {
	Mode   string   `json:"mode"`
	Access uint16   `json:"access"`
	Native uint16   `json:"native"`
	Trunk  []uint16 `json:"trunk"`
	QinQ   uint16   `json:"qinq"`
	TPID   string   `json:"tpid"`   // EtherType of the tags it recognizes: 0x8100 or 0x88a8; empty: none
	Accept string   `json:"accept"` // frames that it accepts: all, tagged or untagged
}

// Counters count one direction of a port since the port was added to the daemon.
type Counters struct {
	Frames  uint64            `json:"frames"`
	Bytes   uint64            `json:"bytes"`
	Copies  uint64            `json:"copies,omitempty"` // RX: extra copies made by flooding
	Dropped map[string]uint64 `json:"dropped"`          // by reason; only those above 0
}

// Settings are settings of a port or of the switch, by key. openapi.yaml lists the keys as
// PortSettings and SwitchSettings:
//
//	api.Settings{"access": 10, "storm_broadcast": "100pps", "isolated": true}
type Settings map[string]any

// Spec is one JSON object with the settings that are set; a port's also has its name and
// kind.
type Spec struct{ json.RawMessage }

// Decode reads the spec into a Settings or a struct with JSON tags; it ignores keys that the
// struct lacks.
func (s Spec) Decode(to any) error { return json.Unmarshal(s.RawMessage, to) }

// Settings returns the spec by key, with the values as encoding/json decodes them.
func (s Spec) Settings() (all Settings) {
	_ = s.Decode(&all) // cannot fail: it was read as JSON
	return all
}

// DropReason is a reason why frames are not delivered.
type DropReason struct {
	Name      string `json:"name"`      // key in Counters.Dropped
	Direction string `json:"direction"` // rx: no copy of the frame left the switch; tx: this copy did not
	Words     string `json:"words"`     // what happened; DEV stands for the port's name
}

// AddPort requests a port. In JSON its settings stand beside the other keys.
type AddPort struct {
	Name     string
	Kind     string
	NoWait   bool // add the port even if its device is not there yet
	MayExist bool // accept an existing port with these settings
	Settings Settings
}

// MarshalJSON implements json.Marshaler.
func (a AddPort) MarshalJSON() ([]byte, error) {
	all := make(Settings, len(a.Settings)+4)
	maps.Copy(all, a.Settings)
	all["name"], all["kind"] = a.Name, a.Kind
	if a.NoWait {
		all["no_wait"] = true
	}
	if a.MayExist {
		all["may_exist"] = true
	}
	return json.Marshal(all)
}

// FDBEntry is an entry of the forwarding database.
type FDBEntry struct {
	MAC  port.MAC `json:"mac"`
	VLAN uint16   `json:"vlan"`
	Port string   `json:"port"` // empty for an address of the switch itself
	Type string   `json:"type"` // dynamic, sticky, static, local
	AgeS int64    `json:"age_s"`
}

// AddFDB requests an entry, which replaces the one for its address. A static entry stays for
// good; a sticky one ages, and until then its address cannot move to another port.
type AddFDB struct {
	MAC  port.MAC `json:"mac"`
	VLAN uint16   `json:"vlan,omitempty"` // 0 means 1
	Port string   `json:"port"`

	Sticky bool `json:"sticky,omitempty"`
}

// FlushFDB selects the learned entries to forget: those of a port, of a VLAN, of both, or
// all.
type FlushFDB struct {
	Port string `json:"port,omitempty"`
	VLAN uint16 `json:"vlan,omitempty"`
}

// Flushed says how many entries were forgotten.
type Flushed struct {
	Flushed int `json:"flushed"`
}

// Switch describes the daemon and its totals.
type Switch struct {
	Name     string        `json:"name"`
	PID      int           `json:"pid"`
	UptimeS  int64         `json:"uptime_s"`
	Version  string        `json:"version"`
	StateDir string        `json:"state_dir"` // empty: the state is not kept
	Ports    map[State]int `json:"ports"`     // number of ports in each state
	FDB      FDBInfo       `json:"fdb"`
	RX       Counters      `json:"rx"` // of all current ports
	TX       Counters      `json:"tx"`

	Settings Spec `json:"settings"` // those in force that are set

	Sandbox []string `json:"sandbox"` // what restricts the daemon; empty: nothing

	SocketDir    string   `json:"socket_dir"`    // has NAME.sock for ports that name no socket
	MAC          port.MAC `json:"mac"`           // its own address
	GroupForward uint16   `json:"group_forward"` // bit n: 01:80:c2:00:00:0n is forwarded
	LoopDetect   bool     `json:"loop_detect"`
	HoldDownS    float64  `json:"hold_down_s"` // for flapping stations; 0: they are not held
	RecoveryS    float64  `json:"recovery_s"`  // of ports that a guard shut down; 0: never
	STP          bool     `json:"stp"`
	Snooping     bool     `json:"snooping"`
	Querier      bool     `json:"querier"`
	FastPath     FastPath `json:"fastpath"`
}

// FastPath describes the kernel's forwarding of known unicast.
type FastPath struct {
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"` // why it is off
	Pinned bool   `json:"pinned"`           // it keeps forwarding while the daemon is away
	Frames uint64 `json:"frames"`           // received frames that it handled
}

// FDBInfo describes the forwarding database as a whole.
type FDBInfo struct {
	Size     int   `json:"size"`
	Capacity int   `json:"capacity"`
	AgingS   int64 `json:"aging_s"` // 0: entries do not age

	Moves uint64 `json:"moves"` // stations learned behind another port than before
	Flaps uint64 `json:"flaps"` // times a station moved too often
	Held  int    `json:"held"`  // stations now held at a port for flapping
}

// Codes of an Error.
const (
	CodeInvalid  = "invalid"   // the request makes no sense
	CodeNotFound = "not_found" // no such port, entry or call
	CodeMethod   = "method"    // the call is there, with other methods
	CodeExists   = "exists"    // the name is taken
	CodeGone     = "gone"      // the port's device is not there
	CodeInUse    = "in_use"    // a machine is attached to the port
	CodeExpired  = "expired"   // the events after the cursor are forgotten
	CodeConflict = "conflict"  // a configuration is being applied, waits for its confirmation, or changed
	CodeFailed   = "failed"    // the system refused
	CodeBusy     = "busy"      // too many do the same already
	CodeStopping = "stopping"  // the daemon is about to end
)

// Error is why a daemon refused or failed: one line that says what is wrong and how to fix
// it.
type Error struct {
	Message string `json:"error"`
	Code    string `json:"code"`

	// Problems are what is wrong with a configuration, part by part.
	Problems []ConfigProblem `json:"problems,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Errorf returns an Error, on one line even if it wraps several errors.
func Errorf(code, format string, args ...any) error {
	return &Error{Code: code, Message: strings.ReplaceAll(fmt.Errorf(format, args...).Error(), "\n", "; ")}
}
