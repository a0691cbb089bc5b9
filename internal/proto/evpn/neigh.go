package evpn

import (
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

const (
	// probeAfter is how long a station may send no ARP or neighbour message before it is
	// asked whether it still has its address: less than the time after which the switch
	// forgets a silent station, so that a silent one stays known.
	probeAfter = 150 * time.Second

	// An address is withdrawn if probes questions, probeEvery apart, stay unanswered.
	probeEvery = 5 * time.Second
	probes     = 3
)

// binding says which stations have an IP address.
type binding struct {
	paths []*path  // of other hosts
	local *localIP // nil: no station here
	over  bool     // there were more paths than are looked at
}

// localIP is an IP address of a station at this host.
type localIP struct {
	addr   netip.Addr
	mac    port.MAC
	router bool
	sent   sent // its route
	heard  time.Time
	asked  int // probes since
	timer  *timer
}

// bind enters the address of another host's path.
func (d *domain) bind(r *path) {
	if !isHost(r.IP) {
		return
	}
	b := d.binding(r.IP)
	if b.over = b.over || len(b.paths) >= maxPaths; !b.over {
		b.paths = append(b.paths, r)
	}
}

func (d *domain) unbind(r *path) {
	b := d.ips[r.IP]
	if b == nil {
		return // it is no host's, or its others are gone
	}
	b.paths = slices.DeleteFunc(b.paths, func(other *path) bool { return other == r })
	d.tidy(r.IP, b)
}

func (d *domain) binding(ip netip.Addr) *binding {
	b := d.ips[ip]
	if b == nil {
		b = &binding{}
		d.ips[ip] = b
	}
	return b
}

func (d *domain) tidy(ip netip.Addr, b *binding) {
	if len(b.paths) == 0 && b.local == nil {
		delete(d.ips, ip)
	}
}

// bindLocal records that a local station has an address. Of several that claim one address,
// the last has it. A message that does not tell whether the station is a router changes
// nothing about that.
func (t *Table) bindLocal(now time.Time, d *domain, m *message) {
	mac, addr := m.src, m.has
	s := d.stations[mac]
	if s == nil || s.local == nil {
		return
	}
	l := s.local
	if b := d.ips[addr]; b != nil && b.local != nil {
		ip := b.local
		if ip.mac == mac {
			ip.heard, ip.asked = now, 0
			i := slices.Index(l.ips, ip)
			l.ips = append(slices.Delete(l.ips, i, i+1), ip)
			if m.tells && ip.router != m.router {
				ip.router, ip.sent = m.router, min(ip.sent, outdated)
				t.announce(now, d, mac, s)
			}
			return
		}
		t.unbindLocal(d, ip.mac, d.stations[ip.mac].local, ip)
	}
	if len(l.ips) >= t.cfg.IPs {
		t.stats.RefusedLocal++
		t.unbindLocal(d, mac, l, l.ips[0])
	}
	ip := &localIP{addr: addr, mac: mac, router: m.router, heard: now}
	ip.timer = t.timers.start(now.Add(probeAfter), func(now time.Time) { t.probe(now, d, ip) })
	d.binding(addr).local = ip
	l.ips = append(l.ips, ip)
	t.announce(now, d, mac, s)
}

// unbindLocal withdraws and forgets an address of a local station.
func (t *Table) unbindLocal(d *domain, mac port.MAC, l *local, ip *localIP) {
	t.timers.stop(ip.timer)
	l.ips = slices.DeleteFunc(l.ips, func(other *localIP) bool { return other == ip })
	b := d.ips[ip.addr]
	b.local = nil
	d.tidy(ip.addr, b)
	if ip.sent != unsent {
		t.out.Withdraw(t.macKey(d.vni, mac, ip.addr))
	}
}

// probe asks a station that was long unheard for its address, and forgets the address of one
// that does not answer.
func (t *Table) probe(now time.Time, d *domain, ip *localIP) {
	l := d.stations[ip.mac].local
	again := func(at time.Time) {
		ip.timer = t.timers.start(at, func(now time.Time) { t.probe(now, d, ip) })
	}
	switch {
	case now.Sub(ip.heard) < probeAfter:
		again(ip.heard.Add(probeAfter))
	case ip.asked == probes:
		t.unbindLocal(d, ip.mac, l, ip)
	default:
		ip.asked++
		again(now.Add(probeEvery))
		t.out.Send(d.vni, l.port, question(t.cfg.MAC, ip.mac, ip.addr))
	}
}

// Frame looks at an ARP or neighbour discovery message from a local station. It learns which
// addresses stations have; it reports whether it has answered the message for a station at
// another host, so that it need not be flooded. A question that it cannot answer with
// certainty is left to the network.
func (t *Table) Frame(now time.Time, vni VNI, number uint16, frame []byte) (answered bool) {
	d := t.domains[vni]
	if d == nil {
		return false
	}
	m, ok := parse(frame)
	if !ok {
		return false
	}
	if m.has.IsValid() {
		t.bindLocal(now, d, &m)
	}
	if !m.asks.IsValid() {
		return false
	}
	mac, router, ok := d.remote(m.asks)
	if !ok || mac == m.src {
		return false
	}
	t.stats.Answered++
	t.out.Send(vni, number, m.answer(mac, router))
	return true
}

// remote returns the one station at another host that has an address. ok is false if a station
// here has it, or two stations do.
func (d *domain) remote(ip netip.Addr) (mac port.MAC, router, ok bool) {
	b := d.ips[ip]
	if b == nil || b.local != nil || b.over {
		return 0, false, false
	}
	for _, r := range b.paths {
		if mac != 0 && r.MAC != mac || !d.stations[r.MAC].at.VTEP.IsValid() {
			return 0, false, false
		}
		mac, router = r.MAC, router || r.Router
	}
	return mac, router, mac != 0
}
