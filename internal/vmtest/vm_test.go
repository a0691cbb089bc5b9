package vmtest_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/vmtest"
)

var tools struct {
	dir     string
	vswitch func() (string, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vmtest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tools.dir = dir
	tools.vswitch = sync.OnceValues(func() (string, error) {
		bin := filepath.Join(dir, "vswitch")
		if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/vswitch").CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build: %w: %s", err, out)
		}
		return bin, nil
	})
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// daemon is a vswitch of the test's own, as users run it.
type daemon struct {
	bin, socket, state string
	ns                 *testenv.Netns
	flags              []string
	cmd                *exec.Cmd
	log                strings.Builder
}

// startDaemon runs vswitch with further flags of `vswitch run`.
func startDaemon(t *testing.T, ns *testenv.Netns, flags ...string) *daemon {
	t.Helper()
	bin, err := tools.vswitch()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: with the test's name in it, a socket's path gets too long.
	dir, err := os.MkdirTemp(tools.dir, "d")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{bin: bin, socket: filepath.Join(dir, "s"), state: filepath.Join(dir, "state"), ns: ns, flags: flags}
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("log of vswitch:\n%s", d.log.String())
		}
	})
	d.start(t)
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.cmd = d.ns.Command(d.bin, append([]string{"run", "--socket", d.socket, "--state", d.state}, d.flags...)...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "vswitch answers", func() bool {
		return exec.Command(d.bin, "--socket", d.socket, "ports").Run() == nil
	})
}

// kill ends the daemon with SIGKILL.
func (d *daemon) kill() {
	if d.cmd != nil && d.cmd.Process != nil {
		d.cmd.Process.Kill() // its only error is that the daemon ended before
		d.cmd.Wait()
		d.cmd = nil
	}
}

// ctl runs a command of the command line, which must succeed.
func (d *daemon) ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(d.bin, append([]string{"--socket", d.socket}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("vswitch %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// states returns the state of each port by its name.
func (d *daemon) states(t *testing.T) map[string]string {
	t.Helper()
	var ports []struct{ Name, State string }
	if err := json.Unmarshal([]byte(d.ctl(t, "ports", "-o", "json")), &ports); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, p := range ports {
		states[p.Name] = p.State
	}
	return states
}

func (d *daemon) awaitState(t *testing.T, port, state string) {
	t.Helper()
	eventually(t, fmt.Sprintf("port %s is %s", port, state), func() bool { return d.states(t)[port] == state })
}

// portOf returns the port that the FDB has for an address, "" if none.
func (d *daemon) portOf(t *testing.T, mac string) string {
	t.Helper()
	var entries []struct{ MAC, Port string }
	if err := json.Unmarshal([]byte(d.ctl(t, "fdb", "list", "-o", "json")), &entries); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.MAC == mac {
			return e.Port
		}
	}
	return ""
}

// eventually polls until something that others do is done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// guest is the options of guest number i, the first being 0.
func guest(ns *testenv.Netns, i int) vmtest.Options {
	return vmtest.Options{
		Name:  string(rune('a' + i)),
		Netns: ns,
		Tap:   "vm" + strconv.Itoa(i),
		MAC:   fmt.Sprintf("52:54:00:00:00:%02x", i+1),
		IP:    netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i+1)),
	}
}

// noLoss pings each way.
func noLoss(t *testing.T, a, b *vmtest.Guest) {
	t.Helper()
	const n = 10
	for _, way := range [][2]*vmtest.Guest{{a, b}, {b, a}} {
		if got := way[0].Ping(t, way[1].IP.Addr(), n); got != n {
			t.Errorf("%s to %s: %d of %d pings answered", way[0].Name, way[1].Name, got, n)
		}
	}
}

// serve makes random bytes in a guest and offers them on its web server. It
// returns their checksum.
func serve(t *testing.T, g *vmtest.Guest) string {
	t.Helper()
	g.Run(t, "mkdir -p /tmp/www && dd if=/dev/urandom of=/tmp/www/data bs=1M count=4 && httpd -h /tmp/www")
	return sum(t, g, "/tmp/www/data")
}

func sum(t *testing.T, g *vmtest.Guest, file string) string {
	t.Helper()
	return strings.Fields(g.Run(t, "sha256sum %s", file))[0]
}

// fetch gets the bytes that another guest serves, by TCP, and returns their checksum.
func fetch(t *testing.T, g, from *vmtest.Guest) string {
	t.Helper()
	g.Run(t, "wget -q -O /tmp/in http://%s/data", from.IP.Addr())
	return sum(t, g, "/tmp/in")
}

