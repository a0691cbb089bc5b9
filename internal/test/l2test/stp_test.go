package l2test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// ring is two switches and a kernel bridge, which is the root, each with a host.
// Their ports are named by where they lead to.
//
//	ha ── [to-h] a [to-b] ───── [to-a] b [to-h] ── hb
//	           [to-k]         [to-k]
//	               \           /
//	             [to-a]     [to-b]
//	              k (kernel bridge) [to-h] ── hk
type ring struct {
	t          *testing.T
	a, b       *daemon
	k          *testenv.Netns
	ha, hb, hk *host
}

func newRing(t *testing.T) *ring {
	r := &ring{t: t, k: quietNetns(t)}
	a, b := quietNetns(t), quietNetns(t)
	r.ha, r.hb, r.hk = hostOf(t, a), hostOf(t, b), hostOf(t, r.k)
	// The shortest times that the standard has (802.1D-2004 table 17-1).
	ip(t, r.k, `link add br0 type bridge stp_state 1 priority 0 hello_time 100 forward_delay 400 max_age 600
link set br0 up
link set to-h master br0
`)
	ip(t, a, fmt.Sprintf(`link add to-b type veth peer name to-a netns %s
link add to-k type veth peer name to-a netns %s
link set to-b up
link set to-k up
`, b.Name, r.k.Name))
	ip(t, b, fmt.Sprintf(`link add to-k type veth peer name to-b netns %s
link set to-a up
link set to-k up
`, r.k.Name))
	ip(t, r.k, `link set to-a up master br0
link set to-b up master br0
`)
	r.a, r.b = startDaemon(t, a, "--stp"), startDaemon(t, b, "--stp", "--stp-priority", "36864")
	for d, link := range map[*daemon]string{r.a: "to-b", r.b: "to-a"} {
		d.ctl("add-port %s --kind netdev", link)
		d.ctl("add-port to-k --kind netdev")
		d.ctl("add-port to-h --kind netdev --stp-edge on --bpdu-guard on")
	}
	return r
}

// hostOf makes a host behind the interface to-h of a namespace.
func hostOf(t *testing.T, ns *testenv.Netns) *host {
	h := &host{number: uint16(hostCount.Add(1)), ns: quietNetns(t), port: "to-h"}
	h.mac = 0x02_00_00_00_00_00 + port.MAC(h.number)
	ip(t, ns, fmt.Sprintf("link add to-h type veth peer name eth0 address %s netns %s\nlink set to-h up\n", h.mac, h.ns.Name))
	ip(t, h.ns, "link set eth0 up\n")
	h.ns.Do(func() { h.Station = tuntest.Listen(t, "eth0") })
	return h
}

func (d *daemon) tree() api.STP {
	d.t.Helper()
	tree, err := d.Client.STP(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return tree
}

// part is what a port is in the tree, such as "root forwarding stp".
func (d *daemon) part(name string) string {
	d.t.Helper()
	for _, p := range d.tree().Ports {
		if p.Port == name {
			return p.Role + " " + p.State + " " + p.Protocol
		}
	}
	return ""
}

// kernelForwards reports whether the kernel bridge forwards by its ports.
func (r *ring) kernelForwards(names ...string) bool {
	r.t.Helper()
	var ports []struct{ Ifname, State string }
	if err := json.Unmarshal([]byte(r.k.Run("bridge", "-j", "link", "show")), &ports); err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		for _, p := range ports {
			if p.Ifname == name && p.State == "forwarding" {
				n++
			}
		}
	}
	return n == len(names)
}

// await polls until ports have a part in the tree, and tells of those that do not.
func (r *ring) await(what string, parts map[*daemon]map[string]string) {
	r.t.Helper()
	missing := ""
	defer func() {
		if r.t.Failed() {
			r.t.Logf("%s: %s", what, missing)
		}
	}()
	testenv.Eventually(r.t, what, func() bool {
		missing = ""
		for d, want := range parts {
			for name, part := range want {
				if got := d.part(name); got != part {
					missing += fmt.Sprintf("%s is %q, not %q; ", name, got, part)
				}
			}
		}
		return missing == ""
	})
}

