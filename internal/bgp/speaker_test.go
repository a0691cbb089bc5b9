package bgp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/port"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// party is a speaker at an address of the loopback device and the routes that it has received.
type party struct {
	*Speaker
	t    *testing.T
	addr netip.Addr
	port uint16 // where it listens; 0: nowhere

	mu     sync.Mutex
	routes map[evpn.Key]evpn.Route
	synced int
	ups    int
	downs  []time.Duration // Keep of each Lost
	change chan struct{}   // closed at the next event
}

func newParty(t *testing.T, host byte, as uint32, listens bool) *party {
	p := &party{t: t, addr: netip.AddrFrom4([4]byte{127, 0, 0, host}), routes: make(map[evpn.Key]evpn.Route), change: make(chan struct{})}
	p.Speaker = New(Config{AS: as, RouterID: netip.AddrFrom4([4]byte{192, 0, 2, host}), Log: slog.New(slog.DiscardHandler), Handle: p.handle})
	if listens {
		l, err := listenAt("tcp4", netip.AddrPortFrom(p.addr, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		p.port = uint16(l.Addr().(*net.TCPAddr).Port)
		p.listeners = append(p.listeners, l)
		p.tasks.Go(func() { p.accept(l) })
	}
	t.Cleanup(func() { p.Close(); p.Wait() })
	return p
}

func (p *party) handle(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case Established:
		p.ups++
		if e.Fresh {
			clear(p.routes)
		}
	case Updated:
		for _, u := range e.Updates {
			if u.Withdrawn {
				delete(p.routes, u.Key)
			} else {
				p.routes[u.Key] = u.Route
			}
		}
	case Synced:
		p.synced++
	case Lost:
		if e.Keep == 0 {
			clear(p.routes)
		}
		p.downs = append(p.downs, e.Keep)
	}
	close(p.change)
	p.change = make(chan struct{})
}

// await waits until a condition holds; it is evaluated with the party's lock.
func (p *party) await(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		done, change := ok(), p.change
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-change:
		case <-deadline:
			p.t.Fatalf("%v: %s: not within %v; %+v", p.addr, what, patience, p.Neighbors())
		}
	}
}

// knows adds other as a neighbour.
func (p *party) knows(other *party, change func(*Neighbor)) {
	p.t.Helper()
	nb := Neighbor{Peer: evpn.Peer(other.addr.As4()[3]), Address: other.addr, AS: other.cfg.AS, Port: other.port, Source: p.addr, Hold: 90 * time.Second}
	if change != nil {
		change(&nb)
	}
	if err := p.Add(nb); err != nil {
		p.t.Fatal(err)
	}
}

func (p *party) has(n int) func() bool { return func() bool { return len(p.routes) == n } }

