package l2test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// kept is all that must be the same after a crash.
type kept struct {
	Specs   map[string]api.Settings
	VLANs   map[string]api.VLAN
	FDB     []api.FDBEntry
	Mirrors any
	Groups  any
}

func (d *daemon) kept() kept {
	d.t.Helper()
	k := kept{Specs: map[string]api.Settings{}, VLANs: map[string]api.VLAN{}}
	var ports []api.Port
	d.decode(&ports, "ports")
	for _, p := range ports {
		k.Specs[p.Name], k.VLANs[p.Name] = p.Spec.Settings(), p.VLAN
	}
	var entries []api.FDBEntry
	d.decode(&entries, "fdb list")
	for _, e := range entries {
		if e.Type == "static" || e.Type == "sticky" {
			e.AgeS = 0
			k.FDB = append(k.FDB, e)
		}
	}
	d.decode(&k.Mirrors, "mirror list")
	d.decode(&k.Groups, "mdb list")
	return k
}

// TestPersistence sets everything that can be set, and ends the daemon by SIGKILL and
// by SIGTERM.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 │
//	h4 ── p4 ┘
func TestPersistence(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4, "--snooping")
	for _, set := range []string{
		"p1 --access 10 --accept all --isolated --locked --learning off --flood broadcast",
		"p1 --learn-limit 7 --learn-action protect --mtu 1400 --exclusive",
		"p1 --description web-server --label tier=front --label owner=me",
		"p2 --trunk 10,20-29 --native 30 --trunk-tpid 0x88a8",
		"p2 --storm-broadcast 100pps --storm-multicast 2mbit --storm-unicast 3kpps --storm-action shutdown --rate-in 10mbit --burst 70ms --rate-out 20mbit",
		"p2 --stp-edge off --bpdu-guard on --root-guard --bpdu-filter --stp-cost 1234 --stp-priority 64",
		"p3 --qinq 500 --mcast-fast-leave --mcast-router --mcast-limit 9 --mcast-router-guard off",
	} {
		l.sw.ctl("set-port %s", set)
	}
	l.sw.ctl("fdb add %s p1 --vlan 10", station(1))
	l.sw.ctl("fdb add %s p2 --vlan 20 --sticky", station(2))
	l.sw.ctl("mirror add m0 --from p1,p2 --from-vlan 20-22 --direction in --to p4 --snaplen 100 --filter arp")
	l.sw.ctl("mirror add m1 --from p3 --to-vlan 29")
	l.sw.ctl("mdb add 239.1.2.3 p1 --vlan 10")
	l.sw.ctl("mdb add ff15::1 p2 --vlan 20")

	before := l.sw.kept()
	// A setting that is new must be among those above.
	for _, f := range setting.Fields(port.Policy{}) {
		set := false
		for _, s := range before.Specs {
			set = set || s[f.Key] != nil
		}
		if !set {
			t.Errorf("no port has %s set", f.Key)
		}
	}
	if len(before.FDB) != 2 {
		t.Errorf("static and sticky entries are %v, want two", before.FDB)
	}
	if n := len(before.Mirrors.([]any)); n != 2 {
		t.Errorf("%d mirrors, want two", n)
	}
	for name, end := range map[string]func(){"SIGKILL": l.sw.Kill, "SIGTERM": func() { l.sw.Stop(t) }} {
		end()
		l.sw.Restart(t)
		l.awaitUp()
		if diff := cmp.Diff(before, l.sw.kept()); diff != "" {
			t.Fatalf("after %s (- before, + after):\n%s", name, diff)
		}
	}

	// What is taken back stays so too.
	l.sw.ctl("set-port p1 --no-vlan --isolated=false --locked=false --learning on --flood all --learn-limit 0 --mtu 0 --exclusive=false")
	l.sw.ctl("mirror del m0")
	l.sw.ctl("fdb del %s --vlan 20", station(2))
	l.sw.ctl("mdb del 239.1.2.3 p1 --vlan 10")
	before = l.sw.kept()
	l.sw.Restart(t)
	l.awaitUp()
	if diff := cmp.Diff(before, l.sw.kept()); diff != "" {
		t.Errorf("after kill -9 (- before, + after):\n%s", diff)
	}
	for _, key := range []string{"isolated", "access", "no_flood", "learn_limit"} {
		if v, ok := before.Specs["p1"][key]; ok {
			t.Errorf("%s was taken back and is %v", key, v)
		}
	}
}

// TestPolicyFromTheFirstFrame restarts the daemon while isolated hosts send: no frame
// may slip through before the port's settings are back.
//
//	h1 ── p1 (isolated) ┐
//	h2 ── p2 (isolated) ┼ switch
//	h3 ── p3 access 20  │
//	h4 ── p4            ┘
func TestPolicyFromTheFirstFrame(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4)
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("set-port p1 --isolated")
	l.sw.ctl("set-port p2 --isolated")
	l.sw.ctl("set-port p3 --access 20")
	flow := startFlow(t, h1, h1.toAll(), 100*time.Microsecond)
	for range 5 {
		l.sw.Kill()
		before := flow.sent()
		l.sw.Restart(t)
		l.awaitUp()
		testenv.Eventually(t, "some more is sent", func() bool { return flow.sent() > before+50 })
	}
	flow.stop()
	l.want(h1, h1.toAll(), h4)
	for _, h := range []*host{h2, h3} {
		if n := h.countFrames(t); n != 0 {
			t.Errorf("%d frames of %d come to %s", n, flow.sent(), h.port)
		}
	}
}
