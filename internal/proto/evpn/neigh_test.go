package evpn

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/ethernet"

	"github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

var (
	ip4a = netip.MustParseAddr("10.0.0.1")
	ip4b = netip.MustParseAddr("10.0.0.2")
	ip4c = netip.MustParseAddr("10.0.0.3")
	ip6a = netip.MustParseAddr("fe80::1")
	ip6b = netip.MustParseAddr("2001:db8::2")
)

const (
	broadcast port.MAC = 1<<48 - 1
	nodes     port.MAC = 0x3333_ff00_0002
	mac2               = mac1 + 1
)

// ask returns the question of mac1 for an address, as to all stations.
func ask(sender, target netip.Addr) []byte {
	if sender.Is4() {
		return arp(broadcast, mac1, arpRequest, mac1, sender, 0, target)
	}
	return neighbour(nodes, mac1, sender, target, solicitation, 0, target, sourceLink)
}

// remoteIP is remote with an IP address.
func remoteIP(n int, mac port.MAC, ip netip.Addr) Route {
	x := remote(n, mac, 0)
	x.IP = ip
	return x
}

func (r *rig) frame(b []byte) bool { return r.Frame(r.now, vni, 1, b) }

// ownIPs returns the addresses announced of a station.
func (r *rig) ownIPs(mac port.MAC) (ips []netip.Addr) {
	for k := range r.rib {
		if k.Kind == MAC && k.MAC == mac && k.IP.IsValid() {
			ips = append(ips, k.IP)
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return ips
}

// A station that has moved asks for its own IP address (RFC 903).
func TestReverseRequest(t *testing.T) {
	station := []byte{2, 0, 0, 0, 0, 1}
	want := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, station, []byte{0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3},
		station, make([]byte, 4), station, make([]byte, 4))
	if got := rarp(0x0200_0000_0001); !slices.Equal(got[:len(want)], want) {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		sender, target netip.Addr
		router         bool
	}{{ip4a, ip4b, false}, {ip6a, ip6b, false}, {ip6a, ip6b, true}} {
		r := newRig(t, Config{})
		r.local(mac1)
		if r.frame(ask(c.sender, c.target)) {
			t.Error("an unknown address is answered for")
		}
		x := remoteIP(2, mac2, c.target)
		x.Router = c.router
		r.Receive(7, x)
		if !r.frame(ask(c.sender, c.target)) || len(r.frames) != 1 {
			t.Fatalf("%v is not answered for", c.target)
		}
		var f ethernet.Frame
		if err := f.UnmarshalBinary(r.frames[0]); err != nil {
			t.Fatal(err)
		}
		m, ok := parse(r.frames[0])
		if !ok || port.MACFrom(r.frames[0]) != mac1 || m.src != mac2 || m.has != c.target || m.router != c.router || m.asks.IsValid() {
			t.Errorf("the answer is %x: %+v", r.frames[0], m)
		}
		// What is not answered: duplicate address detection, a question to one station, a
		// question for an address that two stations have, and the announcement of one's own.
		for what, b := range map[string][]byte{
			"detection": ask(unspecified(c.target), c.target),
			"unicast":   append(mac2.HardwareAddr(), ask(c.sender, c.target)[6:]...),
		} {
			if r.frame(b) {
				t.Errorf("%s: answered", what)
			}
		}
		r.Receive(7, remoteIP(3, mac2+1, c.target))
		if r.frame(ask(c.sender, c.target)) {
			t.Error("answered for two stations")
		}
		r.Withdraw7(remoteIP(3, mac2+1, c.target).Key)
		r.now = r.now.Add(askAgain)
		if !r.frame(ask(c.sender, c.target)) {
			t.Error("not answered once there is one again")
		}
		if r.frame(ask(c.target, c.target)) {
			t.Error("an announcement is answered")
		}
		r.Withdraw7(x.Key)
		if r.frame(ask(c.sender, c.target)) || r.Stats().Answered != 2 {
			t.Errorf("answered for none; %+v", r.Stats())
		}
	}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// A station that came here is not answered for, though its old host still announces it.
func TestNoAnswerForLocal(t *testing.T) {
	r := newRig(t, Config{})
	r.Receive(7, remoteIP(2, mac2, ip4b))
	r.local(mac2)
	r.local(mac1)
	if r.frame(ask(ip4a, ip4b)) {
		t.Error("answered for a station that is here")
	}
}

func TestBindings(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{IPs: 2}})
	r.frame(ask(ip4a, ip4b)) // its sender is not learned yet
	if len(r.ownIPs(mac1)) != 0 {
		t.Fatal("an unknown station has an address")
	}
	r.local(mac1)
	r.frame(ask(ip4a, ip4b))
	r.frame(ask(ip6a, ip6b))
	if got := r.ownIPs(mac1); !slices.Equal(got, []netip.Addr{ip4a, ip6a}) {
		t.Errorf("announced: %v", got)
	}
	// It turns out to be a router.
	advertise := func(flags byte) {
		r.frame(neighbour(mac1, mac1, ip6a, ip6b, advert, flags, ip6a, targetLink))
	}
	key := r.macKey(vni, mac1, ip6a)
	for _, flags := range []byte{flagRouter, 0, flagRouter | flagSolicited} {
		advertise(flags)
		if r.rib[key].Router != (flags&flagRouter != 0) {
			t.Errorf("flags %x: %+v", flags, r.rib[key])
		}
	}
	r.frame(ask(ip6a, ip6b)) // which says nothing about that
	if !r.rib[key].Router {
		t.Error("a solicitation made it no router")
	}
	// A third address takes the place of the one longest unheard.
	r.frame(ask(ip4b, ip4a))
	if got := r.ownIPs(mac1); !slices.Equal(got, []netip.Addr{ip4b, ip6a}) {
		t.Errorf("announced: %v", got)
	}
	// Another station takes an address over: the former one is asked first.
	r.local(mac2)
	r.frame(arp(broadcast, mac2, arpReply, mac2, ip4b, broadcast, ip4b))
	if !slices.Contains(r.ownIPs(mac1), ip4b) || !slices.Contains(r.ownIPs(mac2), ip4b) {
		t.Errorf("announced before that: %v and %v", r.ownIPs(mac1), r.ownIPs(mac2))
	}
	r.pass(probes * confirmEvery)
	if got := r.ownIPs(mac2); !slices.Equal(got, []netip.Addr{ip4b}) || slices.Contains(r.ownIPs(mac1), ip4b) {
		t.Errorf("announced: %v and %v", got, r.ownIPs(mac1))
	}
	// Addresses move with their station.
	r.Receive(7, remote(2, mac1, 1))
	if got := r.ownIPs(mac1); len(got) != 0 {
		t.Errorf("announced after it left: %v", got)
	}
	r.Gone(vni, mac2)
	if d := r.domains[vni]; len(d.ips) != 0 || len(r.timers) != 0 {
		t.Errorf("left: %v, %d timers", d.ips, len(r.timers))
	}
}

