package l2test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// TestFastRestart kills the daemon under traffic in both directions, and stops it: no
// frame is lost, whether it is away or comes, and the next one knows the stations. The
// host, which would answer by any device for its addresses, hears and answers nothing
// meanwhile.
func TestFastRestart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	host := netip.MustParseAddr("192.0.2.1")
	p.ns.Run("ip", "addr", "add", host.String()+"/32", "dev", "lo") // ARP answers for it by any device
	var udp *net.UDPConn
	p.ns.Do(func() {
		var err error
		if udp, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 4999}); err != nil {
			t.Fatal(err)
		}
	})
	defer udp.Close()

	streams := []*stream{startStream(t, p.a, p.b), startStream(t, p.b, p.a)}
	more := func() {
		t.Helper()
		for _, s := range streams {
			s.more(300)
		}
	}
	more()
	var hw port.MAC
	if err := hw.UnmarshalText([]byte(p.ns.Run("cat", "/sys/class/net/vm0/address"))); err != nil {
		t.Fatal(err)
	}
	toHost := tuntest.Broadcast(4999)
	copy(toHost, hw.HardwareAddr())
	call := func() {
		t.Helper()
		for _, wire := range [][]byte{toHost, tuntest.Broadcast(4999), tuntest.ARPRequest(host)} {
			if err := p.a.Send(wire, port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, end := range map[string]func(){"kill": p.sw.Kill, "stop": func() { p.sw.Stop(t) }} {
		for range 2 {
			if p.fast() == 0 {
				t.Error("no frame takes the fast path")
			}
			call()
			end()
			more()
			call()
			p.sw.Restart(t)
			more()
			p.wantFast(true)
			for _, g := range []*vm{p.a, p.b} {
				p.sw.wantEntry(g.mac, 1, g.port)
				if s := p.sw.port(g.port).State; s != api.StateUp {
					t.Errorf("%s is %s after %s", g.port, s, name)
				}
			}
		}
	}
	for _, s := range streams {
		l := s.at[0]
		s.wantOnce(l)
		if !slices.IsSorted(l.heard) {
			t.Errorf("%s hears frames in another order than they were sent in", l.port)
		}
		if l.vm == p.a && l.others != 0 { // b hears the broadcasts
			t.Errorf("a hears %d frames of the host", l.others)
		}
	}
	hears := func(wait time.Duration) bool {
		t.Helper()
		if err := udp.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		_, err := udp.Read(make([]byte, 64))
		return err == nil
	}
	if hears(quiet) {
		t.Error("the host hears a guest's datagram")
	}
	// It does once it has its devices back, at once.
	p.sw.Kill()
	p.sw.Cleanup(t)
	call()
	if !hears(time.Minute) {
		t.Error("the host does not hear a guest without a switch")
	}
}

// TestFastPinsRemoved removes from under a running switch what keeps known traffic going without it. The
// switch puts it back: no frame is lost when the daemon dies after that.
func TestFastPinsRemoved(t *testing.T) {
	t.Parallel()
	const told = "somebody removed what keeps known traffic going without the daemon"
	for name, remove := range map[string]string{
		"folder":     "rm -r /sys/fs/bpf/vswitch/*",
		"unmounted":  "umount -l /sys/fs/bpf",
		"over":       "mount -t bpf bpf /sys/fs/bpf",
		"one of two": "find /sys/fs/bpf/vswitch -name 'link-*' | head -1 | xargs rm",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, "--sandbox", "off")
			s := startStream(t, p.a, p.b)
			s.more(100)
			p.ns.Run("sh", "-c", remove)
			testenv.Eventually(t, "the programs are pinned again", func() bool { return p.links() == 2 })
			p.wantFast(true)
			if n := strings.Count(p.sw.Log(), told); n > 1 {
				t.Errorf("it is told of %d times: %s", n, p.sw.Log())
			}
			p.sw.Kill()
			s.more(300)
			p.sw.Restart(t)
			s.more(100)
			p.wantFast(true)
			p.sw.wantEntry(p.a.mac, 1, p.a.port)
			s.wantOnce(s.at[0])
		})
	}
	// What was not to be put back is told of, and the switch goes on.
	t.Run("for good", func(t *testing.T) {
		t.Parallel()
		p := newPair(t, "--sandbox", "require")
		s := startStream(t, p.a, p.b)
		s.more(100)
		p.ns.Run("umount", "-l", "/sys/fs/bpf") // the sandbox lets nobody mount
		testenv.Eventually(t, "the switch tells of it", func() bool { return strings.Contains(p.sw.Log(), "it cannot be put back") })
		var sw api.Switch
		p.sw.decode(&sw, "show")
		if f := sw.FastPath; !f.On || f.Pinned {
			t.Errorf("the fast path is %+v, want it on and not pinned", f)
		}
		c := p.add(2)
		p.greet(c)
		before := p.fast()
		startStream(t, p.a, c).more(100)
		if p.fast() == before {
			t.Error("a port that came since has no fast path")
		}
		s.more(100)
	})
}

