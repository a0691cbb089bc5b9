package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of the switch as a whole. They can be changed while it runs.
type Settings struct {
	Aging setting.OrNever `json:"aging,omitzero" arg:"TIME" default:"5m" help:"forget stations that are silent for this long; 0 for never"`

	STP         bool    `json:"stp,omitempty" help:"take part in a spanning tree (RSTP): ports to networks speak it, other ports are guarded against bridges"`
	STPPriority *uint16 `json:"stp_priority,omitempty" arg:"N" max:"61440" default:"32768" help:"bridge priority, in steps of 4096; the lowest becomes the root"`

	Snooping       bool         `json:"snooping,omitempty" help:"send multicast groups only to hosts that ask for them by IGMP or MLD"`
	Querier        bool         `json:"querier,omitempty" help:"with --snooping: query hosts for their groups if no router does"`
	QuerierAddress setting.Addr `json:"querier_address,omitzero" arg:"ADDRESS" default:"0.0.0.0, so that any router takes over" help:"with --querier: source address of IGMP queries, one that no station has; a router with a lower one takes over"`
	Unregistered   Unregistered `json:"unregistered,omitempty" arg:"WHERE" default:"flood" help:"with --snooping: where to send groups that nobody asked for: flood or routers"`

	GroupForward Mask             `json:"group_forward,omitempty" arg:"MASK" default:"0" help:"which of 01:80:c2:00:00:00 to 0f to forward: bit 14 is 0e, as in the kernel's group_fwd_mask"`
	HoldDown     setting.Duration `json:"hold_down,omitzero" arg:"TIME" default:"0s" help:"hold a station that flaps between ports at its home port for this long; 0 for not at all"`
	Recovery     setting.OrNever  `json:"recovery,omitzero" arg:"TIME" default:"5m" help:"recover error-disabled ports after this time; 0 for never"`
}

// Unregistered is where multicast groups without members go. Empty means flood.
type Unregistered string

// Values implements setting.Enum.
func (Unregistered) Values() []string { return []string{"flood", "routers"} }

// Mask is a 16-bit mask, which people write in hexadecimal.
type Mask uint16

// FlagText implements setting.FlagWriter.
func (Mask) FlagText(v any) string {
	if n, ok := v.(float64); ok {
		return fmt.Sprintf("%#04x", uint16(n))
	}
	return fmt.Sprint(v)
}

// Defaults of settings that are not set.
const (
	defaultAging       = fdb.DefaultAging
	defaultRecovery    = 300 * time.Second
	defaultSTPPriority = 32768
)

// pauseGroup is the bit of the address of 802.3 PAUSE frames, which are meant for one link
// and would stop others.
const pauseGroup = 1 << 1

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	switch a := s.QuerierAddress; {
	case s.Aging > 0 && (time.Duration(s.Aging) < time.Second || time.Duration(s.Aging) > fdb.MaxAging):
		return fmt.Errorf("an ageing time of %v is not possible; use 1s to %v, or 0 for never", time.Duration(s.Aging), fdb.MaxAging)
	case s.STPPriority != nil && *s.STPPriority%4096 != 0:
		return fmt.Errorf("a switch's priority is a multiple of 4096 up to 61440, not %d", *s.STPPriority)
	case s.STPPriority != nil && !s.STP:
		return errors.New("--stp-priority is for a spanning tree; give --stp as well")
	case !s.Snooping && (s.Querier || a.IsValid() || s.Unregistered != ""):
		return errors.New("--querier, --querier-address and --unregistered are for multicast snooping; give --snooping as well")
	case a.IsValid() && !a.Is4():
		return fmt.Errorf("%v is not an IPv4 address; write --querier-address as 192.0.2.1", a)
	case a.IsValid() && (a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.As4()[0] >= 240):
		return fmt.Errorf("queries cannot come from %v; use an address of this network that no station has", a)
	case a.IsValid() && !s.Querier:
		return errors.New("--querier-address is for a switch that asks; give --querier as well")
	case s.GroupForward&pauseGroup != 0:
		return errors.New("PAUSE frames (01:80:c2:00:00:01) are never forwarded; leave bit 1 out of --group-forward")
	}
	return nil
}

// AfterMerge implements setting.Merged: when a protocol is turned off, its settings are
// unset, too.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	was := former.(Settings)
	if was.STP && !s.STP && !given("stp_priority") {
		s.STPPriority = nil
	}
	if was.Snooping && !s.Snooping {
		if !given("querier") {
			s.Querier = false
		}
		if !given("unregistered") {
			s.Unregistered = ""
		}
	}
	if was.Querier && !s.Querier && !given("querier_address") {
		s.QuerierAddress = setting.Addr{}
	}
}

// switchSettings are all settings of the switch: the daemon's own and those of each feature,
// in the order of the program's list.
type switchSettings struct {
	Settings
	features []any
}

// noSettings returns the settings of a switch with none set.
func noSettings(features []feature.Feature) switchSettings {
	var s switchSettings
	for _, f := range features {
		s.features = append(s.features, f.Switch)
	}
	return s
}

// SettingFields returns the settings of a switch with these features.
func SettingFields(features []feature.Feature) []setting.Field {
	all := setting.Fields(Settings{})
	for _, f := range features {
		if f.Switch != nil {
			all = append(all, setting.Fields(f.Switch)...)
		}
	}
	return all
}

// patch returns the settings that are set.
func (s switchSettings) patch() setting.Patch {
	all := setting.PatchOf(s.Settings)
	for _, f := range s.features {
		all.Add(setting.PatchOf(f))
	}
	return all
}

// SettingsError is an error in the settings given to Run, or in their combination with those
// in the state.
type SettingsError struct{ error }

func (e SettingsError) Unwrap() error { return e.error }

