package daemon

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

func withLoops(o *Options) {
	withSettings(`{"loop_detect": true}`)(o)
	o.Recovery = time.Minute
}

// Where a probe says what.
const (
	probeNonce = port.HeaderLen
	probePort  = probeNonce + 16
	probeVLAN  = probePort + 2
	probeEnd   = probeVLAN + 2
)

// groupOf is the group address that probes go to.
func groupOf(mac port.MAC) port.MAC { return mac | 1<<40 }

// probes returns those that left by a port since the last call, and forgets what else did.
func (w *wireRig) probes(name string) [][]byte {
	return slices.DeleteFunc(w.taken(name), func(f []byte) bool { return port.MACFrom(f) != groupOf(w.mac) })
}

// fresh returns the probe that a port was just sent.
func (w *wireRig) fresh(name string) []byte {
	w.t.Helper()
	w.probes(name)
	time.Sleep(time.Second)
	got := w.probes(name)
	if len(got) != 1 {
		w.t.Fatalf("%d probes by %s in a second", len(got), name)
	}
	return got[0]
}

// inVLAN is a frame with a tag.
func inVLAN(f []byte, vid uint16) []byte {
	return slices.Concat(f[:12], []byte{0x81, 0, byte(vid >> 8), byte(vid)}, f[12:])
}

// Probes leave by ports to networks; by those of stations when they come up, when an
// address moves, and where moves cannot be seen.
func TestWhereProbesGo(t *testing.T) {
	blind, bridge, host := vm("blind"), vm("bridge"), netdev("host")
	blind.NoLearning, bridge.Edge, host.Edge = true, "off", "on"
	always := []string{"up0", "blind", "bridge"}
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, netdev("up0"), vm("vm0"), vm("vm1"), vm("vm2"), blind, bridge, host)
		want := func(when string, seconds int, ports ...string) {
			t.Helper()
			time.Sleep(time.Duration(seconds) * time.Second)
			for name := range w.ends {
				n := len(w.probes(name))
				if on := slices.Contains(ports, name); on && n != seconds || !on && n != 0 {
					t.Errorf("%s: %d probes by %s in %d s", when, n, name, seconds)
				}
			}
		}
		want("at first", 3, append([]string{"vm0", "vm1", "vm2", "host"}, always...)...)
		want("later", 10, always...)
		w.send("vm0", ethernet(port.Broadcast, 0x525400000001))
		want("an address is learned", 5, always...)
		w.send("vm1", ethernet(port.Broadcast, 0x525400000001))
		want("it moves", 3, append([]string{"vm0", "vm1"}, always...)...)
		time.Sleep(2 * time.Second)
		for name := range w.ends {
			w.taken(name)
		}
		want("it moves no more", 5, always...)
		w.link("vm2", false)
		w.link("up0", false)
		want("links are down", 3, "blind", "bridge")
		w.link("vm2", true)
		want("a link comes up", 3, "vm2", "blind", "bridge")
	})
}

// Every probe is another; it says by which port and in which VLAN it left.
func TestProbe(t *testing.T) {
	trunk := netdev("trunk")
	trunk.Trunk, trunk.Native = vlans(10, 11), 1
	access := netdev("access")
	access.Access = 300
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, access, trunk)
		time.Sleep(2 * time.Second)
		var all [][]byte
		for name, vlans := range map[string][]uint16{"access": {300, 300}, "trunk": {1, 10, 11, 1, 10, 11}} {
			var got []uint16
			for _, f := range w.probes(name) {
				vid := uint16(1)
				if f[12] == 0x81 {
					vid = binary.BigEndian.Uint16(f[14:])
					f = slices.Concat(f[:12], f[16:])
				} else if name == "access" {
					vid = 300
				}
				if len(f) != 60 || port.MACFrom(f[6:]) != w.mac || binary.BigEndian.Uint16(f[12:]) != 0x88b5 ||
					binary.BigEndian.Uint16(f[30:]) != w.sw.Port(name).Number() || binary.BigEndian.Uint16(f[32:]) != vid {
					t.Errorf("probe by %s in VLAN %d: % x", name, vid, f)
				}
				got, all = append(got, vid), append(all, f[14:30])
			}
			if !slices.Equal(got, vlans) {
				t.Errorf("%s is probed in VLANs %v, want %v", name, got, vlans)
			}
		}
		slices.SortFunc(all, bytes.Compare)
		if n := len(slices.CompactFunc(all, bytes.Equal)); n != 8 {
			t.Errorf("%d different probes of 8", n)
		}
	})
}

