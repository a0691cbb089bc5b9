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
)

// Settings are the settings of the switch as a whole. They can be changed while it runs.
type Settings struct {
	Aging setting.OrNever `json:"aging,omitzero" arg:"TIME" default:"5m" help:"forget stations that are silent for this long; 0 for never"`

	GroupForward Mask            `json:"group_forward,omitempty" arg:"MASK" default:"0" help:"which of 01:80:c2:00:00:00 to 0f to forward: bit 14 is 0e, as in the kernel's group_fwd_mask"`
	Recovery     setting.OrNever `json:"recovery,omitzero" arg:"TIME" default:"5m" help:"recover error-disabled ports after this time; 0 for never"`
}

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
	defaultAging    = fdb.DefaultAging
	defaultRecovery = 300 * time.Second
)

// minRecovery is the shortest recovery time: a port that is disabled for less is not.
const minRecovery = time.Second

// pauseGroup is the bit of the address of 802.3 PAUSE frames, which are meant for one link
// and would stop others.
const pauseGroup = 1 << 1

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	switch {
	case s.Aging > 0 && (time.Duration(s.Aging) < time.Second || time.Duration(s.Aging) > fdb.MaxAging):
		return fmt.Errorf("an ageing time of %v is not possible; use 1s to %v, or 0 for never", time.Duration(s.Aging), fdb.MaxAging)
	case s.Recovery > 0 && time.Duration(s.Recovery) < minRecovery:
		return fmt.Errorf("a recovery time of %v is not possible; use %v or more, or 0 for never", time.Duration(s.Recovery), minRecovery)
	case s.GroupForward&pauseGroup != 0:
		return errors.New("PAUSE frames (01:80:c2:00:00:01) are never forwarded; leave bit 1 out of --group-forward")
	}
	return nil
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

// CheckSettings returns an error if a switch with these features cannot have these settings.
func CheckSettings(features []feature.Feature, p setting.Patch) error {
	_, err := noSettings(features).merge(p)
	return err
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
	if err := to.check(); err != nil {
		return s, SettingsError{err}
	}
	return to, nil
}

// check returns what is wrong with the settings, also those of features, and how to fix it.
func (s switchSettings) check() error {
	err := s.Settings.Check()
	for _, f := range s.features {
		if c, ok := f.(interface{ Check() error }); ok {
			err = cmp.Or(err, c.Check())
		}
	}
	return err
}

// orNever returns a time; 0 stands for never.
func orNever(d setting.OrNever, otherwise time.Duration) time.Duration {
	if d == setting.Never {
		return 0
	}
	return cmp.Or(time.Duration(d), otherwise)
}

// into copies the settings into the options of a starting daemon.
func (s Settings) into(o *Options) {
	o.Aging, o.Recovery = orNever(s.Aging, defaultAging), orNever(s.Recovery, defaultRecovery)
	o.GroupForward = uint16(s.GroupForward)
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
	wasKept, wasInForce := m.kept, m.settings
	m.kept = kept
	if err := m.save(); err != nil {
		m.kept = wasKept
		return api.Switch{}, fail(api.CodeFailed, "%w", err)
	}
	if err := m.apply(inForce); err != nil {
		m.kept = wasKept
		return api.Switch{}, fail(api.CodeFailed, "%w", errors.Join(err, m.apply(wasInForce), m.save()))
	}
	m.log.Info("switch changed", "settings", p.Keys())
	m.emit(api.Event{Type: api.EventSwitchChanged, Keys: p.Keys()})
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
	if m.groupForward != uint16(to.GroupForward) {
		m.groupForward = uint16(to.GroupForward)
		m.sw.SetGroupForward(m.groupForward)
	}
	return m.setFeatures(from.features, to.features)
}

// ownStation enters the switch's own address into the FDB, behind no port: frames that the
// switch sends may come back, and are answered.
func (m *manager) ownStation(vlan uint16) {
	k := fdb.MakeKey(vlan, uint64(m.mac))
	if e, ok := m.sw.FDB().Get(k); !ok || e.Kind != fdb.Local {
		_ = m.sw.FDB().Add(k, fdb.NoPort, fdb.Local) // has room, or is entered with the next frame
	}
}

// upPorts calls f for each port that passes frames.
func (m *manager) upPorts(f func(*managed)) {
	for _, p := range m.sorted() {
		if p.state == api.StateUp {
			f(p)
		}
	}
}
