package guard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// refuse expects that a command fails with these words.
func (l *lab) refuse(words, command string) {
	l.Helper()
	out, err := l.sw.Try(strings.Fields(command)...)
	if err == nil || !strings.Contains(out, words) || strings.Contains(out, "\n") {
		l.Errorf("vswitch %s: %v: %s; want one line with %q", command, err, out, words)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", static)
	l.refuse("--qinq", "set-port vm0 --qinq 100")
	l.refuse("--qinq", "add-port vm9 --guard on --qinq 100")
	l.refuse("vm0", "set-port vm1 --guard on --guard-address 10.99.0.10")
	l.refuse("vm0", "set-port vm1 --guard on --guard-address 10.99.0.0/24")
	l.refuse("vm0", "add-port vm9 --guard on --guard-mac 52:54:00:99:00:0a")
	l.refuse("--guard-mac", "add-port h0 --kind host --guard on")
	l.refuse("no address of a station", "set-port vm0 --guard-address 224.0.0.1")
	l.refuse("every address", "set-port vm0 --guard-address 0.0.0.0/0")
	l.refuse("no pair", "set-port vm0 --guard-pair 10.99.0.100")
	l.refuse("virtual router", "set-port vm0 --guard-pair vrrp:256=10.99.0.100")
	l.refuse("stands alone", "set-port vm0 --guard-learn none,dhcp")
	l.refuse("use dhcp", "set-port vm0 --guard-learn rarp")
	l.refuse("EtherType", "set-port vm0 --guard-ethertypes 0x8100")
	l.refuse("IPv6 prefix", "set-port vm0 --guard-prefix 10.0.0.0/8")
	l.refuse("does not carry", "set-port vm0 --guard-address 10.99.0.10@20")
	l.refuse("no address", "set --guard-protect router")
	l.refuse("is not guarded", "guard list vm1")
	l.refuse("there is no port", "guard list vm9")
	l.refuse("has not learned", "guard del vm0 10.99.0.10")
	l.refuse("may not use", "guard add vm0 10.99.0.20 --mac 52:54:00:99:00:0b")
	l.refuse("hexadecimal", "guard why vm0 xyz")
	// Nothing has changed.
	l.pass("own", "A", own4(), everybody...)
	l.drop("another's", "guard_ipv4", "A", from4("10.99.0.11"))
}

// Set on a port that passes frames, the guard is in force when the command returns, and the
// switch forgets what the VM may not be.
func TestLive(t *testing.T) {
	t.Parallel()
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			l := newLab(t, k)
			l.pass("A plays V", "A", Eth(Broadcast, macV, tIPv4, echo4("10.99.0.11", "255.255.255.255")), everybody...)
			l.set("A", static)
			if out := l.sw.Ctl(t, "fdb list"); strings.Contains(out, macV.String()) {
				t.Errorf("the switch still knows V behind A's port:\n%s", out)
			}
			l.drop("again", "guard_mac", "A", Eth(Broadcast, macV, tIPv4, echo4("10.99.0.11", "255.255.255.255")))
			// V is found again, and what others send to it does not reach A.
			l.settle("V")
			l.pass("to V", "B", Eth(macV, macB, tIPv4, echo4("10.99.0.12", "10.99.0.11")), "V")
			// Nor does what is for stations that the switch does not know, unless asked.
			unknown := Eth(0x5254_0099_00ff, macB, tIPv4, echo4("10.99.0.12", "10.99.0.99"))
			l.pass("to nobody", "B", unknown, "V", "T")
			for _, asks := range []string{"--guard-unknown", "--flood broadcast,multicast,unknown"} {
				l.sw.Ctl(t, "set-port vm0 %s", asks)
				l.pass("to nobody, "+asks, "B", unknown, "A", "V", "T")
				l.sw.Ctl(t, "set-port vm0 --guard-unknown=off --flood all")
				l.pass("to nobody, no longer asked", "B", unknown, "V", "T")
			}
			l.sw.Ctl(t, "set-port vm0 --guard off")
			l.pass("without the guard", "A", from4("10.99.0.77"), everybody...)
		})
	}
}