// Of a port with many VLANs a few are probed each second, all in turn; of a trunk that
// takes no untagged frames not the native one.
func TestProbesOfManyVLANs(t *testing.T) {
	many := netdev("up0")
	many.Trunk, many.Native, many.Accept = parsed(t, "5-23,4094"), 9, "tagged"
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, many)
		seen := make(map[uint16]int)
		var order []uint16
		for range 19 {
			time.Sleep(time.Second)
			got := w.probes("up0")
			if len(got) != 8 {
				t.Fatalf("%d probes in a second", len(got))
			}
			for _, f := range got {
				vid := binary.BigEndian.Uint16(f[14:])
				seen[vid]++
				order = append(order, vid)
			}
		}
		if !slices.Equal(order[19:], order[:len(order)-19]) || !slices.IsSorted(order[:19]) {
			t.Errorf("VLANs are not probed by turns: %v", order)
		}
		for vid, n := range seen {
			if n != 8 || vid == 9 {
				t.Errorf("VLAN %d is probed %d times", vid, n)
			}
		}
		if len(seen) != 19 {
			t.Errorf("%d VLANs are probed", len(seen))
		}
	})
}

// The port of a station is shut, be it where a probe left or where it came back.
func TestLoopShutsTheStation(t *testing.T) {
	for _, c := range []struct{ from, by, down, reason string }{
		{"up0", "vm0", "vm0", "loop: what the switch sent by port up0 came back"},
		{"vm0", "up0", "vm0", "loop: what the switch sent by it came back by port up0"},
		{"vm0", "vm1", "vm1", "loop: what the switch sent by port vm0 came back"},
		{"vm0", "vm0", "vm0", "loop: what the switch sent by port vm0 came back"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := wire(t, store.State{}, withLoops, netdev("up0"), vm("vm0"), vm("vm1"))
			w.send(c.by, w.fresh(c.from))
			for _, name := range []string{"up0", "vm0", "vm1"} {
				want := api.StateUp
				if name == c.down {
					want = api.StateDown
				}
				w.wantState(name, want)
			}
			if got := w.port(c.down).Reason; got != "err-disabled: "+c.reason {
				t.Errorf("from %s by %s: reason %q", c.from, c.by, got)
			}
			time.Sleep(time.Minute)
			w.wantState(c.down, api.StateUp)
		})
	}
}

// Two probes of one loop shut one port: the other's is cut off already.
func TestLoopShutsOnePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, vm("vm0"), vm("vm1"))
		a, b := w.fresh("vm0"), w.probes("vm1")
		w.send("vm1", a)
		w.send("vm0", b[len(b)-1])
		w.wantState("vm1", api.StateDown)
		w.wantState("vm0", api.StateUp)
	})
}

// A probe is good once, for seconds, in its VLAN, as it was sent.
func TestProbesThatProveNothing(t *testing.T) {
	vm0, up0 := vm("vm0"), netdev("up0")
	vm0.Access, up0.Trunk = 10, vlans(10, 20)
	for name, send := range map[string]func(w *wireRig, probe []byte){
		"stale": func(w *wireRig, probe []byte) {
			time.Sleep(4 * time.Second)
			w.send("up0", inVLAN(probe, 10))
			w.send("vm0", probe)
		},
		"an hour old": func(w *wireRig, probe []byte) {
			time.Sleep(time.Hour)
			w.send("up0", inVLAN(probe, 10))
			w.send("vm0", probe)
		},
		"in another VLAN": func(w *wireRig, probe []byte) { w.send("up0", inVLAN(probe, 20)) },
		"forged": func(w *wireRig, probe []byte) {
			probe[probeNonce] ^= 1
			w.send("vm0", probe)
		},
		"another port's": func(w *wireRig, probe []byte) {
			probe[probePort+1] ^= 1
			w.send("vm0", probe)
		},
		"says another VLAN": func(w *wireRig, probe []byte) {
			probe[probeVLAN] ^= 1
			w.send("vm0", probe)
		},
		"cut":    func(w *wireRig, probe []byte) { w.send("vm0", probe[:33]) },
		"header": func(w *wireRig, probe []byte) { w.send("vm0", probe[:port.HeaderLen]) },
		"of a port that is gone": func(w *wireRig, probe []byte) {
			if err := w.do(func() error { return w.delPort("vm0", true) }); err != nil {
				w.t.Fatal(err)
			}
			if err := w.addReq(wanted(vm0)); err != nil {
				w.t.Fatal(err)
			}
			w.send("up0", inVLAN(probe, 10))
		},
		"again": func(w *wireRig, probe []byte) {
			w.send("vm0", probe)
			w.wantState("vm0", api.StateDown)
			time.Sleep(time.Minute)
			w.send("vm0", probe)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := wire(t, store.State{}, withLoops, vm0, up0)
			send(w, w.fresh("vm0"))
			w.wantState("vm0", api.StateUp)
			w.wantState("up0", api.StateUp)
			if t.Failed() {
				t.Log(name)
			}
		})
	}
}

