package lag_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ebpf "github.com/cilium/ebpf/link"
	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/linux/hoststack/hoststacktest"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/lag"
	"github.com/vswitch/vswitch/port/porttest"
)

// kind is the kind of one switch.
var kind = of("sw0")

func of(switchName string) port.Kind {
	return porttest.Kind(lag.New(lag.Options{Switch: switchName}))
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cables makes n cables, from a0 to b0 and so on, with all ends up.
func cables(ns *testenv.Netns, a, b string, n, mtu int) {
	for i := range n {
		a, b := fmt.Sprint(a, i), fmt.Sprint(b, i)
		ns.Run("ip", "link", "add", a, "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", b, "mtu", fmt.Sprint(mtu))
		ns.Run("ip", "link", "set", a, "up")
		ns.Run("ip", "link", "set", b, "up")
	}
}

func spec(o lag.Settings) port.Spec { return port.Spec{Name: "lag0", Kind: "lag", Settings: o} }

func open(t *testing.T, s port.Spec, trace *port.Trace) *lag.Port {
	t.Helper()
	return porttest.Open[*lag.Port](t, kind, s, trace)
}

// A static port is as good as each of its members: what the suite sends is one flow, so one
// member carries it, and the other is there.
//
//	port under test ─┬─ a0 ═══ veth ═══ b0 ── station
//	                 └─ a1 ═══ veth ═══ b1
func TestConformance(t *testing.T) {
	for _, mode := range []lag.Mode{"static", "active-backup"} {
		t.Run(string(mode), func(t *testing.T) {
			ns := testenv.NewNetns(t)
			ns.Run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1") // the peers' hosts are silent
			var serial atomic.Int32
			porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
				a, b := fmt.Sprintf("a%dx", serial.Add(1)), fmt.Sprintf("b%dx", serial.Load())
				cables(ns, a, b, 2, 65521)
				ns.Do(func() {
					p := open(t, spec(lag.Settings{Members: lag.Names{a + "0", a + "1"}, Mode: mode}), new(port.Trace))
					wait(t, p, func() bool { return p.Link() })
					// An S-tag counts for the MTU. The station may be slow, and a veth does not
					// wait for it.
					f = porttest.Fixture{Port: p, Peer: both{t, tuntest.Listen(t, b+"0"), tuntest.Listen(t, b+"1")}, MaxLen: 65535 - 4, Offloads: true, Silent: true}
				})
				return f
			})
		})
	}
}

// both is a station at two cables: it sends by the first, and hears by both.
type both struct {
	t    *testing.T
	a, b *tuntest.Station
}

func (s both) Send(wire []byte, o port.Offload) error { return s.a.Send(wire, o) }

func (s both) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	const look = time.Millisecond
	for deadline := time.Now().Add(timeout); ; {
		for _, one := range []*tuntest.Station{s.a, s.b} {
			if b, o, err := one.Recv(look); err == nil || time.Now().After(deadline) {
				return b, o, err
			}
		}
	}
}

// wait waits until a port is as wanted.
func wait(t *testing.T, p *lag.Port, is func() bool) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("the port: %+v", p.Members()), is)
}

// states returns the states of the members.
func states(p *lag.Port) string {
	var all []string
	for _, m := range p.Members() {
		all = append(all, string(m.State))
	}
	return strings.Join(all, " ")
}

func waitStates(t *testing.T, p *lag.Port, want string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); states(p) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the members are %q, want %q: %+v", states(p), want, p.Members())
		}
	}
}

// reader receives from all queues of a port.
type reader chan port.Frame

func read(t *testing.T, p port.Port) reader {
	r := make(reader, 1<<10)
	var running sync.WaitGroup
	t.Cleanup(func() {
		p.Close()
		running.Wait()
	})
	for _, q := range p.Queues() {
		running.Go(func() {
			batch := make([]port.Frame, port.BatchSize)
			for {
				n, err := q.Recv(batch)
				if err != nil {
					return
				}
				for _, f := range batch[:n] {
					f.Data = bytes.Clone(f.Data)
					select {
					case r <- f:
					default:
					}
				}
				q.Release()
			}
		})
	}
	return r
}

