package evpn

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/bfd"
	"github.com/vswitch/vswitch/internal/bgp"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// fabric is the exchange of routes for one tunnel. All its methods are called with the turn.
type fabric struct {
	*instance
	uplink  feature.Port
	tunnel  port.Tunnel
	rd      evpn.RD // of VLAN 0
	table   *evpn.Table
	speaker *bgp.Speaker
	bfd     *bfd.Speaker
	watch   *watch
	carries []port.VNI // of the tunnel
	vlans   map[evpn.VNI]uint16
	vnis    map[uint16]evpn.VNI

	closed    bool
	shared    bool                      // VLANs share the tunnel's one network
	full      bool                      // the tunnel has not taken all stations
	short     map[evpn.VNI][]netip.Addr // flood lists of which the tunnel has not taken all hosts
	stop      func()                    // cancels the next tick
	reserving uint32                    // Table.Reserved when the state was last saved
	saved     uint64                    // Stats.Sequences then
	savedAt   time.Time
	leftOut   uint64 // Stats.LeftOut as logged at leftOutAt
	leftOutAt time.Time
}

const (
	// settle is how long the stations of a starting switch are learned before neighbors are
	// told that it has announced them all.
	settle = 5 * time.Second

	tickEvery = time.Second     // at the latest
	saveEvery = 5 * time.Second // sequence numbers, at most
)

func newFabric(i *instance, uplink feature.Port, t port.Tunnel, id netip.Addr) *fabric {
	f := &fabric{instance: i, uplink: uplink, tunnel: t, rd: rd(id, 0), vlans: make(map[evpn.VNI]uint16), vnis: make(map[uint16]evpn.VNI), short: make(map[evpn.VNI][]netip.Addr)}
	listen := uint16(bgp.Port)
	if i.settings.Listen != nil {
		listen = *i.settings.Listen
	}
	f.speaker = bgp.New(bgp.Config{AS: i.settings.AS, RouterID: id, Tunnel: t.Encapsulation(), Listen: listen, Log: i.log, Settle: settle, Handle: f.event})
	f.bfd = bfd.New(bfd.Config{Log: i.log, Silent: func(a netip.Addr, _ time.Duration) { f.speaker.Fail(a) }})
	f.table = evpn.New(evpn.Config{
		VTEP: t.VTEP(), MAC: i.host.MAC(), Hold: time.Duration(i.settings.Hold), Sequences: i.sequences, Reserved: i.reserved,
		RD: func(vni evpn.VNI) evpn.RD { return rd(id, f.vlans[vni]) },
	}, f)
	f.watch = newWatch(i.host.Switch(), f.changed)
	f.attach(t)
	for p := range i.host.Ports() {
		if p != uplink {
			f.local(p)
		}
	}
	f.tick()
	return f
}

// rd returns the route distinguisher of a VLAN: of type 1, an address and a number (RFC 7432
// section 7.9).
func rd(id netip.Addr, vlan uint16) (rd evpn.RD) {
	rd[1] = 1
	copy(rd[2:], id.AsSlice())
	binary.BigEndian.PutUint16(rd[6:], vlan)
	return rd
}

// close ends the exchange. Neighbors that can keep the routes; known stations stay reachable.
func (f *fabric) close() {
	f.closed = true
	f.stop()
	f.watch.close()
	f.bfd.Close()
	f.speaker.Close()
	for p := range f.host.Ports() {
		p.Core().SetResolution(false)
	}
	for p := range f.table.Places() {
		if p.At.Pinned { // nobody says so any more
			f.enter(p.VNI, p.MAC, evpn.At{VTEP: p.At.VTEP})
		}
	}
	f.tunnel.SetLearning(true)
	f.learn(!bool(f.uplink.Policy().NoLearning))
}