// The routes of a station's addresses are sticky while the station is; what is not announced yet
// has nothing to withdraw.
func TestStickyAddresses(t *testing.T) {
	r := newRig(t, Config{})
	r.local(mac1)
	r.frame(ask(ip4a, ip4b))
	for _, sticky := range []bool{true, false, true} {
		r.Local(r.now, vni, mac1, 1, sticky)
		for _, ip := range []netip.Addr{{}, ip4a} {
			if x, ok := r.rib[r.macKey(vni, mac1, ip)]; !ok || x.Sticky != sticky {
				t.Errorf("sticky %v, address %v: announced %v, %+v", sticky, ip, ok, x)
			}
		}
		r.check()
	}
	early := newRig(t, Config{Reserved: 8}) // it waits for what peers have
	early.local(mac1)
	early.frame(ask(ip4a, ip4b))
	early.Local(early.now, vni, mac1, 1, true)
	early.check()
	early.Gone(vni, mac1)
	early.check()
}

// A silent station is asked before it would be forgotten; one that does not answer loses its
// address.
func TestProbes(t *testing.T) {
	for _, ip := range []netip.Addr{ip4a, ip6b} {
		r := newRig(t, Config{})
		r.local(mac1)
		target := ip6a
		if ip.Is4() {
			target = ip4b
		}
		r.frame(ask(ip, target))
		r.pass(probeAfter - time.Second)
		if len(r.frames) != 0 {
			t.Fatalf("asked too early: %x", r.frames)
		}
		r.pass(2 * time.Second)
		if len(r.frames) != 1 || port.MACFrom(r.frames[0]) != mac1 {
			t.Fatalf("asked: %x", r.frames)
		}
		if m, ok := parse(r.frames[0]); !ok || m.asks.IsValid() || m.src != r.cfg.MAC {
			t.Errorf("the question is %x: %+v", r.frames[0], m)
		} else if ip.Is6() && m.from != netip.MustParseAddr("fe80::56:78ff:fe9a:bcde") { // RFC 2464 section 5
			t.Errorf("%v asks, which is no address of the switch", m.from)
		}
		r.frame(ask(ip, target)) // any message of its will do
		r.pass(probeAfter - 10*time.Second)
		if len(r.frames) != 1 {
			t.Errorf("asked again though it was heard: %x", r.frames[1:])
		}
		r.pass(time.Minute)
		if len(r.frames) != 1+probes || len(r.ownIPs(mac1)) != 0 {
			t.Errorf("asked %d times; announced: %v", len(r.frames)-1, r.ownIPs(mac1))
		}
		if _, ok := r.own(mac1); !ok {
			t.Error("its MAC address is withdrawn, too")
		}
	}
}