// next returns the next frame that is like data, but for the LACPDUs of the other end.
func (r reader) next(t *testing.T, data []byte) port.Frame {
	t.Helper()
	end := time.After(time.Minute)
	for {
		select {
		case f := <-r:
			if bytes.Equal(f.Data, data) {
				return f
			}
		case <-end:
			t.Fatalf("%x does not come", data)
		}
	}
}

// hears sends numbered frames until one comes by a station, and returns by which.
func hears(t *testing.T, p port.Port, stations ...*tuntest.Station) int {
	t.Helper()
	for number := uint32(1); number < 1000; number++ {
		tuntest.Send(p, tuntest.Ethernet(number, 60), port.Offload{})
		for i, s := range stations {
			for {
				b, _, err := s.Recv(5 * time.Millisecond)
				if err != nil {
					break
				}
				if tuntest.IsEthernet(b) {
					return i
				}
			}
		}
	}
	t.Fatal("no frame comes")
	return -1
}

// One member carries frames. When it loses its carrier another does; when that comes back,
// nothing changes.
func TestActiveBackup(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 3, 1500)
	ns.Do(func() {
		p := open(t, spec(lag.Settings{Members: lag.Names{"a1", "a0", "a2"}, Mode: "active-backup", MinLinks: 2}), new(port.Trace))
		r := read(t, p)
		b := []*tuntest.Station{tuntest.Listen(t, "b0"), tuntest.Listen(t, "b1"), tuntest.Listen(t, "b2")}
		waitStates(t, p, "active standby standby")
		if at := hears(t, p, b...); at != 1 {
			t.Errorf("frames come by b%d", at)
		}
		in := tuntest.Ethernet(7, 60)
		if err := b[0].Send(in, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		if f := r.next(t, in); f.Drop != port.DropStandby {
			t.Errorf("by a standby: %v", f.Drop)
		}
		ns.Run("ip", "link", "set", "b1", "down")
		waitStates(t, p, "no-carrier active standby")
		if at := hears(t, p, b[0], b[2]); at != 0 {
			t.Errorf("frames come by number %d of b0 and b2", at)
		}
		if err := b[0].Send(in, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		if f := r.next(t, in); f.Drop != port.DropNone {
			t.Errorf("by the new active: %v", f.Drop)
		}
		if !strings.Contains(p.Notice(), "the other end of a1 is down") {
			t.Errorf("the notice is %q", p.Notice())
		}
		ns.Run("ip", "link", "set", "b1", "up")
		waitStates(t, p, "standby active standby")
		if p.Notice() != "" {
			t.Errorf("the notice is %q", p.Notice())
		}
		ns.Run("ip", "link", "set", "a0", "down")
		ns.Run("ip", "link", "del", "a1")
		waitStates(t, p, "waiting down standby")
		if p.Link() || p.LinkError() == nil || !strings.Contains(p.LinkError().Error(), "ip link set a0 up") {
			t.Errorf("with fewer than two: %v, %v", p.Link(), p.LinkError())
		}
		if d := tuntest.Send(p, tuntest.Ethernet(1, 60), port.Offload{}); d != port.DropNoCarrier {
			t.Errorf("a frame is %v", d)
		}
		cables(ns, "a1x", "b1x", 1, 1500)
		ns.Run("ip", "link", "set", "a1x0", "down")
		ns.Run("ip", "link", "set", "a1x0", "name", "a1", "up")
		waitStates(t, p, "standby down active")
		if at := hears(t, p, b[2]); at != 0 || !p.Link() {
			t.Error("the port carries nothing")
		}
	})
}

// Flows spread over the members of a static port, and keep to their member when another goes or
// comes.
func TestStatic(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 3, 1500)
	ns.Do(func() {
		one := spec(lag.Settings{Members: lag.Names{"a0", "a1", "a2"}, Mode: "static", Hash: "layer2"})
		trace := new(port.Trace)
		p := open(t, one, trace)
		b := []*tuntest.Station{tuntest.Listen(t, "b0"), tuntest.Listen(t, "b1"), tuntest.Listen(t, "b2")}
		waitStates(t, p, "active active active")
		// by returns by which cables each of many flows goes.
		const flows = 96
		by := func() (all [flows]int) {
			t.Helper()
			for i := range all {
				all[i] = -1
			}
			left := flows
			for deadline := time.Now().Add(time.Minute); left > 0; {
				if time.Now().After(deadline) {
					t.Fatalf("%d flows are lost", left)
				}
				for i := range all {
					if all[i] < 0 {
						f := tuntest.Ethernet(uint32(i), 60)
						f[11] = byte(i)
						tuntest.Send(p, f, port.Offload{})
					}
				}
				for at, s := range b {
					for {
						f, _, err := s.Recv(20 * time.Millisecond)
						if err != nil {
							break
						}
						if tuntest.IsEthernet(f) && all[f[11]] < 0 {
							all[f[11]] = at
							left--
						}
					}
				}
			}
			return all
		}
		share := func(all [flows]int, at int) (n int) {
			for _, is := range all {
				if is == at {
					n++
				}
			}
			return n
		}
		before := by()
		for at := range b {
			if n := share(before, at); n < flows/6 {
				t.Errorf("member %d has %d of %d flows", at, n, flows)
			}
		}
		two := spec(lag.Settings{Members: lag.Names{"a2", "a0"}, Mode: "static", Hash: "layer2"})
		if err := kind.Set(p, one, two); err != nil {
			t.Fatal(err)
		}
		waitStates(t, p, "active active")
		with2 := by()
		for i := range with2 {
			if before[i] != 1 && with2[i] != before[i] || with2[i] == 1 {
				t.Errorf("flow %d went from %d to %d", i, before[i], with2[i])
			}
		}
		if l, err := link.ByName("a1"); err != nil || l.Alias != "" {
			t.Errorf("the member that was taken out: %+v, %v", l, err)
		}
		if err := kind.Set(p, two, one); err != nil {
			t.Fatal(err)
		}
		waitStates(t, p, "active active active")
		after := by()
		for i := range after {
			if after[i] != 1 && after[i] != with2[i] {
				t.Errorf("flow %d went from %d to %d", i, with2[i], after[i])
			}
		}
		if n := share(after, 1); n < flows/6 {
			t.Errorf("the member that came has %d of %d flows", n, flows)
		}

		// What cannot be is refused, and changes nothing.
		ns.Run("ip", "link", "add", "br0", "type", "bridge")
		cables(ns, "c", "d", 1, 1500)
		ns.Run("ip", "link", "set", "c0", "master", "br0")
		bad := spec(lag.Settings{Members: lag.Names{"a0", "d0", "c0"}, Mode: "static"})
		if err := kind.Set(p, one, bad); err == nil || !strings.Contains(err.Error(), "belongs to a bridge") {
			t.Errorf("a member of a bridge: %v", err)
		}
		if l, err := link.ByName("d0"); states(p) != "active active active" || err != nil || l.Alias != "" {
			t.Errorf("after a refusal: %s, %+v, %v", states(p), l, err)
		}

		// Whoever takes a member from the switch has its frames; the port does without.
		ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "a1")
		waitStates(t, p, "active down active")
		ns.Run("ip", "link", "set", "a2", "master", "br0")
		waitStates(t, p, "active down down")
		ns.Run("ip", "link", "set", "a2", "nomaster")
		ns.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "a1")
		waitStates(t, p, "active active active")

		p.Close()
		if err := kind.Delete(one, port.Trace{Members: p.Trace().Members}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a0", "a1", "a2"} {
			if l, err := link.ByName(name); err != nil || l.Alias != "" || !l.Up {
				t.Errorf("%+v, %v", l, err)
			}
		}
	})
}

