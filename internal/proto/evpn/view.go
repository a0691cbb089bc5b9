package evpn

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/vswitch/vswitch/port"
)

// Station is a station as a Table knows it.
type Station struct {
	VNI    VNI
	MAC    port.MAC
	VTEP   netip.Addr // this host's own: it is here
	Port   uint16     // if it is here
	Seq    uint32
	Sticky bool
	Held   bool         // as a duplicate
	IPs    []netip.Addr // as the host says where it is, and others whose claims are as good
}

// Stats returns counts.
func (t *Table) Stats() Stats {
	s := t.stats
	for _, p := range t.ports {
		s.Pending += len(p.pending)
	}
	return s
}

// Stations yields all stations, in no order.
func (t *Table) Stations() iter.Seq[Station] {
	return func(yield func(Station) bool) {
		for _, d := range t.domains {
			for mac, s := range d.stations {
				v := Station{VNI: d.vni, MAC: mac, Held: s.isHeld()}
				switch l := s.local; {
				case l != nil:
					v.VTEP, v.Port, v.Seq, v.Sticky = t.cfg.VTEP, l.port, l.seq, l.sticky
					for _, ip := range l.ips {
						v.IPs = append(v.IPs, ip.addr)
					}
				default:
					best := s.best()
					v.VTEP, v.Seq, v.Sticky = best.VTEP, best.Seq, best.Sticky
					for _, r := range s.paths {
						if isHost(r.IP) && (r.VTEP == best.VTEP || r.Seq == best.Seq && r.Sticky == best.Sticky) {
							v.IPs = append(v.IPs, r.IP)
						}
					}
				}
				slices.SortFunc(v.IPs, netip.Addr.Compare)
				v.IPs = slices.Compact(v.IPs)
				if !yield(v) {
					return
				}
			}
		}
	}
}

// Path is a route of a peer.
type Path struct {
	Route
	Peer  Peer
	Stale bool // from before its session was lost
	Used  bool // a VNI of this host imports it
}

// Paths yields the routes of all peers, in no order.
func (t *Table) Paths() iter.Seq[Path] {
	return func(yield func(Path) bool) {
		for number, p := range t.peers {
			for _, r := range p.routes {
				if !yield(Path{r.Route, number, r.gen != p.gen, r.domain != nil}) {
					return
				}
			}
		}
	}
}

// Count returns the number of a peer's routes.
func (t *Table) Count(from Peer) int {
	if p := t.peers[from]; p != nil {
		return len(p.routes)
	}
	return 0
}

// LeftOut returns how many routes of a peer are left out, because there are more than Limits permit, since its session
// began or it was asked for all of them again.
func (t *Table) LeftOut(from Peer) int {
	if p := t.peers[from]; p != nil {
		return p.left
	}
	return 0
}

// Compare orders stations by VNI and address.
func (s Station) Compare(o Station) int {
	return cmp.Or(cmp.Compare(s.VNI, o.VNI), cmp.Compare(s.MAC, o.MAC))
}

// Repeat puts out all stations and flood lists again, for a tunnel that knows nothing.
func (t *Table) Repeat() {
	for _, d := range t.domains {
		for mac, s := range d.stations {
			if s.at != (At{}) {
				t.out.Station(d.vni, mac, s.at)
			}
		}
		if len(d.list) > 0 {
			t.out.Flood(d.vni, slices.Clone(d.list))
		}
	}
}

// Places yields where all stations are, in no order: an At without a VTEP is here.
func (t *Table) Places() iter.Seq[Place] {
	return func(yield func(Place) bool) {
		for _, d := range t.domains {
			for mac, s := range d.stations {
				if !yield(Place{d.vni, mac, s.at}) {
					return
				}
			}
		}
	}
}

// Place is where a station is.
type Place struct {
	VNI VNI
	MAC port.MAC
	At  At
}