// attach gives the table the virtual networks of the tunnel, and a tunnel that is new, or has networks that are, all
// that is known.
func (f *fabric) attach(t port.Tunnel) {
	renewed := t != f.tunnel
	f.tunnel = t
	t.SetLearning(false) // routes tell more than frames (RFC 8365 section 5.1)
	f.learn(false)

	vlans, vnis := make(map[evpn.VNI]uint16), make(map[uint16]evpn.VNI)
	var list, kept []evpn.VNI
	before := f.carries
	f.carries = t.VNIs()
	for _, n := range f.carries {
		vlan := cmp.Or(n.VLAN, f.untagged())
		vlans[evpn.VNI(n.VNI)], vnis[vlan] = vlan, evpn.VNI(n.VNI)
		list = append(list, evpn.VNI(n.VNI))
		if f.vlans[evpn.VNI(n.VNI)] == vlan {
			kept = append(kept, evpn.VNI(n.VNI))
			renewed = renewed || !slices.Contains(before, n)
		}
	}
	f.table.SetVNIs(kept) // while the others still have their VLANs
	if renewed {
		f.table.Repeat()
	}
	f.vlans, f.vnis = vlans, vnis
	f.table.SetVNIs(list)
	set, shared := f.uplink.VLANs(), f.shared
	if f.shared = len(list) == 1 && f.carries[0].VLAN == 0 && set.Len() > 1; f.shared && !shared {
		f.log.Warn("EVPN tells of the stations of one VLAN for each VNI, and frames to those of others are flooded; give each VLAN a VNI, such as --vni 10=10010,20=10020",
			"port", f.uplink.Name(), "vlan", f.untagged(), "vni", list[0])
	}
	f.watch.all()
}

// untagged returns the VLAN of a tunnel's one network: the first that its port carries.
func (f *fabric) untagged() uint16 {
	set := f.uplink.VLANs()
	for vid := range set.All() {
		return vid
	}
	return port.DefaultVLAN
}

// learn sets whether the core learns stations from the tunnel.
func (f *fabric) learn(on bool) {
	c := f.uplink.Core().Config()
	if c.NoLearning == on {
		c.NoLearning = !on
		if err := f.uplink.Core().Configure(c); err != nil {
			f.log.Error("learning from the tunnel", "port", f.uplink.Name(), "error", err)
		}
	}
}

// local takes note of a port with stations of this host.
func (f *fabric) local(p feature.Port) {
	p.Core().SetResolution(!bool(f.settings.Suppression))
}

// tick does what is due in the table.
func (f *fabric) tick() {
	now := time.Now()
	wait := f.table.Tick(now)
	if n := f.table.Stats().Sequences; n != f.saved && now.Sub(f.savedAt) >= saveEvery {
		f.save(now)
	}
	f.reserve()
	f.tellLeftOut(now)
	f.stop = f.host.After(max(time.Millisecond, min(wait, tickEvery)), f.tick)
}

// tellLeftOut logs, once a minute at most, that there are more stations than a host announces, and at which port.
func (f *fabric) tellLeftOut(now time.Time) {
	s := f.table.Stats()
	if s.LeftOut == f.leftOut || now.Sub(f.leftOutAt) < time.Minute {
		return
	}
	name := ""
	if p := f.host.Port(s.Largest); p != nil {
		name = p.Name()
	}
	f.log.Warn("EVPN leaves out stations: this host announces no more, and those of the port with most go first; limit it with set-port --learn-limit",
		"port", name, "announced", s.Local, "left_out", s.LeftOut-f.leftOut)
	f.leftOut, f.leftOutAt = s.LeftOut, now
}

func (f *fabric) save(now time.Time) {
	f.saved, f.savedAt, f.reserving = f.table.Stats().Sequences, now, f.table.Reserved()
	f.host.Save()
}

// reserve has newly reserved sequence numbers saved before they are announced, but for the disk's
// own time.
func (f *fabric) reserve() {
	if f.table.Reserved() != f.reserving {
		f.save(time.Now())
	}
}

// event handles an event of the speaker, on a goroutine of a neighbor.
func (f *fabric) event(e bgp.Event) {
	f.host.Do(func() {
		from := slices.IndexFunc(f.neighbors, func(n neighbor) bool { return n.peer == e.Peer })
		if f.closed || from < 0 {
			return
		}
		switch e.Kind {
		case bgp.Established:
			f.neighbors[from].leftOut = nil
			if e.Fresh {
				f.table.Down(time.Now(), e.Peer, 0)
			}
		case bgp.Updated:
			before := f.table.Stats()
			f.table.Batch(func() {
				for i := range e.Updates {
					u, refused := &e.Updates[i], evpn.Taken
					if u.Withdrawn {
						f.table.Withdraw(e.Peer, u.Key)
					} else {
						refused = f.table.Receive(e.Peer, u.Route)
					}
					f.note(&f.neighbors[from], u, refused)
				}
			})
			after := f.table.Stats()
			if n := after.Beyond - before.Beyond; n > 0 {
				f.log.Warn("routes are left out: there are more than a switch takes, or they lead to too many hosts", "neighbor", f.neighbors[from].Address, "routes", n)
			}
			if n := after.Unused - before.Unused; n > 0 {
				f.log.Warn("routes are not used: one station has too many", "neighbor", f.neighbors[from].Address, "routes", n)
			}
			f.reserve()
		case bgp.Synced:
			f.table.Synced(time.Now(), e.Peer)
		case bgp.Lost:
			f.table.Down(time.Now(), e.Peer, e.Keep)
		}
		if e.Kind != bgp.Updated { // there may be something to do soon
			f.stop()
			f.tick()
		}
	})
}