// wantOnce ends a host's broadcasts: each other host got some of those that were sent
// meanwhile, none twice, and the sender got none.
func (r *ring) wantOnce(light *flow, from *host, others ...*host) {
	r.t.Helper()
	before := light.sent()
	testenv.Eventually(r.t, "some more is sent", func() bool { return light.sent() > before+20 })
	light.stop()
	if got := light.at(from); len(got) > 0 {
		r.t.Errorf("%d frames of %d came back to their sender", len(got), light.sent())
	}
	for _, h := range others {
		got := light.at(h)
		slices.Sort(got)
		if n := len(slices.Compact(slices.Clone(got))); n == 0 || n < len(got) {
			r.t.Errorf("of %d frames %d came to a host, and %d again; want some, once each", light.sent(), n, len(got)-n)
		}
	}
}

// wantEach checks that a broadcast of each host comes to each other one once.
func (r *ring) wantEach() {
	r.t.Helper()
	hosts := []*host{r.ha, r.hb, r.hk}
	for _, from := range hosts {
		wire, token := from.toAll().wire()
		if err := from.Send(wire, port.Offload{}); err != nil {
			r.t.Fatal(err)
		}
		for _, h := range hosts {
			wait := 5 * time.Second
			n := 0
			for h != from && n == 0 || n > 0 || wait == quiet {
				_, ok, err := h.receive(token, time.Now().Add(wait))
				if err != nil {
					r.t.Fatal(err)
				}
				if !ok {
					break
				}
				n, wait = n+1, quiet
			}
			if want := map[bool]int{true: 0, false: 1}[h == from]; n != want {
				r.t.Errorf("a host got a broadcast %d times, want %d", n, want)
			}
		}
	}
}

// TestSTPRing has a ring converge, lose a link and get it back, and sees that no
// frame goes round meanwhile, nor comes twice.
func TestSTPRing(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	const pace = 5 * time.Millisecond
	light := startFlow(t, r.ha, r.ha.toAll(), pace)
	// The kernel knows no RSTP. Of the link between a and b, which costs the same
	// from both, a's end is designated, for a has the better identifier.
	whole := map[*daemon]map[string]string{
		r.a: {"to-k": "root forwarding stp", "to-b": "designated forwarding rstp", "to-h": "designated forwarding rstp"},
		r.b: {"to-k": "root forwarding stp", "to-a": "alternate discarding rstp", "to-h": "designated forwarding rstp"},
	}
	r.await("the ring has converged", whole)
	testenv.Eventually(t, "the kernel bridge forwards", func() bool { return r.kernelForwards("to-a", "to-b", "to-h") })
	if tree := r.a.tree(); !strings.HasPrefix(tree.Root, "0000.") || tree.MaxAgeS != 6 || tree.ForwardDelayS != 4 {
		t.Errorf("the tree is %+v", tree)
	}
	r.wantOnce(light, r.ha, r.hb, r.hk)
	r.wantEach()
	for _, h := range []*host{r.ha, r.hb, r.hk} {
		h.v4, h.v6 = fmt.Sprintf("10.0.%d.%d", h.number>>8, h.number&0xff), fmt.Sprintf("fd00::%x", h.number)
		h.ns.Run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
		ip(t, h.ns, fmt.Sprintf("addr add %s/16 dev eth0\naddr add %s/64 dev eth0 nodad\n", h.v4, h.v6))
	}
	l := &lan{t: t}
	l.wantPing(r.ha, r.hb, true)
	l.wantPing(r.ha, r.hk, true)

	// Without its link to k, a reaches all by b.
	light = startFlow(t, r.hb, r.hb.toAll(), pace)
	ip(t, r.a.Netns, "link set to-k down\n")
	cut := map[*daemon]map[string]string{
		r.a: {"to-k": "disabled discarding rstp", "to-b": "root forwarding rstp"},
		r.b: {"to-k": "root forwarding stp", "to-a": "designated forwarding rstp"},
	}
	r.await("the ring has got over a cut link", cut)
	l.wantPing(r.ha, r.hk, true)
	l.wantPing(r.ha, r.hb, true)

	ip(t, r.a.Netns, "link set to-k up\n")
	r.await("the ring has its link again", whole)
	testenv.Eventually(t, "the kernel bridge forwards", func() bool { return r.kernelForwards("to-a", "to-b", "to-h") })
	r.wantOnce(light, r.hb, r.ha, r.hk)
	r.wantEach()
	l.wantPing(r.ha, r.hk, true)
	l.wantPing(r.hb, r.hk, true)
	if n := r.a.tree().TopologyChanges; n < 2 {
		t.Errorf("%d topology changes, want some", n)
	}
}

