package port

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/setting"
)

// Policy says what the switch does with a port's frames, whatever the port's kind. The
// zero Policy is that of a port without settings.
type Policy struct {
	VLAN

	Isolated   bool        `json:"isolated,omitempty" help:"exchange no frame with other isolated ports"`
	Locked     bool        `json:"locked,omitempty" help:"take frames only from stations with an FDB entry at the port"`
	NoLearning setting.Not `json:"no_learning,omitempty" flag:"learning" arg:"on|off" default:"on" help:"learn stations" schema:"do not learn stations"`
	NoFlood    NoFlood     `json:"no_flood,omitempty" flag:"flood" arg:"LIST" default:"all" help:"flood broadcast,multicast,unknown (unicast) to the port, or all, none" schema:"classes that are not flooded to the port; unicast is to unknown stations. none, alone: all are, also to a guarded port"`

	LearnLimit  int         `json:"learn_limit,omitempty" arg:"N" min:"0" default:"0" help:"maximum number of stations to learn; 0 for any number"`
	LearnAction LearnAction `json:"learn_action,omitempty" arg:"WHAT" default:"forward" help:"frames from stations over the limit: forward, protect (drop them) or shutdown (error-disable the port)"`

	StormBroadcast Rate             `json:"storm_broadcast,omitzero" arg:"RATE" default:"off" help:"broadcast frames accepted per second, such as 100pps or 10mbit"`
	StormMulticast Rate             `json:"storm_multicast,omitzero" arg:"RATE" default:"off" help:"multicast frames accepted per second"`
	StormUnicast   Rate             `json:"storm_unicast,omitzero" arg:"RATE" default:"off" help:"frames to unknown stations accepted per second"`
	StormAction    StormAction      `json:"storm_action,omitempty" arg:"WHAT" default:"drop" help:"on a storm: drop the excess, or shutdown (error-disable) the port"`
	RateIn         Rate             `json:"rate_in,omitzero" arg:"RATE" default:"off" help:"drop received frames beyond this rate (policing)"`
	Burst          setting.Duration `json:"burst,omitzero" arg:"TIME" default:"400ms, and the time of a super-frame at least" help:"with --rate-in: how long the port may send at any speed after silence, such as 50ms"`
	RateOut        Rate             `json:"rate_out,omitzero" arg:"RATE" default:"off" help:"delay sent frames to this rate (shaping)"`

	Edge AutoOnOff `json:"stp_edge,omitempty" arg:"auto|on|off" default:"auto where a network is behind the port, else on" help:"spanning tree: no bridge is behind the port"`

	Notes
}

// MinBurst and MaxBurst bound Policy.Burst.
const (
	MinBurst = time.Millisecond
	MaxBurst = 10 * time.Second
)

// AfterMerge implements setting.Merged.
func (p *Policy) AfterMerge(former any, given func(string) bool) {
	p.VLAN.afterMerge(former.(Policy).VLAN, given)
}

// Check returns an error if settings in p contradict each other; it says how to fix them.
func (p *Policy) Check() error {
	if err := cmp.Or(p.Notes.Check(), p.VLAN.Check()); err != nil {
		return err
	}
	if slices.Contains(p.NoFlood, withholdNone) && len(p.NoFlood) > 1 {
		return errors.New("no_flood: none stands alone")
	}
	if b := time.Duration(p.Burst); b != 0 && (b < MinBurst || b > MaxBurst) {
		return fmt.Errorf("a burst of %v is not possible; use %v to %v", b, MinBurst, MaxBurst)
	}
	return nil
}

// DefaultVLAN is the VLAN of a port without a configured one (802.1Q-2018 table 9-2: the
// default PVID).
const DefaultVLAN = 1