func testRoute(host byte, n int) evpn.Route {
	r := macRoute(port.MAC(0x0200_0000_0000+n), "", 0)
	r.RD[7] = host
	return r
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two speakers exchange what they announce, before and after the session is there.
func TestExchange(t *testing.T) {
	for _, as := range []uint32{65001, 65002, 4200000001} {
		a, b := newParty(t, 2, 65001, true), newParty(t, 3, as, false)
		const n = 3000
		for i := range n {
			a.Announce(testRoute(2, i))
		}
		a.knows(b, nil)
		b.knows(a, nil)
		b.await("all routes", b.has(n))
		b.await("End-of-RIB", func() bool { return b.synced == 1 })
		a.await("End-of-RIB", func() bool { return a.synced == 1 })

		changed := testRoute(2, 1)
		changed.Seq = 9
		a.Announce(changed)
		a.Withdraw(testRoute(2, 0).Key)
		a.Withdraw(testRoute(2, n).Key) // it was never announced
		b.Announce(floodRoute())
		b.await("the change", func() bool { return b.routes[changed.Key].Seq == 9 && len(b.routes) == n-1 })
		a.await("the other's route", func() bool { return a.routes[floodRoute().Key] == floodRoute() })
		s := b.Neighbors()[0]
		if s.State != StateEstablished || s.RouterID != a.cfg.RouterID || s.Hold != 90*time.Second || s.Received == 0 || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		if got := len(a.Announced()); got != n-1 {
			t.Errorf("%d are announced", got)
		}
		a.Close()
		b.Close()
	}
}

// Both connect at the same time, again and again: they agree on one session.
func TestCollision(t *testing.T) {
	for range 5 {
		a, b := newParty(t, 2, 65001, true), newParty(t, 3, 65001, true)
		a.Announce(testRoute(2, 1))
		b.Announce(testRoute(3, 1))
		a.knows(b, nil)
		b.knows(a, nil)
		a.await("a session", func() bool { return len(a.routes) == 1 && a.synced > 0 })
		b.await("a session", func() bool { return len(b.routes) == 1 && b.synced > 0 })
		a.Close()
		b.Close()
	}
}

// The routes of a speaker that ends without a word are kept for a while; those of one that
// removes the neighbour are not.
func TestLost(t *testing.T) {
	a := newParty(t, 2, 65001, true)
	b := newParty(t, 3, 65001, false)
	a.knows(b, nil)
	b.knows(a, nil)
	b.Announce(testRoute(3, 1))
	a.await("the route", a.has(1))
	b.Close()
	b.Wait()
	a.await("the end", func() bool { return len(a.downs) > 0 })
	a.mu.Lock()
	if a.downs[0] != restartTime || len(a.routes) != 1 {
		t.Errorf("kept for %v: %v", a.downs, a.routes)
	}
	a.mu.Unlock()

	again := newParty(t, 3, 65001, false)
	again.Announce(testRoute(3, 2))
	again.knows(a, nil)
	a.await("the other route", func() bool { _, ok := a.routes[testRoute(3, 2).Key]; return ok })
	if !again.Remove(a.addr) || again.Remove(a.addr) || len(again.Neighbors()) != 0 {
		t.Error("Remove does not tell whether there was a neighbour")
	}
	a.await("the routes' end", a.has(0))

	third := newParty(t, 3, 65001, false)
	third.Announce(testRoute(3, 3))
	third.knows(a, nil)
	a.await("the third route", a.has(1))
	third.Leave()
	third.Wait()
	a.await("the end of the third", func() bool { return len(a.routes) == 0 && len(a.downs) == 3 })
	if s := a.Neighbors()[0]; s.State == StateEstablished || !strings.Contains(s.Problem, "peer deconfigured") && !strings.Contains(strings.ToLower(s.Problem), "deconfigured") {
		t.Errorf("%+v", s)
	}
}

// Packets of both ends have the TTL that neighbours may demand, and the class of routing.
func TestPackets(t *testing.T) {
	a, b := newParty(t, 2, 65001, true), newParty(t, 3, 65001, false)
	a.knows(b, nil)
	b.knows(a, nil)
	a.await("the session", func() bool { return a.ups == 1 })
	b.await("the session", func() bool { return b.ups == 1 })
	for _, p := range []*party{a, b} {
		p.Speaker.mu.Lock()
		for _, n := range p.neighbors {
			raw, err := n.current.Conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) {
				hops, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL)
				class, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS)
				if hops != 255 || class != 0xc0 {
					t.Errorf("%v sends with TTL %d and class %#x", p.addr, hops, class)
				}
			})
		}
		p.Speaker.mu.Unlock()
	}
}

// A password must be the same on both sides.
func TestPassword(t *testing.T) {
	a := newParty(t, 2, 65001, true)
	good, bad, none := newParty(t, 3, 65001, false), newParty(t, 4, 65001, false), newParty(t, 5, 65001, false)
	for _, p := range []*party{good, bad, none} {
		a.knows(p, func(nb *Neighbor) { nb.Password = "s3cret" })
		p.Announce(testRoute(p.addr.As4()[3], 1))
	}
	bad.knows(a, func(nb *Neighbor) { nb.Password = "other" })
	none.knows(a, nil)
	good.knows(a, func(nb *Neighbor) { nb.Password = "s3cret" })
	a.await("the session with the right password", func() bool { return len(a.routes) > 0 })
	for _, s := range a.Neighbors() {
		if up := s.State == StateEstablished; up != (s.Address == good.addr) {
			t.Errorf("%v: %s", s.Address, s.State)
		}
	}
}

// fake is a neighbour made by hand.
type fake struct {
	net.Conn
	t   *testing.T
	in  *bufio.Reader
	buf []byte
}

