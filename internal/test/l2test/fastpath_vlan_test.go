package l2test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/fastpath"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/proto/mcast"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/tap"
	vswitch "github.com/vswitch/vswitch/switch"
)

// tapSwitch is a switch in the test's process, between guests on TAPs vm0, vm1 and so
// on, which are its ports 0, 1 and so on.
type tapSwitch struct {
	t      testing.TB
	ns     *testenv.Netns
	sw     *vswitch.Switch
	ports  []*vswitch.Port
	guests []guest
}

// guest is who is behind a port.
type guest interface {
	Send(wire []byte, o port.Offload) error
	Recv(timeout time.Duration) ([]byte, port.Offload, error)
}

// shared stands for a port on one end of a veth pair that is shared with the host, with a
// station at the other end, in place of a guest's offloads.
const shared = -1

// newTapSwitch makes a switch with a guest for each of these offloads, which forwards
// in the kernel or does not.
func newTapSwitch(t testing.TB, fast bool, offloads ...int) *tapSwitch {
	t.Helper()
	ns := quietNetns(t)
	s := &tapSwitch{t: t, ns: ns}
	cfg := vswitch.Config{FDB: fdb.Config{Aging: -1}}
	of, ofNIC := tap.Options{Switch: "sw0"}, netdev.Options{Switch: "sw0"}
	var path *fastpath.Path
	if fast {
		var err error
		path, err = fastpath.Open(fastpath.Options{Capacity: fdb.DefaultCapacity, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		cfg.FastPath, of.Ingress, ofNIC.Ingress = path, path, path
	}
	taps, nics := porttest.Kind(tap.New(of)), porttest.Kind(netdev.New(ofNIC))
	s.sw = vswitch.New(cfg)
	t.Cleanup(func() {
		if fast {
			path.Stop()
		}
		if err := s.sw.Close(); err != nil {
			t.Error(err)
		}
	})
	ns.Do(func() {
		for i, o := range offloads {
			name, kind := "vm"+strconv.Itoa(i), taps
			if o == shared {
				kind = nics
				ns.Run("ip", "link", "add", name, "mtu", "9000", "up", "type", "veth", "peer", "name", "peer", "mtu", "9000")
				ns.Run("ip", "link", "set", "peer", "up")
			}
			dev, err := kind.Open(port.Spec{Name: name}, new(port.Trace))
			if err != nil {
				t.Fatal(err)
			}
			p, err := s.sw.AddPort(name)
			if err == nil {
				err = p.Attach(dev)
			}
			if err != nil {
				t.Fatal(err)
			}
			p.SetForwarding(true)
			s.ports = append(s.ports, p)
			if o == shared {
				s.guests = append(s.guests, tuntest.Listen(t, "peer"))
			} else {
				s.guests = append(s.guests, tuntest.Boot(t, name, o))
			}
		}
	})
	if fast {
		path.Start()
	}
	return s
}

// send has a guest send a frame, and returns what the port counted for it: the switch
// has dealt with it then, its copies have left, and what it learned is in force. So no
// frame that is sent later, which the kernel forwards, overtakes it.
func (s *tapSwitch) send(from int, wire []byte, o port.Offload) (before, after vswitch.PortStats) {
	s.t.Helper()
	before = s.ports[from].Stats()
	if err := s.guests[from].Send(wire, o); err != nil {
		s.t.Fatalf("vm%d sends % x…: %v", from, wire[:min(len(wire), 30)], err)
	}
	deadline := time.Now().Add(time.Minute)
	for after = s.ports[from].Stats(); after.RX.Frames == before.RX.Frames; after = s.ports[from].Stats() {
		if time.Now().After(deadline) {
			s.t.Fatalf("a frame of vm%d is not counted", from)
		}
		runtime.Gosched()
	}
	for !s.isBalanced() {
		if time.Now().After(deadline) {
			s.t.Fatalf("a frame of vm%d is neither sent nor dropped", from)
		}
		runtime.Gosched()
	}
	if after.Fast == before.Fast {
		s.sw.Settle() // nothing else was learned; it would have the kernel forget flows
	}
	return before, after
}

// isBalanced reports whether every frame that came, and every copy, was sent or dropped.
func (s *tapSwitch) isBalanced() bool {
	came, went := uint64(0), uint64(0)
	for _, p := range s.ports {
		st := p.Stats()
		came += st.RX.Frames + st.RX.Copies
		went += st.TX.Frames
		for why := range st.RX.Dropped {
			went += st.RX.Dropped[why] + st.TX.Dropped[why]
		}
	}
	return came == went
}

// arrival is a frame as it came to a guest.
type arrival struct {
	wire    string
	offload port.Offload
}

// receive takes what comes to a guest until nothing has for a while, at the least n
// frames where so many do come.
func (s *tapSwitch) receive(at, n int, quiet time.Duration) (all []arrival) {
	s.t.Helper()
	for {
		wait := quiet
		if len(all) < n {
			wait = 5 * time.Second
		}
		wire, o, err := s.guests[at].Recv(wait)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			s.t.Fatal(err)
		}
		o.HdrLen = 0 // a hint that no receiver trusts: how much the kernel had in one piece
		if p, ok := eth.FindIP(wire); ok && p.Fragment {
			o.Flags &^= port.DataValid // the kernel says so of some fragments that it made, and not of others
		}
		all = append(all, arrival{string(wire), o})
	}
}

// both are a switch that forwards in the kernel, and one that does not, which decides
// what is right.
type both struct {
	t          testing.TB
	fast, slow *tapSwitch
	anyOrder   bool // the fast one has mirrors that the switch serves by copies, which come when they come
}

func newBoth(t testing.TB, offloads ...int) *both {
	t.Helper()
	return &both{t: t, fast: newTapSwitch(t, true, offloads...), slow: newTapSwitch(t, false, offloads...)}
}

// shape has a port's device keep a rate that no test reaches: its frames pass by another way.
func (s *tapSwitch) shape(t testing.TB, n int) {
	t.Helper()
	s.ns.Do(func() {
		if _, err := s.ports[n].Device().(port.Shaping).Shape(40e9); err != nil {
			t.Fatal(err)
		}
	})
}

// configure gives the ports their settings, and forgets all stations.
func (b *both) configure(configs ...vswitch.PortConfig) {
	b.t.Helper()
	for _, s := range []*tapSwitch{b.fast, b.slow} {
		for i, c := range configs {
			if err := s.ports[i].Configure(c); err != nil {
				b.t.Fatal(err)
			}
		}
		s.sw.FDB().Flush(func(fdb.Entry) bool { return true })
		s.sw.Settle()
	}
}

// mirror gives both switches the same random mirrors, or none.
func (b *both) mirror(t *rapid.T) {
	var mirrors []vswitch.Mirror
	b.anyOrder = false
	name := func(n int) string { return "vm" + strconv.Itoa(n) }
	for i := range rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3}).Draw(t, "mirrors") {
		to := rapid.IntRange(2, len(b.slow.ports)-1).Draw(t, "to") // two observers at the most
		m := vswitch.Mirror{
			Name: fmt.Sprint("m", i), To: name(to),
			In: rapid.Bool().Draw(t, "in"),
		}
		m.Out = !m.In || rapid.Bool().Draw(t, "out")
		if rapid.IntRange(0, 7).Draw(t, "truncated") == 0 {
			m.SnapLen = 100
		}
		if rapid.IntRange(0, 7).Draw(t, "filtered") == 0 {
			// By the wire: a tag that the port leaves alone may be beside the frame, or in it.
			m.Filter = func(f *port.Frame, tag port.Tag) bool {
				return uint64(f.Src)&1 == 0 || tag.Present() || eth.IsTag(binary.BigEndian.Uint16(f.Data[12:]))
			}
		}
		if rapid.IntRange(0, 7).Draw(t, "of a VLAN") == 0 {
			m.VLANs.Add(1)
		}
		if rapid.IntRange(0, 7).Draw(t, "into a VLAN") == 0 {
			m.To, m.ToVLAN = "", 20
		}
		b.anyOrder = b.anyOrder || m.SnapLen != 0 || m.Filter != nil || m.VLANs.Len() > 0 || m.ToVLAN != 0
		for n := range b.slow.ports {
			if n != to && rapid.Bool().Draw(t, "source") {
				m.Ports = append(m.Ports, name(n))
			}
		}
		if m.Ports != nil || m.VLANs.Len() > 0 {
			mirrors = append(mirrors, m)
		}
	}
	for _, s := range []*tapSwitch{b.fast, b.slow} {
		if err := s.sw.SetMirrors(mirrors); err != nil {
			b.t.Fatal(err)
		}
	}
}

