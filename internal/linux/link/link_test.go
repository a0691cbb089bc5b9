package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

func TestLookup(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap", "user", "1234", "group", "1235")
	ns.Run("ip", "tuntap", "add", "dev", "mq0", "mode", "tap", "multi_queue")
	ns.Run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
	ns.Run("ip", "link", "set", "a0", "master", "br0")
	ns.Do(func() {
		br0, err := ByName("br0")
		if err != nil {
			t.Fatal(err)
		}
		b0, err := ByName("b0")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []Link{
			{Name: "lo", Kind: "device", Up: true, Carrier: true, MTU: 65536, Loopback: true},
			{Name: "vm0", Kind: "tap", MTU: 1500, Ethernet: true, Owner: 1234, Group: 1235},
			{Name: "mq0", Kind: "tap", MTU: 1500, Ethernet: true, MultiQueue: true},
			{Name: "tun0", Kind: "tun", MTU: 1500},
			{Name: "br0", Kind: "bridge", MTU: 1500, Ethernet: true},
			{Name: "a0", Kind: "veth", MTU: 1500, Ethernet: true, Master: br0.Index, Peer: b0.Index},
		} {
			got, err := ByName(want.Name)
			if err != nil {
				t.Fatal(err)
			}
			want.Index = got.Index
			if want.Ethernet {
				at := "/sys/class/net/" + want.Name + "/address"
				if text := net.HardwareAddr(got.MAC[:]).String(); text != ns.Run("cat", at) {
					t.Errorf("%s has the address %s, want %s", want.Name, text, ns.Run("cat", at))
				}
				want.MAC = got.MAC
			}
			if got != want {
				t.Errorf("%s is %+v, want %+v", want.Name, got, want)
			}
			if again, err := ByIndex(got.Index); err != nil || again != got {
				t.Errorf("number %d is %+v, %v", got.Index, again, err)
			}
		}
		if _, err := ByName("eth9"); !errors.Is(err, ErrNotFound) {
			t.Errorf("eth9: %v", err)
		}
		if _, err := ByIndex(9999); !errors.Is(err, ErrNotFound) {
			t.Errorf("number 9999: %v", err)
		}
	})
}

