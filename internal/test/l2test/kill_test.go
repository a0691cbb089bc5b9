package l2test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// A switch is killed after it has made a change of many ports, and before the state is on disk. The next one takes back
// what was changed on the host, as the state has it: what existing devices were, and what was made.
func TestKilledAmidChange(t *testing.T) {
	t.Parallel()
	ns, container := quietNetns(t), testenv.NewNetns(t)
	ip(t, container, "link set lo up\n")
	for _, n := range []string{"n0", "b0", "c0", "e0", "own0", "own1"} {
		nic(t, ns, n, 1450)
	}
	ip(t, ns, "link set b0 up\nlink set n0 up\n")
	original := devices(ns) + devices(container)
	sw := startDaemon(t, ns)
	file := func(what, ports string) string {
		path := filepath.Join(t.TempDir(), what+".yaml")
		if err := os.WriteFile(path, []byte("version: 1\nports:\n"+ports), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sw.ctl("apply -f %s", file("before", strings.ReplaceAll(`
  al0: {kind: lag, lag_mode: static, members: [b0]}
  h0: {kind: host, address: [192.0.2.1/24]}
  n0: {kind: netdev}
  t0: {}
  v0: {kind: veth, netns: NETNS, address: [198.51.100.1/24]}
`, "NETNS", container.Path())))
	ports := []string{"al0", "h0", "n0", "t0", "v0"}
	want := devices(ns) + devices(container)
	after := file("after", strings.ReplaceAll(`
  al0: {kind: lag, lag_mode: static, members: [b0, c0], mtu: 1400}
  e0: {kind: netdev, exclusive: true, mtu: 1400}
  h0: {kind: host, address: [192.0.2.2/24], mtu: 1400}
  h1: {kind: host, address: [198.51.100.9/24], netns: NETNS}
  n0: {kind: netdev, exclusive: true, mtu: 1400}
  g0: {kind: dgram}
  own0: {mtu: 1400}
  own1: {kind: host, mtu: 1400, address: [192.0.2.9/24]}
  s0: {kind: stream}
  t0: {mtu: 1400}
  u0: {kind: vhost-user}
  v0: {kind: veth, netns: NETNS, address: [198.51.100.2/24], mtu: 1400}
  w0: {kind: veth, netns: NETNS, ifname: eth1, address: [198.51.100.8/24]}
`, "NETNS", container.Path()))
	release := holdState(t, sw)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = sw.Try("apply", "-f", after) }()
	testenv.Eventually(t, "the change is made", func() bool { // its last step
		return strings.Contains(container.Run("ip", "addr", "show", "eth0"), "mtu 1400") && strings.Contains(container.Run("ip", "addr", "show", "eth0"), "198.51.100.2/24")
	})
	changed := devices(ns) + devices(container)
	if s := sockets(t, sw); len(s) != 4 {
		t.Errorf("the change has made the sockets %q", s)
	}
	sw.Kill()
	release()
	<-done
	sw.Restart(t)
	for _, name := range ports {
		if state := sw.Port(t, name).State; state == api.StateWaiting || state == api.StateDown {
			t.Errorf("port %s is %s", name, state)
		}
	}
	if got := devices(ns) + devices(container); got != want {
		t.Errorf("before the change, that is:\n%s\nafter the next start\n%s\nchanged was\n%s", want, got, changed)
	}
	if s := sockets(t, sw); !slices.Equal(s, []string{"s"}) {
		t.Errorf("sockets are left: %q", s)
	}
	for _, name := range ports {
		sw.ctl("del-port %s", name)
	}
	if got := devices(ns) + devices(container); got != original {
		t.Errorf("before the switch, that is:\n%s\nafter it\n%s", original, got)
	}
	if left, err := os.ReadDir(filepath.Join(stateOf(sw), "journal")); len(left) > 0 || err != nil {
		t.Errorf("the journal has %v, %v", left, err)
	}
}

// A switch is killed amid a change, and again after the next one has taken that back, before the state is on disk. The
// devices are still given back as they were.
func TestKilledTwice(t *testing.T) {
	t.Parallel()
	ns := quietNetns(t)
	for _, n := range []string{"b0", "c0", "n0"} {
		nic(t, ns, n, 1450)
	}
	original := devices(ns)
	sw := startDaemon(t, ns)
	for _, change := range [][2]string{
		{"add-port al0 --kind lag --lag-mode static --members b0,c0 --mtu 1400", "set-port al0 --members b0"},
		{"add-port n0 --kind netdev --exclusive --mtu 1400", "set-port n0 --exclusive=off"},
	} {
		sw.ctl("%s", change[0])
		want := devices(ns)
		release := holdState(t, sw)
		done := make(chan struct{})
		go func() { defer close(done); _, _ = sw.Try(strings.Fields(change[1])...) }()
		testenv.Eventually(t, "the change is made", func() bool { return devices(ns) != want })
		sw.Kill()
		<-done
		sw.Restart(t)
		testenv.Eventually(t, "the change is taken back", func() bool { return devices(ns) == want })
		sw.Kill()
		release()
		sw.Restart(t)
	}
	sw.ctl("del-port al0")
	sw.ctl("del-port n0")
	if got := devices(ns); got != original {
		t.Errorf("the devices were\n%s\nand are given back as\n%s", original, got)
	}
}

// A switch is killed after it has taken devices for which ports have waited, and before the state is on disk. The next
// one still gives them back as they were.
func TestKillAfterNICCame(t *testing.T) {
	t.Parallel()
	ns := quietNetns(t)
	late := []string{"n0", "b0", "d1", "own0", "own1"}
	add := func(mtu int) (before string) {
		t.Helper()
		for _, n := range late {
			before += nic(t, ns, n, mtu)
		}
		return before
	}
	add(1450)
	nic(t, ns, "d0", 1450)
	ip(t, ns, "link set d0 up\n")
	sw := startDaemon(t, ns)
	sw.ctl("add-port n0 --kind netdev --mtu 1400 --exclusive")
	sw.ctl("add-port al0 --kind lag --members b0 --lag-mode static --mtu 1400")
	sw.ctl("add-port al1 --kind lag --members d0,d1 --lag-mode static --mtu 1400")
	sw.ctl("add-port own0 --mtu 1400")
	sw.ctl("add-port own1 --kind host --mtu 1400 --address 192.0.2.1/24")
	ports := []string{"n0", "al0", "al1", "own0", "own1"}
	sw.Stop(t)
	for _, n := range late {
		ns.Run("ip", "link", "del", n)
	}
	sw.Restart(t)
	sw.AwaitState(t, "al1", api.StateUp)
	release := holdState(t, sw)
	before := add(1460) // others of their names
	testenv.Eventually(t, "the switch has changed them all", func() bool {
		return strings.Count(devices(ns, late...), "mtu 1400") == len(late)
	})
	sw.Kill()
	release()
	sw.Restart(t)
	for _, name := range ports {
		sw.ctl("del-port %s", name)
	}
	if after := devices(ns, late...); after != before {
		t.Errorf("the devices were\n%s\nand are given back as\n%s", before, after)
	}
}

// nic makes a device with settings of its own, all at once for who waits for its name: a TAP if its name says that it is
// somebody's own, else one end of a veth pair. It returns what devices says of it.
func nic(t *testing.T, ns *testenv.Netns, name string, mtu int) string {
	t.Helper()
	if strings.HasPrefix(name, "own") {
		ip(t, ns, "tuntap add dev new0 mode tap\n")
	} else {
		ip(t, ns, "link add new0 type veth peer name x"+name+"\nlink set x"+name+" up\n")
		ns.Run("ethtool", "-K", "new0", "rx-gro-list", "on")
	}
	ip(t, ns, fmt.Sprintf("link set new0 mtu %d alias rack7\n", mtu))
	ns.Run("sysctl", "-qw", "net.ipv6.conf.new0.addr_gen_mode=1", "net.ipv6.conf.new0.disable_ipv6=0", "net.ipv4.conf.new0.arp_ignore=2")
	ip(t, ns, "addr add 2001:db8::1/64 dev new0 nodad\n")
	is := devices(ns, "new0")
	ip(t, ns, "link set new0 name "+name+"\n")
	return strings.Replace(is, "new0", name, 1)
}

// devices describes the named devices of a namespace, or all of them.
func devices(ns *testenv.Netns, names ...string) string {
	if names == nil {
		names = strings.Fields(ns.Run("ls", "/sys/class/net"))
	}
	var b strings.Builder
	for _, n := range names {
		if strings.HasPrefix(n, "x") {
			continue // the other end
		}
		first, addresses, _ := strings.Cut(ns.Run("ip", "addr", "show", "dev", n), "\n")
		flags := strings.Split(first[strings.Index(first, "<")+1:strings.Index(first, ">")], ",")
		_, mtu, _ := strings.Cut(first, " mtu ")
		fmt.Fprintf(&b, "%s mtu %s up %v alias %s", n, strings.Fields(mtu)[0], slices.Contains(flags, "UP"),
			ns.Run("cat", "/sys/class/net/"+n+"/ifalias"))
		for _, name := range []string{"ipv6/conf/%s/disable_ipv6", "ipv6/conf/%s/addr_gen_mode", "ipv4/conf/%s/arp_ignore"} {
			b.WriteString(" " + strings.TrimSpace(ns.Run("cat", "/proc/sys/net/"+fmt.Sprintf(name, n))))
		}
		for line := range strings.SplitSeq(addresses, "\n") {
			if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "inet") && !strings.HasPrefix(f[1], "fe80:") {
				b.WriteString(" " + f[1])
			}
		}
		if strings.Contains(ns.Run("ethtool", "-k", n), "rx-gro-list: on") {
			b.WriteString(" rx-gro-list")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// sockets lists the sockets of a switch.
func sockets(t *testing.T, sw *daemon) (all []string) {
	t.Helper()
	home := filepath.Dir(sw.Socket())
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeSocket {
			name, _ := filepath.Rel(home, path)
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

// stateOf returns the state directory of a switch.
func stateOf(sw *daemon) string { return filepath.Join(filepath.Dir(sw.Socket()), "state") }

// holdState has the state of a switch not written until release is called: the disk takes as long.
func holdState(t *testing.T, sw *daemon) (release func()) {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, stateOf(sw))
	}
	if err != nil {
		t.Fatal("fanotify: ", err)
	}
	f := os.NewFile(uintptr(fd), "fanotify") // its end lets all go on
	ended := make(chan struct{})
	go func() {
		var held []int
		defer func() {
			for _, fd := range held {
				unix.Close(fd)
			}
			close(ended)
		}()
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			if err != nil {
				return
			}
			for events := b[:n]; len(events) >= int(unsafe.Sizeof(unix.FanotifyEventMetadata{})); {
				e := *(*unix.FanotifyEventMetadata)(unsafe.Pointer(&events[0]))
				events = events[e.Event_len:]
				path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", e.Fd))
				if filepath.Base(path) == "state.json.new" {
					held = append(held, int(e.Fd)) // the number stands for who waits
					continue
				}
				r := unix.FanotifyResponse{Fd: e.Fd, Response: unix.FAN_ALLOW}
				_, _ = f.Write((*[unsafe.Sizeof(r)]byte)(unsafe.Pointer(&r))[:])
				unix.Close(int(e.Fd))
			}
		}
	}()
	release = sync.OnceFunc(func() { f.Close(); <-ended })
	t.Cleanup(release)
	return release
}