// dial connects to a party as its neighbour at 127.0.0.9.
func dial(p *party) *fake {
	p.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	c, err := d.Dial("tcp4", netip.AddrPortFrom(p.addr, p.port).String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &fake{c, p.t, bufio.NewReader(c), make([]byte, maxMessage)}
}

func (f *fake) next() (kind byte, body []byte) {
	f.t.Helper()
	kind, body, err := readMessage(f.in, f.buf)
	if err != nil {
		f.t.Fatalf("reading: %v", err)
	}
	return kind, body
}

// nextBut returns the next message that is not of a kind.
func (f *fake) nextBut(but ...byte) (kind byte, body []byte) {
	f.t.Helper()
	for {
		if kind, body = f.next(); !slices.Contains(but, kind) {
			return kind, body
		}
	}
}

func (f *fake) say(m *packet.BGPMessage) {
	f.t.Helper()
	if err := send(f, m); err != nil {
		f.t.Fatal(err)
	}
}

func openOf(as uint16, hold uint16, id string, capabilities ...packet.ParameterCapabilityInterface) *packet.BGPMessage {
	m, _ := packet.NewBGPOpenMessage(as, hold, netip.MustParseAddr(id), []packet.OptionParameterInterface{packet.NewOptionParameterCapability(capabilities)})
	return m
}

var (
	evpnCap = packet.NewCapMultiProtocol(packet.RF_EVPN)
	fakeAS  = uint16(65009)
)

// establish brings a session up.
func (f *fake) establish(hold uint16, capabilities ...packet.ParameterCapabilityInterface) {
	f.t.Helper()
	f.say(openOf(fakeAS, hold, "192.0.2.9", append([]packet.ParameterCapabilityInterface{evpnCap}, capabilities...)...))
	if kind, _ := f.next(); kind != packet.BGP_MSG_OPEN {
		f.t.Fatalf("a message of kind %d in place of OPEN", kind)
	}
	if kind, b := f.next(); kind != packet.BGP_MSG_KEEPALIVE {
		f.t.Fatalf("a message of kind %d, %x, in place of KEEPALIVE", kind, b)
	}
	f.say(packet.NewBGPKeepAliveMessage())
}

func withFake(t *testing.T) *party {
	p := newParty(t, 2, 65001, true)
	if err := p.Add(Neighbor{Peer: 9, Address: netip.MustParseAddr("127.0.0.9"), AS: uint32(fakeAS), Port: 1, Hold: 90 * time.Second}); err != nil {
		t.Fatal(err)
	}
	return p
}

// What is wrong with an OPEN is answered with its code, and said to the user.
func TestOpenRefused(t *testing.T) {
	p := withFake(t)
	version := openOf(fakeAS, 90, "192.0.2.9", evpnCap)
	version.Body.(*packet.BGPOpen).Version = 3
	for _, c := range []struct {
		m             *packet.BGPMessage
		code, subcode byte
		problem       string
	}{
		{openOf(7, 90, "192.0.2.9", evpnCap), 2, 2, "is in AS 7, not 65009; correct --as"},
		{openOf(fakeAS, 90, "0.0.0.0", evpnCap), 2, 3, "router ID"},
		{openOf(fakeAS, 2, "192.0.2.9", evpnCap), 2, 6, "hold time"},
		{openOf(fakeAS, 90, "192.0.2.9"), 2, 7, "does not offer EVPN"},
		{openOf(fakeAS, 90, "192.0.2.9", packet.NewCapMultiProtocol(packet.RF_IPv4_UC)), 2, 7, "does not offer EVPN"},
		{openOf(asTrans, 90, "192.0.2.9"), 2, 7, "does not offer EVPN"}, // no capability at all
		{version, 2, 1, "version 3"},
		{packet.NewBGPKeepAliveMessage(), 5, 0, "at the wrong time"},
	} {
		f := dial(p)
		f.say(c.m)
		kind, body := f.nextBut(packet.BGP_MSG_OPEN)
		if kind != packet.BGP_MSG_NOTIFICATION || body[0] != c.code || body[1] != c.subcode {
			t.Errorf("%s: message %d: %x", c.problem, kind, body)
		}
		if _, _, err := readMessage(f.in, f.buf); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the connection stays: %v", c.problem, err)
		}
		if s := p.Neighbors()[0]; !strings.Contains(s.Problem, c.problem) && !strings.Contains(s.Problem, "cannot connect") {
			t.Errorf("the problem is %q, want %q", s.Problem, c.problem)
		}
	}
}

// openWith returns the body of an OPEN with optional parameters and what says how long they are.
func openWith(parameters ...byte) []byte {
	return append([]byte{4, byte(fakeAS >> 8), byte(fakeAS & 0xff), 0, 90, 192, 0, 2, 9}, parameters...)
}