// TestFastRestartWithSettings kills the daemon and stops it while a port is policed and
// mirrored and another does not learn. The kernel does all of it meanwhile: no frame is lost,
// and the observer gets one copy of each.
//
//	a ── vm0 --rate-in, mirrored ┐
//	b ── vm1 --learning off      ┼ switch
//	c ── vm2 the observer        ┘
func TestFastRestartWithSettings(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c := p.add(2)
	for _, command := range []string{
		"set-port vm0 --rate-in 10gbit --burst 2s",
		"set-port vm1 --learning off",
		"mirror add m0 --from vm0 --direction in --to vm2",
	} {
		p.sw.ctl("%s", command)
	}
	s, back := startStream(t, p.a, p.b, c), startStream(t, p.b, p.a)
	more := func() {
		t.Helper()
		s.more(300)
		back.more(300)
	}
	more()
	for _, end := range []func(){p.sw.Kill, func() { p.sw.Stop(t) }} {
		if p.fast() == 0 {
			t.Error("no frame takes the fast path")
		}
		end()
		more()
		p.sw.Restart(t)
		more()
	}
	s.wantOnce(s.at[0])
	s.wantOnce(s.at[1])
	back.wantOnce(back.at[0])
}

// TestFastOff runs the daemon without fast path after one with it that was killed: the
// switch itself carries the traffic, and nothing is left in the kernel.
func TestFastOff(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	if n := p.links(); n != 2 {
		t.Errorf("%d devices have a program that outlives the daemon, want 2", n)
	}
	p.sw.Restart(t, "--fastpath", "off")
	p.wantFast(false)
	if left := p.pins(); len(left) != 0 {
		t.Errorf("left in the kernel are %v", left)
	}
	for _, g := range []*vm{p.a, p.b} {
		p.greet(g)
	}
	s := startStream(t, p.a, p.b)
	s.more(300)
	s.wantOnce(s.at[0])
	if n := p.fast(); n != 0 {
		t.Errorf("%d frames take the fast path", n)
	}
	// And on again.
	p.sw.Restart(t)
	p.wantFast(true)
}

// TestFastLeavesNothing takes devices and the switch away in all ways.
func TestFastLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	want := func(links int, after string) {
		t.Helper()
		testenv.Eventually(t, fmt.Sprintf("%d devices have a program after %s", links, after), func() bool { return p.links() == links })
	}
	want(2, "add-port")
	p.sw.ctl("del-port vm0 --force")
	want(1, "del-port")
	p.b.Kill()
	p.ns.Run("ip", "link", "del", "vm1")
	p.sw.AwaitState(t, "vm1", api.StateNoCarrier) // made again
	want(1, "the device went")
	p.sw.ctl("del-port vm1")
	want(0, "del-port of a device that went")

	// A device that goes while the daemon is away.
	p.add(2)
	want(1, "add-port")
	p.sw.Kill()
	p.ns.Run("ip", "link", "del", "vm2")
	p.sw.Restart(t)
	p.sw.ctl("del-port vm2")
	want(0, "a device went unseen")

	p.add(3)
	p.sw.Stop(t)
	want(1, "SIGTERM")
	p.sw.Cleanup(t)
	if left := p.pins(); len(left) != 0 {
		t.Errorf("after run --cleanup %v are left", left)
	}
}

// TestFastNotAllowed asks for the fast path without the right to load programs: that
// ends the daemon with one line, where the fast path is required, and leaves nothing.
func TestFastNotAllowed(t *testing.T) {
	t.Parallel()
	ns := quietNetns(t)
	home := t.TempDir()
	args := []string{
		"--inh-caps=-all", "--bounding-set=-bpf,-sys_admin,-perfmon", daemontest.Binary(t),
		"run", "--name", "notallowed", "--socket", filepath.Join(home, "s"), "--state", filepath.Join(home, "state"), "--fastpath", "require",
	}
	out, err := ns.Command(testenv.Tool(t, "setpriv"), args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("vswitch run: %v, want exit status 1", err)
	}
	if text := strings.TrimSpace(string(out)); strings.Contains(text, "\n") || !strings.Contains(text, "no fast path") || !strings.Contains(text, "needs CAP_BPF, CAP_PERFMON;") {
		t.Errorf("vswitch run says %q", text)
	}
}