// The groups of IP that hosts join, or send to, in the comparison. The last ones go to all
// ports whatever is known: they are of a link's control.
var ipGroups = []port.MAC{0x0100_5e01_0203, 0x0100_5e01_0204, 0x3333_0002_0001, 0x3333_0002_0002, 0x0100_5e00_00fb, 0x3333_0000_0001, 0x3333_ff00_0001}

const joinable = 4 // the first of ipGroups

// snoop gives both switches the same random groups, or none.
func (b *both) snoop(t *rapid.T) {
	var groups *vswitch.Groups
	if vids := rapid.SliceOfN(rapid.SampledFrom([]uint16{1, 10}), 0, 2).Draw(t, "snooped"); len(vids) > 0 {
		some := func(what string, least int) []uint16 {
			numbers := rapid.SliceOfN(rapid.Uint16Range(0, uint16(len(b.slow.ports)-1)), least, 3).Draw(t, what)
			slices.Sort(numbers)
			return slices.Compact(numbers)
		}
		joined := make(map[fdb.Key][]uint16)
		for _, vid := range vids {
			for _, mac := range ipGroups[:joinable] {
				if rapid.Bool().Draw(t, "joined") {
					joined[fdb.MakeKey(vid, uint64(mac))] = some("members", 1)
				}
			}
		}
		routers, flood := some("routers", 0), rapid.Bool().Draw(t, "flood")
		groups = &vswitch.Groups{
			IsControl: mcast.IsControl,
			Lookup: func(vlan uint16, mac uint64) ([]uint16, bool) {
				if ports, is := joined[fdb.MakeKey(vlan, mac)]; is {
					return ports, false
				}
				if slices.Contains(ipGroups[joinable:], port.MAC(mac)) {
					return nil, true
				}
				return routers, flood
			},
		}
		if rapid.IntRange(0, 7).Draw(t, "left to the switch") > 0 {
			groups.Each = func(f func(uint16, uint64, []uint16)) {
				for key, ports := range joined {
					f(key.VLAN(), uint64(key)&(1<<48-1), ports)
				}
			}
			groups.Rest = func(uint16, bool) ([]uint16, bool) { return routers, flood }
		}
		for _, vid := range vids {
			groups.VLANs.Add(vid)
		}
	}
	for _, s := range []*tapSwitch{b.fast, b.slow} {
		s.sw.SetGroups(groups)
	}
}