// Two ports that speak LACP with each other join, and each knows the other.
func TestLACP(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	ns.Do(func() {
		a := open(t, spec(lag.Settings{Members: lag.Names{"a0", "a1"}, LACPRate: "fast"}), new(port.Trace))
		// Nobody has spoken, so nothing passes.
		waitStates(t, a, "negotiating negotiating")
		if err := a.LinkError(); err == nil || !strings.Contains(err.Error(), "the other end of a0 does not speak LACP; the other end of a1") {
			t.Errorf("alone: %v", err)
		}
		b := open(t, port.Spec{Name: "lag1", Settings: lag.Settings{Members: lag.Names{"b1", "b0"}}}, new(port.Trace))
		waitStates(t, a, "active active")
		waitStates(t, b, "active active")
		r := read(t, b)
		want := tuntest.Ethernet(3, 60)
		if d := tuntest.Send(a, want, port.Offload{}); d != port.DropNone {
			t.Errorf("a frame is %v", d)
		}
		if f := r.next(t, want); f.Drop != port.DropNone {
			t.Errorf("it is dropped as %v", f.Drop)
		}
		l, err := link.ByName("b1")
		if err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "it knows its partner", func() bool { // a last LACPDU may be on its way
			m := a.Members()[1]
			return m.Ifname == "a1" && m.LACP != nil && m.LACP.Partner != nil && m.LACP.Partner.System == port.MACFrom(l.MAC[:]) &&
				slices.Contains(m.LACP.Partner.State, "distributing") && m.LACP.Received > 0
		})
		ns.Run("ip", "link", "set", "b1", "down")
		waitStates(t, a, "active no-carrier")
		waitStates(t, b, "down active")
		b.Close()
		waitStates(t, a, "negotiating no-carrier")
		if a.Link() {
			t.Error("the link is there")
		}
	})
}