// VLAN says how a port takes part in VLANs. At most one of Access, Trunk and QinQ is set. With
// none, or with QinQ, the port is transparent: every frame belongs to one VLAN whatever its
// tag, and leaves with the tag it came with. Such a port acts as on a bridge without VLANs, or,
// with QinQ, as the customer edge of 802.1ad (clause 15.3).
type VLAN struct {
	Access    uint16  `json:"access,omitempty" arg:"VID" max:"4094" min:"1" default:"none" help:"VLAN: carry untagged frames of this VLAN"`
	Trunk     VLANSet `json:"trunk,omitzero" arg:"LIST" help:"VLAN: carry tagged frames of these VLANs, such as 10,20-29, or all"`
	QinQ      uint16  `json:"qinq,omitempty" arg:"SVID" max:"4094" min:"1" default:"none" help:"VLAN: carry all frames, whatever their tag, under this service VLAN"`
	Native    uint16  `json:"native,omitempty" arg:"VID" max:"4094" min:"1" default:"untagged frames are refused" help:"VLAN: the VLAN of a trunk's untagged frames"`
	TrunkTPID TPID    `json:"trunk_tpid,omitzero" arg:"TPID" default:"0x8100" help:"VLAN: tag protocol of a trunk's tags, 0x8100 or 0x88a8"`
	Accept    Accept  `json:"accept,omitempty" arg:"WHICH" default:"access: untagged, others: all" help:"VLAN: accept all, tagged or untagged frames"`
}

// afterMerge clears a mode that another replaces, and the settings that belong to it.
func (v *VLAN) afterMerge(former VLAN, given func(string) bool) {
	switch {
	case given("access") && v.Access != 0:
		v.keep(given, &v.Access)
	case given("trunk") && v.Trunk.Len() > 0:
		v.keep(given, &v.Trunk)
	case given("qinq") && v.QinQ != 0:
		v.keep(given, &v.QinQ)
	}
	if v.mode() == former.mode() {
		return
	}
	if !given("native") {
		v.Native = 0
	}
	if !given("trunk_tpid") {
		v.TrunkTPID = 0
	}
	if !given("accept") {
		v.Accept = ""
	}
}

// keep clears the other modes, except one that was given as well, which Check refuses.
func (v *VLAN) keep(given func(string) bool, mode any) {
	if mode != any(&v.Access) && !given("access") {
		v.Access = 0
	}
	if mode != any(&v.Trunk) && !given("trunk") {
		v.Trunk = VLANSet{}
	}
	if mode != any(&v.QinQ) && !given("qinq") {
		v.QinQ = 0
	}
}

// Transparent reports whether every frame belongs to one VLAN, whatever its tag.
func (v *VLAN) Transparent() bool { return v.Access == 0 && v.Trunk.Len() == 0 }

// Untagged returns the VLAN whose frames leave without a tag; 0: none does.
func (v *VLAN) Untagged() uint16 {
	if v.Trunk.Len() > 0 {
		return v.Native
	}
	return cmp.Or(v.Access, v.QinQ, DefaultVLAN)
}

// Carried returns the VLANs that the port carries.
func (v *VLAN) Carried() VLANSet {
	carried := v.Trunk
	if u := v.Untagged(); u != 0 {
		carried.Add(u)
	}
	return carried
}

func (v *VLAN) mode() [3]bool { return [3]bool{v.Access != 0, v.Trunk.Len() > 0, v.QinQ != 0} }

// Check returns an error if settings in v contradict each other.
func (v *VLAN) Check() error {
	modes := 0
	for _, set := range v.mode() {
		if set {
			modes++
		}
	}
	trunk := v.Trunk.Len() > 0
	switch {
	case modes > 1:
		return errors.New("a port is one of access, trunk and qinq; give one of them")
	case !trunk && (v.Native != 0 || v.TrunkTPID != 0):
		return errors.New("a native VLAN and a TPID belong to a trunk; name the VLANs it carries, such as 10,20-29")
	case v.Accept == AcceptUntagged && trunk && v.Native == 0:
		return errors.New("a trunk that accepts only untagged frames needs a native VLAN for them")
	case v.Accept == AcceptTagged && !trunk:
		return errors.New("only a trunk can accept tagged frames alone; name the VLANs it carries")
	}
	return nil
}

// Accept says which frames a port accepts, by their tag (802.1Q-2018 clause 6.9). A
// priority-tagged frame counts as untagged. Empty: an access port accepts untagged frames,
// others all.
type Accept string

const (
	AcceptAll      Accept = "all"      // an access port also accepts frames tagged with its VLAN
	AcceptTagged   Accept = "tagged"   // a native VLAN is then untagged only on egress
	AcceptUntagged Accept = "untagged" // also on a trunk
)

// Values implements setting.Enum.
func (Accept) Values() []string { return []string{"all", "tagged", "untagged"} }

// TPID is the tag protocol identifier of a trunk's tags, 0x8100 or 0x88a8. The zero TPID
// is an absent setting and means 0x8100.
type TPID uint16

