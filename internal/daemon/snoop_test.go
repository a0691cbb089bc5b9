package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// withSnooping turns snooping on, with more settings of the switch as the inside of a JSON
// object.
func withSnooping(more string) func(*Options) {
	return withSettings(`{"snooping": true` + more + `}`)
}

// The ways to snoop.
const (
	justSnoop  = ""
	andQuery   = `, "querier": true`
	andQueryBy = `, "querier": true, "querier_address": "10.0.0.1"`
	toRouters  = `, "unregistered": "routers"`
)

var (
	group4 = netip.MustParseAddr("239.1.2.3")
	group6 = netip.MustParseAddr("ff05::2:3")
	mdns6  = netip.MustParseAddr("ff02::fb")
)

// groupMAC is the address that frames to an IP group have (RFC 1112 section 6.4,
// RFC 2464 section 7).
func groupMAC(group netip.Addr) port.MAC {
	b := group.As16()
	low := port.MACFrom(b[10:])
	if group.Is4() {
		return 0x0100_5e00_0000 | low&0x7f_ffff
	}
	return 0x3333_0000_0000 | low&0xffff_ffff
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	n := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	return ^uint16(n>>16 + n)
}

// igmp is a message of IGMPv2 (RFC 2236 section 2), without IP options, which is
// taken all the same.
func igmp(typ byte, src string, dst, group netip.Addr) []byte {
	b := append(groupMAC(dst).HardwareAddr(), 0x52, 0x54, 0, 0, 0, 9, 8, 0)
	b = append(b, 0x45, 0xc0, 0, 28, 0, 0, 0x40, 0, 1, 2, 0, 0)
	b = append(append(b, netip.MustParseAddr(src).AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[24:], checksum(b[14:34]))
	b = append(append(b, typ, 100, 0, 0), group.AsSlice()...)
	binary.BigEndian.PutUint16(b[36:], checksum(b[34:]))
	return b
}

func join4(group netip.Addr) []byte { return igmp(0x16, "10.0.0.9", group, group) }

func query4(src string) []byte {
	return igmp(0x11, src, netip.MustParseAddr("224.0.0.1"), netip.IPv4Unspecified())
}

// stream is a datagram to a group.
func stream(group netip.Addr) []byte {
	b := append(groupMAC(group).HardwareAddr(), 0x52, 0x54, 0, 0, 0, 8)
	if group.Is4() {
		b = append(b, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 8, 17, 0, 0, 10, 0, 0, 8)
	} else {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 8)
		b = append(b, netip.MustParseAddr("fe80::8").AsSlice()...)
	}
	return append(append(b, group.AsSlice()...), 0, 9, 0, 9, 0, 8, 0, 0)
}

func (w *wireRig) mdb() (mdb api.MDB) {
	w.t.Helper()
	if err := w.call("GET", "/v1/mdb", nil, &mdb); err != nil {
		w.t.Fatal(err)
	}
	return mdb
}

// wantStream sends a stream into vm0 and checks by which ports it leaves.
func (w *wireRig) wantStream(group netip.Addr, ports ...string) {
	w.t.Helper()
	want := make(map[string]int)
	for _, name := range ports {
		want[name] = 1
	}
	w.send("vm0", stream(group))
	w.wantTaken(stream(group), want)
}

// settleGroups gives hosts the time to answer the querier, and the switch its picture.
func (w *wireRig) settleGroups() {
	time.Sleep(11 * time.Second)
	synctest.Wait()
}