// claim has a station say that it has an address, without a word about others.
func (r *rig) claim(mac port.MAC, ip netip.Addr) {
	r.local(mac)
	if ip.Is4() {
		r.frame(arp(broadcast, mac, arpRequest, mac, ip, 0, ip4b))
	} else {
		r.frame(neighbour(nodes, mac, ip, ip6b, solicitation, 0, ip6b, sourceLink))
	}
}

// questions returns how often a station was asked for an address, and forgets all frames.
func (r *rig) questions(mac port.MAC, ip netip.Addr) (n int) {
	want := question(selfMAC, mac, ip)
	for _, b := range r.frames {
		if slices.Equal(b, want) {
			n++
		}
	}
	r.frames = nil
	return n
}

// An address that may have moved is asked for at once: when another station here or elsewhere
// claims it, and when its own station uses another. It stays with a station that answers.
func TestDoubt(t *testing.T) {
	for _, ip := range []netip.Addr{ip4a, ip6a} {
		for what, doubt := range map[string]func(*rig){
			"another station here": func(r *rig) { r.claim(mac2, ip) },
			"a station elsewhere":  func(r *rig) { r.Receive(7, remoteIP(2, mac2, ip)) },
			"another address":      func(r *rig) { r.claim(mac1, ip.Next().Next()) },
		} {
			for _, answers := range []bool{false, true} {
				r := newRig(t, Config{})
				r.claim(mac1, ip)
				r.pass(time.Second)
				r.frames = nil
				doubt(r)
				r.pass(confirmEvery / 2)
				if n := r.questions(mac1, ip); n != 1 {
					t.Errorf("%s: asked %d times at once", what, n)
				}
				if answers {
					r.claim(mac1, ip)
				}
				doubt(r) // to repeat a claim is no new doubt
				r.pass(probes * confirmEvery)
				if got := slices.Contains(r.ownIPs(mac1), ip); got != answers {
					t.Errorf("%s: announced %v, answers %v", what, got, answers)
				}
				if n := r.questions(mac1, ip); answers && n > 0 {
					t.Errorf("%s: asked %d times more", what, n)
				}
				r.check()
			}
		}
	}
}

// Who causes doubts without end has a station asked once each doubtEvery, and no address is
// remembered of more than maxClaims stations.
func TestDoubtsAreBounded(t *testing.T) {
	r := newRig(t, Config{})
	r.claim(mac1, ip4a)
	asked := 0
	const claims = 1000
	for n := range claims {
		r.claim(mac2+port.MAC(n), ip4a)
		r.pass(20 * time.Millisecond)
		asked += r.questions(mac1, ip4a)
		r.claim(mac1, ip4a)
		r.check()
	}
	if most := int(claims * 20 * time.Millisecond / doubtEvery); asked < 2 || asked > most+1 {
		t.Errorf("asked %d times, at most %d would do", asked, most+1)
	}
	if !slices.Contains(r.ownIPs(mac1), ip4a) {
		t.Error("the station that answers has lost its address")
	}
}

