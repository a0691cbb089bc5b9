package l2test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// members returns the states of the interfaces that carry a port.
func (d *daemon) members(name string) string {
	d.t.Helper()
	var all []string
	for _, m := range d.port(name).Members {
		all = append(all, string(m.State))
	}
	return strings.Join(all, " ")
}

func (d *daemon) awaitMembers(name, want string) {
	d.t.Helper()
	is := false
	defer func() {
		if !is {
			d.t.Log(d.ctl("ports %s", name))
		}
	}()
	testenv.Eventually(d.t, "the members of "+name+" are "+want, func() bool { is = d.members(name) == want; return is })
}

// carries returns by which of two interfaces most frames leave a namespace now.
func carries(ns *testenv.Netns, names ...string) string {
	sent := func(name string) int {
		n, _ := strconv.Atoi(ns.Run("cat", "/sys/class/net/"+name+"/statistics/tx_packets"))
		return n
	}
	before := []int{sent(names[0]), sent(names[1])}
	time.Sleep(20 * time.Millisecond)
	if sent(names[0])-before[0] > sent(names[1])-before[1] {
		return names[0]
	}
	return names[1]
}

// pulled pulls the cable that carries a flow. No frame may come twice, and few may be lost: 20,
// which is 2 ms of the flow, if the machine has nothing else to do, as VSWITCH_TEST_ALONE says.
// Beside other tests nobody knows when a program runs next, so only a port that does not notice
// fails. The cable is pulled until few are lost.
func pulled(t *testing.T, ns, far *testenv.Netns, from, to *host, f frame, ready func()) {
	t.Helper()
	const pace, tries = 100 * time.Microsecond, 10
	most := 5000
	if os.Getenv("VSWITCH_TEST_ALONE") != "" {
		most = 20
	}
	var losses []int
	for range tries {
		ready()
		flow := startFlow(t, from, f, pace)
		testenv.Eventually(t, "the flow is under way", func() bool { return flow.sent() > 1000 })
		name := carries(ns, "up0", "up1")
		ip(t, far, "link set "+name+" down\n")
		before := flow.sent()
		testenv.Eventually(t, "the flow goes on", func() bool { return flow.sent() > before+1000 })
		flow.stop()
		got := flow.at(to)
		slices.Sort(got)
		n := len(slices.Compact(slices.Clone(got)))
		if n != len(got) {
			t.Errorf("of %d frames %d come twice", flow.sent(), len(got)-n)
		}
		if n == 0 || got[n-1] < before {
			t.Fatalf("after the cable was pulled no frame comes; %d of %d did before", n, flow.sent())
		}
		ip(t, far, "link set "+name+" up\n")
		if losses = append(losses, flow.sent()-n); losses[len(losses)-1] <= most {
			t.Logf("pulling a cable loses %v frames of %d", losses, flow.sent())
			return
		}
	}
	t.Errorf("pulling a cable loses %v frames of a flow; want one time %d at most", losses, most)
}

