package l2test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// evpn joins the switches of an overlay by EVPN, each a neighbor of all others, and waits until
// they know each other. The first VLAN of the tunnels is that of the hosts; hold is the hold time, and
// further flags of neighbors.
func (o *overlay) evpn(settings, hold string) {
	o.t.Helper()
	for i, l := range o.sites {
		l.sw.ctl("add-port up0 --kind vxlan --local %s %s", o.vtep(i), settings)
		l.sw.ctl("set --evpn-as 65001 --router-id 192.0.2.%d", i+1)
		for j := range o.sites {
			if j != i {
				l.sw.ctl("evpn neighbor add %s --as 65001 --hold %s", o.vtep(j), hold)
			}
		}
	}
	for i := range o.sites {
		testenv.Eventually(o.t, fmt.Sprintf("switch %d has its sessions", i), func() bool {
			return !slices.ContainsFunc(o.neighbors(i), func(n api.EVPNNeighbor) bool { return n.State != "established" })
		})
	}
}

func (o *overlay) neighbors(site int) []api.EVPNNeighbor {
	o.t.Helper()
	all, err := o.sites[site].sw.Client.EVPNNeighbors(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return all
}

// stations returns the stations that a site knows by EVPN.
func (o *overlay) stations(site int) []api.EVPNMAC {
	o.t.Helper()
	all, err := o.sites[site].sw.Client.EVPNMACs(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return all
}

// station returns a station as a site knows it by EVPN; its MAC is 0 if there is none.
func (o *overlay) station(site int, mac port.MAC) api.EVPNMAC {
	o.t.Helper()
	for _, m := range o.stations(site) {
		if m.MAC == mac {
			return m
		}
	}
	return api.EVPNMAC{}
}

// awaitStation waits until all sites know where a station is: at one of them, or nowhere (-1).
func (o *overlay) awaitStation(mac port.MAC, at int) {
	o.t.Helper()
	for i := range o.sites {
		testenv.Eventually(o.t, fmt.Sprintf("switch %d knows %v at %d", i, mac, at), func() bool {
			m := o.station(i, mac)
			if at < 0 {
				return m.MAC == 0
			}
			return m.MAC != 0 && m.VTEP.String() == o.vtep(at) && (m.Port != "") == (i == at)
		})
	}
}

// TestEVPN: switches know each other's stations before a frame from them came; they follow one
// that moves; those of a switch that dies are kept until it is back.
func TestEVPN(t *testing.T) {
	t.Parallel()
	o := newOverlay(t, 3, 1600, false)
	o.evpn("--vni 10010", "90s --password s3cret")
	all := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
	h1, h2, h3 := o.hosts[0], o.hosts[1], o.hosts[2]

	// What a host says at its own switch is known to all; nothing of it came by a tunnel.
	for i, h := range o.hosts {
		o.sites[i].sw.ctl("set-port up0 --flood none")
		if err := h.Send(h.toAll().head(), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		o.awaitStation(h.mac, i)
		o.sites[i].sw.ctl("set-port up0 --flood all")
	}
	all.want(h1, h1.to(h2), h2)      // a third switch would flood it
	all.want(h1, h1.toAll(), h2, h3) // floods reach each once

	// The station of the second host comes up at the third one.
	third := &lan{t: t, sw: o.sites[2].sw, hosts: o.hosts}
	moved := frame{dst: h1.mac, src: h2.mac}
	if err := h3.Send(append(moved.head(), make([]byte, 50)...), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	o.awaitStation(h2.mac, 2)
	if m := o.station(0, h2.mac); m.Seq != 1 {
		t.Errorf("it moved: %+v", m)
	}
	all.want(h1, h1.to(h2), h3)
	third.want(h3, h3.to(h1), h1)
	if err := h2.Send(h2.toAll().head(), port.Offload{}); err != nil { // and back
		t.Fatal(err)
	}
	o.awaitStation(h2.mac, 1)
	if m := o.station(0, h2.mac); m.Seq != 2 {
		t.Errorf("it moved back: %+v", m)
	}
	all.want(h1, h1.to(h2), h2)

	// A static entry is sticky everywhere.
	o.sites[1].sw.ctl("fdb add %s p1", h2.mac)
	testenv.Eventually(t, "it is sticky", func() bool { return o.station(0, h2.mac).Sticky })
	if err := h3.Send(append(moved.head(), make([]byte, 50)...), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	all.want(h1, h1.to(h2), h2)
	o.sites[1].sw.ctl("fdb del %s", h2.mac)

	// The third switch dies. Its stations stay until it is back, and so does its state.
	o.sites[2].sw.Kill()
	testenv.Eventually(t, "the session ends", func() bool { return o.neighbors(0)[1].State != "established" })
	if m := o.station(0, h3.mac); m.VTEP.String() != o.vtep(2) {
		t.Errorf("its station is at %v", m.VTEP)
	}
	o.sites[2].sw.Restart(t)
	testenv.Eventually(t, "the session is back", func() bool {
		return !slices.ContainsFunc(o.neighbors(2), func(n api.EVPNNeighbor) bool { return n.State != "established" })
	})
	o.awaitStation(h1.mac, 0) // routes follow the session
	third.want(h3, h3.to(h1), h1)
	o.awaitStation(h3.mac, 2)

	// The first switch is upgraded: it knows where stations and other hosts are before its sessions
	// are back.
	o.sites[0].sw.Upgrade(t)
	all.want(h1, h1.toAll(), h2, h3)
	all.want(h1, h1.to(h3), h3)
	o.awaitStation(h3.mac, 2)

	// A neighbor that is removed takes its stations with it.
	o.sites[0].sw.ctl("evpn neighbor del %s", o.vtep(2))
	testenv.Eventually(t, "its stations are gone", func() bool { return o.station(0, h3.mac).MAC == 0 })
	o.sites[0].sw.refuse("there is no neighbor", "evpn neighbor del %s", o.vtep(2))
	o.sites[0].sw.refuse("fe80::1 is a link-local address", "evpn neighbor add fe80::1 --as 65001")
	o.sites[0].sw.ctl("set --evpn-as 0")
	testenv.Eventually(t, "the second switch misses the first", func() bool { return o.neighbors(1)[0].State != "established" })
}

// TestEVPNOff: what EVPN knew counts until frames tell otherwise, once it is off. Settings that neighbors are not told
// leave the sessions alone.
func TestEVPNOff(t *testing.T) {
	t.Parallel()
	o := newOverlay(t, 3, 1600, false)
	o.evpn("--vni 10010", "90s")
	h1, h2, h3 := o.hosts[0], o.hosts[1], o.hosts[2]
	first := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
	for i, h := range o.hosts {
		if err := h.Send(h.toAll().head(), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		o.awaitStation(h.mac, i)
	}
	o.sites[0].sw.ctl("set --suppression off --duplicate-hold 1m")
	first.want(h1, h1.to(h2), h2)
	if n := strings.Count(o.sites[0].sw.Log(), "BGP session ended"); n != 0 {
		t.Errorf("%d sessions ended", n)
	}
	for i, l := range o.sites {
		l.sw.ctl("set --evpn-as 0")
		l.sw.ctl("set-port up0 --peers %s,%s", o.vtep((i+1)%3), o.vtep((i+2)%3))
	}
	first.want(h1, h1.to(h2), h2)
	third := &lan{t: t, sw: o.sites[2].sw, hosts: o.hosts}
	third.want(h3, frame{dst: port.Broadcast, src: h2.mac}, h1, h2) // the machine is there now
	first.want(h1, h1.to(h2), h3)
}

// watched reports whether BFD watches all neighbors of a site, and hears them.
func (o *overlay) watched(site int) bool {
	return !slices.ContainsFunc(o.neighbors(site), func(n api.EVPNNeighbor) bool { return n.BFD != "up" })
}

// TestBFD: a host that falls silent is dead at once, long before the hold time; one whose daemon
// is killed is not, since its kernel closes the session.
func TestBFD(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 underlay %v", v6), func(t *testing.T) {
			t.Parallel()
			o := newOverlay(t, 3, 1600, v6)
			o.evpn("--vni 10010", "90s --bfd")
			for i, h := range o.hosts {
				testenv.Eventually(t, fmt.Sprintf("switch %d hears its neighbors", i), func() bool { return o.watched(i) })
				if err := h.Send(h.toAll().head(), port.Offload{}); err != nil {
					t.Fatal(err)
				}
				o.awaitStation(h.mac, i)
			}

			last := o.sites[2].sw
			last.Kill()
			testenv.Eventually(t, "BFD says that the daemon is silent", func() bool { return o.neighbors(0)[1].BFD == "down" })
			if m := o.station(0, o.hosts[2].mac); m.VTEP.String() != o.vtep(2) {
				t.Errorf("the station of a killed daemon is at %v", m.VTEP)
			}
			last.Restart(t)
			for i, h := range o.hosts {
				testenv.Eventually(t, fmt.Sprintf("switch %d hears its neighbors again", i), func() bool { return o.watched(i) })
				if err := h.Send(h.toAll().head(), port.Offload{}); err != nil {
					t.Fatal(err)
				}
				o.awaitStation(h.mac, i)
			}

			ip(t, o.underlay, "link set ul3 down\n")
			for i := range 2 {
				testenv.Eventually(t, fmt.Sprintf("switch %d misses the third", i), func() bool { return o.station(i, o.hosts[2].mac).MAC == 0 })
				if n := o.neighbors(i)[1]; n.State == "established" || n.BFD == "up" {
					t.Errorf("switch %d shows %+v", i, n)
				}
			}
			ip(t, o.underlay, "link set ul3 up\n")
			o.awaitStation(o.hosts[0].mac, 0)
			testenv.Eventually(t, "all hear each other again", func() bool { return o.watched(0) && o.watched(1) && o.watched(2) })

			// BFD of a neighbor that is removed is no failure at the other end.
			last.ctl("evpn neighbor del %s", o.vtep(0))
			testenv.Eventually(t, "the first switch hears no more", func() bool { return o.neighbors(0)[1].BFD == "down" })
		})
	}
}

// asked returns the addresses for which a host was asked by ARP or neighbor discovery since the
// last call, until nothing comes for a while.
func (h *host) asked(wait time.Duration) (all []netip.Addr) {
	for {
		b, _, err := h.Recv(wait)
		if err != nil {
			return all
		}
		switch etherType := binary.BigEndian.Uint16(b[12:]); {
		case etherType == 0x0806 && len(b) >= 42 && b[21] == 1:
			all = append(all, netip.AddrFrom4([4]byte(b[38:])))
		case etherType == 0x86dd && len(b) >= 78 && b[20] == 58 && b[54] == 135:
			all = append(all, netip.AddrFrom16([16]byte(b[62:])))
		}
	}
}

// TestEVPNResolution: ARP and neighbor discovery for stations of other switches are answered
// at once, and not flooded; for unknown ones they are.
func TestEVPNResolution(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, settings string
		v6             bool
	}{{"IPv4 underlay", "", false}, {"IPv6 underlay", "", true}, {"Geneve", " --encapsulation geneve", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOverlay(t, 3, 1600, c.v6)
			for _, l := range o.sites {
				l.sw.ctl("set-port p1 --access 20")
			}
			o.evpn("--vni 10=10010,20=10020"+c.settings, "90s")
			o.address()
			a, h1, h2, h3 := o.sites[0], o.hosts[0], o.hosts[1], o.hosts[2]
			a.wantPing(h1, h2, true)
			for _, h := range []*host{h1, h2} {
				testenv.Eventually(t, "the addresses of "+h.mac.String()+" are known", func() bool {
					var ips []string
					for _, ip := range o.station(2, h.mac).IPs {
						ips = append(ips, ip.String())
					}
					return slices.Contains(ips, h.v4) && slices.Contains(ips, h.v6)
				})
			}
			testenv.Eventually(t, "the second address is known here", func() bool { return len(o.station(0, h2.mac).IPs) >= 2 })
			_ = h3.asked(quiet)
			a.wantPing(h1, h2, true)
			// Nobody has this address: everybody is asked.
			_ = h1.ns.Command("ping", "-c", "1", "-w", "1", "10.0.255.254").Run()
			var asked []netip.Addr
			testenv.Eventually(t, "a third host is asked for an unknown address", func() bool {
				asked = append(asked, h3.asked(time.Millisecond)...)
				return slices.Contains(asked, netip.MustParseAddr("10.0.255.254"))
			})
			for _, ip := range []string{h1.v4, h1.v6, h2.v4, h2.v6} {
				if slices.Contains(asked, netip.MustParseAddr(ip)) {
					t.Errorf("a third host is asked for the known address %s", ip)
				}
			}
			a.bulk(h1, h2, h2.v4, 4<<20)
			// A network that goes takes its flood list along, and the others stay.
			a.sw.ctl("set-port up0 --vni 20=10020")
			a.wantPing(h1, h2, true)
			if strings.Contains(a.sw.Log(), "the flood list of a network is not complete") {
				t.Error("the log has a flood list of a network that is gone")
			}
			// So does one that becomes that of all frames of the port, which are in the same VLAN.
			a.sw.ctl("set-port up0 --vni 10020 --access 20")
			a.wantPing(h1, h2, true)
			a.sw.ctl("set-port up0 --trunk 10,20")
			if !strings.Contains(a.sw.Log(), "EVPN tells of the stations of one VLAN for each VNI") {
				t.Error("the log does not say that VLANs share a network")
			}
		})
	}
}

// TestEVPNSilentMove: an address moves from a station of one switch to one of another that says
// nothing of it, while a third has the answers of its own switch. That one finds the new owner with
// its second question, and the switches know it within seconds.
func TestEVPNSilentMove(t *testing.T) {
	t.Parallel()
	o := newOverlay(t, 3, 1600, false)
	o.evpn("--vni 10010", "90s")
	o.address()
	a, h1, h2, h3 := o.sites[0], o.hosts[0], o.hosts[1], o.hosts[2]
	knows := func(site int, h *host, address string) bool {
		return slices.ContainsFunc(o.station(site, h.mac).IPs, func(ip netip.Addr) bool { return ip.String() == address })
	}
	for _, h := range []*host{h2, h3} {
		a.wantPing(h1, h, true)
		for _, address := range []string{h.v4, h.v6} {
			testenv.Eventually(t, "the address "+address+" is known", func() bool { return knows(0, h, address) })
		}
	}
	for _, c := range []struct{ address, bits string }{{h2.v4, "/16"}, {h2.v6, "/64 nodad"}} {
		ip(t, h2.ns, "addr del "+strings.TrimSuffix(c.address+c.bits, " nodad")+" dev eth0\n")
		ip(t, h3.ns, "addr add "+c.address+c.bits+" dev eth0\n")
		began := time.Now()
		testenv.Eventually(t, c.address+" is reached where it is", func() bool {
			h1.ns.Run("ip", "neigh", "flush", "dev", "eth0")
			return h1.ns.Command("ping", "-n", "-q", "-c", "1", "-w", "2", c.address).Run() == nil
		})
		testenv.Eventually(t, "all switches know where it is", func() bool {
			for i := range o.sites {
				if !knows(i, h3, c.address) || knows(i, h2, c.address) {
					return false
				}
			}
			return true
		})
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	}
}

// traffic is frames from one host to another, a few hundred a second, until it is stopped.
type traffic struct {
	from, to    *host
	quit, ended chan struct{}
	sent, heard atomic.Int32
}

func startTraffic(t testing.TB, from, to *host) *traffic {
	f := &traffic{from: from, to: to, quit: make(chan struct{}), ended: make(chan struct{})}
	wire := append(frame{dst: to.mac, src: from.mac, etherType: streamEtherType}.head(), make([]byte, 46)...)
	var both sync.WaitGroup
	both.Go(func() {
		for tick := time.NewTicker(4 * time.Millisecond); ; <-tick.C {
			select {
			case <-f.quit:
				return
			default:
			}
			if err := from.Send(wire, port.Offload{}); err != nil {
				t.Errorf("send: %v", err)
				return
			}
			f.sent.Add(1)
		}
	})
	both.Go(func() {
		for {
			b, _, err := to.Recv(quiet)
			switch {
			case err == nil && binary.BigEndian.Uint16(b[12:]) == streamEtherType && port.MACFrom(b[6:]) == from.mac:
				f.heard.Add(1)
			case err != nil:
				select {
				case <-f.quit:
					return
				default:
				}
			}
		}
	})
	go func() { both.Wait(); close(f.ended) }()
	t.Cleanup(f.stop)
	return f
}

// more waits until so many further frames have arrived.
func (f *traffic) more(t testing.TB, what string) {
	t.Helper()
	from := f.heard.Load()
	testenv.Eventually(t, what, func() bool { return f.heard.Load() >= from+200 })
}

// stop returns when nothing more comes.
func (f *traffic) stop() {
	select {
	case <-f.quit:
	default:
		close(f.quit)
	}
	<-f.ended
}

// TestEVPNSequences: what the user does with a switch leaves the sequence numbers of its stations as they
// are. A kill may raise them, since the last ones may not be on disk; another without moves does not.
func TestEVPNSequences(t *testing.T) {
	t.Parallel()
	o := newOverlay(t, 2, 1600, false)
	o.evpn("--vni 10010", "90s")
	const guest port.MAC = 0x0200_0000_0998
	say := func(at int) {
		t.Helper()
		if err := o.hosts[at].Send(append(frame{dst: port.Broadcast, src: guest}.head(), make([]byte, 46)...), port.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int{0, 1, 0} {
		say(at)
		o.awaitStation(guest, at)
	}
	first := o.sites[0].sw
	announced := func(after string) uint32 {
		t.Helper()
		var seq uint32
		testenv.Eventually(t, "the station is announced after "+after, func() bool {
			say(0)
			all, err := first.Client.EVPNRoutes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				if r.MAC == guest && !r.Neighbor.IsValid() {
					seq = r.Seq
					return true
				}
			}
			return false
		})
		testenv.Eventually(t, "the other switch has it after "+after, func() bool { return o.station(1, guest).Seq == seq })
		return seq
	}
	const want = 2
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"two moves", func() {}},
		{"an upgrade", func() { first.Upgrade(t) }},
		{"a second upgrade", func() { first.Upgrade(t) }},
		{"another setting", func() { first.ctl("set --duplicate-hold 1m") }},
		{"EVPN off and on", func() { first.ctl("set --evpn-as 0"); first.ctl("set --evpn-as 65001 --router-id 192.0.2.1") }},
		{"a stop", func() { first.Stop(t); first.Restart(t) }},
	} {
		c.do()
		if seq := announced(c.what); seq != want {
			t.Errorf("after %s its sequence number is %d, not %d", c.what, seq, want)
		}
	}
	first.Kill()
	first.Restart(t)
	seq := announced("a kill")
	if seq < want || seq > want+8 {
		t.Errorf("after a kill its sequence number is %d, after %d", seq, want)
	}
	first.Kill()
	first.Restart(t)
	if again := announced("a second kill"); again != seq {
		t.Errorf("after a second kill its sequence number is %d, after %d", again, seq)
	}
}