// A cable that leads back to the port carries nothing, but its LACPDUs.
func TestLoop(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 1, 1500)
	ns.Do(func() {
		p := open(t, spec(lag.Settings{Members: lag.Names{"a0", "b0"}}), new(port.Trace))
		testenv.Eventually(t, "it sees the loop", func() bool {
			return p.LinkError() != nil && strings.Contains(p.LinkError().Error(), "the cable of a0 leads back to this port")
		})
	})
}

// Slow protocols end at the port, whoever carries frames.
func TestSlowProtocols(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 1, 1500)
	ns.Do(func() {
		p := open(t, spec(lag.Settings{Members: lag.Names{"a0"}, Mode: "static"}), new(port.Trace))
		waitStates(t, p, "active")
		r, s := read(t, p), tuntest.Listen(t, "b0")
		frame := lacp.Append(nil, 2, lacp.PDU{Actor: lacp.Info{System: 2}})
		tagged := tuntest.Tagged(frame, port.MakeTag(port.TPIDCustomer, 7))
		other := bytes.Clone(frame)
		other[13]++
		for _, b := range [][]byte{frame, tagged, other} {
			if err := s.Send(b, port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			data []byte
			want port.Drop
		}{{frame, port.DropConsumed}, {other, port.DropNone}} {
			if f := r.next(t, c.data); f.Drop != c.want || f.Tag.Present() {
				t.Errorf("%x is dropped as %v, want %v", c.data[12:15], f.Drop, c.want)
			}
			if f := r; c.want == port.DropConsumed && f.next(t, c.data).Drop != c.want {
				t.Error("a tagged one is not taken")
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "set", "a1", "master", "br0")
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Run("ip", "link", "set", "vm0", "alias", "vswitch sw0")
	ns.Do(func() {
		for _, c := range []struct {
			members string
			want    string
			gone    bool
		}{
			{"eth8 eth9", "interface eth8 is not there", true},
			{"a0 a1", "belongs to a bridge or bond", false},
			{"eth9 lo", "loopback", false},
			{"a0 vm0", "vm0 is the device of another port", false},
		} {
			s := spec(lag.Settings{Members: strings.Fields(c.members), Mode: "static"})
			if err := porttest.Refused(t, kind, s, c.want); errors.Is(err, port.ErrGone) != c.gone {
				t.Errorf("%s: gone is %v", c.members, !c.gone)
			}
		}
		if l, err := link.ByName("a0"); err != nil || l.Alias != "" {
			t.Errorf("%+v, %v", l, err)
		}
		// A device is one port, and belongs to one switch.
		p := open(t, spec(lag.Settings{Members: lag.Names{"a0"}}), new(port.Trace))
		porttest.Refused(t, kind, port.Spec{Name: "lag1", Settings: lag.Settings{Members: lag.Names{"a0"}}}, "another port of this switch")
		porttest.Refused(t, of("sw1"), port.Spec{Name: "lag1", Settings: lag.Settings{Members: lag.Names{"a0"}}}, "belongs to switch sw0")
		// One that was there before makes do with what it gets.
		members := *p.Trace().Members
		p.Close()
		trace := port.Trace{Members: &members}
		p = open(t, spec(lag.Settings{Members: lag.Names{"a0", "a1", "eth9"}, Mode: "static"}), &trace)
		waitStates(t, p, "active down waiting")
		ns.Run("ip", "link", "set", "a1", "nomaster")
		waitStates(t, p, "active active waiting")
		if n := len(*p.Trace().Members); n != 2 {
			t.Errorf("the trace has %d members", n)
		}
	})
}

func TestCheck(t *testing.T) {
	of := func(o lag.Settings) port.Spec { return spec(o) }
	two := lag.Names{"eth0", "eth1"}
	porttest.Check(t, kind, []port.Spec{
		of(lag.Settings{Members: two}), of(lag.Settings{Members: two, Mode: "lacp", LACPRate: "fast", MinLinks: 2, Hash: "layer3+4"}),
		of(lag.Settings{Members: lag.Names{"eth0"}, Mode: "static", Hash: "layer2", MTU: 9000}),
	}, []port.Spec{
		of(lag.Settings{}), of(lag.Settings{Members: lag.Names{"a/b"}}),
		of(lag.Settings{Members: lag.Names{"1", "2", "3", "4", "5", "6", "7", "8", "9"}}), of(lag.Settings{Members: two, MinLinks: 3}),
		of(lag.Settings{Members: two, Mode: "static", LACPRate: "fast"}), of(lag.Settings{Members: two, Mode: "802.3ad"}),
		of(lag.Settings{Members: two, Hash: "layer4"}), of(lag.Settings{Members: two, LACPRate: "1s"}), {Name: ""},
	})
	var n lag.Names
	if err := n.ReadFlag("eth0, eth1,"); err != nil || !slices.Equal(n, two) || n.FlagText([]any{"eth0", "eth1"}) != "eth0,eth1" {
		t.Errorf("%v, %v", n, err)
	}
}

// TestRateWithoutLACP: a change to a mode without LACP unsets its rate, which is then refused.
func TestRateWithoutLACP(t *testing.T) {
	t.Parallel()
	from := lag.Settings{Members: lag.Names{"a0"}, LACPRate: "fast"}
	for patch, want := range map[string]lag.Rate{
		`{"lag_mode": "static"}`:                      "",
		`{"lag_mode": "active-backup"}`:               "",
		`{"lag_mode": "lacp"}`:                        "fast",
		`{"hash": "layer2"}`:                          "fast",
		`{"lag_mode": "static", "lacp_rate": "slow"}`: "slow",
	} {
		var p setting.Patch
		if err := json.Unmarshal([]byte(patch), &p); err != nil {
			t.Fatal(err)
		}
		to, err := setting.Merge(from, p)
		if err != nil {
			t.Fatal(err)
		}
		s := to.(lag.Settings)
		if s.LACPRate != want {
			t.Errorf("after %s the rate is %q, want %q", patch, s.LACPRate, want)
		}
		if err := kind.Check(spec(s)); (err != nil) != (want == "slow") {
			t.Errorf("after %s: %v", patch, err)
		}
	}
}

// What the port changed on a member that was moved to another namespace is undone once it is back.
// Another interface of that name has its own settings.
func TestMemberComesBack(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1400)
	ns.Run("ip", "link", "set", "a1", "alias", "rack 7")
	s := spec(lag.Settings{Members: lag.Names{"a0", "a1"}, Mode: "static", MTU: 1300})
	trace := new(port.Trace)
	check := func(what string, mtu int, alias string) {
		t.Helper()
		l, err := link.ByName("a1")
		if err != nil || l.MTU != mtu || l.Alias != alias {
			t.Errorf("%s: a1 has MTU %d and the alias %q, %v", what, l.MTU, l.Alias, err)
		}
	}
	away := func() {
		t.Helper()
		ns.Run("ip", "link", "set", "a1", "netns", elsewhere.Path())
	}
	back := func(p *lag.Port) {
		t.Helper()
		elsewhere.Run("ip", "link", "set", "a1", "netns", ns.Path())
		ns.Run("ip", "link", "set", "a1", "up")
		waitStates(t, p, "active active")
	}
	ns.Do(func() {
		p := open(t, s, trace)
		waitStates(t, p, "active active")
		away()
		waitStates(t, p, "active waiting")
		back(p)
		*trace = p.Trace()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		away()
		p = open(t, s, trace)
		waitStates(t, p, "active waiting")
		back(p)
		*trace = p.Trace()
		if err := errors.Join(p.Close(), kind.Delete(s, *trace)); err != nil {
			t.Fatal(err)
		}
		check("back", 1400, "rack 7")

		*trace = port.Trace{}
		p = open(t, s, trace)
		waitStates(t, p, "active active")
		ns.Run("ip", "link", "del", "a1")
		waitStates(t, p, "active waiting")
		ns.Run("ip", "link", "add", "a1", "mtu", "1350", "type", "veth", "peer", "name", "b1", "mtu", "1350")
		ns.Run("ip", "link", "set", "b1", "up")
		ns.Run("ip", "link", "set", "a1", "up")
		waitStates(t, p, "active active")
		*trace = p.Trace()
		if err := errors.Join(p.Close(), kind.Delete(s, *trace)); err != nil {
			t.Fatal(err)
		}
		check("another", 1350, "")
	})
}

// A port says whose program sees the frames of a member first, and puts its own back if somebody
// detached it.
func TestProgramsAtMembers(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	ns.Do(func() {
		p := open(t, spec(lag.Settings{Members: lag.Names{"a0", "a1"}, Mode: "static"}), new(port.Trace))
		waitStates(t, p, "active active")
		l, err := link.ByName("a1")
		if err != nil {
			t.Fatal(err)
		}
		// Without an event, a member is looked at after some seconds.
		event := func(mtu string) { ns.Run("ip", "link", "set", "a1", "mtu", mtu) }
		other := hoststacktest.Attach(t, l.Index, "other", ebpf.Head())
		event("1400")
		wait(t, p, func() bool { return strings.HasPrefix(p.Notice(), `a1: program "other" (id `) })
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		hoststacktest.Detach(t, l.Index)
		event("1500")
		wait(t, p, func() bool { return p.Notice() == "" && len(hoststacktest.Names(t, l.Index)) == 1 })
		waitStates(t, p, "active active")
	})
}

// TestRenamed gives members back under the names that they got meanwhile, in the process that took
// them and in a later one, and takes them again under those.
func TestRenamed(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	rename := func(from, to string) {
		ns.Run("ip", "link", "set", from, "down")
		ns.Run("ip", "link", "set", from, "name", to)
		ns.Run("ip", "link", "set", to, "up")
	}
	// later returns what the state file keeps of a trace.
	later := func(trace port.Trace) (kept port.Trace) {
		t.Helper()
		b, err := json.Marshal(trace)
		if err == nil {
			err = json.Unmarshal(b, &kept)
		}
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	ns.Do(func() {
		one := spec(lag.Settings{Members: lag.Names{"a0", "a1"}, Mode: "static"})
		check := func(what string, names ...string) {
			t.Helper()
			for _, name := range names {
				l, err := link.ByName(name)
				if err != nil || l.Alias != "" {
					t.Errorf("%s: %s has the alias %q, %v", what, name, l.Alias, err)
				}
			}
		}
		trace := new(port.Trace)
		p := open(t, one, trace)
		waitStates(t, p, "active active")
		rename("a0", "x0")
		waitStates(t, p, "active active")
		wait(t, p, func() bool { return (*p.Trace().Members)[0].Name == "a0" && (*p.Trace().Members)[0].Ifname == "x0" })
		// The settings can follow: the member stays in its place, and can get yet another name.
		next := spec(lag.Settings{Members: lag.Names{"x0", "a1"}, Mode: "static"})
		before := p.Members()
		if err := kind.Set(p, one, next); err != nil {
			t.Fatal(err)
		}
		if m := p.Members(); m[0].Ifname != "x0" || m[0].Queue != before[0].Queue || m[0].State != port.MemberActive {
			t.Errorf("under its new name the member is %+v, before %+v", m[0], before[0])
		}
		if m := *p.Trace().Members; len(m) != 2 || m[1].Name != "" || m[1].Ifname != "x0" {
			t.Errorf("the change that waits is %+v", m)
		}
		rename("x0", "a0")
		waitStates(t, p, "active active")
		wait(t, p, func() bool { return (*p.Trace().Members)[1].Name == "x0" && (*p.Trace().Members)[1].Ifname == "a0" })
		if err := kind.Set(p, next, one); err != nil {
			t.Fatal(err)
		}
		rename("a0", "x0")
		waitStates(t, p, "active active")
		wait(t, p, func() bool { return (*p.Trace().Members)[0].Name == "a0" && (*p.Trace().Members)[0].Ifname == "x0" })
		p.Close()
		if err := kind.Delete(one, p.Trace()); err != nil {
			t.Error(err)
		}
		check("in the process", "x0", "a1")

		// Another process takes the renamed member again, and gives it back. Whoever has the former
		// name by then is none of it.
		rename("x0", "a0")
		trace = new(port.Trace)
		p = open(t, one, trace)
		waitStates(t, p, "active active")
		rename("a0", "x0")
		wait(t, p, func() bool { return (*p.Trace().Members)[0].Ifname == "x0" })
		p.Close()
		kept := later(p.Trace())
		ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "z0")
		p = open(t, one, &kept)
		waitStates(t, p, "active active")
		p.Close()
		if err := kind.Delete(one, later(p.Trace())); err != nil {
			t.Error(err)
		}
		check("in another process", "x0", "a1", "a0")

		// It is found as well if it got its name while no process ran, be it in use again or given back.
		ns.Run("ip", "link", "del", "a0")
		rename("x0", "a0")
		trace = new(port.Trace)
		p = open(t, one, trace)
		waitStates(t, p, "active active")
		p.Close()
		kept = later(p.Trace())
		rename("a0", "x0")
		p = open(t, one, &kept)
		waitStates(t, p, "active active")
		p.Close()
		rename("x0", "y0")
		if err := kind.Delete(one, later(p.Trace())); err != nil {
			t.Error(err)
		}
		check("renamed while no process ran", "y0", "a1")
		// Of another switch, or of another boot of the host, it is another device.
		ns.Run("ip", "link", "set", "y0", "alias", "vswitch other adopted")
		if err := kind.Delete(one, kept); err != nil {
			t.Error(err)
		}
		if l, err := link.ByName("y0"); err != nil || l.Alias != "vswitch other adopted" {
			t.Errorf("another switch's device has the alias %q, %v", l.Alias, err)
		}
		rename("y0", "x0")
		ns.Run("ip", "link", "set", "x0", "alias", "")

		// The last name can be another device's, which stays as it is.
		ns.Run("ip", "link", "del", "x0")
		ns.Run("ip", "link", "add", "x0", "type", "veth", "peer", "name", "z1")
		ns.Run("ip", "link", "set", "x0", "alias", "mine")
		if err := kind.Delete(one, kept); err != nil {
			t.Error(err)
		}
		if l, err := link.ByName("x0"); err != nil || l.Alias != "mine" {
			t.Errorf("another device has the alias %q, %v", l.Alias, err)
		}
	})
}