func TestSnooping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withSnooping(justSnoop), vm("vm0"), vm("vm1"), vm("vm2"), netdev("up0"))
		// Nobody asks: all is flooded, and a report too, for whoever may snoop.
		w.send("vm1", join4(group4))
		w.wantTaken(join4(group4), map[string]int{"vm0": 1, "vm2": 1, "up0": 1})
		w.settleGroups()
		w.wantStream(group4, "vm1", "vm2", "up0")
		if mdb := w.mdb(); len(mdb.Queriers) != 2 || mdb.Queriers[0].Address != "" || mdb.Queriers[0].Filtering {
			t.Errorf("queriers %+v", mdb.Queriers)
		}

		// A router does: its query goes to all, reports go to it, and streams to
		// it and to who joined.
		w.send("up0", query4("10.0.0.1"))
		w.wantTaken(query4("10.0.0.1"), map[string]int{"vm0": 1, "vm1": 1, "vm2": 1})
		w.send("vm1", join4(group4))
		w.wantTaken(join4(group4), map[string]int{"up0": 1})
		w.settleGroups()
		w.wantStream(group4, "vm1", "up0")
		w.wantStream(netip.MustParseAddr("239.9.9.9"), "vm1", "vm2", "up0")

		mdb := w.mdb()
		ignore := cmpopts.IgnoreFields(api.Group{}, "ExpiresS")
		if diff := cmp.Diff([]api.Group{{VLAN: 1, Group: group4, Port: "vm1", Type: "learned", Protocol: "igmpv2", Filter: "exclude"}}, mdb.Groups, ignore, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
		if mdb.Groups[0].ExpiresS < 240 || mdb.Groups[0].ExpiresS > 260 {
			t.Errorf("expires in %d s, want about 249", mdb.Groups[0].ExpiresS)
		}
		if diff := cmp.Diff([]api.RouterPort{{VLAN: 1, Family: "ipv4", Port: "up0", Type: "learned"}}, mdb.Routers, cmpopts.IgnoreFields(api.RouterPort{}, "ExpiresS")); diff != "" {
			t.Errorf("routers (-want +got):\n%s", diff)
		}
		if q := mdb.Queriers[0]; q.Address != "10.0.0.1" || q.Port != "up0" || !q.Filtering || q.Own || q.Protocol != "igmpv2" {
			t.Errorf("querier %+v", q)
		}
		if m := mdb.Messages; m.Queries != 1 || m.Reports != 2 || m.QueriesSent != 0 {
			t.Errorf("messages %+v", m)
		}
		bad := join4(group4)
		bad[36] ^= 1
		w.send("vm2", bad)
		w.wantTaken(bad, nil)
		if got := w.mdb().Messages.Dropped; !maps.Equal(got, map[string]uint64{"bad_checksum": 1}) {
			t.Errorf("dropped %v", got)
		}

		// A port without link wants nothing.
		w.link("vm1", false)
		w.settleGroups()
		if got := w.mdb().Groups; len(got) != 0 {
			t.Errorf("groups %+v", got)
		}
		// And neither does a router that is gone.
		w.link("up0", false)
		w.link("vm1", true)
		w.settleGroups()
		w.wantStream(group4, "vm1", "vm2", "up0")
	})
}

func TestSnoopingQuerier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withSnooping(andQuery+toRouters),
			vm("vm0"), vm("vm1"), vm("vm2"), withPort(netdev("up0"), `{"mcast_router": true}`))
		for _, name := range []string{"vm1", "up0"} {
			queries := w.taken(name)
			if len(queries) < 2 || !slices.ContainsFunc(queries, func(q []byte) bool { return port.MACFrom(q) == 0x0100_5e00_0001 && port.MACFrom(q[6:]) == w.mac }) {
				t.Errorf("%s is asked %x", name, queries)
			}
		}
		w.settleGroups()
		w.send("vm1", join4(group4))
		w.wantTaken(join4(group4), map[string]int{"up0": 1})
		time.Sleep(time.Second)
		w.wantStream(group4, "vm1", "up0")
		// What nobody asked for goes to routers alone; what all stations of the
		// link must hear does not.
		w.wantStream(netip.MustParseAddr("239.9.9.9"), "up0")
		w.wantStream(group6, "up0")
		for _, g := range []string{"224.0.0.251", "ff02::1", "ff02::fb", "ff02::1:2", "ff02::1:ff00:1"} {
			w.wantStream(netip.MustParseAddr(g), "vm1", "vm2", "up0")
		}
		// A port that is added counts at once.
		if err := w.addReq(wanted(vm("vm3"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wantStream(mdns6, "vm1", "vm2", "vm3", "up0")
		mdb := w.mdb()
		if q := mdb.Queriers[0]; !q.Own || q.Address != "0.0.0.0" || mdb.Unregistered != "routers" || mdb.Messages.QueriesSent == 0 {
			t.Errorf("%+v", mdb)
		}
		// A group stays as long as its hosts answer.
		time.Sleep(300 * time.Second)
		w.wantStream(group4, "up0")
	})
}