// TestLAG has two switches speak LACP by two cables, with a spanning tree and VLANs.
//
//	            ┌─ up0 ═══ up0 ─┐
//	ha ── a ── lag0            lag0 ── b ── hb
//	            └─ up1 ═══ up1 ─┘
func TestLAG(t *testing.T) {
	t.Parallel()
	a, b := quietNetns(t), quietNetns(t)
	ha, hb := hostOf(t, a), hostOf(t, b)
	// The kernel is slow to report the carrier of a veth whose two ends have the same number.
	ip(t, b, "link add spare0 type veth peer name spare1\n")
	for _, name := range []string{"up0", "up1"} {
		ip(t, a, fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %s up\n", name, name, b.Name, name))
		ip(t, b, fmt.Sprintf("link set %s up\n", name))
	}
	switches := []*daemon{startDaemon(t, a, "--stp"), startDaemon(t, b, "--stp")}
	add := "add-port to-h --kind netdev --access 10 --stp-edge on"
	if daemontest.FastPath() {
		add += " --exclusive"
	}
	for _, d := range switches {
		d.refuse("name them with --members", "add-port lag0 --kind lag")
		d.refuse("interface up8 is not there", "add-port lag0 --kind lag --members up8,up9")
		d.ctl("%s", add)
		d.ctl("add-port lag0 --kind lag --members up0,up1 --lacp-rate fast --trunk 10 --no-wait")
		d.refuse("up1 is the device of another port", "add-port up1 --kind netdev")
	}
	ready := func() {
		t.Helper()
		for _, d := range switches {
			d.awaitMembers("lag0", "active active")
			d.AwaitState(t, "lag0", api.StateUp)
			testenv.Eventually(t, "the tree has the port forward", func() bool { return strings.Contains(d.part("lag0"), "forwarding rstp") })
		}
	}
	ready()
	if out := switches[0].ctl("ports lag0"); !strings.Contains(out, "up1 active; partner ") || !strings.Contains(out, "--members up0,up1") {
		t.Errorf("vswitch ports lag0 says\n%s", out)
	}
	for _, h := range []*host{hb, ha} { // both are known before the flow
		h := h
		testenv.Eventually(t, "frames pass", func() bool {
			other := ha
			if h == ha {
				other = hb
			}
			wire, token := h.to(other).wire()
			if err := h.Send(wire, port.Offload{}); err != nil {
				t.Fatal(err)
			}
			_, ok, err := other.receive(token, time.Now().Add(quiet))
			return ok && err == nil
		})
	}
	pulled(t, a, b, ha, hb, ha.to(hb), ready)
	for _, d := range switches {
		for _, name := range []string{"lag0", "to-h"} {
			if p := d.port(name); p.FastPath.On != daemontest.FastPath() || (d == switches[0]) == (name == "to-h") && (p.FastPath.Frames > 500) != daemontest.FastPath() {
				t.Errorf("port %s: %+v, want the fast path: %v", name, p.FastPath, daemontest.FastPath())
			}
		}
	}

	// Members come and go by the command line, too, and the other end hears of it: also with
	// LACPDUs each 30 s alone, no frame that it sends is lost for longer than that takes.
	for _, d := range switches {
		d.ctl("set-port lag0 --lacp-rate slow")
	}
	ready()
	flows := []*flow{startFlow(t, ha, ha.to(hb), time.Millisecond), startFlow(t, hb, hb.to(ha), time.Millisecond)}
	for range 2 {
		for _, members := range []string{"up1", "up0"} {
			switches[0].ctl("set-port lag0 --members %s", members)
			switches[1].awaitMembers("lag0", map[string]string{"up1": "negotiating active", "up0": "active negotiating"}[members])
			switches[0].ctl("set-port lag0 --members up0,up1")
			ready()
		}
	}
	for i, f := range flows {
		f.stop()
		got := f.at([]*host{hb, ha}[i])
		slices.Sort(got)
		lost := f.sent() - len(slices.Compact(got))
		if t.Logf("flow %d loses %d frames of %d while members come and go", i, lost, f.sent()); lost > 500 {
			t.Errorf("flow %d loses %d frames of %d while members come and go", i, lost, f.sent())
		}
	}
	for _, d := range switches {
		d.ctl("set-port lag0 --lacp-rate fast")
	}
	ready()
	// A restart keeps what was asked for. The other end notices, since nobody speaks meanwhile.
	switches[0].Kill()
	switches[1].awaitMembers("lag0", "negotiating negotiating")
	switches[0].Restart(t)
	ready()
	switches[0].ctl("del-port lag0")
	if got := a.Run("ip", "-o", "link"); strings.Contains(got, "alias") && strings.Contains(got, "up0") && strings.Contains(a.Run("ip", "link", "show", "up0"), "alias") {
		t.Errorf("left: %s", got)
	}
	switches[1].AwaitState(t, "lag0", api.StateWaiting)
}

// TestActiveBackup has a switch stand on two ports of a plain bridge, without a loop: one of them
// carries all.
//
//	          ┌─ up0 ═══ to-a0 ─┐
//	ha ── a ─ lag0              k (kernel bridge) ── hk
//	          └─ up1 ═══ to-a1 ─┘
func TestActiveBackup(t *testing.T) {
	t.Parallel()
	a, k := quietNetns(t), quietNetns(t)
	ha, hk := hostOf(t, a), hostOf(t, k)
	ip(t, k, "link add br0 type bridge\nlink set br0 up\nlink set to-h master br0\n")
	for _, name := range []string{"up0", "up1"} {
		ip(t, a, fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %s up\n", name, name, k.Name, name))
		ip(t, k, fmt.Sprintf("link set %s up master br0\n", name))
	}
	sw := startDaemon(t, a)
	add := "add-port to-h --kind netdev"
	if daemontest.FastPath() {
		add += " --exclusive"
	}
	sw.ctl("%s", add)
	sw.ctl("add-port lag0 --kind lag --lag-mode active-backup --members up0,up1 --no-wait")
	ready := func() {
		t.Helper()
		testenv.Eventually(t, "one member is active", func() bool {
			s := sw.members("lag0")
			return s == "active standby" || s == "standby active"
		})
	}
	ready()
	testenv.Eventually(t, "the bridge forwards", func() bool {
		wire, token := ha.toAll().wire()
		if err := ha.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		_, ok, err := hk.receive(token, time.Now().Add(quiet))
		return ok && err == nil
	})
	pulled(t, a, k, ha, hk, ha.toAll(), ready)
	ready()
	flow := startFlow(t, hk, hk.toAll(), time.Millisecond)
	testenv.Eventually(t, "some are sent", func() bool { return flow.sent() > 100 })
	flow.stop()
	got := flow.at(ha)
	if n := len(got); n > flow.sent() || n < flow.sent()*9/10 { // twice, or by no member
		t.Errorf("of %d broadcasts %d come: %v %+v", flow.sent(), n, got, sw.port("lag0").RX)
	}
	if sw.dropped("lag0", port.DropStandby) < flow.sent() {
		t.Errorf("of %d broadcasts the backup drops %d", flow.sent(), sw.dropped("lag0", port.DropStandby))
	}
	if back := flow.at(hk); len(back) > 0 {
		t.Errorf("%d come back", len(back))
	}
}

// TestLAGHash has both paths choose the same member for each frame, whatever that is: else a flow
// that changes its path changes its order.
//
//	h ── to-h ┐        ┌─ up0 ═══ up0
//	          sw ── lag0         far
//	                   └─ up1 ═══ up1
func TestLAGHash(t *testing.T) {
	t.Parallel()
	a, far := quietNetns(t), quietNetns(t)
	h := hostOf(t, a)
	var ends []*host
	for _, name := range []string{"up0", "up1"} {
		ip(t, a, fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %s up\n", name, name, far.Name, name))
		ip(t, far, fmt.Sprintf("link set %s up\n", name))
		end := &host{port: name, mac: 0x02_00_00_00_ff_01}
		far.Do(func() { end.Station = tuntest.Listen(t, name) })
		ends = append(ends, end)
	}
	r := rand.New(rand.NewPCG(7, 8))
	bytes := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	var frames [][]byte
	for i := range 300 {
		f := append(ends[0].mac.HardwareAddr(), h.mac.HardwareAddr()...)
		body := bytes(60)
		switch protocol := []byte{6, 17, 1, 6}[r.IntN(4)]; i % 3 {
		case 0: // IPv4, perhaps with options, perhaps a fragment
			f = append(f, 0x08, 0)
			body[0], body[6], body[7], body[9] = 0x45+byte(r.IntN(2)), byte(r.IntN(2))<<5, 0, protocol
		case 1:
			f = append(f, 0x86, 0xdd)
			body[0], body[6] = 0x60, protocol
		default: // something else, perhaps IP that is cut off
			f = append(f, [][]byte{{0x08, 0}, {0x86, 0xdd}, {0x88, 0xb5}}[r.IntN(3)]...)
			body = bytes(4 + r.IntN(50))
		}
		frames = append(frames, append(append(f, body...), fmt.Sprintf("<%03d>", i)...))
	}
	number := regexp.MustCompile(`<(\d{3})>$`)
	for _, hash := range []string{"layer2", "layer2+3", "layer3+4"} {
		var by [2]map[string]string // fast or slow: frame to interface
		for i, fast := range []string{"require", "off"} {
			sw := startDaemon(t, a, "--fastpath", fast)
			sw.ctl("add-port to-h --kind netdev --exclusive")
			sw.ctl("add-port lag0 --kind lag --lag-mode static --members up0,up1 --hash %s --no-wait", hash)
			sw.awaitMembers("lag0", "active active")
			for _, one := range [][2]*host{{ends[0], h}, {h, ends[0]}} { // each station is known
				testenv.Eventually(t, "the station is known", func() bool {
					wire, _ := one[0].to(one[1]).wire()
					if err := one[0].Send(wire, port.Offload{}); err != nil {
						t.Fatal(err)
					}
					return sw.entry(one[0].mac, 1).Port != ""
				})
			}
			before := sw.port("to-h").FastPath.Frames
			by[i] = make(map[string]string)
			for _, f := range frames {
				if err := h.Send(f, port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, end := range ends {
				for {
					b, _, err := end.Recv(quiet)
					if err != nil {
						break
					}
					if m := number.FindSubmatch(b); m != nil {
						by[i][string(m[1])] = end.port
					}
				}
			}
			if n := sw.port("to-h").FastPath.Frames - before; (n >= uint64(len(frames))) != (fast == "require") {
				t.Errorf("with --fastpath %s %d frames took it", fast, n)
			}
			sw.ctl("del-port lag0")
			sw.ctl("del-port to-h")
			sw.Stop(t)
		}
		if diff := cmp.Diff(by[0], by[1]); diff != "" || len(by[0]) != len(frames) {
			t.Errorf("%s: of %d frames %d arrived (-fast +slow)\n%s", hash, len(frames), len(by[0]), diff)
		}
	}
}

// TestLAGWithTree has two ports of two links each, of which the tree lets one forward. VLANs are
// those of the ports.
//
//	            ┌═ lag0 ═┐
//	ha ── a ────┤        ├──── b ── hb
//	            └═ lag1 ═┘
func TestLAGWithTree(t *testing.T) {
	t.Parallel()
	a, b := quietNetns(t), quietNetns(t)
	ha, hb := hostOf(t, a), hostOf(t, b)
	for i := range 4 {
		// The kernel is slow to report the carrier of a veth whose two ends have the same number.
		ip(t, b, fmt.Sprintf("link add spare%d type veth peer name spare%d\n", 2*i, 2*i+1))
		ip(t, a, fmt.Sprintf("link add up%d type veth peer name up%d netns %s\nlink set up%d up\n", i, i, b.Name, i))
		ip(t, b, fmt.Sprintf("link set up%d up\n", i))
	}
	switches := []*daemon{startDaemon(t, a, "--stp"), startDaemon(t, b, "--stp")}
	for _, d := range switches {
		d.ctl("add-port to-h --kind netdev --exclusive --access 10 --stp-edge on")
		d.ctl("add-port lag0 --kind lag --lag-mode static --members up0,up1 --trunk 10")
		d.ctl("add-port lag1 --kind lag --lag-mode static --members up2,up3 --trunk 10")
	}
	// forwards returns the ports between the switches by which both ends forward.
	forwards := func() (all []string) {
		t.Helper()
		for _, name := range []string{"lag0", "lag1"} {
			if strings.Contains(switches[0].part(name), "forwarding rstp") && strings.Contains(switches[1].part(name), "forwarding rstp") {
				all = append(all, name)
			}
		}
		return all
	}
	passes := func() {
		t.Helper()
		for _, pair := range [][2]*host{{ha, hb}, {hb, ha}} {
			testenv.Eventually(t, "frames pass", func() bool {
				wire, token := pair[0].to(pair[1]).wire()
				if err := pair[0].Send(wire, port.Offload{}); err != nil {
					t.Fatal(err)
				}
				_, ok, err := pair[1].receive(token, time.Now().Add(quiet))
				return ok && err == nil
			})
		}
	}
	testenv.Eventually(t, "lag0 alone forwards", func() bool { return slices.Equal(forwards(), []string{"lag0"}) })
	passes()
	if p := switches[0].port("lag1"); p.TX.Frames == 0 {
		t.Errorf("lag1: %+v", p)
	}
	// One of its links is enough for the tree, which sees no change.
	changes := switches[0].tree().TopologyChanges
	ip(t, b, "link set up0 down\n")
	switches[0].awaitMembers("lag0", "no-carrier active")
	passes()
	if got := forwards(); !slices.Equal(got, []string{"lag0"}) || switches[0].tree().TopologyChanges != changes {
		t.Errorf("with one link of lag0 left, %v forward, and the topology changed %d times", got, switches[0].tree().TopologyChanges-changes)
	}
	// Without any, the other port takes over.
	ip(t, b, "link set up1 down\n")
	testenv.Eventually(t, "lag1 forwards", func() bool { return slices.Equal(forwards(), []string{"lag1"}) })
	passes()
	// Members that were renamed while the switch used them are given back.
	ip(t, a, "link set up2 down\nlink set up2 name cable2\nlink set cable2 up\n")
	switches[0].awaitMembers("lag1", "active active")
	passes()
	// The next process knows the name from the state, which is written a moment later.
	testenv.Eventually(t, "the state has the new name", func() bool {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(switches[0].Socket()), "state", "state.json"))
		return err == nil && strings.Contains(string(b), "cable2")
	})
	switches[0].Kill()
	switches[0].Restart(t)
	switches[0].awaitMembers("lag1", "active active")
	for _, name := range []string{"lag0", "lag1", "to-h"} {
		switches[0].ctl("del-port %s", name)
	}
	for _, name := range []string{"up0", "up1", "cable2", "up3", "to-h"} {
		if got := a.Run("ip", "link", "show", name); strings.Contains(got, "alias") {
			t.Errorf("left: %s", got)
		}
	}
}