// TestEVPNTakeover: a daemon is killed while frames pass between its station and that of another
// switch, both ways. The kernel passes them on; the next daemon takes the tunnel over, and claims its
// stations with sequence numbers that are no lower.
func TestEVPNTakeover(t *testing.T) {
	t.Parallel()
	if !daemontest.FastPath() {
		t.Skip("without a fast path a tunnel carries nothing while the daemon is away")
	}
	o := newOverlay(t, 2, 1600, false)
	o.evpn("--vni 10010", "90s")
	h1, h2 := o.hosts[0], o.hosts[1]
	for i, h := range o.hosts {
		if err := h.Send(h.toAll().head(), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		o.awaitStation(h.mac, i)
	}
	// A third station moves from switch to switch, and stays at the first.
	const guest port.MAC = 0x0200_0000_0999
	seq := uint32(0)
	for _, at := range []int{0, 1, 0, 1, 0} {
		h := o.hosts[at]
		wire := append(frame{dst: port.Broadcast, src: guest}.head(), make([]byte, 46)...)
		if err := h.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		o.awaitStation(guest, at)
		seq = o.station(1, guest).Seq
	}
	if seq != 4 {
		t.Fatalf("after four moves its sequence number is %d", seq)
	}
	kept := fmt.Sprintf(`"mac":"%v","seq":%d`, guest, seq)
	testenv.Eventually(t, "the sequence number is kept", func() bool {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(o.sites[0].sw.Socket()), "state", "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(strings.Join(strings.Fields(string(b)), ""), kept)
	})

	there, back := startTraffic(t, h1, h2), startTraffic(t, h2, h1)
	for range 2 {
		o.sites[0].sw.Kill()
		there.more(t, "frames to the other switch pass while the daemon is away")
		back.more(t, "frames from the other switch pass while the daemon is away")
		o.sites[0].sw.Restart(t)
		testenv.Eventually(t, "the session is back", func() bool {
			if m := o.station(1, guest); m.MAC != 0 && m.Seq < seq {
				t.Fatalf("its sequence number goes back from %d to %d", seq, m.Seq)
			}
			return o.neighbors(0)[0].State == "established"
		})
		there.more(t, "frames to the other switch pass by the next daemon")
		back.more(t, "frames from the other switch pass by the next daemon")
	}
	for _, f := range []*traffic{there, back} {
		f.stop()
		if sent, heard := f.sent.Load(), f.heard.Load(); heard > sent || heard < sent-sent/50 {
			t.Errorf("of %d frames from %v %d arrived", sent, f.from.mac, heard)
		}
	}
	// The station moves once more: to above what it had.
	if err := h2.Send(append(frame{dst: port.Broadcast, src: guest}.head(), make([]byte, 46)...), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	o.awaitStation(guest, 1)
	if m := o.station(0, guest); m.Seq <= seq {
		t.Errorf("it moved with the sequence number %d, after %d", m.Seq, seq)
	}
}