// extended returns optional parameters with lengths of two octets (RFC 9072), each of a type and a value.
func extended(length byte, values ...[]byte) (b []byte) {
	for _, v := range values {
		b = append(append(b, v[0], byte((len(v)-1)>>8), byte(len(v)-1)), v[1:]...)
	}
	return append([]byte{length, 255, byte(len(b) >> 8), byte(len(b))}, b...)
}

// The capabilities of an OPEN are found in one parameter or in several, with lengths of one octet or of two, beside
// capabilities that nobody knows.
func TestOpenParameters(t *testing.T) {
	family := []byte{1, 4, 0, 25, 0, 70}
	all := slices.Concat([]byte{200, 0}, family, []byte{64, 6, 0x80, 77, 0, 25, 70, 0x80, 65, 4, 0, 0, byte(fakeAS >> 8), byte(fakeAS & 0xff), 2, 0})
	many := bytes.Repeat(append([]byte{201, 100}, make([]byte, 100)...), 30) // 3,060 bytes
	whole := opened{routerID: netip.MustParseAddr("192.0.2.9"), hold: 90 * time.Second, as4: true, refresh: true, restart: 77 * time.Second, keeps: true}
	little := opened{routerID: whole.routerID, hold: whole.hold}
	parameter := func(v []byte) []byte { return append([]byte{2, byte(len(v))}, v...) }
	for _, c := range []struct {
		name string
		body []byte
		want opened
		code notification // 0: it is accepted
	}{
		{"one parameter", openWith(append([]byte{byte(2 + len(all))}, parameter(all)...)...), whole, notification{}},
		{"a parameter each", openWith(slices.Concat([]byte{byte(2 + len(all))}, parameter(family), parameter(all[8:]))...), whole, notification{}},
		{"long lengths", openWith(extended(255, append([]byte{2}, all...))...), whole, notification{}},
		{"long lengths, few bytes", openWith(extended(1, append([]byte{2}, all...))...), whole, notification{}},
		{"long parameters", openWith(extended(255, append([]byte{2}, many...), append([]byte{2}, all...))...), whole, notification{}},
		{"capabilities of wrong lengths", openWith(append([]byte{20, 2, 18, 1, 3, 0, 25, 70, 65, 2, 0, 7, 64, 1, 0}, family...)...), little, notification{}},
		{"bytes after the parameters", openWith(append([]byte{8, 2, 6}, append(slices.Clone(family), 9, 9)...)...), little, notification{}},

		{"no parameters", openWith(0), opened{}, notification{code: 2, subcode: 7}},
		{"no length", openWith(), opened{}, notification{code: 1, subcode: 2}},
		{"parameters cut off", openWith(append([]byte{9, 2, 6}, family...)...), opened{}, notification{code: 2}},
		{"a parameter cut off", openWith(append([]byte{8, 2, 7}, family...)...), opened{}, notification{code: 2}},
		{"a parameter without length", openWith(append([]byte{9, 2, 6}, append(slices.Clone(family), 2)...)...), opened{}, notification{code: 2}},
		{"a capability cut off", openWith(append([]byte{8, 2, 6}, 1, 5, 0, 25, 0, 70)...), opened{}, notification{code: 2}},
		{"long lengths cut off", openWith(extended(255, append([]byte{2}, all...))[:9]...), opened{}, notification{code: 2}},
		{"long lengths without any", openWith(2, 255, 0), opened{}, notification{code: 2, subcode: 4}},
		{"an unknown parameter", openWith(2, 1, 0), opened{}, notification{code: 2, subcode: 4}},
		{"an unknown long parameter", openWith(extended(255, []byte{1, 0})...), opened{}, notification{code: 2, subcode: 4}},
	} {
		n := newNeighbor(New(Config{AS: 65001, RouterID: ownID}), Neighbor{AS: uint32(fakeAS), Hold: 90 * time.Second})
		got, err := n.readOpen(c.body)
		var nf *notification
		if errors.As(err, &nf); c.code != (notification{}) {
			if nf == nil || nf.code != c.code.code || nf.subcode != c.code.subcode {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
		n.stop()
		n.speaker.Close()
	}
}

// A session survives what it does not know, and ends with a code at what cannot be read.
func TestSession(t *testing.T) {
	p := withFake(t)
	p.Announce(testRoute(2, 1))
	f := dial(p)
	f.establish(90)
	kind, body := f.nextBut(packet.BGP_MSG_KEEPALIVE)
	rd := reader{as: uint32(fakeAS), routerID: ownID, own: port.VXLAN}
	if got, _, err := rd.read(body, nil); kind != packet.BGP_MSG_UPDATE || err != nil || len(got) != 1 || got[0].Route != testRoute(2, 1) {
		t.Fatalf("message %d: %+v, %v", kind, got, err)
	}
	if kind, body = f.nextBut(packet.BGP_MSG_KEEPALIVE); kind != packet.BGP_MSG_UPDATE {
		t.Fatalf("no End-of-RIB, but %d", kind)
	} else if _, eor, _ := rd.read(body, nil); !eor {
		t.Fatalf("no End-of-RIB, but %x", body)
	}

	// It asks for all routes again.
	f.say(packet.NewBGPRouteRefreshMessage(25, 0, 70))
	if kind, body = f.nextBut(packet.BGP_MSG_KEEPALIVE); kind != packet.BGP_MSG_UPDATE {
		t.Fatalf("message %d: %x", kind, body)
	}

	unknown := attributesOf(t, testRoute(9, 1), func(kind byte, v []byte) (byte, []byte) {
		switch kind {
		case attrASPath:
			v = []byte{2, 1, 0xfd, 0xf1}
		case attrReach:
			v = append(v, 6, 1, 0, 8, 1, 0, 11, 1, 0)
		case attrCommunities:
			v = append(v, 6, 6, 0, 0, 0, 0, 0, 0, 6, 14, 0, 0, 0, 0, 0, 0)
		}
		return kind, v
	})
	f.raw(packet.BGP_MSG_UPDATE, unknown)
	p.await("the route beside unknown ones", p.has(1))
	f.raw(packet.BGP_MSG_UPDATE, []byte{0, 9})
	if kind, body = f.nextBut(packet.BGP_MSG_KEEPALIVE); kind != packet.BGP_MSG_NOTIFICATION || body[0] != 3 || body[1] != 1 {
		t.Errorf("message %d: %x", kind, body)
	}
	p.await("the routes' end", p.has(0))

	for _, c := range []struct {
		raw           []byte
		code, subcode byte
	}{
		{append(make([]byte, 16), 0, 19, 4), 1, 1},
		{append(marker(), 0, 18, 4), 1, 2},
		{append(marker(), 0x10, 1, 2), 1, 2},
		{append(marker(), 0, 19, 9), 1, 3},
		{append(marker(), 0, 19, 1), 5, 0},
	} {
		f := dial(p)
		f.establish(90)
		if _, err := f.Write(c.raw); err != nil {
			t.Fatal(err)
		}
		if kind, body := f.nextBut(packet.BGP_MSG_KEEPALIVE, packet.BGP_MSG_UPDATE); kind != packet.BGP_MSG_NOTIFICATION || body[0] != c.code || body[1] != c.subcode {
			t.Errorf("%x: message %d: %x", c.raw[16:], kind, body)
		}
	}
}

// A neighbour that can is asked for its routes again.
func TestRefresh(t *testing.T) {
	p := withFake(t)
	at := netip.MustParseAddr("127.0.0.9")
	if p.Refresh(at) {
		t.Error("one without a session is asked")
	}
	f := dial(p)
	f.establish(90, packet.NewCapRouteRefresh())
	p.await("the session", func() bool { return p.ups == 1 })
	if !p.Refresh(at) || p.Refresh(p.addr) {
		t.Error("who is asked is not told")
	}
	if kind, body := f.nextBut(packet.BGP_MSG_KEEPALIVE, packet.BGP_MSG_UPDATE); kind != packet.BGP_MSG_ROUTE_REFRESH || !bytes.Equal(body, []byte{0, 25, 0, 70}) {
		t.Errorf("message %d: %x", kind, body)
	}
	f.Close()
	p.await("the end", func() bool { return len(p.downs) == 1 })
	f = dial(p)
	f.establish(90)
	p.await("the session", func() bool { return p.ups == 2 })
	if p.Refresh(at) {
		t.Error("one that does not offer it is asked")
	}
}

// full returns an UPDATE of a route that is as long as messages can be, and of those that are longer by more.
func full(t *testing.T, r evpn.Route, more int) []byte {
	b := attributesOf(t, r, func(kind byte, v []byte) (byte, []byte) {
		if kind == attrASPath {
			v = []byte{2, 1, 0xfd, 0xf1}
		}
		return kind, v
	})
	pad := maxMessage - headerLen - len(b) - 4 + more
	b = append(append(b, 0xd0, 250, byte(pad>>8), byte(pad)), make([]byte, pad)...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

// An UPDATE may have 4,096 bytes. A longer one (RFC 8654) ends the session, for this side does not offer that.
func TestLongMessages(t *testing.T) {
	p := withFake(t)
	f := dial(p)
	f.establish(90, packet.NewCapUnknown(6, nil), packet.NewCapUnknown(200, []byte{1, 2, 3}))
	for n := range 20 {
		f.raw(packet.BGP_MSG_UPDATE, full(t, testRoute(9, n), 0))
	}
	p.await("the routes of the longest UPDATEs", p.has(20))
	f.raw(packet.BGP_MSG_UPDATE, full(t, testRoute(9, 99), 1))
	if kind, body := f.nextBut(packet.BGP_MSG_KEEPALIVE, packet.BGP_MSG_UPDATE); kind != packet.BGP_MSG_NOTIFICATION || body[0] != 1 || body[1] != 2 {
		t.Errorf("message %d: %x", kind, body)
	}
	p.await("the routes' end", p.has(0))
}

// A message counts once it is there, though half of the next one has come with it. What is cut short does not count,
// and the user reads that the neighbour has gone.
func TestClosedAmidUpdate(t *testing.T) {
	p := withFake(t)
	f := dial(p)
	f.establish(90)
	whole, half := testRoute(9, 1), testRoute(9, 2)
	b := append(full(t, whole, 0), marker()...)
	b = append(append(b, maxMessage>>8, maxMessage&0xff, packet.BGP_MSG_UPDATE), full(t, half, 0)[:2000]...)
	n := maxMessage
	if _, err := f.Write(append(append(marker(), byte(n>>8), byte(n), packet.BGP_MSG_UPDATE), b...)); err != nil {
		t.Fatal(err)
	}
	p.await("the route of the whole one", p.has(1))
	f.Close()
	p.await("the end", func() bool { return len(p.downs) == 1 })
	if got := p.Neighbors()[0].Problem; got != "the neighbor closed the connection" {
		t.Errorf("the problem is %q", got)
	}
}

// A neighbour that comes and goes as fast as it can, in any state, is served when it stays, and nothing is left of
// what it said before.
func TestFlaps(t *testing.T) {
	p := withFake(t)
	p.Announce(testRoute(2, 1))
	open := openOf(fakeAS, 90, "192.0.2.9", evpnCap)
	// up connects until no end of an earlier connection is in the way.
	up := func() *fake {
		for {
			f := dial(p)
			_, _ = send(f, open), send(f, packet.NewBGPKeepAliveMessage())
			if kind, _, err := readMessage(f.in, f.buf); err == nil && kind == packet.BGP_MSG_OPEN {
				if kind, _, err = readMessage(f.in, f.buf); err == nil && kind == packet.BGP_MSG_KEEPALIVE {
					return f
				}
			}
			f.Close()
		}
	}
	for n := range 100 {
		var f *fake
		switch n % 4 {
		case 0:
			f = dial(p)
		case 1:
			f = dial(p)
			_ = send(f, open)
		case 2:
			f = up()
		case 3:
			f = up()
			f.raw(packet.BGP_MSG_UPDATE, full(t, testRoute(9, n), 0))
			p.await("its route", p.has(1))
		}
		f.Close()
	}
	f := up()
	f.raw(packet.BGP_MSG_UPDATE, full(t, testRoute(9, 1000), 0))
	p.await("the last route alone", func() bool { _, ok := p.routes[testRoute(9, 1000).Key]; return ok && len(p.routes) == 1 })
}

func marker() []byte { return slices.Repeat([]byte{0xff}, 16) }

func (f *fake) raw(kind byte, body []byte) {
	f.t.Helper()
	n := headerLen + len(body)
	if _, err := f.Write(append(append(marker(), byte(n>>8), byte(n), kind), body...)); err != nil {
		f.t.Fatal(err)
	}
}

// A silent neighbour is dead: its routes are not kept, even if it can restart gracefully.
func TestHoldTime(t *testing.T) {
	p := withFake(t)
	f := dial(p)
	restart := packet.NewCapGracefulRestart(false, false, 99, []*packet.CapGracefulRestartTuple{packet.NewCapGracefulRestartTuple(packet.RF_EVPN, true)})
	f.establish(3, restart)
	p.await("the session", func() bool { return p.ups == 1 })
	if kind, body := f.nextBut(packet.BGP_MSG_KEEPALIVE, packet.BGP_MSG_UPDATE); kind != packet.BGP_MSG_NOTIFICATION || body[0] != 4 {
		t.Errorf("message %d: %x", kind, body)
	}
	p.await("the end", func() bool { return len(p.downs) == 1 && p.downs[0] == 0 })

	// One whose connection breaks restarts.
	f = dial(p)
	f.establish(90, restart)
	p.await("the session", func() bool { return p.ups == 2 })
	f.Close()
	p.await("the end", func() bool { return len(p.downs) == 2 && p.downs[1] == 99*time.Second })
}

// piped is a party in a synctest bubble, and its neighbour at the other end of a pipe, which reads nothing by itself.
func piped(t *testing.T, hold uint16, capabilities ...packet.ParameterCapabilityInterface) (*party, *fake) {
	p := newParty(t, 2, 65001, false)
	at := netip.MustParseAddr("127.0.0.9")
	n := newNeighbor(p.Speaker, Neighbor{Peer: 9, Address: at, AS: uint32(fakeAS), Hold: 90 * time.Second})
	p.neighbors[at] = n
	f := p.pipe(n)
	f.open(hold, capabilities...)
	return p, f
}

// pipe is a connection that a neighbour has made.
func (p *party) pipe(n *neighbor) *fake {
	here, there := net.Pipe()
	p.tasks.Go(func() { n.session(here, false) })
	p.t.Cleanup(func() { there.Close() })
	return &fake{there, p.t, bufio.NewReader(there), make([]byte, maxMessage)}
}

// open is establish at a pipe, which has no room for what nobody has read.
func (f *fake) open(hold uint16, capabilities ...packet.ParameterCapabilityInterface) {
	t := f.t
	t.Helper()
	if kind, _ := f.next(); kind != packet.BGP_MSG_OPEN {
		t.Fatalf("a message of kind %d in place of OPEN", kind)
	}
	f.say(openOf(fakeAS, hold, "192.0.2.9", append([]packet.ParameterCapabilityInterface{evpnCap}, capabilities...)...))
	if kind, _ := f.next(); kind != packet.BGP_MSG_KEEPALIVE {
		t.Fatalf("a message of kind %d in place of KEEPALIVE", kind)
	}
	f.say(packet.NewBGPKeepAliveMessage())
}

// A neighbour that says why it ends a session, and hangs up from then on, has said why.
func TestReasonStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := piped(t, 90)
		n := p.neighbors[netip.MustParseAddr("127.0.0.9")]
		problem := func() string { synctest.Wait(); return p.Neighbors()[0].Problem }
		f.next() // End-of-RIB
		f.say(packet.NewBGPNotificationMessage(packet.BGP_ERROR_CEASE, packet.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN, nil))
		if got := problem(); !strings.Contains(got, "administrative shutdown") {
			t.Errorf("the problem is %q", got)
		}
		f = p.pipe(n)
		f.next() // OPEN
		f.Close()
		if got := problem(); !strings.Contains(got, "administrative shutdown") {
			t.Errorf("once it hangs up, the problem is %q", got)
		}
		f = p.pipe(n)
		f.open(90)
		f.next()
		if got := problem(); got != "" {
			t.Errorf("in a session, the problem is %q", got)
		}
		f.Close()
		if got := problem(); got != "the neighbor closed the connection" {
			t.Errorf("after it, the problem is %q", got)
		}
	})
}

// A neighbour that speaks and does not listen is dead, and the user reads why.
func TestUntaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := piped(t, 30, packet.NewCapGracefulRestart(false, false, 99, []*packet.CapGracefulRestartTuple{packet.NewCapGracefulRestartTuple(packet.RF_EVPN, true)}))
		begin := time.Now()
		_ = f.SetDeadline(begin.Add(time.Hour))
		for {
			if _, err := f.Write(append(marker(), 0, headerLen, packet.BGP_MSG_KEEPALIVE)); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		p.tasks.Wait()
		if took := time.Since(begin); took > 35*time.Second || len(p.downs) != 1 || p.downs[0] != 0 {
			t.Errorf("after %v it was lost with %v", took, p.downs)
		}
		if s := p.Neighbors()[0]; s.Problem != "the neighbor takes no messages" || s.State == StateEstablished {
			t.Errorf("%+v", s)
		}
	})
}