// learn makes a station known behind a port.
func (b *both) learn(vlan uint16, mac port.MAC, at int) {
	for _, s := range []*tapSwitch{b.fast, b.slow} {
		s.sw.FDB().Learn(fdb.MakeKey(vlan, uint64(mac)), s.ports[at].Number())
		s.sw.Settle()
	}
}

// compare checks that the same came to the guests of both, in the same order, and
// returns it. What the switches know and have counted must be the same as well.
func (b *both) compare(t interface{ Errorf(string, ...any) }) (got [][]arrival) {
	b.t.Helper()
	b.await()
	for i := range b.slow.guests {
		want := b.slow.receive(i, 0, 2*time.Millisecond)
		all := b.fast.receive(i, len(want), time.Millisecond)
		if len(all) != len(want) {
			t.Errorf("to vm%d come %d frames, want %d", i, len(all), len(want))
		}
		if b.anyOrder {
			for _, s := range [][]arrival{all, want} {
				slices.SortFunc(s, func(a, b arrival) int { return strings.Compare(a.wire, b.wire) })
			}
		}
		for n := range min(len(all), len(want)) {
			if all[n] != want[n] {
				t.Errorf("to vm%d comes as number %d\n%s, want\n%s", i, n, all[n], want[n])
			}
		}
		got = append(got, all)
		counts := b.fast.ports[i].Stats()
		counts.Fast = 0
		if want := b.slow.ports[i].Stats(); counts != want {
			t.Errorf("vm%d counts\n%+v, want\n%+v", i, counts, want)
		}
	}
	if know, want := b.fast.stations(), b.slow.stations(); !slices.Equal(know, want) {
		t.Errorf("known are %v, want %v", know, want)
	}
	return got
}