// merge returns the settings with a patch applied, and checks them.
func (s switchSettings) merge(p setting.Patch) (switchSettings, error) {
	rest := setting.Patch{}
	rest.Add(p)
	merged, err := setting.Merge(s.Settings, rest)
	if err != nil {
		return s, SettingsError{err}
	}
	to := switchSettings{Settings: merged.(Settings)}
	for _, f := range s.features {
		if f != nil {
			if f, err = setting.Merge(f, rest); err != nil {
				return s, SettingsError{err}
			}
		}
		to.features = append(to.features, f)
	}
	for _, key := range rest.Keys() {
		return s, SettingsError{fmt.Errorf("the switch has no setting %q; `vswitch set --help` lists those it has", key)}
	}
	if err := to.Check(); err != nil {
		return s, SettingsError{err}
	}
	return to, nil
}

// tree, groups and the rest convert the settings to the form that parts of the daemon use.
func (s Settings) tree() *STP {
	if !s.STP {
		return nil
	}
	priority := uint16(defaultSTPPriority)
	if s.STPPriority != nil {
		priority = *s.STPPriority
	}
	return &STP{Priority: priority}
}

func (s Settings) groups() *Snooping {
	if !s.Snooping {
		return nil
	}
	return &Snooping{Querier: s.Querier, Address: s.QuerierAddress.Addr, RoutersOnly: s.Unregistered == "routers"}
}

func orNever(d setting.OrNever, otherwise time.Duration) time.Duration {
	if d == setting.Never {
		return 0
	}
	return cmp.Or(time.Duration(d), otherwise)
}

// into copies the settings into the options of a starting daemon.
func (s Settings) into(o *Options) {
	o.Aging, o.Recovery = orNever(s.Aging, defaultAging), orNever(s.Recovery, defaultRecovery)
	o.STP, o.Snooping = s.tree(), s.groups()
	o.GroupForward, o.HoldDown = uint16(s.GroupForward), time.Duration(s.HoldDown)
}

// set changes settings of the switch and keeps them. For this run, overrides from the command
// line always win; where they are silent, the kept settings apply.
func (m *manager) set(p setting.Patch) (api.Switch, error) {
	if len(p) == 0 {
		return api.Switch{}, fail(api.CodeInvalid, "nothing to change; give at least one flag, see `vswitch set --help`")
	}
	kept, err := m.kept.merge(p)
	if err != nil {
		return api.Switch{}, fail(api.CodeInvalid, "%w", err)
	}
	inForce, err := m.settings.merge(p)
	if err != nil {
		return api.Switch{}, fail(api.CodeInvalid, "%w; `vswitch run` was given flags that contradict it", err)
	}
	was := m.kept
	m.kept = kept
	if err := m.save(); err != nil {
		m.kept = was
		return api.Switch{}, fail(api.CodeFailed, "%w", err)
	}
	if err := m.apply(inForce); err != nil {
		return api.Switch{}, fail(api.CodeFailed, "%w", err)
	}
	m.log.Info("switch changed", "settings", p.Keys())
	return m.describeSwitch(), nil
}

// apply changes the parts of the daemon from the settings in force to new ones.
func (m *manager) apply(to switchSettings) error {
	from := m.settings
	m.settings = to
	m.aging = orNever(to.Aging, defaultAging)
	m.sw.Refresh() // what the kernel heard lately is not older than a shorter ageing time
	m.sw.FDB().SetAging(tableAging(m.aging))
	m.recovery = orNever(to.Recovery, defaultRecovery)
	m.moves.holdDown.Store(int64(to.HoldDown))
	if m.groupForward != uint16(to.GroupForward) {
		m.groupForward = uint16(to.GroupForward)
		m.sw.SetGroupForward(m.groupForward)
	}
	if err := m.setFeatures(from.features, to.features); err != nil {
		return err
	}
	if !equal(from.tree(), to.tree()) {
		if err := m.setTree(to.tree()); err != nil {
			return err
		}
	}
	if !equal(from.groups(), to.groups()) {
		m.setSnooping(to.groups())
	}
	return nil
}

// equal reports whether both pointers are nil or point to equal values.
func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// ownStation enters the switch's own address into the FDB, behind no port: frames that the
// switch sends may come back.
func (m *manager) ownStation() {
	_ = m.sw.FDB().Add(fdb.MakeKey(defaultVLAN, uint64(m.mac)), fdb.NoPort, fdb.Local) // exists already, or has room
}

// setTree starts, ends or replaces the spanning tree. Once it starts, ports forward nothing
// until it allows them to.
func (m *manager) setTree(o *STP) error {
	if m.tree != nil {
		m.tree.stop()
		for _, p := range m.ports {
			p.sw.SetTraps(nil)
			if o == nil {
				p.sw.SetTree(vswitch.TreeForwarding, false)
			}
		}
	}
	m.tree = nil
	tree, err := newSpanningTree(m, o)
	if err != nil || o == nil {
		return err
	}
	m.tree = tree
	m.ownStation()
	for _, p := range m.sorted() {
		m.tree.configure(p)
	}
	m.upPorts(func(p *managed) { m.tree.link(p, true) })
	return nil
}

func (m *manager) setSnooping(o *Snooping) {
	m.snoop.stop()
	m.snoop = newSnooping(m, o)
	if o == nil {
		m.sw.SetGroups(nil)
		return
	}
	m.ownStation()
	for _, p := range m.sorted() {
		m.snoop.configure(p)
	}
	m.upPorts(func(p *managed) { m.snoop.link(p, true) })
}

// upPorts calls f for each port that passes frames.
func (m *manager) upPorts(f func(*managed)) {
	for _, p := range m.sorted() {
		if p.state == api.StateUp {
			f(p)
		}
	}
}