func TestChange(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Do(func() {
		l, err := ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		now := func() Link {
			t.Helper()
			got, err := ByIndex(l.Index)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		for _, up := range []bool{true, false} {
			if err := l.SetUp(up); err != nil || now().Up != up {
				t.Errorf("set up %t: %v", up, err)
			}
		}
		if err := l.SetMTU(9000); err != nil || now().MTU != 9000 {
			t.Errorf("MTU: %v", err)
		}
		if err := l.SetMTU(70000); err == nil || !strings.Contains(err.Error(), "vm0 does not take an MTU of 70000") {
			t.Errorf("MTU 70000: %v", err)
		}
		for _, text := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
			a := netip.MustParsePrefix(text)
			for range 2 { // what is there already, or gone already, is no error
				if err := l.AddAddress(a); err != nil {
					t.Fatal(err)
				}
			}
			if has, err := l.HasAddress(a); err != nil || !has {
				t.Errorf("%s was given: %t, %v", a, has, err)
			}
			if got, err := ByAddress(a.Addr()); err != nil || got.Index != l.Index {
				t.Errorf("%s is on interface %d, %v", a, got.Index, err)
			}
			if _, err := ByAddress(a.Addr().Next()); !errors.Is(err, ErrNotFound) {
				t.Errorf("an address that nobody has: %v", err)
			}
			for range 2 {
				if err := l.DelAddress(a); err != nil {
					t.Fatal(err)
				}
			}
			if has, err := l.HasAddress(a); err != nil || has {
				t.Errorf("%s was taken: %t, %v", a, has, err)
			}
		}
		for range 2 {
			if err := l.Delete(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.SetUp(true); !errors.Is(err, ErrNotFound) {
			t.Errorf("set up what is gone: %v", err)
		}
	})
}

func TestNetns(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "only-there", "type", "bridge")
	for _, name := range []string{ns.Name, ns.Path()} {
		n, err := FindNetns(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Do(func() error { _, err := ByName("only-there"); return err }); err != nil {
			t.Errorf("in %s: %v", name, err)
		}
		if _, err := ByName("only-there"); !errors.Is(err, ErrNotFound) {
			t.Errorf("outside: %v", err)
		}
		if !n.Current() {
			t.Error("the namespace is not where it was found")
		}
	}
	if _, err := FindNetns("no-such-namespace"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "ip netns add") {
		t.Errorf("missing: %v", err)
	}

	// A name that leads elsewhere leads no longer to the namespace it was found by.
	dir := t.TempDir()
	alias := filepath.Join(dir, "ns")
	if err := os.Symlink(ns.Path(), alias); err != nil {
		t.Fatal(err)
	}
	n, err := FindNetns(alias)
	if err != nil {
		t.Fatal(err)
	}
	if !n.Current() {
		t.Error("found by another name it is not itself")
	}
	if err := os.Remove(alias); err != nil {
		t.Fatal(err)
	}
	if n.Current() {
		t.Error("it is said to be there, though its name is gone")
	}
	if err := os.Symlink("/proc/self/ns/net", alias); err != nil {
		t.Fatal(err)
	}
	if n.Current() {
		t.Error("it is said to be there, though its name leads elsewhere")
	}
	if err := os.Remove(alias); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(alias, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := FindNetns(alias); err != nil {
		t.Error(err)
	} else if err := n.Do(func() error { return nil }); err == nil || !strings.Contains(err.Error(), "is not a network namespace") {
		t.Errorf("a plain file: %v", err)
	}
}

// next returns the first event that ok accepts.
func next(t *testing.T, events <-chan Event, what string, ok func(Event) bool) Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("the watch ended before: %s", what)
			}
			if ok(e) {
				return e
			}
		case <-timeout:
			t.Fatalf("no event: %s", what)
		}
	}
}

func start(t *testing.T, ns *testenv.Netns, buffer int) (events <-chan Event) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ns.Do(func() {
		var err error
		if events, err = watch(ctx, buffer); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		for range events {
		}
	})
	return events
}

func TestWatch(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	events := start(t, ns, watchBuffer)

	next(t, events, "lo is there", func(e Event) bool { return e.Name == "lo" && e.Up && !e.Gone })
	next(t, events, "br0 is there", func(e Event) bool { return e.Name == "br0" && !e.Gone })

	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	index := next(t, events, "made", func(e Event) bool { return e.Name == "vm0" && e.Kind == "tap" && !e.Up }).Index
	its := func(ok func(Event) bool) func(Event) bool {
		return func(e Event) bool { return e.Index == index && ok(e) }
	}
	ns.Run("ip", "link", "set", "vm0", "up")
	next(t, events, "up", its(func(e Event) bool { return e.Up && !e.Carrier }))
	var g *tuntest.Guest
	ns.Do(func() { g = tuntest.Boot(t, "vm0", tuntest.TSO) })
	next(t, events, "carrier", its(func(e Event) bool { return e.Up && e.Carrier }))
	g.Kill()
	next(t, events, "no carrier", its(func(e Event) bool { return e.Up && !e.Carrier }))
	ns.Run("ip", "link", "set", "vm0", "mtu", "9000")
	next(t, events, "MTU", its(func(e Event) bool { return e.MTU == 9000 }))

	// Joining and leaving a bridge is told twice, the second time by the bridge.
	ns.Run("ip", "link", "set", "vm0", "master", "br0")
	next(t, events, "joined", its(func(e Event) bool { return e.Master != 0 }))
	ns.Run("ip", "link", "set", "vm0", "nomaster")
	next(t, events, "left", its(func(e Event) bool {
		if e.Gone {
			t.Error("leaving a bridge looks like a deletion")
		}
		return e.Master == 0
	}))
	ns.Run("ip", "link", "set", "vm0", "down")
	next(t, events, "down", its(func(e Event) bool {
		if e.Gone {
			t.Error("leaving a bridge looks like a deletion")
		}
		return !e.Up
	}))

	ns.Run("ip", "link", "set", "vm0", "name", "renamed")
	next(t, events, "rename", its(func(e Event) bool { return e.Name == "renamed" }))
	ns.Run("ip", "link", "set", "renamed", "netns", elsewhere.Path())
	next(t, events, "moved away", its(func(e Event) bool { return e.Gone }))
	elsewhere.Run("ip", "link", "set", "renamed", "netns", ns.Path())
	next(t, events, "moved back", func(e Event) bool { return e.Name == "renamed" && !e.Gone })
	ns.Run("ip", "link", "del", "renamed")
	next(t, events, "deleted", func(e Event) bool { return e.Name == "renamed" && e.Gone })
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	if e := next(t, events, "made again", func(e Event) bool { return e.Name == "vm0" && !e.Gone }); e.Index == index {
		t.Error("a new device has the number of the old one")
	}
}