// Values implements setting.Enum.
func (TPID) Values() []string { return []string{"0x8100", "0x88a8"} }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *TPID) UnmarshalText(b []byte) error {
	switch string(b) {
	case "":
		*t = 0
	case "0x8100":
		*t = TPID(TPIDCustomer)
	case "0x88a8":
		*t = TPID(TPIDService)
	default:
		return fmt.Errorf("there is no TPID %q; use 0x8100 or 0x88a8", b)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (t TPID) MarshalText() ([]byte, error) {
	if t == 0 {
		return nil, nil
	}
	return fmt.Appendf(nil, "%#04x", uint16(t)), nil
}

// LearnAction says what happens to frames from a new station when a port is at its learn
// limit. Empty is LearnForward.
type LearnAction string

const (
	LearnForward  LearnAction = "forward"  // forward them, do not learn the station
	LearnProtect  LearnAction = "protect"  // drop them
	LearnShutdown LearnAction = "shutdown" // drop them and shut down the port
)

// Values implements setting.Enum.
func (LearnAction) Values() []string { return []string{"forward", "protect", "shutdown"} }

// StormAction says what happens to a port that exceeds its storm rate. Empty is StormDrop.
type StormAction string

const (
	StormDrop     StormAction = "drop"
	StormShutdown StormAction = "shutdown"
)

// Values implements setting.Enum.
func (StormAction) Values() []string { return []string{"drop", "shutdown"} }

// OnOff is a switch with a third position: empty, for which the kind decides.
type OnOff string

const (
	On  OnOff = "on"
	Off OnOff = "off"
)

// Values implements setting.Enum.
func (OnOff) Values() []string { return []string{"on", "off"} }

// AutoOnOff is an OnOff whose third position has a name. Each setting defines its meaning.
type AutoOnOff string

const (
	AutoOn    AutoOnOff = "on"
	AutoOff   AutoOnOff = "off"
	Automatic AutoOnOff = "auto"
)

// Values implements setting.Enum.
func (AutoOnOff) Values() []string { return []string{"auto", "on", "off"} }

// FloodClasses are the classes of frames that are flooded.
var FloodClasses = []string{"broadcast", "multicast", "unicast"}

// NoFlood lists the classes not flooded to a port. Its flag lists those that are. Empty, the
// port's other settings may withhold unicast to unknown stations; to ask for all classes
// whatever these say is to withhold none.
type NoFlood []string

// floodUnknown is what the flag calls unicast, which is flooded to unknown stations alone, and
// withholdNone the only element of a NoFlood that asks for all classes.
const (
	floodUnicast = "unicast"
	floodUnknown = "unknown"
	withholdNone = "none"
)

// Values implements setting.Enum.
func (NoFlood) Values() []string { return append(slices.Clone(FloodClasses), withholdNone) }

// AsksUnknown reports whether a user asked for frames to unknown stations.
func (n NoFlood) AsksUnknown() bool { return len(n) > 0 && !slices.Contains(n, floodUnicast) }

// ReadFlag implements setting.FlagReader.
func (n *NoFlood) ReadFlag(text string) error {
	var flood []string
	asked := false
	switch text {
	case "", "all":
		*n = NoFlood{}
		return nil
	case "none":
	default:
		flood = strings.Split(text, ",")
	}
	for i, class := range flood {
		if class == floodUnknown {
			flood[i], asked = floodUnicast, true
		} else if !slices.Contains(FloodClasses, class) {
			return fmt.Errorf("%q is no flood class; use some of broadcast,multicast,unknown, or all, none", class)
		}
	}
	*n = slices.DeleteFunc(slices.Clone(FloodClasses), func(class string) bool { return slices.Contains(flood, class) })
	if asked && len(*n) == 0 {
		*n = NoFlood{withholdNone}
	}
	return nil
}

// FlagText implements setting.FlagWriter.
func (NoFlood) FlagText(v any) string {
	var flood []string
	off, _ := v.([]any)
	for _, class := range FloodClasses {
		if !slices.Contains(off, any(class)) {
			flood = append(flood, class)
		}
	}
	if flood == nil {
		return "none"
	}
	if slices.Contains(off, any(withholdNone)) {
		flood[len(flood)-1] = floodUnknown
	}
	return strings.Join(flood, ",")
}

// FlagValues implements setting.FlagEnum.
func (NoFlood) FlagValues() []string {
	return append([]string{"all", "none", floodUnknown}, FloodClasses...)
}
