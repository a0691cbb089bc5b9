package vhostuser_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/vmtest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/tap"
	"github.com/vswitch/vswitch/port/vhostuser"
	vswitch "github.com/vswitch/vswitch/switch"
)

// vms is a switch and what QEMU needs to know of its ports.
type vms struct {
	*vswitch.Switch
	t   *testing.T // the ports' life
	ns  *testenv.Netns
	dir string
}

// attach adds a vhost-user port, or opens it again.
func (v *vms) attach(t *testing.T, name string, client bool) *vhostuser.Port {
	t.Helper()
	p := open(v.t, vhostuser.Kind{Dir: v.dir}, port.Spec{Name: name, Settings: vhostuser.Settings{Socket: port.Socket{Client: client}}})
	v.add(t, name, p)
	return p
}

func (v *vms) add(t *testing.T, name string, dev port.Port) {
	t.Helper()
	p := v.Port(name)
	if p == nil {
		var err error
		if p, err = v.AddPort(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Attach(dev); err != nil {
		t.Fatal(err)
	}
	p.SetForwarding(true)
}

// options are those of a guest on a vhost-user port; chardev is how QEMU gets to it.
func (v *vms) options(number int, on, chardev, device string) vmtest.Options {
	mac := fmt.Sprintf("52:54:00:00:00:%02x", number)
	return vmtest.Options{
		Name: fmt.Sprint("vm", number), Netns: v.ns, MAC: mac,
		IP: netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", number)),
		Net: []string{
			"-chardev", "socket,id=c0,path=" + filepath.Join(v.dir, on+".sock") + chardev,
			"-netdev", "vhost-user,id=n0,chardev=c0",
			// Emulated QEMU 7.2 fails with vhost-user and MSI-X.
			"-device", "virtio-net-pci,netdev=n0,vectors=0,mac=" + mac + device,
		},
		Machine: []string{
			"-object", "memory-backend-memfd,id=mem,size=192M,share=on", "-numa", "node,memdev=mem",
			"-monitor", "unix:" + v.monitor(on) + ",server=on,wait=off", "-action", "reboot=reset",
		},
	}
}

func (v *vms) monitor(on string) string { return filepath.Join(v.dir, on+".monitor") }

// command has QEMU's monitor do something, and returns what it says.
func (v *vms) command(t *testing.T, on, command string) string {
	t.Helper()
	conn, err := net.Dial("unix", v.monitor(on))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	prompt := func() string {
		var s strings.Builder
		for !strings.HasSuffix(s.String(), "(qemu) ") {
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("monitor of %s: %v, after %q", on, err, s.String())
			}
			s.WriteByte(b)
		}
		return s.String()
	}
	prompt()
	fmt.Fprintln(conn, command)
	return prompt()
}

// portOf is the port that frames to a guest leave by, "" if it is not known.
func (v *vms) portOf(g *vmtest.Guest) string {
	mac, err := port.ParseMAC(g.MAC)
	if err != nil {
		return err.Error()
	}
	number, ok := v.FDB().Lookup(fdb.MakeKey(port.DefaultVLAN, uint64(mac)))
	if ok {
		for _, p := range v.Ports() {
			if p.Number() == number {
				return p.Name()
			}
		}
	}
	return ""
}

// TestQEMU has three guests, two of them on vhost-user. Its parts follow one another.
//
//	guest 1 ⇄ vhost-user a ─┐
//	guest 2 ⇄ vhost-user b ─┼─ switch     later: guest 1 migrates to vhost-user d
//	guest 3 ⇄ TAP c        ─┘
func TestQEMU(t *testing.T) {
	ns := testenv.NewNetns(t)
	v := &vms{vswitch.New(vswitch.Config{}), t, ns, filepath.Dir(socketPath(t))}
	t.Cleanup(func() { v.Close() })
	p := map[string]*vhostuser.Port{"a": v.attach(t, "a", false), "b": v.attach(t, "b", true)}
	ns.Do(func() {
		dev, err := porttest.Kind(tap.New(tap.Options{Switch: "sw0"})).Open(port.Spec{Name: "c"}, new(port.Trace))
		if err != nil {
			t.Fatal(err)
		}
		v.add(t, "c", dev)
	})
	source := v.options(1, "a", ",reconnect=1", "")
	one := vmtest.Start(t, source)
	two := vmtest.Start(t, v.options(2, "b", ",server=on,wait=off", ",packed=on"))
	three := vmtest.Start(t, vmtest.Options{Name: "vm3", Netns: ns, MAC: "52:54:00:00:00:03", IP: netip.MustParsePrefix("10.0.0.3/24"), Tap: "c"})
	vmtest.Wait(t, one, two, three)
	all := []*vmtest.Guest{one, two, three}
	for _, g := range all {
		g.Serve(t)
	}

	t.Run("all reach all", func(t *testing.T) {
		for i, g := range all {
			for _, h := range all[i+1:] {
				vmtest.Reach(t, g, h)
				g.Fetch(t, h)
				h.Fetch(t, g)
			}
		}
	})
	t.Run("agreed", func(t *testing.T) {
		for name, want := range map[string]uint64{"a": modern &^ packedRing, "b": modern | packedRing} {
			if got := p[name].Features() & (modern | packedRing); got != want {
				t.Errorf("%s: features %#x, want %#x", name, got, want)
			}
			if want := port.CapCsum | port.CapTSO4 | port.CapTSO6 | port.CapTSOECN | port.CapUFO; p[name].Caps()&want != want {
				t.Errorf("%s: takes %b undone", name, p[name].Caps())
			}
		}
	})
	t.Run("driver reload", func(t *testing.T) {
		for i, g := range []*vmtest.Guest{one, two} {
			g.Run(t, "cd /sys/bus/virtio/drivers/virtio_net && d=$(ls -d virtio*) && echo $d >unbind && echo $d >bind")
			testenv.Eventually(t, "eth0 is back", func() bool { _, err := g.TryRun("test -e /sys/class/net/eth0"); return err == nil })
			g.Run(t, "ip addr add %s dev eth0 && ip link set eth0 up", g.IP)
			linked(t, p[string(rune('a'+i))], true)
			vmtest.Reach(t, g, three)
		}
	})
	t.Run("reboot", func(t *testing.T) {
		one.Run(t, "touch /tmp/before")
		v.command(t, "a", "system_reset")
		testenv.Eventually(t, "guest 1 answers again", func() bool { return two.Ping(t, one.IP.Addr(), 1) == 1 })
		if out, err := one.TryRun("test ! -e /tmp/before"); err != nil {
			t.Error("guest 1 has not booted anew:", out, err)
		}
		vmtest.Reach(t, three, two)
	})
	t.Run("QEMU killed", func(t *testing.T) {
		one.Kill()
		linked(t, p["a"], false)
		one.Restart(t)
		vmtest.Wait(t, one)
		vmtest.Reach(t, one, two)
	})
	t.Run("port opened anew", func(t *testing.T) {
		for name, g := range map[string]*vmtest.Guest{"a": one, "b": two} { // with a split ring, and a packed one
			if err := v.Port(name).Detach(); err != nil {
				t.Fatal(err)
			}
			if got := three.Ping(t, g.IP.Addr(), 1); got != 0 {
				t.Error("a guest without a port answers")
			}
			p[name] = v.attach(t, name, name == "b")
			linkedIn(t, p[name], true, time.Minute)
			vmtest.Reach(t, g, three)
		}
		one.Serve(t)
		two.Fetch(t, one)
	})
	t.Run("migration", func(t *testing.T) {
		d := v.attach(t, "d", false)
		o := v.options(1, "d", "", "")
		channel := filepath.Join(v.dir, "migrate")
		o.Machine = append(o.Machine, "-incoming", "unix:"+channel)
		target := vmtest.Start(t, o)
		testenv.Eventually(t, "QEMU waits", func() bool { _, err := os.Stat(channel); return err == nil })
		type result struct{ sent, answered int }
		pinged := make(chan result)
		go func() {
			const n = 100
			pinged <- result{n, three.Ping(t, one.IP.Addr(), n)}
		}()
		v.command(t, "a", "migrate -d unix:"+channel)
		var status string
		testenv.Eventually(t, "the migration ends", func() bool {
			status = v.command(t, "a", "info migrate")
			return strings.Contains(status, "completed") || strings.Contains(status, "failed")
		})
		if !strings.Contains(status, "completed") {
			t.Fatal(status)
		}
		linked(t, d, true)
		testenv.Eventually(t, "the address has moved", func() bool { return v.portOf(one) == "d" })
		one.Kill()
		r := <-pinged
		t.Logf("%d of %d pings answered during the migration", r.answered, r.sent)
		if r.answered < r.sent/2 {
			t.Errorf("%d of %d pings answered during the migration", r.answered, r.sent)
		}
		vmtest.Wait(t, target)
		// What the guest had in memory came along, also what the switch wrote.
		vmtest.Reach(t, target, two)
		two.Fetch(t, target)
		target.Run(t, "test \"$(sha256sum </tmp/www/data)\" = \"$(wget -q -O - http://127.0.0.1/data | sha256sum)\"")
	})
}