// Known unicast of a guarded port passes the kernel alone, in both directions, and nothing else does.
func TestFastPath(t *testing.T) {
	if !daemontest.FastPath() {
		t.Skip("this is about the fast path")
	}
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	own := Eth(macV, macA, tIPv4, echo4("10.99.0.10", "10.99.0.11"))
	forged := Eth(macV, macA, tIPv4, echo4("10.99.0.1", "10.99.0.11"))
	back := Eth(macA, macV, tIPv4, echo4("10.99.0.11", "10.99.0.10"))
	byKernel := func() uint64 { return l.sw.Port(t, "vm0").FastPath.Frames }
	for range 5 {
		l.pass("before", "A", forged, "V")
		l.pass("before", "V", back, "A")
	}
	l.set("A", static)
	if f := l.sw.Port(t, "vm0").FastPath; !f.On {
		t.Errorf("a guarded port: %+v", f)
	}
	for range 5 {
		l.pass("own", "A", own, "V")
		l.drop("forged", "guard_ipv4", "A", forged)
		l.pass("to it", "V", back, "A")
	}
	before := byKernel()
	l.pass("own", "A", own, "V")
	if n := byKernel() - before; n != 1 {
		t.Errorf("%d frames of the guarded port went by the kernel, want 1", n)
	}
	before = l.sw.Port(t, "vm1").FastPath.Frames
	l.pass("to it", "V", back, "A")
	if n := l.sw.Port(t, "vm1").FastPath.Frames - before; n != 1 {
		t.Errorf("%d frames to the guarded port went by the kernel, want 1", n)
	}
	// A binding that ends is out of force when the command returns.
	l.sw.Ctl(t, "guard add vm0 10.99.0.20")
	added := Eth(macV, macA, tIPv4, echo4("10.99.0.20", "10.99.0.11"))
	before = byKernel()
	for range 3 {
		l.pass("added", "A", added, "V")
	}
	if n := byKernel() - before; n != 3 {
		t.Errorf("%d frames of the added address went by the kernel, want 3", n)
	}
	l.sw.Ctl(t, "guard del vm0 10.99.0.20")
	l.drop("deleted", "guard_ipv4", "A", added)
	l.sw.Ctl(t, "set-port vm0 --guard-address 10.99.0.30")
	l.drop("no longer in the settings", "guard_ipv4", "A", own)
	l.sw.Ctl(t, "set-port vm0 --guard off")
	l.pass("without the guard", "A", forged, "V")
}

// What was learned outlives the daemon, however that ends, and nothing forged passes on the
// way.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, crash := range []bool{false, true} {
		l := newLab(t, kindOf("tap"))
		l.set("A", "--guard-learn dhcp")
		l.obtain("10.99.0.10", time.Hour)
		l.sw.Ctl(t, "guard add vm0 10.99.0.20")
		l.sw.Ctl(t, "set-port vm0 --description changed")
		l.pass("the lease, with other settings", "A", own4(), everybody...)
		l.pass("the added address, with other settings", "A", from4("10.99.0.20"), everybody...)
		if crash {
			l.sw.Kill()
		} else {
			l.sw.Stop(t)
		}
		for range 10 { // nobody may read these, or somebody who checks them
			l.put("A", from4("10.99.0.1"))
		}
		l.sw.Restart(t)
		for _, s := range stations {
			l.sw.AwaitState(t, s.port, "up")
		}
		for name, frames := range l.settle("A") {
			t.Errorf("%s got %x", name, frames)
		}
		l.pass("the lease", "A", own4(), everybody...)
		l.pass("the added address", "A", from4("10.99.0.20"), everybody...)
		l.drop("another's", "guard_ipv4", "A", from4("10.99.0.11"))
		l.sw.Ctl(t, "set --guard-protect 10.99.0.99")
		l.pass("the lease, with other settings of the switch", "A", own4(), everybody...)
		l.sw.Ctl(t, "guard flush vm0")
		l.drop("the lease that was flushed", "guard_ipv4", "A", own4())
		l.pass("the added address", "A", from4("10.99.0.20"), everybody...)
		l.sw.Ctl(t, "guard del vm0 10.99.0.20")
		l.drop("the added address that was deleted", "guard_ipv4", "A", from4("10.99.0.20"))
	}
}