// TestGuests has three guests behind one switch. Its parts follow one another.
//
//	guest a ⇄ vm0 ─┐
//	guest b ⇄ vm1 ─┼─ vswitch
//	guest c ⇄ vm2 ─┘
func TestGuests(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	sw := startDaemon(t, ns)
	var guests []*vmtest.Guest
	for i := range 3 {
		o := guest(ns, i)
		if i < 2 {
			sw.ctl(t, "add-port", o.Tap) // before its VM starts
		}
		guests = append(guests, vmtest.Start(t, o))
	}
	a, b, c := guests[0], guests[1], guests[2]
	// c made its TAP itself and is there before its port is.
	c.Run(t, "true")
	sw.ctl(t, "add-port", "vm2")
	vmtest.Wait(t, guests...)
	sums := map[*vmtest.Guest]string{}
	for _, g := range guests {
		sw.awaitState(t, g.Tap, "up")
		sums[g] = serve(t, g)
	}

	t.Run("ping", func(t *testing.T) {
		noLoss(t, a, b)
		noLoss(t, b, c)
		noLoss(t, c, a)
		for _, g := range guests {
			if p := sw.portOf(t, g.MAC); p != g.Tap {
				t.Errorf("%s is learned at port %q, want %s", g.MAC, p, g.Tap)
			}
		}
	})

	t.Run("tcp", func(t *testing.T) {
		for _, way := range [][2]*vmtest.Guest{{a, b}, {b, c}, {c, a}} {
			if got := fetch(t, way[0], way[1]); got != sums[way[1]] {
				t.Errorf("%s from %s: the bytes that came are others", way[0].Name, way[1].Name)
			}
		}
		b.Run(t, "iperf3 -s -1 -D")
		var report struct {
			End struct {
				Received struct{ Bytes int } `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(a.Run(t, "iperf3 -J -t 1 -c %s", b.IP.Addr())), &report); err != nil {
			t.Fatal(err)
		}
		if report.End.Received.Bytes == 0 {
			t.Error("iperf3 received nothing")
		}
	})

	// The next parts count frames, so no guest may ask for an address anew.
	for _, g := range guests {
		for _, other := range guests {
			if other != g {
				g.Run(t, "arp -s %s %s", other.IP.Addr(), other.MAC)
			}
		}
	}

	t.Run("known unicast is not flooded", func(t *testing.T) {
		// A NIC that is not promiscuous drops in QEMU what is not for it, and
		// would hide a flood.
		c.Run(t, "ip link set eth0 promisc on")
		noLoss(t, a, b)
		before := c.Counter(t, "rx_packets")
		noLoss(t, a, b)
		fetch(t, a, b)
		if n := c.Counter(t, "rx_packets") - before; n != 0 {
			t.Errorf("c saw %d frames between a and b", n)
		}
		// An unknown station's frames are: so c would have seen the others.
		const absent, n = "10.0.0.99", 3
		before = c.Counter(t, "rx_packets")
		a.Run(t, "arp -s %s 52:54:00:00:00:99", absent)
		if got := a.Ping(t, netip.MustParseAddr(absent), n); got != 0 {
			t.Errorf("%d pings to nobody were answered", got)
		}
		eventually(t, "c sees unknown unicast", func() bool { return c.Counter(t, "rx_packets")-before == n })
	})

	t.Run("broadcast reaches all", func(t *testing.T) {
		const n = 3
		beforeB, beforeC := b.Counter(t, "rx_packets"), c.Counter(t, "rx_packets")
		// Nobody has the address, so the status tells nothing.
		a.Run(t, "arping -c %d -w 5 -I eth0 10.0.0.77 || true", n)
		eventually(t, "b and c see each request once", func() bool {
			return b.Counter(t, "rx_packets")-beforeB == n && c.Counter(t, "rx_packets")-beforeC == n
		})
	})

	t.Run("tagged frames", func(t *testing.T) {
		for i, g := range []*vmtest.Guest{a, b} {
			g.Run(t, "vconfig add eth0 100 && ip addr add 10.1.0.%d/24 dev eth0.100 && ip link set eth0.100 up", i+1)
		}
		if got := a.Ping(t, netip.MustParseAddr("10.1.0.2"), 5); got != 5 {
			t.Errorf("%d of 5 pings in VLAN 100 answered", got)
		}
	})

	t.Run("offloads", func(t *testing.T) {
		for _, send := range []string{"on", "off"} {
			for _, receive := range []string{"on", "off"} {
				b.Run(t, "ethtool -K eth0 tso %s", send)
				a.Run(t, "ethtool -K eth0 rx-gro-hw %s", receive)
				if got := fetch(t, a, b); got != sums[b] {
					t.Errorf("sender's TSO %s, receiver's GRO %s: the bytes that came are others", send, receive)
				}
			}
		}
		b.Run(t, "ethtool -K eth0 tso on")
		a.Run(t, "ethtool -K eth0 rx-gro-hw on")
	})

	t.Run("tap in use", func(t *testing.T) {
		second := vmtest.Start(t, guest(ns, 0))
		if got := second.Exit(t); !strings.Contains(got, "Device or resource busy") {
			t.Errorf("a second QEMU on %s says %q", a.Tap, got)
		}
		noLoss(t, a, b)
	})

	t.Run("guest killed and restarted", func(t *testing.T) {
		b.Kill()
		sw.awaitState(t, b.Tap, "no-carrier")
		b.Restart(t)
		vmtest.Wait(t, b)
		sw.awaitState(t, b.Tap, "up")
		noLoss(t, a, b)
		sums[b] = serve(t, b)
	})

	t.Run("daemon killed under a transfer", func(t *testing.T) {
		// The bytes come slowly, so that the transfer is surely in its midst.
		const chunks = 100
		b.Run(t, `mkdir -p /tmp/www/cgi-bin && dd if=/dev/urandom of=/tmp/chunk bs=64k count=1 && cat >/tmp/www/cgi-bin/slow <<'END'
#!/bin/sh
printf 'Content-Type: application/octet-stream\r\n\r\n'
for i in $(seq %d); do cat /tmp/chunk; usleep 50000; done
END
chmod +x /tmp/www/cgi-bin/slow`, chunks)
		want := strings.Fields(b.Run(t, "for i in $(seq %d); do cat /tmp/chunk; done | sha256sum", chunks))[0]
		size := func() int {
			n, err := strconv.Atoi(a.Run(t, "stat -c %%s /tmp/slow"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		a.Run(t, "rm -f /tmp/done; >/tmp/slow; (wget -q -O /tmp/slow http://%s/cgi-bin/slow; echo $? >/tmp/done) >/dev/null 2>&1 &", b.IP.Addr())
		const whole = chunks * 64 << 10
		eventually(t, "a tenth of the bytes came", func() bool { return size() > whole/10 })

		before := sw.states(t)
		sw.kill()
		if n := size(); n >= whole {
			t.Fatal("the transfer was over before the daemon was killed")
		}
		sw.start(t)
		eventually(t, "the transfer ends", func() bool { return a.Run(t, "cat /tmp/done 2>/dev/null; true") == "0" })
		if got := sum(t, a, "/tmp/slow"); got != want {
			t.Error("the bytes that came are others")
		}
		if after := sw.states(t); !slices.Equal(sorted(before), sorted(after)) {
			t.Errorf("ports were %v, are %v", before, after)
		}
		noLoss(t, b, c)
	})
}

func sorted(m map[string]string) []string {
	var s []string
	for k, v := range m {
		s = append(s, k+" "+v)
	}
	slices.Sort(s)
	return s
}

// TestHost has a guest talk with the host, here the namespace, which has a NIC of
// its own on the switch.
//
//	guest a ⇄ vm0 ── vswitch ── host0 10.0.0.254
func TestHost(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	busybox := testenv.Tool(t, "busybox")
	sw := startDaemon(t, ns)
	sw.ctl(t, "add-port", "vm0")
	sw.ctl(t, "add-port", "host0", "--kind", "host", "--address", "10.0.0.254/24")
	host := netip.MustParseAddr("10.0.0.254")
	o := guest(ns, 0)
	o.Net = strings.Fields(sw.ctl(t, "qemu-args", "vm0"))
	a := vmtest.Start(t, o)
	want := serve(t, a)

	if got := a.Ping(t, host, 5); got != 5 {
		t.Errorf("%d of 5 pings to the host answered", got)
	}
	ns.Run(busybox, "ping", "-c", "3", "-W", "2", a.IP.Addr().String())

	// TCP each way: from the guest to a file here, and that file back to it.
	dir := t.TempDir()
	ns.Run(busybox, "wget", "-q", "-O", filepath.Join(dir, "data"), "http://"+a.IP.Addr().String()+"/data")
	if got := strings.Fields(ns.Run("sha256sum", filepath.Join(dir, "data")))[0]; got != want {
		t.Error("guest to host: the bytes that came are others")
	}
	web := ns.Command(busybox, "httpd", "-f", "-p", host.String()+":80", "-h", dir)
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Process.Kill(); web.Wait() })
	a.Run(t, "for i in $(seq 50); do wget -q -O /tmp/in http://%s/data && exit 0; usleep 100000; done; exit 1", host)
	if got := sum(t, a, "/tmp/in"); got != want {
		t.Error("host to guest: the bytes that came are others")
	}
}