// A router of IPv4 alone keeps IPv4's groups to itself, and IPv6's are flooded.
func TestSnoopingFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withSnooping(toRouters), vm("vm0"), vm("vm1"), netdev("up0"))
		w.send("up0", query4("10.0.0.1"))
		w.settleGroups()
		time.Sleep(time.Second)
		w.wantStream(group4, "up0")
		w.wantStream(group6, "vm1", "up0")
	})
}

// The switch passes messages on by the rules that it forwards by.
func TestSnoopingHeedsPolicies(t *testing.T) {
	isolated := func(name string) port.Spec {
		return port.Spec{Name: name, Kind: "tap", Policy: port.Policy{Isolated: true}}
	}
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(o *Options) {
			withSnooping(justSnoop)(o)
			withTree(o)
		}, vm("vm0"), isolated("vm1"), isolated("vm2"), netdev("up0"),
			port.Spec{Name: "vm3", Kind: "tap", Policy: port.Policy{VLAN: port.VLAN{Access: 10}}},
			port.Spec{Name: "vm4", Kind: "tap", Policy: port.Policy{NoFlood: port.NoFlood{"multicast"}}})
		w.wantTree("up0", "designated", "discarding")
		w.send("vm1", join4(group4))
		w.wantTaken(join4(group4), map[string]int{"vm0": 1})
		w.send("vm0", join4(group4))
		w.wantTaken(join4(group4), map[string]int{"vm1": 1, "vm2": 1})
		w.send("vm3", join4(group4))
		w.wantTaken(join4(group4), nil)
		var vlans []uint16
		for _, q := range w.mdb().Queriers {
			vlans = append(vlans, q.VLAN)
		}
		if vlans = slices.Compact(vlans); !slices.Equal(vlans, []uint16{1, 10}) {
			t.Errorf("VLANs %v are snooped, want 1 and 10", vlans)
		}
		// A VLAN that no port carries any more is forgotten.
		one := uint16(1)
		if err := w.set("vm3", api.Settings{"access": one}); err != nil {
			t.Fatal(err)
		}
		if n := len(w.mdb().Queriers); n != 2 {
			t.Errorf("%d queriers, want those of VLAN 1", n)
		}
	})
}

func TestSnoopingPortSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		few := withPort(vm("vm1"), `{"mcast_limit": 1, "mcast_fast_leave": true}`)
		w := wire(t, store.State{}, withSnooping(andQuery), vm("vm0"), few)
		w.settleGroups()
		w.send("vm1", join4(group4))
		w.send("vm1", join4(netip.MustParseAddr("239.1.2.4")))
		if mdb := w.mdb(); len(mdb.Groups) != 1 || mdb.Messages.Dropped["group_limit"] != 1 {
			t.Errorf("%+v", mdb)
		}
		w.send("vm1", igmp(0x17, "10.0.0.9", netip.MustParseAddr("224.0.0.2"), group4))
		if mdb := w.mdb(); len(mdb.Groups) != 0 {
			t.Errorf("after a leave: %+v", mdb.Groups)
		}
	})
}

// Each group that a guest joins changes the switch's picture, which is not made anew
// each time.
func TestSnoopingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withSnooping(andQuery+toRouters), vm("vm0"), vm("vm1"))
		w.settleGroups()
		for i := range 100 {
			w.send("vm1", join4(netip.AddrFrom4([4]byte{239, 2, 0, byte(i)})))
		}
		w.wantStream(netip.MustParseAddr("239.2.0.99")) // the snapshot was made for the first join
		time.Sleep(50 * time.Millisecond)
		w.wantStream(netip.MustParseAddr("239.2.0.99"), "vm1")
	})
}