// A change of a port's settings that is taken back, as when it cannot be kept, costs it no address. One that was
// deleted meanwhile does not come back.
func TestChangeTakenBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", "--guard-learn dhcp")
	l.obtain("10.99.0.10", time.Hour)
	l.sw.Ctl(t, "guard add vm0 10.99.0.20")
	for _, change := range [][2]string{{"--guard off", "--guard on"}, {"--guard-learn none", "--guard-learn dhcp"}, {"--access 7", "--no-vlan"}} {
		l.sw.Ctl(t, "set-port vm0 %s", change[0])
		l.sw.Ctl(t, "set-port vm0 %s", change[1])
		l.pass("the lease after "+change[0], "A", own4(), everybody...)
		l.pass("the added address after "+change[0], "A", from4("10.99.0.20"), everybody...)
	}
	l.sw.Ctl(t, "set-port vm0 --guard-learn none")
	l.sw.Ctl(t, "guard del vm0 10.99.0.20")
	l.sw.Ctl(t, "set-port vm0 --guard-learn dhcp")
	l.drop("the added address that was deleted", "guard_ipv4", "A", from4("10.99.0.20"))
}

// A VM that says nothing is reached after a restart, and after a flush: frames to unknown
// stations do not go to its port.
func TestSilentStation(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", static)
	for _, forget := range []func(){
		func() { l.sw.Ctl(t, "fdb flush") },
		func() {
			l.sw.Stop(t)
			l.sw.Restart(t)
			for _, s := range stations {
				l.sw.AwaitState(t, s.port, "up")
			}
		},
	} {
		forget()
		eventually(t, "the station is known", func() bool {
			entries, err := l.sw.Client.FDB(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(entries, func(e api.FDBEntry) bool { return e.MAC == macA && e.Port == "vm0" })
		})
		l.pass("to a silent VM", "T", Eth(macA, macT, tIPv4, echo4("10.99.0.1", "10.99.0.10")), "A")
	}
}

// While the daemon is killed, stopped and started again, a VM that forges all the time gets
// nothing through; its own traffic goes on where the kernel forwards it.
func TestForgedMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", static)
	own := Eth(macV, macA, tIPv4, echo4("10.99.0.10", "10.99.0.11"))
	for range 3 { // both are known
		l.pass("own", "A", own, "V")
		l.pass("back", "V", Eth(macA, macV, tIPv4, echo4("10.99.0.11", "10.99.0.10")), "A")
	}
	forged := [][]byte{
		Eth(macV, macA, tIPv4, echo4("10.99.0.1", "10.99.0.11")), Eth(macV, macT, tIPv4, echo4("10.99.0.1", "10.99.0.11")),
		Eth(macV, macA, tIPv6, echo6("fd99::1", "fd99::11")), Eth(macV, macA, tARP, ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")),
		garp(macA, "10.99.0.1"), from4("10.99.0.1"), advert(macV, "fd99::1", macA), Eth(macV, macA, 0x88b5, make([]byte, 46)),
		reply(macA, "10.99.0.10", ack(t, 1, "10.99.0.66", time.Hour)),
	}
	var running sync.WaitGroup
	stop := make(chan struct{})
	running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond): // as fast as leaves others some of the machine
			}
			// What cannot be sent right now is not missed.
			_ = l.guests["A"].Send(forged[i%len(forged)], port.Offload{})
			_ = l.guests["A"].Send(own, port.Offload{})
		}
	})
	var arrived atomic.Uint64
	for _, s := range stations[1:] {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b, err := l.guests[s.name].Recv(100 * time.Millisecond)
				switch {
				case err != nil: // nothing came
				case slices.ContainsFunc(forged, func(f []byte) bool { return bytes.Equal(f, b) }):
					t.Errorf("%s got the forged %x", s.name, b)
				case bytes.Equal(b, own):
					arrived.Add(1)
				}
			}
		})
	}
	flows := func(when string) {
		t.Helper()
		before := arrived.Load()
		testenv.Eventually(t, "traffic "+when, func() bool { return arrived.Load() >= before+100 })
	}
	flows("before")
	for _, crash := range []bool{true, false} {
		if crash {
			l.sw.Kill()
		} else {
			l.sw.Stop(t)
		}
		if daemontest.FastPath() {
			flows("without a daemon")
		}
		l.sw.Restart(t)
		flows("with the next daemon")
	}
	l.sw.Ctl(t, "set-port vm0 --guard-address 10.99.0.20")
	l.sw.Ctl(t, "set-port vm0 --guard-address 10.99.0.10")
	flows("with the address again")
	close(stop)
	running.Wait()
}

