package daemon

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// known returns an error if a state has a setting or a feature that this program lacks, or more
// ports than a switch can have: a newer program or a user wrote it, and the switch would not be as
// requested without them.
func known(st store.State, kinds port.Catalog, features []feature.Feature, program string) error {
	if n := len(st.Ports); n > vswitch.MaxPorts {
		return fmt.Errorf("state.json has %d ports, and a switch has at most %d; remove some there", n, vswitch.MaxPorts)
	}
	for key := range st.Sections {
		if !slices.ContainsFunc(features, func(f feature.Feature) bool { return keyOf(&f) == key }) {
			return fmt.Errorf("state.json %w; %s", store.UnknownKey(strconv.Quote(key), st.WrittenBy), store.RunTheOther(program))
		}
	}
	keys := make(map[string]bool)
	for _, s := range kinds.Settings() {
		keys[s.Key] = true
	}
	for _, p := range st.Ports {
		if kinds.Find(p.Spec.Kind) == nil {
			continue // the port waits for a program that has its kind
		}
		for _, key := range p.Spec.Settings.Keys() {
			if !keys[key] {
				return fmt.Errorf("state.json %w; %s", store.UnknownKey(strconv.Quote(key), st.WrittenBy), store.RunTheOther(program))
			}
		}
	}
	if _, err := pendingFrom(st.Pending); err != nil {
		return fmt.Errorf("state.json: %w; %s", err, store.RunTheOther(program))
	}
	return nil
}