// note notes at a neighbor why a route is left out, or that it no longer is.
func (f *fabric) note(n *neighbor, u *bgp.Update, refused evpn.Refusal) {
	text := f.leftOutText(u, refused)
	switch {
	case text == "":
		delete(n.leftOut, u.Key)
		return
	case len(n.leftOut) == 0:
		n.leftOut = make(map[evpn.Key]string)
		f.log.Warn("routes of a neighbor are left out", "neighbor", n.Address, "problem", text)
	case len(n.leftOut) >= maxLeftOut:
		return
	}
	n.leftOut[u.Key] = text
}

// leftOutText returns why a route is left out; "": it is not, or what this switch has announced itself came back, or it
// is of a network that this switch does not have.
func (f *fabric) leftOutText(u *bgp.Update, refused evpn.Refusal) string {
	own := f.tunnel.VTEP()
	here := func(vni evpn.VNI) bool { _, ok := f.vlans[vni]; return ok }
	if (u.Targets != evpn.Targets{} || u.Label != 0) && !slices.ContainsFunc(u.Targets[:], here) && !here(u.Label) {
		return ""
	}
	of := "routes"
	if u.VTEP.IsValid() {
		of = fmt.Sprintf("routes of %v", u.VTEP)
	}
	switch u.LeftOut {
	case bgp.OwnAS, bgp.OwnRouterID:
		switch {
		case !u.VTEP.IsValid() || u.VTEP == own:
			return ""
		case u.LeftOut == bgp.OwnAS:
			return fmt.Sprintf("%s are left out, for autonomous system %d of this switch is in their path; give each host behind neighbors of other systems its own by --evpn-as", of, f.settings.AS)
		}
		return of + " are left out: that host has the router ID of this one; give it another by --router-id"
	case bgp.Malformed:
		return of + " are left out: an attribute of theirs is malformed"
	case bgp.WrongLength:
		return of + " are left out: an address in them has a wrong length"
	case bgp.Unreachable:
		return fmt.Sprintf("%s are left out: that host takes no packets of %v; correct --encapsulation here, or there", of, f.tunnel.Encapsulation())
	case bgp.NoTunnel:
		return fmt.Sprintf("floods do not go to %v: it announces no tunnel for copies (ingress replication)", u.VTEP)
	}
	switch refused {
	case evpn.OwnVTEP:
		if [6]byte(u.RD[:6]) != [6]byte(f.rd[:6]) {
			return fmt.Sprintf("another host announces the address %v of this one; correct --local of its tunnel, or of this one", own)
		}
	case evpn.OtherFamily:
		return fmt.Sprintf("%s are left out: tunnels of one network have either IPv4 or IPv6 addresses, and this one has %v", of, own)
	case evpn.NoHost:
		return of + " are left out: no host can have that address"
	case evpn.OwnMAC:
		return fmt.Sprintf("a route of %v is left out: its station %v has the address of this switch itself", u.VTEP, u.MAC)
	case evpn.NoStation:
		return fmt.Sprintf("a route of %v is left out: no station can have the address %v", u.VTEP, u.MAC)
	case evpn.Taken:
		if u.Label != 0 {
			return fmt.Sprintf("%s are not used: that host wants VNI %d in frames, which no route target of theirs names; both must be the VNI", of, u.Label)
		}
	}
	return ""
}

// answer reports whether it has answered a message of address resolution.
func (f *fabric) answer(p feature.Port, c vswitch.ControlFrame) bool {
	vni, ok := f.vnis[c.VLAN]
	if !ok || p == f.uplink {
		return false
	}
	f.station(fdb.MakeKey(c.VLAN, uint64(port.MACFrom(c.Data[6:])))) // it may not have been looked at yet
	return f.table.Frame(time.Now(), vni, p.Number(), c.Data)
}