// A port that is added with the guard accepts nothing unchecked, and a VM that migrates takes
// its addresses along.
func TestMigration(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", "--guard-learn dhcp")
	l.obtain("10.99.0.10", time.Hour)
	exported := l.sw.Ctl(t, "guard export vm0")
	l.sw.Ctl(t, "del-port vm0 --force")
	l.sw.Ctl(t, "add-port vm0 --guard on --guard-mac %v --guard-learn dhcp", macA)
	l.guests["A"] = l.bootTap("vm0")
	l.sw.AwaitState(t, "vm0", "up")
	l.settle("A")
	l.drop("before the import", "guard_ipv4", "A", own4())
	cmd := exec.Command(daemontest.Binary(t), "--socket", l.sw.Socket(), "guard", "import", "vm0")
	cmd.Stdin = strings.NewReader(exported)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "10.99.0.10") {
		t.Fatalf("guard import: %v: %s", err, out)
	}
	l.pass("after it", "A", own4(), everybody...)
	if out := l.sw.Ctl(t, "guard why vm0 %x", from4("10.99.0.11")); !strings.HasPrefix(out, "guard_ipv4: ") {
		t.Errorf("guard why: %s", out)
	}
	if out := l.sw.Ctl(t, "guard why vm0 %x", own4()); out != "it passes" {
		t.Errorf("guard why: %s", out)
	}
}

// A VM that sends too much of what it may not send is cut off, if its port's settings say so,
// and comes back.
func TestShutdown(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", static)
	l.refuse("give both", "set-port vm0 --guard-violations 5")
	forge := func() {
		for range 300 {
			l.put("A", garp(macA, "10.99.0.1"))
		}
	}
	forge()
	testenv.Eventually(t, "the guard has dropped them", func() bool { return l.dropped("vm0")["guard_arp"] == 300 })
	l.pass("a port that drops", "A", own4(), everybody...)
	l.sw.Ctl(t, "set-port vm0 --guard-action shutdown --guard-violations 5")
	testenv.Eventually(t, "the port is shut down", func() bool {
		forge()
		return l.sw.Port(t, "vm0").State == "down"
	})
	if p := l.sw.Port(t, "vm0"); !strings.Contains(p.Reason, "the guard dropped") {
		t.Errorf("the port is %s: %s", p.State, p.Reason)
	}
	l.sw.Ctl(t, "set-port vm0 --guard-action drop --guard-violations=")
	l.sw.AwaitState(t, "vm0", "up")
	l.pass("it is back", "A", own4(), everybody...)
}

// A configuration that swaps the addresses of two ports is carried out, and one that fails
// leaves each port with its own.
func TestSwap(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	apply := func(atA, atV, more string) (string, error) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "switch.yaml")
		text := fmt.Sprintf("version: 1\nports:\n  vm0: {kind: tap, guard: 'on', guard_mac: ['%v'], guard_address: [%s], guard_learn: [none]}\n"+
			"  vm1: {kind: tap, guard: 'on', guard_mac: ['%v'], guard_address: [%s], guard_learn: [none]}\n%s", macA, atA, macV, atV, more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return l.sw.Try("apply", "-f", file)
	}
	fromV := func(src string) []byte { return Eth(Broadcast, macV, tIPv4, echo4(src, "255.255.255.255")) }
	if out, err := apply("10.99.0.10", "10.99.0.11", ""); err != nil {
		t.Fatal(out)
	}
	l.pass("before", "A", own4(), everybody...)
	if out, err := apply("10.99.0.11", "10.99.0.10", ""); err != nil {
		t.Fatal(out)
	}
	l.pass("V's address at A", "A", from4("10.99.0.11"), everybody...)
	l.drop("the former one", "guard_ipv4", "A", own4())
	l.pass("A's address at V", "V", fromV("10.99.0.10"), "A", "T", "B")
	l.drop("V's former one", "guard_ipv4", "V", fromV("10.99.0.11"))
	// It fails at the second port, once the first has the other's address.
	if out, err := apply("10.99.0.10, 10.99.0.12", "10.99.0.11, 10.99.0.12", ""); err == nil || !strings.Contains(out, "vm0 has the address 10.99.0.12") {
		t.Errorf("two ports with one address: %v: %s", err, out)
	}
	l.pass("V's address at A still", "A", from4("10.99.0.11"), everybody...)
	l.pass("A's address at V still", "V", fromV("10.99.0.10"), "A", "T", "B")
	l.drop("what A was to have", "guard_ipv4", "A", own4())
	// A new port gets the address of one that goes.
	l.sw.Ctl(t, "add-port vm9 --guard on --guard-address 10.99.0.99")
	file := filepath.Join(t.TempDir(), "switch.yaml")
	if err := os.WriteFile(file, []byte("version: 1\nports:\n  vm8: {kind: tap, guard: 'on', guard_address: [10.99.0.99]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := l.sw.Try("apply", "-f", file, "--prune=all", "--yes", "--force"); err != nil {
		t.Errorf("a port in place of another: %s", out)
	}
}

