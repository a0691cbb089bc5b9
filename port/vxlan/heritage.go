package vxlan

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// heritage is what a directory knows beside its settings, for the next process. A VTEP of Networks
// is a place in Hosts.
type heritage struct {
	Hosts    []netip.Addr
	Networks []heirNetwork
}

type heirNetwork struct {
	VNI      uint32
	Members  []int         `json:",omitempty"`
	Flood    []int         `json:",omitempty"` // beside peers
	Stations []heirStation `json:",omitempty"`
}

type heirStation struct {
	MAC  port.MAC
	Host int
	Age  int `json:",omitempty"` // seconds
}

// legacy is what came from an earlier process, or from a control plane that has ended: it stays for grace, until it is learned anew, or a
// control plane says it again. The directory's mutex guards it.
type legacy struct {
	members []member           // joined for it
	floods  map[uint32][]*vtep // by VNI: those to flood to that no control plane has named yet
	left    int                // seconds
}

// give returns the directory's heritage, as a Parcel has it.
func (d *directory) give() ([]byte, error) {
	d.lock()
	defer d.unlock()
	var h heritage
	places, nets := make(map[*vtep]int), make(map[*network]*heirNetwork)
	place := func(v *vtep) int {
		i, ok := places[v]
		if !ok {
			i = len(h.Hosts)
			places[v], h.Hosts = i, append(h.Hosts, v.addr)
		}
		return i
	}
	for vni, n := range d.networks.Load().byVNI {
		hn := &heirNetwork{VNI: vni}
		for _, v := range slices.Concat(d.flooded[vni], d.legacy.floods[vni]) {
			hn.Flood = append(hn.Flood, place(v))
		}
		nets[n] = hn
	}
	for u := range d.uses {
		if n := d.networks.Load().byVNI[u.vni]; n != nil {
			nets[n].Members = append(nets[n].Members, place(d.byNumber[u.number].Load()))
		}
	}
	for e := range d.stations.All() {
		if n, v := d.networkOf(e.Key), d.byNumber[e.Port].Load(); n != nil && v != nil {
			nets[n].Stations = append(nets[n].Stations, heirStation{port.MAC(e.Key.MAC()), place(v), int(e.Age / time.Second)})
		}
	}
	for _, hn := range nets {
		h.Networks = append(h.Networks, *hn)
	}
	return json.Marshal(h)
}

// inherit takes what give returned in another process, as far as it fits. What is none changes
// nothing.
func (d *directory) inherit(data []byte) {
	var h heritage
	if json.Unmarshal(data, &h) != nil {
		return
	}
	d.lock()
	defer d.unlock()
	for _, hn := range h.Networks {
		n, err := d.network(hn.VNI)
		if err != nil {
			continue // it is carried no more
		}
		host := func(i int) *vtep {
			if i < 0 || i >= len(h.Hosts) {
				return nil
			}
			v, err := d.vtep(h.Hosts[i])
			if err != nil {
				return nil
			}
			return v
		}
		for _, i := range hn.Members {
			if v := host(i); v != nil {
				d.join(n, v)
				d.legacy.members = append(d.legacy.members, member{n, v})
			}
		}
		for _, i := range hn.Flood {
			v := host(i)
			if v == nil || !n.has(v) || slices.Contains(d.flooded[hn.VNI], v) || slices.Contains(d.legacy.floods[hn.VNI], v) {
				continue
			}
			if d.legacy.floods == nil {
				d.legacy.floods = make(map[uint32][]*vtep)
			}
			d.join(n, v)
			d.legacy.floods[hn.VNI] = append(d.legacy.floods[hn.VNI], v)
		}
		d.reflood(n)
		for _, s := range hn.Stations {
			if s.MAC == 0 || s.MAC.IsGroup() || uint64(s.MAC)>>48 != 0 || s.Age < 0 || s.Age > 1<<20 {
				continue
			}
			if v := host(s.Host); v != nil && n.has(v) {
				d.stations.Restore(n.key(s.MAC), v.number, time.Duration(s.Age)*time.Second)
			}
		}
		d.legacy.left = grace
	}
	for _, a := range h.Hosts { // those that nothing needs
		if v := d.find(a); v != nil {
			d.release(v)
		}
	}
}

// abandon makes what a control plane has told a legacy. Frames may tell otherwise from now on, and another control plane
// may say it again.
func (d *directory) abandon() {
	for vni, list := range d.flooded {
		for _, v := range list {
			if slices.Contains(d.legacy.floods[vni], v) {
				d.leave(d.networks.Load().byVNI[vni], v)
				continue
			}
			if d.legacy.floods == nil {
				d.legacy.floods = make(map[uint32][]*vtep)
			}
			d.legacy.floods[vni] = append(d.legacy.floods[vni], v)
			d.legacy.left = grace
		}
		delete(d.flooded, vni)
	}
	kept := make(map[member]bool) // by the use of a station
	for e := range d.stations.All() {
		if e.Kind != fdb.Static || d.stations.Add(e.Key, e.Port, fdb.Dynamic) != nil {
			continue
		}
		m := member{d.networkOf(e.Key), d.byNumber[e.Port].Load()}
		if kept[m] {
			d.leave(m.n, m.v)
			continue
		}
		kept[m] = true
		d.legacy.members = append(d.legacy.members, m)
		d.legacy.left = grace
	}
}

// supersede ends the legacy of a network's flood list, as far as a control plane knows better.
func (d *directory) supersede(n *network, known func(*vtep) bool) {
	d.legacy.floods[n.vni] = slices.DeleteFunc(d.legacy.floods[n.vni], func(v *vtep) bool {
		if !known(v) {
			return false
		}
		d.leave(n, v)
		return true
	})
}

// fade ends the legacy when its time is over. It is called each second.
func (d *directory) fade() {
	d.lock()
	defer d.unlock()
	if d.legacy.left == 0 {
		return
	}
	if d.legacy.left--; d.legacy.left > 0 {
		return
	}
	nets := d.networks.Load()
	for vni := range d.legacy.floods {
		d.supersede(nets.byVNI[vni], func(*vtep) bool { return true })
		d.reflood(nets.byVNI[vni])
	}
	for _, m := range d.legacy.members {
		if nets.byVNI[m.n.vni] == m.n {
			d.leave(m.n, m.v)
		}
	}
	d.legacy.members, d.legacy.floods = nil, nil
	if !d.learning.Load() {
		d.stations.Flush(func(fdb.Entry) bool { return true })
	}
}
