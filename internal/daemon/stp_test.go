package daemon

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/proto/stp"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

func withTree(o *Options) {
	withSettings(`{"stp": true}`)(o)
	o.Recovery = 300 * time.Second
}

// netdev and vm are ports towards a bridge and towards a station.
func netdev(name string) port.Spec { return port.Spec{Name: name, Kind: "netdev"} }
func vm(name string) port.Spec     { return port.Spec{Name: name, Kind: "tap"} }

// hello is what a bridge sends that is the root.
func hello(priority uint16) []byte {
	id := stp.BridgeID(priority)<<48 | 0x0200_0000_0001
	m := stp.BPDU{Type: stp.TypeRST, Root: id, Bridge: id, Port: 0x8001,
		Flags:  0x3c, // designated, learning, forwarding
		MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
	return m.Put(new([stp.FrameLen]byte), [6]byte{2, 0, 0, 0, 0, 1})
}

func (w *wireRig) tree() (tree api.STP) {
	w.t.Helper()
	if err := w.call("GET", "/v1/stp", nil, &tree); err != nil {
		w.t.Fatal(err)
	}
	return tree
}

func (w *wireRig) treePort(name string) api.STPPort {
	w.t.Helper()
	for _, p := range w.tree().Ports {
		if p.Port == name {
			return p
		}
	}
	w.t.Fatalf("port %s takes no part in the tree", name)
	return api.STPPort{}
}

func (w *wireRig) wantTree(name, role, state string) {
	w.t.Helper()
	if p := w.treePort(name); p.Role != role || p.State != state {
		w.t.Errorf("port %s is %s and %s, want %s and %s; log:\n%s", name, p.Role, p.State, role, state, w.lines)
	}
}

func ethernet(dst, src port.MAC) []byte {
	b := append(dst.HardwareAddr(), src.HardwareAddr()...)
	return append(b, "\x88\xb5 a frame"...)
}

func TestTreeOfStations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withTree, vm("vm0"), vm("vm1"))
		w.wantTree("vm0", "designated", "forwarding")
		f := ethernet(port.Broadcast, 0x52_54_00_00_00_01)
		w.send("vm0", f)
		w.wantTaken(f, map[string]int{"vm1": 1})
		if tree := w.tree(); tree.RootPort != "" || tree.Root != tree.Bridge || !strings.HasPrefix(tree.Bridge, "8000.") || tree.TopologyChanges != 0 {
			t.Errorf("%+v", tree)
		}

		// A hello every two seconds, from the switch's own address.
		w.taken("vm0")
		time.Sleep(10 * time.Second)
		hellos := w.taken("vm0")
		if len(hellos) != 5 {
			t.Errorf("%d hellos in 10 s, want 5", len(hellos))
		}
		for _, h := range hellos {
			if m, err := stp.Parse(h); err != nil || m.Type != stp.TypeRST || port.MACFrom(h[6:]) != w.mac {
				t.Errorf("%x: %+v, %v", h, m, err)
			}
		}
		if got := w.treePort("vm0"); !got.Edge || got.TX.RST == 0 || got.Cost != 20000 || got.Priority != 128 || got.Protocol != "rstp" {
			t.Errorf("%+v", got)
		}
	})
}

func TestTreeGuardsStations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withTree, vm("vm0"), vm("vm1"))
		w.send("vm0", hello(0))
		w.wantState("vm0", api.StateDown)
		w.wantTree("vm0", "disabled", "discarding")
		if p := w.port("vm0"); p.Reason != "err-disabled: BPDU guard: a bridge is behind it" {
			t.Errorf("reason %q", p.Reason)
		}
		if p := w.treePort("vm0"); p.Blocked != "bpdu_guard" {
			t.Errorf("blocked by %q", p.Blocked)
		}
		w.wantState("vm1", api.StateUp)
		time.Sleep(300 * time.Second)
		w.wantState("vm0", api.StateUp)
		w.wantTree("vm0", "designated", "forwarding")

		// A setting brings it back as well, and turns the guard off.
		w.send("vm0", hello(0))
		w.wantState("vm0", api.StateDown)
		off := "off"
		if err := w.set("vm0", api.Settings{"bpdu_guard": off}); err != nil {
			t.Fatal(err)
		}
		w.wantTree("vm0", "designated", "forwarding")
		w.send("vm0", hello(0))
		w.wantState("vm0", api.StateUp)
		if w.tree().RootPort != "vm0" {
			t.Errorf("root port %q", w.tree().RootPort)
		}
	})
}