// A watcher that is not listened to loses news, and then has the state right all the
// same: what was deleted meanwhile, and what was made.
func TestWatchOverflow(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "old", "mode", "tap")
	ns.Run("ip", "tuntap", "add", "dev", "kept", "mode", "tap")
	events := start(t, ns, 1) // the kernel makes it the least there is
	next(t, events, "old is there", func(e Event) bool { return e.Name == "old" })
	next(t, events, "kept is there", func(e Event) bool { return e.Name == "kept" })

	ns.Do(func() {
		kept, err := ByName("kept")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			if err := kept.SetMTU(1000 + i); err != nil {
				t.Fatal(err)
			}
		}
	})
	ns.Run("ip", "link", "del", "old")
	ns.Run("ip", "tuntap", "add", "dev", "new", "mode", "tap")

	state := map[string]Link{}
	seen := 0
	settled := func() bool {
		_, old := state["old"]
		_, fresh := state["new"]
		return !old && fresh && state["kept"].MTU == 1199
	}
	state["old"] = Link{}
	next(t, events, "the state as it is", func(e Event) bool {
		seen++
		if e.Gone {
			delete(state, e.Name)
			if e.Name == "old" && !e.Missed {
				t.Error("the listing says that old was not moved")
			}
		} else {
			state[e.Name] = e.Link
		}
		return settled()
	})
	if seen >= 200 {
		t.Errorf("%d events: nothing was lost, so this test shows nothing", seen)
	}
}

// The end of the context ends the watch.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ctx, cancel := context.WithCancel(context.Background())
	var events <-chan Event
	ns.Do(func() {
		var err error
		if events, err = Watch(ctx); err != nil {
			t.Fatal(err)
		}
	})
	next(t, events, "lo", func(e Event) bool { return e.Name == "lo" })
	cancel()
	timeout := time.After(patience)
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-timeout:
			t.Fatal("the watch goes on after its context")
		}
	}
}

// An interface that takes the frames of the one below it says which that is, if it is in the same namespace.
func TestLower(t *testing.T) {
	for _, c := range []struct {
		kind         string
		netns, lower int
	}{
		{"macvlan", -1, 7}, {"ipvlan", -1, 7}, {"macsec", -1, 7}, {"macsec", 3, 0}, {"macvlan", 3, 0}, {"vlan", -1, 0}, {"veth", -1, 0},
	} {
		l := linkFrom(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: 9, ParentIndex: 7, NetNsID: c.netns}, LinkType: c.kind})
		if l.Lower != c.lower {
			t.Errorf("of a %s it is %d, want %d", c.kind, l.Lower, c.lower)
		}
	}
}