// Announce implements evpn.Output.
func (f *fabric) Announce(r evpn.Route) { f.speaker.Announce(r) }

// Withdraw implements evpn.Output.
func (f *fabric) Withdraw(k evpn.Key) { f.speaker.Withdraw(k) }

// Station implements evpn.Output: it enters a station of another host into the tunnel and
// the FDB, or removes it.
func (f *fabric) Station(vni evpn.VNI, mac port.MAC, at evpn.At) {
	if !at.VTEP.IsValid() {
		f.tunnel.DeleteRemote(uint32(vni), mac)
		k := f.key(vni, mac)
		if e, ok := f.host.Switch().FDB().Get(k); ok && f.isRemote(e) {
			f.host.Switch().FDB().Delete(k)
		}
		return
	}
	if err := f.tunnel.SetRemote(uint32(vni), mac, at.VTEP); err != nil {
		f.full = true
		f.log.Warn("a station of another host is left out", "mac", mac, "vni", vni, "vtep", at.VTEP, "error", err)
		return
	}
	f.enter(vni, mac, at)
}

// enter makes the FDB lead to a station of another host. What a user entered stays.
func (f *fabric) enter(vni evpn.VNI, mac port.MAC, at evpn.At) {
	table, k, kind := f.host.Switch().FDB(), f.key(vni, mac), fdb.Dynamic
	if at.Pinned {
		kind = fdb.Sticky
	}
	e, ok := table.Get(k)
	if ok && !f.isRemote(e) && e.Kind != fdb.Dynamic {
		return
	}
	if ok && e.Kind == kind && f.isRemote(e) && (table.Aging() < 0 || e.Age < table.Aging()/3) {
		return
	}
	if err := table.Add(k, f.uplink.Number(), kind); err != nil {
		f.log.Warn("a station of another host is left out", "mac", mac, "vni", vni, "vtep", at.VTEP, "error", err)
	}
}

// isRemote reports whether an entry was made by enter.
func (f *fabric) isRemote(e fdb.Entry) bool {
	return e.Port == f.uplink.Number() && (e.Kind == fdb.Dynamic || e.Kind == fdb.Sticky)
}

func (f *fabric) key(vni evpn.VNI, mac port.MAC) fdb.Key {
	return fdb.MakeKey(f.vlans[vni], uint64(mac))
}

// Flood implements evpn.Output.
func (f *fabric) Flood(vni evpn.VNI, vteps []netip.Addr) {
	err := f.tunnel.SetFlood(uint32(vni), vteps)
	if err == nil || len(vteps) == 0 { // that of a network that the tunnel no longer carries, perhaps
		delete(f.short, vni)
		return
	}
	if f.short[vni] == nil {
		f.log.Warn("the flood list of a network is not complete", "vni", vni, "error", err)
	}
	f.short[vni] = vteps
}

// Send implements evpn.Output.
func (f *fabric) Send(vni evpn.VNI, to uint16, frame []byte) {
	c := vswitch.ControlFrame{VLAN: f.vlans[vni], Data: frame}
	f.host.Speak(c.VLAN) // questions to stations have the switch's address
	if to != evpn.AllPorts {
		f.host.Switch().Send(c, to)
		return
	}
	var all []uint16
	for p := range f.host.Ports() {
		if p != f.uplink {
			all = append(all, p.Number())
		}
	}
	f.host.Switch().Send(c, all...)
}

// Refresh implements evpn.Output.
func (f *fabric) Refresh(p evpn.Peer) bool {
	at := slices.IndexFunc(f.neighbors, func(n neighbor) bool { return n.peer == p })
	return at >= 0 && f.speaker.Refresh(f.neighbors[at].Address)
}

// Conflict implements evpn.Output.
func (f *fabric) Conflict(c evpn.Conflict) {
	at := "a port"
	if p := f.host.Port(c.Port); p != nil {
		at = p.Name()
	}
	words := []any{"mac", c.MAC, "vlan", f.vlans[c.VNI], "vni", c.VNI, "here", at, "vtep", f.tunnel.VTEP(), "stays_at", c.VTEP}
	if c.Held == 0 {
		f.log.Warn("station is heard here but must not move from another host", words...)
		return
	}
	f.log.Warn("station is heard at two hosts: they have one address, or there is a loop", append(words, "moves", c.Moves, "held_for", c.Held)...)
}