// Without a hold time there are no keepalives, and no end of silence.
func TestNoHoldTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := piped(t, 0)
		if kind, body := f.next(); kind != packet.BGP_MSG_UPDATE { // End-of-RIB
			t.Fatalf("message %d: %x", kind, body)
		}
		_ = f.SetReadDeadline(time.Now().Add(10 * time.Hour))
		if kind, body, err := readMessage(f.in, f.buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("message %d: %x, %v", kind, body, err)
		}
		p.Announce(testRoute(2, 1))
		_ = f.SetReadDeadline(time.Now().Add(time.Second))
		if kind, body := f.next(); kind != packet.BGP_MSG_UPDATE || p.Neighbors()[0].Hold != 0 {
			t.Errorf("message %d: %x", kind, body)
		}
	})
}

// A neighbour that restarts while its old connection seems to be there replaces it.
func TestReplaced(t *testing.T) {
	p := withFake(t)
	old := dial(p)
	old.establish(90)
	p.await("the session", func() bool { return p.ups == 1 })
	p.Speaker.mu.Lock()
	p.neighbors[netip.MustParseAddr("127.0.0.9")].current.established = time.Now().Add(-collisionWindow)
	p.Speaker.mu.Unlock()

	f := dial(p)
	f.say(openOf(fakeAS, 90, "192.0.2.9", evpnCap))
	if kind, _ := f.nextBut(packet.BGP_MSG_OPEN); kind != packet.BGP_MSG_NOTIFICATION {
		t.Errorf("message %d", kind)
	}
	p.await("the end of the old session", func() bool { return len(p.downs) == 1 })
	dial(p).establish(90)
}