// One probe from outside shuts no port to a network: strangers hear them there. Several
// in a row are a loop.
func TestReplayFromOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, netdev("up0"), netdev("up1"))
		for range 10 {
			w.send("up0", w.fresh("up0"))
			w.probes("up0") // to confirm the first
		}
		w.wantState("up0", api.StateUp)
		for _, by := range []string{"up1", "up0"} {
			time.Sleep(5 * time.Second)
			probe := w.fresh("up0")
			for i := range 3 {
				w.wantState(by, api.StateUp)
				w.send(by, probe)
				if i < 2 {
					got := w.probes("up0")
					if len(got) != 1 {
						t.Fatalf("%d probes to confirm", len(got))
					}
					probe = got[0]
				}
			}
			w.wantState(by, api.StateDown)
		}
	})
}

// bridge carries frames between the outer ends of two ports for a time.
func (w *wireRig) bridge(a, b string, d time.Duration, carries func([]byte) bool) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, way := range [][2]string{{a, b}, {b, a}} {
			for _, f := range w.taken(way[0]) {
				if carries(f) {
					w.ends[way[1]].Put(0, memory.Packet{Wire: f})
				}
			}
		}
		synctest.Wait()
	}
}

// A guest that bridges its two NICs is found by the addresses that move, and cut off.
func TestGuestThatBridges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, netdev("up0"), vm("vm0"), vm("vm1"), vm("vm2"))
		time.Sleep(time.Minute)
		w.taken("vm0")
		w.taken("vm1")
		w.send("vm2", ethernet(port.Broadcast, 0x525400000002))
		w.bridge("vm0", "vm1", 2*time.Second, func([]byte) bool { return true })
		w.wantState("vm2", api.StateUp)
		w.wantState("up0", api.StateUp)
		if a, b := w.port("vm0").State, w.port("vm1").State; (a == api.StateDown) == (b == api.StateDown) {
			t.Errorf("vm0 is %s, vm1 is %s", a, b)
		}
	})
}

// With a spanning tree the tree cuts loops. What it cannot see, as BPDUs do not get
// through, is cut once it lasted; what it blocks is not probed.
func TestLoopsAndTree(t *testing.T) {
	withBoth := func(o *Options) { withTree(o); withLoops(o) }
	isBPDU := func(f []byte) bool { return port.MACFrom(f) == 0x0180_c200_0000 }
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withBoth, netdev("up0"), netdev("up1"), vm("vm0"))
		w.bridge("up0", "up1", 20*time.Second, func([]byte) bool { return true })
		w.wantState("up0", api.StateUp)
		w.wantState("up1", api.StateUp)
		w.wantTree("up1", "backup", "discarding")
		w.wantTree("up0", "designated", "forwarding")
		w.taken("up1")
		w.bridge("up0", "up1", time.Second, isBPDU)
		w.taken("up1")
		time.Sleep(1500 * time.Millisecond)
		if n := len(w.probes("up1")); n != 0 {
			t.Errorf("%d probes by a blocked port", n)
		}

		// A probe that is on its way when the tree blocks its port is none.
		time.Sleep(20 * time.Second)
		w.wantTree("up1", "designated", "forwarding")
		probe := w.fresh("up1")
		w.bridge("up0", "up1", 100*time.Millisecond, isBPDU)
		for range 5 {
			w.send("up0", bytes.Clone(probe))
		}
		w.wantState("up0", api.StateUp)
	})
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withBoth, netdev("up0"), netdev("up1"), vm("vm0"))
		noBPDU := func(f []byte) bool { return !isBPDU(f) }
		time.Sleep(20 * time.Second)
		w.taken("up0")
		w.taken("up1")
		w.bridge("up0", "up1", 2*time.Second, noBPDU)
		w.wantState("up0", api.StateUp)
		w.wantState("up1", api.StateUp)
		w.bridge("up0", "up1", 2*time.Second, noBPDU)
		if a, b := w.port("up0").State, w.port("up1").State; (a == api.StateDown) == (b == api.StateDown) {
			t.Errorf("up0 is %s, up1 is %s", a, b)
		}
		w.wantState("vm0", api.StateUp)
	})
}

// Where mirrored frames leave, the switch says nothing itself.
func TestNoProbesByMirrorTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withLoops, netdev("up0"), netdev("up1"), vm("vm0"))
		time.Sleep(10 * time.Second)
		w.taken("up0")
		w.taken("up1")
		if err := w.sw.SetMirrors([]vswitch.Mirror{{Name: "m0", Ports: []string{"vm0"}, In: true, Out: true, To: "up1"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if a, b := len(w.probes("up0")), len(w.probes("up1")); a != 10 || b != 0 {
			t.Errorf("%d and %d probes", a, b)
		}
	})
}

func TestNoProbesUnlessAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		r.mustAdd("vm1")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := r.sw.Injected(); n != 0 || strings.Contains(r.logged(), "loop") {
			t.Errorf("%d frames of its own", n)
		}
		if n := r.sw.FDB().Len(); n != 0 {
			t.Errorf("%d FDB entries", n)
		}
	})
}
