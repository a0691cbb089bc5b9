package lldp

import (
	"fmt"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/lldp"
	vswitch "github.com/vswitch/vswitch/switch"
)

// parcelFormat is the format of what LLDP gives to the next process: by port and member, what an
// agent knows.
const parcelFormat = 1

type given map[string]map[string]*lldp.Saved

var _ feature.Heir = (*speaker)(nil)

// Give implements feature.Heir. Neighbours do not hear of the end.
func (s *speaker) Give() (*feature.Parcel, error) {
	now, g := time.Now(), make(given)
	for p, agents := range s.agents {
		g[p.Name()] = make(map[string]*lldp.Saved)
		for _, a := range agents {
			g[p.Name()][a.member] = a.Save(now)
		}
		p.Core().SetTraps(vswitch.QueueLink, nil)
	}
	s.agents = make(map[feature.Port][]*agent)
	return feature.Pack(parcelFormat, g)
}

// Take implements feature.Heir.
func (s *speaker) Take(from *feature.Parcel) error {
	var g given
	if err := from.Unpack(parcelFormat, &g); err != nil {
		return err
	}
	now := time.Now()
	for p := range s.host.Ports() {
		s.Configured(p)
		for _, a := range s.agents[p] {
			if saved := g[p.Name()][a.member]; saved != nil && a.up {
				if err := a.Restore(now, saved); err != nil {
					return fmt.Errorf("port %s: %w", p.Name(), err)
				}
			}
		}
	}
	return nil
}