// Anything to where BPDUs go trips BPDU guard, and nothing of it where a user turned the
// guard off or the filter on.
func TestGuardTripsOnAnyFrameToBPDUs(t *testing.T) {
	const bpdus, pvst = port.MAC(0x0180_c200_0000), port.MAC(0x0100_0ccc_cccd)
	tagged := func(f []byte) []byte { return slices.Concat(f[:12], []byte{0x81, 0, 0, 5}, f[12:]) }
	for name, f := range map[string][]byte{
		"garbage":       ethernet(bpdus, 0x52_54_00_00_00_01),
		"header alone":  ethernet(bpdus, 0x52_54_00_00_00_01)[:14],
		"tagged":        tagged(hello(0)),
		"from a group":  ethernet(bpdus, port.Broadcast),
		"PVST+":         ethernet(pvst, 0x52_54_00_00_00_01),
		"PVST+, tagged": tagged(ethernet(pvst, 0x52_54_00_00_00_01)),
	} {
		synctest.Test(t, func(t *testing.T) {
			guarded, open, filtered := vm("vm0"), withPort(vm("vm1"), `{"bpdu_guard": "off"}`), withPort(vm("vm2"), `{"bpdu_filter": true}`)
			w := wire(t, store.State{}, withTree, guarded, open, filtered, vm("vm3"))
			for _, by := range []string{"vm1", "vm2"} {
				w.send(by, bytes.Clone(f))
				w.wantState(by, api.StateUp)
			}
			w.taken("vm3")
			w.send("vm0", bytes.Clone(f))
			w.wantState("vm0", api.StateDown)
			if p := w.port("vm0"); p.Reason != "err-disabled: BPDU guard: a bridge is behind it" {
				t.Errorf("%s: reason %q", name, p.Reason)
			}
			if n := len(w.taken("vm3")); n != 0 {
				t.Errorf("%s: is forwarded", name)
			}
			if w.tree().RootPort != "" {
				t.Errorf("%s: root port %q", name, w.tree().RootPort)
			}
			// The setting follows while the port is up.
			on, off := "on", "off"
			if err := w.set("vm0", api.Settings{"bpdu_guard": off}); err != nil {
				t.Fatal(err)
			}
			w.send("vm0", bytes.Clone(f))
			w.wantState("vm0", api.StateUp)
			if err := w.set("vm1", api.Settings{"bpdu_guard": on}); err != nil {
				t.Fatal(err)
			}
			w.send("vm1", bytes.Clone(f))
			w.wantState("vm1", api.StateDown)
		})
	}
}

// A guest's frames to the address of BPDUs keep no BPDU of an uplink from the tree, also
// where no guard shuts its port, and keep no other guest's join from snooping.
func TestFloodOfBPDUsHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := withPort(vm("vm0"), `{"bpdu_guard": "off"}`)
		w := wire(t, store.State{}, func(o *Options) { withTree(o); withSnooping(justSnoop)(o) }, open, netdev("up0"), vm("vm1"))
		for range 3 {
			// The manager is busy, and the flood fills what there is.
			_ = w.do(func() error {
				for range 500 {
					w.ends["vm0"].Put(0, memory.Packet{Wire: ethernet(0x0180_c200_0000, 0x52_54_00_00_00_01)})
				}
				time.Sleep(time.Second)
				w.ends["up0"].Put(0, memory.Packet{Wire: hello(0x1000)})
				w.ends["vm1"].Put(0, memory.Packet{Wire: join4(group4)})
				time.Sleep(time.Second)
				return nil
			})
		}
		w.wantState("vm0", api.StateUp)
		if w.port("vm0").RX.Dropped["control_full"] == 0 {
			t.Error("the flood was none")
		}
		for _, by := range []string{"up0", "vm1"} {
			if p := w.port(by); p.RX.Dropped["control_full"] != 0 || p.RX.Dropped["consumed"] != 3 {
				t.Errorf("%s: %v", by, p.RX.Dropped)
			}
		}
		if w.tree().RootPort != "up0" {
			t.Errorf("root port %q", w.tree().RootPort)
		}
	})
}