// Addresses belong to a VLAN.
func TestVLANs(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.sw.Ctl(t, "set-port vm0 --trunk 10,20 --native 1 --guard on --guard-mac %v --guard-learn none --guard-address 10.99.0.10@10 --guard-address 10.98.0.10", macA)
	l.sw.Ctl(t, "set-port vm1 --trunk 10,20 --native 1")
	own98 := Eth(Broadcast, macA, tIPv4, echo4("10.98.0.10", "255.255.255.255"))
	l.pass("in VLAN 10", "A", Tag(own4(), 0x8100_000a), "V")
	l.drop("in VLAN 20", "guard_ipv4", "A", Tag(own4(), 0x8100_0014))
	l.pass("of every VLAN, in 20", "A", Tag(own98, 0x8100_0014), "V")
	l.pass("of every VLAN, untagged", "A", own98, everybody...)
	l.drop("in a VLAN of others", "guard_tag", "A", Tag(own98, 0x8100_001e))
	l.drop("behind two tags", "guard_tag", "A", Tag(Tag(own4(), 0x8100_000a), 0x8100_000a))
}

// Of frames that are false in every way a guard can be passed, none is delivered that deceives a
// host which believes all that it reads.
func TestDrawn(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k kind) {
		l := newLab(t, k)
		l.set("A", static)
		seed := uint64(time.Now().UnixNano())
		d := Drawer{Rand: rand.New(rand.NewPCG(seed, 0)), Own: macA, Peer: macV,
			Addr4: []string{"10.99.0.10", "10.99.0.11", "10.99.0.1"}, Addr6: []string{"fd99::10", localA, "fd99::11", localT}}
		arrived := 0
		for range 60 {
			l.put("A", Eth(macV, macA, tIPv4, echo4("10.99.0.10", "10.99.0.11"))) // the fast path remembers the flow
			for range 50 {
				wire, o := d.Draw(), port.Offload{}
				if k.offloads && d.IntN(3) == 0 {
					o = d.Offload(wire)
				}
				_ = l.guests["A"].Send(wire, o) // a device may refuse it
			}
			for name, frames := range l.settle("A") {
				for _, b := range frames {
					arrived++
					if how := Deceives(b, macA, "10.99.0.10", "fd99::10", localA); how != "" {
						t.Fatalf("seed %d: %s got %x, %s", seed, name, b, how)
					}
				}
			}
		}
		if arrived < 100 {
			t.Errorf("seed %d: %d frames arrived", seed, arrived)
		}
		l.at(macV, "vm1")
		l.at(macT, "vm2")
	})
}