// await returns when both have counted the same: what they send has left then. It gives
// up where they disagree for long.
func (b *both) await() {
	agree := func() bool {
		for i, p := range b.slow.ports {
			counts := b.fast.ports[i].Stats()
			counts.Fast = 0
			if counts != p.Stats() {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(2 * time.Second); !agree() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

func (a arrival) String() string {
	return fmt.Sprintf("%d bytes % x… %+v", len(a.wire), a.wire[:min(len(a.wire), 40)], a.offload)
}

// stations lists what the switch knows.
func (s *tapSwitch) stations() (all []string) {
	for e := range s.sw.FDB().All() {
		all = append(all, fmt.Sprintf("%v at %d", e.Key, e.Port))
	}
	slices.Sort(all)
	return all
}

func access(vid uint16) port.VLAN { return port.VLAN{Access: vid} }

func transparent(vid uint16) port.VLAN { return port.VLAN{QinQ: vid} }

// trunk carries VLANs tagged, and one untagged unless that is 0.
func trunk(native uint16, tagged ...uint16) port.VLAN {
	v := port.VLAN{Native: native}
	for _, vid := range tagged {
		v.Trunk.Add(vid)
	}
	return v
}

// provider is a trunk whose tags are S-tags.
func provider(native uint16, tagged ...uint16) port.VLAN {
	v := trunk(native, tagged...)
	v.TrunkTPID = port.TPID(port.TPIDService)
	return v
}

func accept(a port.Accept, v port.VLAN) port.VLAN {
	v.Accept = a
	return v
}

// TestFastVLANs sends a frame from a to b, whose stations are known, between ports
// that take part in VLANs in all ways: it takes the fast path wherever it arrives.
//
//	a ── vm0 ── switch ── vm1 ── b
func TestFastVLANs(t *testing.T) {
	t.Parallel()
	const priority = 5 << 13
	tags := func(t ...port.Tag) []port.Tag { return t }
	b := newBoth(t, tuntest.TSO, tuntest.TSO)
	for _, c := range []struct {
		name     string
		in, out  port.VLAN
		vlan     uint16 // the frame's
		sent     []port.Tag
		arrives  bool
		received []port.Tag
	}{
		{"access to access", access(10), access(10), 10, nil, true, nil},
		{"access to trunk", access(10), trunk(0, 10), 10, nil, true, tags(customer(10))},
		{"access to provider", access(10), provider(0, 10), 10, nil, true, tags(service(10))},
		{"trunk to access", trunk(0, 10), access(10), 10, tags(customer(10)), true, nil},
		{"trunk to trunk", trunk(0, 10), trunk(0, 10), 10, tags(customer(10 | priority)), true, tags(customer(10 | priority))},
		{"trunk to provider", trunk(0, 10), provider(0, 10), 10, tags(customer(10 | priority)), true, tags(service(10 | priority))},
		{"provider to trunk", provider(0, 10), trunk(0, 10), 10, tags(service(10)), true, tags(customer(10))},
		{"native to native", trunk(10, 20), trunk(10, 20), 10, nil, true, nil},
		{"native to tagged", trunk(10, 20), trunk(20, 10), 10, nil, true, tags(customer(10))},
		{"tagged to native", trunk(20, 10), trunk(10, 20), 10, tags(customer(10 | priority)), true, nil},
		{"tagged with the native VLAN", trunk(10, 20), access(10), 10, tags(customer(10)), true, nil},
		{"lowest and highest VLAN", trunk(1, 4094), trunk(4094, 1), 4094, tags(customer(4094)), true, nil},

		{"priority tag to access", access(10), access(10), 10, tags(customer(priority)), true, nil},
		{"priority tag to trunk", access(10), trunk(0, 10), 10, tags(customer(priority)), true, tags(customer(10 | priority))},
		{"priority tag to provider", access(10), provider(0, 10), 10, tags(customer(priority)), true, tags(service(10 | priority))},
		{"priority tag on a trunk without native VLAN", trunk(0, 10), trunk(0, 10), 10, tags(customer(priority)), false, nil},

		{"transparent", transparent(1), transparent(1), 1, nil, true, nil},
		{"transparent, tagged", transparent(1), transparent(1), 1, tags(customer(20 | priority)), true, tags(customer(20 | priority))},
		{"transparent, S-tag", transparent(1), transparent(1), 1, tags(service(20)), true, tags(service(20))},
		{"transparent, priority tag", transparent(1), transparent(1), 1, tags(customer(priority)), true, tags(customer(priority))},
		{"transparent, two tags", transparent(1), transparent(1), 1, tags(service(20), customer(30)), true, tags(service(20), customer(30))},
		{"transparent, tag of the reserved VLAN", transparent(1), transparent(1), 1, tags(service(4095)), true, tags(service(4095))},
		{"transparent, two tags of the reserved VLAN", transparent(1), transparent(1), 1, tags(service(4095), service(4095)), true, tags(service(4095), service(4095))},

		{"into a tunnel", transparent(100), provider(0, 100), 100, tags(customer(20 | priority)), true, tags(service(100|priority), customer(20|priority))},
		{"into a tunnel, untagged", transparent(100), provider(0, 100), 100, nil, true, tags(service(100))},
		{"into a tunnel, two tags", transparent(100), provider(0, 100), 100, tags(service(20), customer(30)), true, tags(service(100), service(20), customer(30))},
		{"into a tunnel, tagged as that", transparent(100), provider(0, 100), 100, tags(service(100)), true, tags(service(100), service(100))},
		{"through a provider", provider(0, 100), provider(0, 100), 100, tags(service(100), customer(20)), true, tags(service(100), customer(20))},
		{"out of a tunnel", provider(0, 100), transparent(100), 100, tags(service(100), customer(20)), true, tags(customer(20))},
		{"out of a tunnel, untagged", provider(0, 100), transparent(100), 100, tags(service(100)), true, nil},
		{"out of a tunnel, S-tag behind", provider(0, 100), transparent(100), 100, tags(service(100), service(20)), true, tags(service(20))},

		{"double tag that would hop", trunk(10, 20), access(10), 10, tags(customer(10), customer(20)), false, nil},
		{"priority tag that hides another", access(10), access(10), 10, tags(customer(priority), customer(20)), false, nil},
		{"foreign tag that would hop", transparent(10), access(10), 10, tags(customer(20)), false, nil},
		{"foreign tag that would not", transparent(10), access(10), 10, tags(service(20)), true, tags(service(20))},
		{"double tag between trunks", trunk(0, 10), trunk(0, 10), 10, tags(customer(10), customer(20)), true, tags(customer(10), customer(20))},

		{"tagged to access", access(10), access(10), 10, tags(customer(10)), false, nil},
		{"tagged to access that takes it", accept(port.AcceptAll, access(10)), access(10), 10, tags(customer(10)), true, nil},
		{"untagged only", accept(port.AcceptUntagged, trunk(10, 20)), trunk(10, 20), 20, tags(customer(20)), false, nil},
		{"untagged only, priority tag", accept(port.AcceptUntagged, trunk(10, 20)), access(10), 10, tags(customer(priority)), true, nil},
		{"tagged only", accept(port.AcceptTagged, trunk(10, 20)), trunk(10, 20), 10, nil, false, nil},
		{"VLAN that the input does not carry", trunk(0, 10), trunk(0, 10, 20), 20, tags(customer(20)), false, nil},
		{"VLAN that the output does not carry", trunk(0, 10, 20), trunk(0, 10), 20, tags(customer(20)), false, nil},
		{"another VLAN", access(10), access(20), 10, nil, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			const at = 1
			src, dst := station(0), station(1)
			b.configure(vswitch.PortConfig{VLAN: c.in}, vswitch.PortConfig{VLAN: c.out})
			b.learn(c.vlan, src, 0)
			b.learn(c.vlan, dst, at)
			wire, _ := frame{dst: dst, src: src, tags: c.sent, size: 100}.wire()
			want, n := 0, uint64(0)
			if c.arrives {
				want, n = 1, 1
			}
			b.slow.send(0, wire, port.Offload{})
			before, after := b.fast.send(0, wire, port.Offload{})
			if got := after.Fast - before.Fast; got != n {
				t.Errorf("%d frames take the fast path, want %d; drops before %v, after %v", got, n, before.RX.Dropped, after.RX.Dropped)
			}
			got := b.compare(t)
			if len(got[at]) != want {
				t.Fatalf("%d frames arrive, want %d", len(got[at]), want)
			}
			if want > 0 {
				if have := tagsOf([]byte(got[at][0].wire)); !slices.Equal(have, c.received) {
					t.Errorf("the frame arrives with tags %#x, want %#x", have, c.received)
				}
			}
		})
	}
}

// TestFastVLANOfEachFrame has a and b talk in several VLANs at a time: what the kernel
// remembers of one frame is not taken for the next.
//
//	a ── vm0 trunk 10,20 ── switch ── vm1 trunk 20, native 10 ── b
func TestFastVLANOfEachFrame(t *testing.T) {
	t.Parallel()
	b := newBoth(t, tuntest.TSO, tuntest.TSO)
	b.configure(vswitch.PortConfig{VLAN: trunk(0, 10, 20)}, vswitch.PortConfig{VLAN: trunk(10, 20)})
	for _, vid := range []uint16{10, 20} {
		b.learn(vid, station(0), 0)
		b.learn(vid, station(1), 1)
	}
	const rounds = 30
	for range rounds {
		for _, tag := range []port.Tag{customer(10), customer(20), customer(20 | 1<<13), service(20), customer(30)} {
			wire, _ := frame{dst: station(1), src: station(0), tags: []port.Tag{tag}}.wire()
			b.slow.send(0, wire, port.Offload{})
			b.fast.send(0, wire, port.Offload{})
		}
	}
	if got := b.compare(t); len(got[1]) != 3*rounds {
		t.Errorf("%d frames arrive, want %d", len(got[1]), 3*rounds)
	}
	if st := b.fast.ports[0].Stats(); st.Fast != 3*rounds {
		t.Errorf("%d frames take the fast path, want %d", st.Fast, 3*rounds)
	}
}

// TestFastAgainstSlow gives random frames to a switch that forwards in the kernel and
// to one that does not, with ports of random settings, each frame twice: the same
// comes to the same guests, and the same is counted and learned.
func TestFastAgainstSlow(t *testing.T) {
	t.Parallel()
	compareRandomly(t, tuntest.USO, tuntest.TSO, tuntest.Csum, tuntest.None)
}

// TestFastAgainstSlowShared does so with a port that is shared with the host: the switch has
// the same of it.
func TestFastAgainstSlowShared(t *testing.T) {
	t.Parallel()
	compareRandomly(t, tuntest.TSO, shared, tuntest.Csum, tuntest.None)
}

func compareRandomly(t *testing.T, offloads ...int) {
	b := newBoth(t, offloads...)
	b.fast.shape(t, 0)
	vid := rapid.SampledFrom([]uint16{1, 1, 1, 10, 20, 4094})
	vlan := rapid.Custom(func(t *rapid.T) port.VLAN {
		switch rapid.IntRange(0, 3).Draw(t, "mode") {
		case 0:
			return transparent(vid.Draw(t, "VID"))
		case 1:
			a := rapid.SampledFrom([]port.Accept{"", port.AcceptAll}).Draw(t, "accept")
			return accept(a, access(vid.Draw(t, "VID")))
		}
		native := rapid.SampledFrom([]uint16{0, 1, 10}).Draw(t, "native")
		v := trunk(native, rapid.SliceOfN(vid, 1, 3).Draw(t, "VLANs")...)
		v.TrunkTPID = rapid.SampledFrom([]port.TPID{0, port.TPID(port.TPIDService)}).Draw(t, "TPID of the trunk")
		accepts := []port.Accept{port.AcceptAll, port.AcceptTagged}
		if native != 0 {
			accepts = append(accepts, port.AcceptUntagged)
		}
		v.Accept = rapid.SampledFrom(accepts).Draw(t, "accept")
		return v
	})
	tag := rapid.Custom(func(t *rapid.T) port.Tag {
		tpid := rapid.SampledFrom([]uint16{port.TPIDCustomer, port.TPIDCustomer, port.TPIDService}).Draw(t, "TPID")
		id := rapid.SampledFrom([]uint16{0, 1, 1, 10, 10, 20, 30, 4094, 4095}).Draw(t, "tag's VID")
		return port.MakeTag(tpid, rapid.SampledFrom([]uint16{0, 0, 1 << 12, 7 << 13}).Draw(t, "priority")|id)
	})
	mac := rapid.Custom(func(t *rapid.T) port.MAC {
		if rapid.IntRange(0, 3).Draw(t, "odd") == 0 {
			return rapid.SampledFrom([]port.MAC{port.Broadcast, port.Broadcast, 0x0100_0ccc_cccc, 0x0180_c200_0000}).Draw(t, "group")
		}
		if rapid.IntRange(0, 2).Draw(t, "group of IP") == 0 {
			return rapid.SampledFrom(ipGroups).Draw(t, "group of IP")
		}
		return station(rapid.IntRange(0, len(offloads)).Draw(t, "station")) // one is nobody's
	})
	police := rapid.SampledFrom([]port.Rate{{}, {}, {}, {}, {}, {}, {PerSecond: 8, Bits: true}})
	var fast, all uint64
	rapid.Check(t, func(t *rapid.T) {
		var configs []vswitch.PortConfig
		for range offloads {
			configs = append(configs, vswitch.PortConfig{
				VLAN:       vlan.Draw(t, "VLAN"),
				Isolated:   rapid.IntRange(0, 3).Draw(t, "isolated") == 0,
				Locked:     rapid.IntRange(0, 7).Draw(t, "locked") == 0,
				NoLearning: rapid.IntRange(0, 3).Draw(t, "learning off") == 0,
				NoFlood:    rapid.SampledFrom([]vswitch.Class{0, 0, 0, vswitch.Broadcast, vswitch.Multicast, vswitch.Multicast | vswitch.UnknownUnicast}).Draw(t, "not flooded"),
				Police:     police.Draw(t, "rate"),
				// So long that the time of the test makes no difference: it is how much passes.
				PoliceBurst: time.Duration(rapid.IntRange(1, 40_000).Draw(t, "burst"))*time.Second + time.Second/2,
				Storm:       vswitch.StormRates{Broadcast: police.Draw(t, "storm"), Multicast: police.Draw(t, "storm of multicast"), UnknownUnicast: police.Draw(t, "storm of unknown unicast")},
			})
		}
		b.configure(configs...)
		b.mirror(t)
		b.snoop(t)
		for i, c := range configs {
			// A guest has been heard in all VLANs of its port, or in none.
			if rapid.IntRange(0, 3).Draw(t, "known") > 0 {
				carried := c.VLAN.Carried()
				for vid := range carried.All() {
					b.learn(vid, station(i), i)
				}
			}
		}
		for range rapid.IntRange(1, 15).Draw(t, "frames") {
			from := rapid.IntRange(0, len(offloads)-1).Draw(t, "from")
			src := station(from)
			if rapid.IntRange(0, 19).Draw(t, "other source") == 0 {
				src = mac.Draw(t, "source")
			}
			wire, o := payload(t)
			copy(wire, mac.Draw(t, "destination").HardwareAddr())
			copy(wire[6:], src.HardwareAddr())
			tags := rapid.SliceOfN(tag, 0, 2).Draw(t, "tags")
			if n := len(tags); n > 0 && offloads[from] == shared && uint16(tags[n-1])&0xfff == 0xfff {
				tags[n-1] ^= 1 // not for the switch, as the reserved VLAN marks what is handed up
			}
			if o.GSOType == port.GSOUDP {
				tags = nil // a packet socket does not tell the size of fragments, so that follows the tags; see TestTaggedOffloads
			}
			for _, one := range tags {
				wire = tuntest.Tagged(wire, one)
				if o.Flags&port.NeedsCsum != 0 {
					o.CsumStart += uint16(one.Len())
					o.HdrLen += uint16(one.Len())
				}
			}
			for range 2 {
				b.slow.send(from, wire, o)
				before, after := b.fast.send(from, wire, o)
				fast, all = fast+after.Fast-before.Fast, all+1
			}
		}
		b.compare(t)
	})
	t.Logf("%d of %d frames took the fast path", fast, all)
	if fast < all/40 {
		t.Errorf("only %d of %d frames took the fast path", fast, all)
	}
}

// payload makes a frame without tags: a bare one, or TCP or UDP whose checksum, or cutting
// too, is left to others. Many are about as long as the longest that an output takes.
func payload(t *rapid.T) ([]byte, port.Offload) {
	size := rapid.SampledFrom([]int{60, 1000, 1506, 1507, 1510, 1511, 1514, 1515, 1518, 1600}).Draw(t, "size")
	switch rapid.IntRange(0, 5).Draw(t, "payload") {
	case 5:
		return ipControl(t), port.Offload{}
	case 0:
		wire, o := tuntest.TCP4(size)
		o.GSOType, o.GSOSize, o.HdrLen = port.GSONone, 0, 0
		return wire, o
	case 1:
		if rapid.Bool().Draw(t, "datagrams") {
			wire, o := tuntest.UFO(size * 10)
			if rapid.Bool().Draw(t, "of their own") {
				o.GSOType, o.GSOSize = port.GSOUDPL4, 1400
			}
			return wire, o
		}
		wire, o := tuntest.TCP4(size * 10)
		if rapid.Bool().Draw(t, "congestion") {
			o.GSOType |= port.GSOECN
		}
		return wire, o
	}
	return tuntest.Ethernet(uint32(size), size), port.Offload{}
}

// ipControl makes a packet that the switch may have to snoop, of TCP at times.
func ipControl(t *rapid.T) []byte {
	wire := tuntest.Ethernet(0, rapid.SampledFrom([]int{20, 30, 54, 55, 60, 100}).Draw(t, "length"))
	set := func(at int, b ...byte) {
		if at < len(wire) {
			copy(wire[at:], b)
		}
	}
	if rapid.Bool().Draw(t, "IPv4") {
		set(12, 0x08, 0x00, 0x45)
		set(14+9, rapid.SampledFrom([]byte{2, 6, 103}).Draw(t, "protocol"))
		return wire
	}
	set(12, 0x86, 0xdd, 0x60)
	set(14+6, rapid.SampledFrom([]byte{0, 6, 58, 58, 58, 60, 103}).Draw(t, "next header"))
	set(14+24, 0xff, rapid.SampledFrom([]byte{0x02, 0x05}).Draw(t, "scope"))
	set(14+40, rapid.SampledFrom([]byte{58, 128, 130, 132, 133, 143, 151, 153, 154}).Draw(t, "type"), 0)
	return wire
}