// A stranger is not spoken to.
func TestStranger(t *testing.T) {
	p := withFake(t)
	c, err := net.Dial("tcp4", netip.AddrPortFrom(p.addr, p.port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestAddTwice(t *testing.T) {
	p := withFake(t)
	if err := p.Add(Neighbor{Address: netip.MustParseAddr("127.0.0.9")}); err == nil {
		t.Error("a second neighbour with the address is taken")
	}
	p.Close()
	if err := p.Add(Neighbor{Address: netip.MustParseAddr("127.0.0.8")}); err == nil {
		t.Error("a closed speaker takes a neighbour")
	}
}

// However often routes come and go, nothing of them remains.
func TestChurnLeavesNothing(t *testing.T) {
	a, b := newParty(t, 2, 65001, true), newParty(t, 3, 65001, false)
	a.knows(b, nil)
	b.knows(a, nil)
	b.await("the session", func() bool { return b.ups == 1 })
	for round := range 5 {
		for i := range 2000 {
			a.Announce(testRoute(byte(round), i))
		}
		for i := range 2000 {
			a.Withdraw(testRoute(byte(round), i).Key)
		}
	}
	last := testRoute(99, 1)
	a.Announce(last)
	b.await("the last route alone", func() bool { return len(b.routes) == 1 && b.routes[last.Key] == last })
	a.Speaker.mu.Lock()
	defer a.Speaker.mu.Unlock()
	if len(a.rib) != 1 {
		t.Errorf("%d routes are left", len(a.rib))
	}
}

// Whatever a neighbour's OPEN says, reading it ends.
func FuzzOpen(f *testing.F) {
	b, _ := openOf(fakeAS, 90, "192.0.2.9", evpnCap, packet.NewCapFourOctetASNumber(1), packet.NewCapRouteRefresh(),
		packet.NewCapGracefulRestart(true, true, 120, []*packet.CapGracefulRestartTuple{packet.NewCapGracefulRestartTuple(packet.RF_EVPN, true)})).Serialize()
	f.Add(b[headerLen:])
	f.Add(openWith(extended(255, []byte{2, 1, 4, 0, 25, 0, 70, 2, 0}, []byte{2, 65, 4, 0, 0, 0, 1})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{AS: 65001, RouterID: ownID})
		defer s.Close()
		n := newNeighbor(s, Neighbor{AS: uint32(fakeAS), Hold: 90 * time.Second})
		defer n.stop()
		o, err := n.readOpen(b)
		if err == nil && (!o.routerID.Is4() || o.hold < 0 || o.hold > n.Hold || o.restart > maxRestart) {
			t.Fatalf("%+v", o)
		}
	})
}

func (s Status) String() string { return fmt.Sprintf("%v %s %q", s.Address, s.State, s.Problem) }