// A VM that floods forged frames makes few log lines.
func TestLog(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.set("A", static)
	before := strings.Count(l.sw.Log(), "\n")
	for i := range 5000 {
		l.put("A", garp(macA, "10.99.0.1"))
		l.put("A", Eth(Broadcast, 0x0200_0000_0000+port.MAC(i), tIPv4, echo4("10.99.0.10", "255.255.255.255")))
		if i%100 == 99 {
			l.settle("A")
		}
	}
	testenv.Eventually(t, "the log names both", func() bool {
		log := l.sw.Log()
		return strings.Contains(log, "reason=guard_arp") && strings.Contains(log, "claimed_address=10.99.0.1") && strings.Contains(log, "reason=guard_mac")
	})
	if out := l.sw.Ctl(t, "events --type guard.violation --port vm0"); !strings.Contains(out, "10.99.0.1") || !strings.Contains(out, ": guard_arp") {
		t.Errorf("events:\n%s", out)
	}
	// Events count each frame once, whoever dropped it.
	testenv.Eventually(t, "events have counted all", func() bool {
		counted := make(map[string]uint64)
		for _, line := range strings.Split(l.sw.Ctl(t, "events --type guard.violation --port vm0 -o json"), "\n") {
			var ev struct {
				Reason string
				Count  uint64
			}
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			counted[ev.Reason] += ev.Count
		}
		if counted["guard_mac"] > 5000 || counted["guard_arp"] > 5000 {
			t.Fatalf("counted %v", counted)
		}
		return counted["guard_mac"] == 5000 && counted["guard_arp"] == 5000
	})
	if n := strings.Count(l.sw.Log(), "\n") - before; n > 60 {
		t.Errorf("%d lines:\n%s", n, l.sw.Log())
	}
}

// A real server gives a real client a lease through the switch.
func TestDnsmasq(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tool(t, "dnsmasq")
	client := testenv.Tool(t, "busybox")
	if out, err := exec.Command(client, "--list").Output(); err != nil || !strings.Contains(string(out), "udhcpc") {
		t.Skip("left out: needs busybox with udhcpc")
	}
	l := newLab(t, kindOf("tap"))
	server, tenant := testenv.NewNetns(t), testenv.NewNetns(t)
	ns := l.sw.Netns
	ns.Run("ip", "link", "add", "s0", "type", "veth", "peer", "name", "eth0", "netns", server.Name)
	ns.Run("ip", "link", "add", "c0", "type", "veth", "peer", "name", "eth0", "address", macA.String(), "netns", tenant.Name)
	for _, dev := range []string{"s0", "c0"} {
		ns.Run("ip", "link", "set", dev, "up")
	}
	server.Run("ip", "link", "set", "eth0", "up")
	server.Run("ip", "addr", "add", "10.99.0.1/24", "dev", "eth0")
	tenant.Run("ip", "link", "set", "eth0", "up")
	l.sw.Ctl(t, "del-port vm0 --force")
	l.sw.Ctl(t, "add-port s0 --kind netdev --exclusive")
	l.sw.Ctl(t, "add-port c0 --kind netdev --exclusive --guard on --guard-mac %v", macA)
	l.sw.AwaitState(t, "s0", "up")
	l.sw.AwaitState(t, "c0", "up")

	tenant.Run("ip", "addr", "add", "10.99.0.50/24", "dev", "eth0")
	if out, err := tenant.Command("ping", "-n", "-q", "-c", "1", "-w", "2", "10.99.0.1").CombinedOutput(); err == nil {
		t.Errorf("an address that nobody gave reaches the server:\n%s", out)
	}
	tenant.Run("ip", "addr", "flush", "dev", "eth0")

	home := t.TempDir()
	dnsmasq := server.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--dhcp-range=10.99.0.100,10.99.0.110,255.255.255.0,1h", "--dhcp-leasefile="+filepath.Join(home, "leases"), "--user=root")
	if err := dnsmasq.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dnsmasq.Process.Kill(); _ = dnsmasq.Wait() })
	script := filepath.Join(home, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && ip addr add \"$ip/24\" dev \"$interface\"\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := tenant.Command(client, "udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "2", "-s", script).CombinedOutput(); err != nil {
		t.Fatalf("udhcpc: %v: %s", err, out)
	}
	out := tenant.Run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "20", "10.99.0.1")
	all := l.list("c0")
	found := false
	for _, b := range all {
		found = found || b.Source == "dhcp" && strings.HasPrefix(b.Address, "10.99.0.1") && b.ExpiresS > 3000
	}
	if !found {
		t.Errorf("no lease in %+v; ping:\n%s", all, out)
	}
}