func (w *wireRig) addStatic(req api.AddGroup) error {
	return w.call("POST", "/v1/mdb", req, nil)
}

func (w *wireRig) delStatic(group netip.Addr, name string, vlan uint16) error {
	path := fmt.Sprintf("/v1/mdb/%s/%s", group, name)
	if vlan != 0 {
		path += fmt.Sprintf("?vlan=%d", vlan)
	}
	return w.call("DELETE", path, nil, nil)
}

func TestStaticGroups(t *testing.T) {
	saved := store.State{Ports: []store.Port{{Spec: saved(vm("vm0"))}, {Spec: saved(vm("vm1"))}, {Spec: saved(vm("vm2"))}}}
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, saved, withSnooping(andQuery))
		w.settleGroups()
		for _, c := range []struct {
			req        api.AddGroup
			code, text string
		}{
			{api.AddGroup{Group: group4, Port: "vm9"}, api.CodeNotFound, "vm9"},
			{api.AddGroup{Group: group4, Port: "vm1", VLAN: 10}, api.CodeInvalid, "does not carry VLAN 10; it carries 1"},
			{api.AddGroup{Group: group4, Port: "vm1", VLAN: 5000}, api.CodeInvalid, "VLAN 5000"},
			{api.AddGroup{Group: netip.MustParseAddr("224.0.0.5"), Port: "vm1"}, api.CodeInvalid, "224.0.0.5 cannot be a static group"},
			{api.AddGroup{Group: netip.MustParseAddr("10.0.0.1"), Port: "vm1"}, api.CodeInvalid, "10.0.0.1 cannot be a static group"},
			{api.AddGroup{Port: "vm1"}, api.CodeInvalid, "cannot be a static group"},
		} {
			wantCode(t, w.addStatic(c.req), c.code, c.text)
		}
		for _, g := range []netip.Addr{group4, group4, group6} {
			if err := w.addStatic(api.AddGroup{Group: g, Port: "vm1"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		w.wantStream(group4, "vm1")
		w.wantStream(group6, "vm1")
		want := []api.Group{{VLAN: 1, Group: group4, Port: "vm1", Type: "static"}, {VLAN: 1, Group: group6, Port: "vm1", Type: "static"}}
		if diff := cmp.Diff(want, w.mdb().Groups, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}

		// What cannot be kept is as it was.
		w.disk.fail(errors.New("disk full"))
		wantCode(t, w.addStatic(api.AddGroup{Group: group4, Port: "vm2"}), api.CodeFailed, "disk full")
		wantCode(t, w.delStatic(group4, "vm1", 1), api.CodeFailed, "disk full")
		w.disk.fail(nil)
		time.Sleep(time.Second)
		w.wantStream(group4, "vm1")
		wantCode(t, w.delStatic(group4, "vm2", 0), api.CodeNotFound, "not static on port vm2 in VLAN 1")
		saved = w.disk.state()
	})
	synctest.Test(t, func(t *testing.T) {
		// They survive a restart, and one without snooping.
		w := wire(t, saved, func(*Options) {})
		wantCode(t, w.delStatic(group4, "vm1", 1), api.CodeInvalid, "--snooping")
		wantCode(t, w.call("GET", "/v1/mdb", nil, nil), api.CodeInvalid, "--snooping")
		if err := w.add("vm3"); err == nil {
			t.Error("a kind that is not there is taken")
		}
		saved = w.disk.state()
	})
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, saved, withSnooping(andQuery))
		w.settleGroups()
		w.wantStream(group4, "vm1")
		w.wantStream(group6, "vm1")
		if err := w.delStatic(group4, "vm1", 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wantStream(group4, "vm1", "vm2")
		if err := w.manager.do(func() error { return w.delPort("vm1", true) }); err != nil {
			t.Fatal(err)
		}
		delete(w.ends, "vm1")
		synctest.Wait()
		if kept := w.disk.state().Sections["groups"]; kept != nil {
			t.Errorf("groups are kept for a port that is gone: %s", kept)
		}
		// Its successor by number has none of its groups.
		if err := w.addReq(wanted(vm("vm4"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wantStream(group6, "vm2", "vm4")
	})
}

// Queries and what else only routers send are believed by the kind of the port they come
// by, unless a setting says otherwise.
func TestRouterGuard(t *testing.T) {
	spec := func(name, kind string, guard port.AutoOnOff, router bool) port.Spec {
		return withPort(port.Spec{Name: name, Kind: kind}, fmt.Sprintf(`{"mcast_router_guard": %q, "mcast_router": %t}`, guard, router))
	}
	for _, c := range []struct {
		name    string
		spec    port.Spec
		guarded bool
	}{
		{"a tap", spec("p", "tap", "", false), true},
		{"a tap, auto", spec("p", "tap", "auto", false), true},
		{"a tap without guard", spec("p", "tap", "off", false), false},
		{"a tap with a router", spec("p", "tap", "", true), false},
		{"a netdev", spec("p", "netdev", "", false), false},
		{"a netdev, auto", spec("p", "netdev", "auto", false), false},
		{"a netdev with guard", spec("p", "netdev", "on", false), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := wire(t, store.State{}, withSnooping(andQuery), vm("vm0"), c.spec)
				w.settleGroups()
				want := 1
				if c.guarded {
					want = 0
				}
				w.send("p", query4("10.0.0.9"))
				w.wantTaken(query4("10.0.0.9"), map[string]int{"vm0": want})
				mdb := w.mdb()
				if own := mdb.Queriers[0].Own; own != c.guarded || mdb.Messages.Dropped["router_guard"] != uint64(1-want) {
					t.Errorf("the switch is the querier: %v; %+v", own, mdb.Messages)
				}
			})
		})
	}
	// A setting takes back what was believed.
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withSnooping(andQuery), vm("vm0"), netdev("up0"))
		w.send("up0", query4("10.0.0.9"))
		if mdb := w.mdb(); mdb.Queriers[0].Own || len(mdb.Routers) != 1 {
			t.Errorf("%+v", mdb)
		}
		if err := w.set("up0", api.Settings{"mcast_router_guard": "on"}); err != nil {
			t.Fatal(err)
		}
		if mdb := w.mdb(); !mdb.Queriers[0].Own || len(mdb.Routers) != 0 {
			t.Errorf("%+v", mdb)
		}
	})
}

func TestQuerierAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withSnooping(andQueryBy), vm("vm0"), netdev("up0"))
		if got := w.mdb().Queriers[0].Address; got != "10.0.0.1" {
			t.Errorf("asks from %q", got)
		}
		for _, f := range w.taken("vm0") {
			if f[12] == 8 && !bytes.Equal(f[26:30], []byte{10, 0, 0, 1}) {
				t.Errorf("query %x", f)
			}
		}
		w.send("up0", query4("10.0.0.2"))
		if !w.mdb().Queriers[0].Own {
			t.Error("a higher address wins")
		}
	})
}

// queriesTo counts the general queries of the switch that left by a port, by their VLAN
// tag, 0 for none.
func (w *wireRig) queriesTo(name string) map[uint16]int {
	n := make(map[uint16]int)
	for _, f := range w.taken(name) {
		vlan := uint16(0)
		if f[12] == 0x81 {
			vlan = binary.BigEndian.Uint16(f[14:]) & 0xfff
			f = append(f[:12:12], f[16:]...)
		}
		if port.MACFrom(f) == 0x0100_5e00_0001 && port.MACFrom(f[6:]) == w.mac {
			n[vlan]++
		}
	}
	return n
}

// A port that carries other VLANs than before leaves its groups there, and its hosts are
// asked where they are now.
func TestSnoopingAsksInNewVLANs(t *testing.T) {
	trunk := func(list string, native uint16) api.Settings { return api.Settings{"trunk": list, "native": native} }
	access := func(vid uint16) api.Settings { return api.Settings{"access": vid} }
	for _, c := range []struct {
		name   string
		from   port.VLAN
		change api.Settings
		asked  map[uint16]int
		left   bool // VLAN 10
	}{
		{"another access VLAN", port.VLAN{Access: 10}, access(20), map[uint16]int{0: 1}, true},
		{"a VLAN of a trunk less", port.VLAN{Trunk: vlans(10, 20)}, trunk("20", 0), map[uint16]int{20: 1}, true},
		{"a VLAN of a trunk more", port.VLAN{Trunk: vlans(10)}, trunk("10,20", 0), map[uint16]int{10: 1, 20: 1}, false},
		{"the native VLAN alone", port.VLAN{Trunk: vlans(10, 20), Native: 10}, trunk("10,20", 20), map[uint16]int{0: 1, 10: 1}, false},
		{"a VLAN that is new to the switch", port.VLAN{Access: 10}, access(30), map[uint16]int{0: 2}, true}, // as a VLAN, and as a port
		{"nothing of it", port.VLAN{Access: 10}, api.Settings{"mcast_fast_leave": false}, map[uint16]int{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vm1, vm2 := vm("vm1"), vm("vm2")
				vm1.Access, vm2.Access = 10, 20
				w := wire(t, store.State{}, withSnooping(andQueryBy),
					vm1, vm2, port.Spec{Name: "p", Kind: "tap", Policy: port.Policy{VLAN: c.from}})
				time.Sleep(time.Minute) // the startup queries are over
				join := join4(group4)
				if c.from.Trunk.Len() > 0 && c.from.Native == 0 {
					join = slices.Concat(join[:12], []byte{0x81, 0, 0, 10}, join[12:])
				}
				w.send("p", join)
				w.taken("p")
				if err := w.set("p", c.change); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if got := w.queriesTo("p"); !maps.Equal(got, c.asked) {
					t.Errorf("asked %v, want %v", got, c.asked)
				}
				if left := len(w.mdb().Groups) == 0; left != c.left {
					t.Errorf("groups %+v", w.mdb().Groups)
				}
			})
		})
	}
}