// TestBPDUGuard has a host become a bridge behind a port that expects none.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestBPDUGuard(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2, "--stp", "--recovery", "2s")
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("set-port p1 --stp-edge on")
	l.sw.ctl("set-port p2 --stp-edge on --bpdu-guard on")
	testenv.Eventually(t, "both ports forward", func() bool {
		return l.sw.part("p1") == "designated forwarding rstp" && l.sw.part("p2") == "designated forwarding rstp"
	})
	l.want(h1, h1.toAll(), h2)
	ip(t, h2.ns, "link add br0 type bridge stp_state 1 hello_time 100\nlink set eth0 master br0\nlink set br0 up\n")
	testenv.Eventually(t, "p2 is shut down", func() bool { return l.sw.port("p2").State == api.StateDown })
	if why := l.sw.port("p2").Reason; !strings.Contains(why, "BPDU guard") {
		t.Errorf("p2 is down for %q", why)
	}
	l.want(h1, h1.toAll())
	ip(t, h2.ns, "link del br0\n")
	testenv.Eventually(t, "p2 has recovered", func() bool { return l.sw.port("p2").State == api.StateUp })
	testenv.Eventually(t, "p2 forwards", func() bool { return l.sw.part("p2") == "designated forwarding rstp" })
	l.want(h1, h1.toAll(), h2)
}

// TestSTPBetweenSwitches has two links between two switches: one is kept in reserve
// and takes over at once, as RSTP does, not after twice the forward delay of 15 s.
//
//	a [l1] ═════ [l1] b
//	  [l2] ═════ [l2]
func TestSTPBetweenSwitches(t *testing.T) {
	t.Parallel()
	na, nb := quietNetns(t), quietNetns(t)
	ip(t, na, fmt.Sprintf("link add l1 type veth peer name l1 netns %s\nlink add l2 type veth peer name l2 netns %s\nlink set l1 up\nlink set l2 up\n", nb.Name, nb.Name))
	ip(t, nb, "link set l1 up\nlink set l2 up\n")
	a, b := startDaemon(t, na, "--stp", "--stp-priority", "4096"), startDaemon(t, nb, "--stp")
	for _, d := range []*daemon{a, b} {
		d.ctl("add-port l1 --kind netdev")
		d.ctl("add-port l2 --kind netdev --stp-cost 50000")
	}
	r := &ring{t: t}
	r.await("l1 is the way to the root", map[*daemon]map[string]string{
		a: {"l1": "designated forwarding rstp", "l2": "designated forwarding rstp"},
		b: {"l1": "root forwarding rstp", "l2": "alternate discarding rstp"},
	})
	b.ctl("set-port l2 --stp-cost 10")
	r.await("l2 is the way to the root", map[*daemon]map[string]string{
		b: {"l1": "alternate discarding rstp", "l2": "root forwarding rstp"},
	})
	began := time.Now()
	ip(t, na, "link set l2 down\n")
	r.await("l1 has taken over", map[*daemon]map[string]string{
		b: {"l1": "root forwarding rstp", "l2": "disabled discarding rstp"},
	})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	// What was set is there after a crash.
	b.Restart(t)
	r.await("the tree is as before", map[*daemon]map[string]string{
		a: {"l1": "designated forwarding rstp"}, b: {"l1": "root forwarding rstp", "l2": "disabled discarding rstp"},
	})
	for _, p := range b.tree().Ports {
		// A veth says that it has 10 Gbit/s.
		if want := map[string]int{"l1": 2000, "l2": 10}[p.Port]; int(p.Cost) != want {
			t.Errorf("%s costs %d, want %d", p.Port, p.Cost, want)
		}
	}
}