// The answer for an address that moved without a word is of no use; whoever gets it asks again,
// and the question goes to the network, where the new owner hears it.
func TestUselessAnswer(t *testing.T) {
	r := newRig(t, Config{})
	r.Receive(7, remoteIP(2, mac2, ip4b))
	r.local(mac1)
	r.local(mac1 + 7)
	for _, c := range []struct {
		after    time.Duration
		by       port.MAC
		answered bool
	}{
		{0, mac1, true},
		{time.Second, mac1, true}, // it may not have had the answer
		{askSoon, mac1 + 7, true}, // another station
		{0, mac1, false},
		{askSoon, mac1, true}, // one each floodEvery
		{0, mac1 + 7, true},
		{floodEvery, mac1, false},
		{askAgain, mac1, true}, // too late to tell
	} {
		r.now = r.now.Add(c.after)
		if got := r.frame(arp(broadcast, c.by, arpRequest, c.by, ip4a, 0, ip4b)); got != c.answered {
			t.Errorf("%+v: answered %v", c, got)
		}
	}
	// What stations of other ports ask does not hide it.
	r.now = r.now.Add(askAgain)
	for n := range numAnswers * 4 {
		if n == 0 && !r.frame(ask(ip4a, ip4b)) {
			t.Error("not answered")
		}
		mac := port.MAC(0x0200_0001_0000 + n)
		r.Local(r.now, vni, mac, 2, false)
		r.Frame(r.now, vni, 2, arp(broadcast, mac, arpRequest, mac, ip4a, 0, ip4b))
	}
	if r.now = r.now.Add(askSoon); r.frame(ask(ip4a, ip4b)) {
		t.Error("answered though it was of no use")
	}
}

// What breaks the rules of ARP and neighbour discovery teaches nothing.
func TestBrokenMessages(t *testing.T) {
	four, six := ask(ip4a, ip4b), ask(ip6a, ip6b)
	type edit struct {
		at int
		to byte
	}
	for _, c := range []struct {
		of    []byte
		edits []edit
	}{
		{four, []edit{{14, 9}}},                       // hardware
		{four, []edit{{18, 5}}},                       // length of an address
		{four, []edit{{21, 9}}},                       // operation
		{four, []edit{{22, 6}}},                       // sender's hardware address
		{four, []edit{{28, 224}}},                     // sender in a group
		{six, []edit{{21, 254}}},                      // hop limit
		{six, []edit{{20, 17}}},                       // protocol
		{six, []edit{{54, 134}}},                      // type
		{six, []edit{{70, 1}}},                        // checksum
		{six, []edit{{79, 0}}},                        // length of an option
		{six, []edit{{19, 99}}},                       // length of the packet
		{six, []edit{{6, 6}, {81, six[81]}}},          // another source
		{four, []edit{{6, 3}, {22, 3}}},               // source in a group
		{four, []edit{{12, 8}, {13, 0}}},              // IPv4
		{four[:30], nil}, {six[:70], nil}, {nil, nil}, // short
	} {
		r := newRig(t, Config{})
		r.local(mac1)
		b := slices.Clone(c.of)
		for _, e := range c.edits {
			b[e.at] = e.to
		}
		r.frame(b)
		if len(r.ownIPs(mac1)) != 0 {
			t.Errorf("%v: learned %v from %x", c.edits, r.ownIPs(mac1), b)
		}
	}
}

// Messages that others wrote are understood: their checksum covers both addresses (RFC 4443 section
// 2.3).
func TestMessagesOfOthers(t *testing.T) {
	for _, from := range []string{"fe80::1", "2001:db8::1", "2001:db8:ffff::ff01"} {
		r := newRig(t, Config{})
		r.local(mac1)
		body := packettest.ND("2001:db8::2", packettest.LinkLayer(sourceLink, mac1)...)
		r.frame(packettest.Eth(nodes, mac1, 0x86dd, packettest.ICMPv6(from, "ff02::1:ff00:2", solicitation, body)))
		if got := r.ownIPs(mac1); len(got) != 1 || got[0].String() != from {
			t.Errorf("learned %v from the message of %s", got, from)
		}
	}
}

// Whatever frames say, the table stays within its bounds and consistent.
func FuzzFrame(f *testing.F) {
	f.Add(ask(ip4a, ip4b))
	f.Add(ask(ip6a, ip6b))
	f.Add(rarp(mac1))
	f.Add(question(mac2, mac1, ip6b))
	f.Add(neighbour(mac1, mac1, ip6a, ip6b, advert, flagRouter, ip6a, targetLink))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRig(t, Config{Limits: Limits{IPs: 2}})
		r.Receive(7, remoteIP(2, mac2, ip4b))
		r.Receive(7, remoteIP(2, mac2, ip6b))
		r.local(mac1)
		if m, ok := parse(b); ok {
			r.local(m.src)
		}
		r.frames = nil // it may have moved here
		if r.frame(b) != (len(r.frames) > 0) {
			t.Fatalf("answers: %x", r.frames)
		}
		for _, a := range r.frames {
			if m, ok := parse(a); !ok || m.asks.IsValid() || m.src != mac2 {
				t.Fatalf("answers %x", a)
			}
		}
		r.check()
	})
}
