package snoop

import (
	"errors"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/mcast"
)

// parcelFormat is the format of what snooping gives to the next process.
const parcelFormat = 1

// given is what snooping gives: what was learned, and the numbers of the ports in it.
type given struct {
	Snooper *mcast.Saved
	Ports   map[string]uint16 // by name
}

var _ feature.Heir = (*snooping)(nil)

// Give implements feature.Heir.
func (sn *snooping) Give() (*feature.Parcel, error) {
	if sn.core == nil {
		return nil, nil
	}
	g := given{Ports: make(map[string]uint16)}
	sn.do(func() { g.Snooper = sn.core.Save() })
	for p := range sn.rules {
		g.Ports[p.Name()] = p.Number()
	}
	return feature.Pack(parcelFormat, g)
}

// Take implements feature.Heir. What was learned of ports that are there counts on, so groups go to
// their members from the first frame on, and nobody is queried before its time.
func (sn *snooping) Take(from *feature.Parcel) error {
	if sn.core == nil {
		return nil
	}
	var g given
	if err := from.Unpack(parcelFormat, &g); err != nil {
		return err
	}
	if g.Snooper == nil {
		return errors.New("it has no snooper")
	}
	numbers := make(map[uint16]uint16)
	for p := range sn.host.Ports() {
		if n, ok := g.Ports[p.Name()]; ok {
			numbers[n] = p.Number()
		}
	}
	rename := func(n uint16) (uint16, bool) { is, ok := numbers[n]; return is, ok }
	config := func(uint16) mcast.VLANConfig { return sn.set.config() }
	if err := sn.core.Restore(g.Snooper, config, rename); err != nil {
		return err
	}
	for _, v := range g.Snooper.VLANs {
		sn.vlans.Add(v.ID)
	}
	for p := range sn.host.Ports() {
		sn.enrol(p)
	}
	sn.do(func() {
		for p := range sn.host.Ports() {
			if p.Up() {
				_, sn.taken[p] = g.Ports[p.Name()]
			} else {
				sn.core.PortDown(p.Number())
			}
		}
	})
	sn.publish()
	return nil
}