// What the switch passes on keeps the priority of its tag, and mirrors show it.
func TestSnoopingPassesOnAsData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunk := func(name, kind string) port.Spec {
			return port.Spec{Name: name, Kind: kind, Policy: port.Policy{VLAN: port.VLAN{Trunk: vlans(10)}}}
		}
		vm1 := vm("vm1")
		vm1.Access = 10
		w := wire(t, store.State{}, withSnooping(justSnoop), trunk("vm0", "tap"), vm1, trunk("up0", "netdev"), vm("probe"))
		if err := w.sw.SetMirrors([]vswitch.Mirror{{Name: "m0", Ports: []string{"vm1", "up0"}, Out: true, To: "probe"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)                                                                             // VLAN 10 is snooped
		tagged := func(f []byte) []byte { return slices.Concat(f[:12], []byte{0x81, 0, 0xb0, 10}, f[12:]) } // priority 5, DEI
		query, join := query4("10.0.0.1"), join4(group4)
		w.send("up0", tagged(query))
		for name, want := range map[string][]byte{"vm0": tagged(query), "vm1": query, "probe": query} {
			if got := w.taken(name); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("a query: %s gets %x, want %x", name, got, want)
			}
		}
		w.send("vm0", tagged(join))
		for name, want := range map[string][]byte{"up0": tagged(join), "probe": tagged(join)} {
			if got := w.taken(name); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("a report: %s gets %x, want %x", name, got, want)
			}
		}
		if got := w.taken("vm1"); len(got) != 0 {
			t.Errorf("a report: a host gets %x", got)
		}
	})
}
