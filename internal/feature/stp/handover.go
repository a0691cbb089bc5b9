package stp

import (
	"errors"
	"fmt"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/stp"
)

// parcelFormat is the format of what a tree gives to the next process.
const parcelFormat = 1

// given is what a tree gives: the bridge, and the names of its ports, since a number may be
// another port's in the next process.
type given struct {
	Bridge *stp.Saved
	Ports  map[string]uint16
}

// Give implements feature.Heir.
func (t *tree) Give() (*feature.Parcel, error) {
	g := given{t.bridge.Save(), make(map[string]uint16)}
	for n, p := range t.members {
		g.Ports[p.Name()] = n
	}
	return feature.Pack(parcelFormat, g)
}

// Take implements feature.Heir. If all ports are as they were, each keeps its role and its state,
// and neighbours hear nothing; otherwise the tree starts anew, and ports wait for it.
func (t *tree) Take(from *feature.Parcel) error {
	var g given
	if err := from.Unpack(parcelFormat, &g); err != nil {
		return err
	}
	if g.Bridge == nil {
		return errors.New("it has no bridge")
	}
	configs, members := make(map[uint16]stp.PortConfig), make(map[uint16]feature.Port)
	for p := range t.host.Ports() {
		n := number(p)
		if g.Ports[p.Name()] != n {
			return fmt.Errorf("port %s had another number", p.Name())
		}
		configs[n], members[n] = portConfig(p), p
	}
	fresh := t.members
	t.members = members // for SetState
	b, err := stp.Restore(t.config, configs, g.Bridge, t)
	if err != nil {
		t.members = fresh
		return err
	}
	t.bridge = b
	for n, p := range members {
		t.taken[n] = struct{}{}
		if !p.Up() {
			t.do(func() { b.SetLink(n, false) })
		}
	}
	return nil
}

var _ feature.Heir = (*tree)(nil)