// A bridge behind a port becomes the root; what was learned is forgotten where the
// topology changed; without hellos and without a link the port is given up.
func TestTreeOfBridges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withTree, netdev("up0"), netdev("up1"), vm("vm0"))
		w.wantTree("up0", "designated", "discarding")
		f := ethernet(port.Broadcast, 0x52_54_00_00_00_01)
		w.send("vm0", f)
		w.wantTaken(f, nil)
		// Nobody answers up0 and up1: they are edge ports.
		time.Sleep(4 * time.Second)
		w.wantTree("up0", "designated", "forwarding")
		w.send("vm0", f)
		w.wantTaken(f, map[string]int{"up0": 1, "up1": 1})

		w.send("up1", hello(0x1000))
		w.wantTree("up1", "root", "forwarding")
		if tree := w.tree(); tree.RootPort != "up1" || tree.Root != "1000.020000000001" || tree.RootCost != 20000 {
			t.Errorf("%+v", tree)
		}
		// A second way to the root is kept in reserve. It costs the same, so the
		// lower port is the root port.
		w.send("up0", hello(0x1000))
		w.wantTree("up0", "root", "forwarding")
		w.wantTree("up1", "alternate", "discarding")
		f = ethernet(port.Broadcast, 0x52_54_00_00_00_02)
		w.send("up1", f)
		w.wantTaken(f, nil)
		if got := w.port("up1").RX.Dropped["stp_blocked"]; got != 1 {
			t.Errorf("%d frames dropped for the tree, want 1", got)
		}
		k := fdb.MakeKey(1, 0x52_54_00_00_00_03)
		f = ethernet(port.Broadcast, 0x52_54_00_00_00_03)
		w.send("up0", f)
		if e, ok := w.sw.FDB().Get(k); !ok || e.Port != 0 {
			t.Fatalf("entry %+v, %v", e, ok)
		}
		changes := w.tree().TopologyChanges
		w.link("up0", false)
		w.wantTree("up0", "disabled", "discarding")
		w.wantTree("up1", "root", "forwarding")
		if _, ok := w.sw.FDB().Get(k); ok {
			t.Error("a station behind a lost port is not forgotten")
		}
		if got := w.tree().TopologyChanges; got <= changes {
			t.Errorf("%d topology changes, before %d", got, changes)
		}
		// Three hellos missed.
		time.Sleep(7 * time.Second)
		w.wantTree("up1", "designated", "forwarding")
		if w.tree().RootPort != "" {
			t.Errorf("root port %q", w.tree().RootPort)
		}
		w.link("up0", true)
		w.wantTree("up0", "designated", "discarding")
		if err := w.manager.do(func() error { return w.delPort("up0", true) }); err != nil {
			t.Fatal(err)
		}
		if n := len(w.tree().Ports); n != 2 {
			t.Errorf("%d ports in the tree, want 2", n)
		}
		for _, line := range []string{`port=up0 event="role is root"`, `msg="spanning tree" event="root bridge is 1000.020000000001"`} {
			if !strings.Contains(w.lines.String(), line) {
				t.Errorf("the log lacks %q:\n%s", line, w.lines)
			}
		}
	})
}

// Ports that a restart brings back are in the tree before they forward.
func TestTreeOfRestoredPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := withPort(netdev("up0"), `{"root_guard": true, "stp_cost": 7, "stp_priority": 16}`)
		w := wire(t, store.State{Ports: []store.Port{{Spec: saved(up)}}}, withTree)
		w.wantTree("up0", "designated", "discarding")
		if p := w.treePort("up0"); p.Cost != 7 || p.Priority != 16 {
			t.Errorf("%+v", p)
		}
		w.send("up0", hello(0))
		w.wantTree("up0", "alternate", "discarding")
		if p := w.treePort("up0"); p.Blocked != "root_guard" {
			t.Errorf("blocked by %q", p.Blocked)
		}
	})
}

func TestNoTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(*Options) {}, vm("vm0"), netdev("up0"))
		w.send("vm0", hello(0))
		w.wantState("vm0", api.StateUp)
		w.wantTaken(hello(0), nil)
		wantCode(t, w.call("GET", "/v1/stp", nil, nil), api.CodeInvalid, "vswitch set --stp=on")
		time.Sleep(time.Minute)
		if n := len(w.taken("up0")); n != 0 {
			t.Errorf("%d frames are sent without --stp", n)
		}
	})
}
