//go:build interop

package interop

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
	"github.com/vswitch/vswitch/internal/test/vmtest/guestimg"
)

// libvirt is a libvirtd with directories of its own, in a network namespace with a switch. It
// and its machines are in a process namespace that ends with the test.
type libvirt struct {
	ns   *testenv.Netns
	sw   *daemontest.Daemon
	uri  string
	user string // whose QEMU is
	dir  string // for what libvirt and the test share, such as consoles
	as   []string
}

// startLibvirt runs a libvirtd of root, for qemu:///system, or of another user, for
// qemu:///session.
func startLibvirt(t *testing.T, session bool) *libvirt {
	t.Helper()
	testenv.Tool(t, "virsh")
	ns := testenv.NewNetns(t)
	dir, err := os.MkdirTemp("", "lv") // not t.TempDir: a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &libvirt{ns: ns, dir: dir, uri: "qemu:///system", user: "libvirt-qemu"}
	conf, group := "/etc/libvirt", "root"
	ns.Run("mount", "-t", "tmpfs", "tmpfs", "/run")
	for _, d := range []string{"/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"} {
		ns.Run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", d)
	}
	if session {
		l.uri, l.user, group = "qemu:///session", "nobody", "nogroup"
		u, err := user.Lookup(l.user)
		if err != nil {
			t.Fatal(err)
		}
		l.as = []string{"setpriv", "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups", "env", "-i", "PATH=" + os.Getenv("PATH"), "HOME=" + dir + "/home", "XDG_RUNTIME_DIR=" + dir + "/run",
			"LIBVIRT_AUTOSTART=0"} // virsh would start a libvirtd that outlives the test
		conf = dir + "/home/.config/libvirt"
		for _, d := range []string{conf, dir + "/run"} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Machines read the kernel where it is; libvirt need not give it to them and take it back.
	write(t, ns, conf+"/libvirtd.conf", "auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n")
	write(t, ns, conf+"/qemu.conf", "stdio_handler = \"file\"\nsecurity_driver = \"none\"\ndynamic_ownership = 0\n")
	img := image(t)
	ns.Run("mkdir", "/run/guest")
	for from, to := range map[string]string{img.Kernel: "/run/guest/kernel", img.Initrd: "/run/guest/initrd"} {
		ns.Run("touch", to)
		ns.Run("mount", "--bind", from, to)
	}
	ns.Run("chown", "-R", l.user, dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	l.sw = daemontest.Start(t, ns, "--socket-group", group)
	// The tests' directories are closed to others; /run/vswitch is not.
	for d := filepath.Dir(l.sw.Socket()); d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}

	l.hook(t)
	log, err := os.Create(dir + "/libvirtd.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// The first process takes in those that lose their parent, as QEMU does.
	cmd := ns.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `"$@" & wait`, "sh"}, l.command("libvirtd")...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		if !t.Failed() {
			return
		}
		for _, pattern := range []string{dir + "/libvirtd.log", dir + "/*.qemu.log"} {
			files, _ := filepath.Glob(pattern)
			for _, f := range files {
				text, _ := os.ReadFile(f)
				t.Logf("%s, its end:\n%s", f, text[max(0, len(text)-4<<10):])
			}
		}
	})
	testenv.Eventually(t, "libvirtd answers", func() bool {
		return l.ns.Command("env", l.command("virsh", "-q", "-c", l.uri, "list")...).Run() == nil
	})
	return l
}

// hook installs the packages' hook, for the test's program and switch.
func (l *libvirt) hook(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../../../packaging/libvirt/hooks/qemu.d/vswitch")
	if err != nil {
		t.Fatal(err)
	}
	const program, hooks = "/run/vswitch-program", "/etc/libvirt/hooks/qemu.d"
	write(t, l.ns, program, fmt.Sprintf("#!/bin/sh\nexec %s --socket %s \"$@\"\n", daemontest.Binary(t), l.sw.Socket()))
	l.ns.Run("mkdir", "-p", hooks)
	write(t, l.ns, hooks+"/vswitch", strings.ReplaceAll(string(text), "/usr/bin/vswitch", program))
	l.ns.Run("chmod", "755", program, hooks+"/vswitch")
}

func (l *libvirt) command(args ...string) []string {
	return append(l.as[:len(l.as):len(l.as)], args...)
}

// try runs a command of virsh, split at spaces.
func (l *libvirt) try(line string) (string, error) {
	out, err := l.ns.Command("env", l.command(append([]string{"virsh", "-q", "-c", l.uri}, strings.Fields(line)...)...)...).CombinedOutput()
	return string(out), err
}

// virsh runs a command of virsh that must succeed.
func (l *libvirt) virsh(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := l.try(line); err != nil {
		t.Fatalf("virsh %s: %v: %s", line, err, out)
	}
}

func write(t *testing.T, ns *testenv.Netns, path, text string) {
	t.Helper()
	cmd := ns.Command("tee", path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", path, err, out)
	}
}

func image(t *testing.T) guestimg.Image {
	t.Helper()
	cache, err := guestimg.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	img, err := guestimg.Ensure(cache)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// nic returns the <interface> that the switch prints for a port.
func (l *libvirt) nic(t *testing.T, port string) string {
	t.Helper()
	text := l.sw.Ctl(t, "qemu-args %s --format libvirt", port)
	text, _, _ = strings.Cut(text, "<!--")
	return text
}

// define makes a machine with its first NIC at a port; metadata is the domain's. It can have NICs in shared memory:
// emulated QEMU 7.2 ends with MSI-X there, so none has it.
func (l *libvirt) define(t *testing.T, n int, port, metadata string) *vmtest.Guest {
	t.Helper()
	name := string(rune('a' + n))
	o := vmtest.Options{Name: name, IP: netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", n+1))}
	console := filepath.Join(l.dir, name+".console")
	file := filepath.Join(l.dir, name+".xml")
	write(t, l.ns, file, fmt.Sprintf(`<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>%s</name>
  <metadata>%s</metadata>
  <memory unit='MiB'>192</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>/run/guest/kernel</kernel>
    <initrd>/run/guest/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check ipv6.disable=1 guest.name=%[1]s guest.ip=%[3]s</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    %[4]s
    <serial type='unix'><source mode='bind' path='%[5]s'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-global'/><qemu:arg value='virtio-net-pci.vectors=0'/>
    <qemu:arg value='-global'/><qemu:arg value='virtio-net-pci.romfile='/>
  </qemu:commandline>
</domain>
`, name, metadata, o.IP, l.nic(t, port), console))
	l.virsh(t, "define %s", file)
	return vmtest.Attach(t, o, console)
}

func connected(t *testing.T, guests ...*vmtest.Guest) {
	t.Helper()
	for _, from := range guests {
		for _, to := range guests {
			if from == to {
				continue
			}
			reaches(t, from, to.IP.Addr().String())
		}
	}
}

// reaches waits until a guest has answers from an address.
func reaches(t *testing.T, g *vmtest.Guest, address string) {
	t.Helper()
	until(t, g, "ping -c 1 -W 1 "+address)
	g.Run(t, "ping -c 3 -i 0.2 -W 5 %s", address)
}

// carrier waits until a guest's NIC has a carrier, or has none.
func carrier(t *testing.T, g *vmtest.Guest, device, want string) {
	t.Helper()
	until(t, g, fmt.Sprintf("[ $(cat /sys/class/net/%s/carrier) = %s ]", device, want))
}

// until waits until a command in a guest succeeds.
func until(t *testing.T, g *vmtest.Guest, command string) {
	t.Helper()
	testenv.Eventually(t, g.Name+": "+command, func() bool { _, err := g.TryRun("%s", command); return err == nil })
}

// TestLibvirt has two machines of libvirt on a switch, one at a TAP and one in shared memory,
// and does to them what libvirt can. The hook adds and removes these ports.
func TestLibvirt(t *testing.T) {
	for _, session := range []bool{false, true} {
		name := map[bool]string{false: "system", true: "session"}[session]
		t.Run(name, func(t *testing.T) { testLibvirt(t, startLibvirt(t, session)) })
	}
}

// alone are the states of ports that no machine is at.
var alone = map[string]api.State{"tap": api.StateNoCarrier, "vho": api.StateWaiting}

func testLibvirt(t *testing.T, l *libvirt) {
	sw := l.sw
	for _, kind := range []string{"tap", "vhost-user"} {
		for n := range 2 {
			sw.Ctl(t, "add-port %s%d --kind %s --owner %s", kind[:3], n, kind, l.user)
		}
	}
	var metadata [2]string
	for n, port := range []string{"name='tap0'", "name='vho0' kind='vhost-user'"} {
		metadata[n] = fmt.Sprintf("<v:ports xmlns:v='https://github.com/vswitch/vswitch/libvirt/1'><v:port %s access='10' rate-in='1gbit'/></v:ports>", port)
	}
	a, b := l.define(t, 0, "tap0", metadata[0]), l.define(t, 1, "vho0", metadata[1])
	if out, err := l.try("start a"); err == nil || !strings.Contains(out, "port tap0: it exists, and no domain's metadata added it") {
		t.Errorf("a machine whose port is another's: %v: %s", err, out)
	}
	sw.Ctl(t, "del-port tap0")
	sw.Ctl(t, "del-port vho0")
	l.virsh(t, "start a")
	l.virsh(t, "start b")
	vmtest.Wait(t, a, b)
	sw.AwaitState(t, "tap0", api.StateUp)
	sw.AwaitState(t, "vho0", api.StateUp)
	connected(t, a, b)

	t.Run("reset", func(t *testing.T) {
		for _, g := range []*vmtest.Guest{a, b} {
			g.Run(t, "touch /tmp/before")
			g.Reboot(t, func() { l.virsh(t, "reset %s", g.Name) })
			g.Run(t, "test ! -e /tmp/before")
		}
		connected(t, a, b)
	})

	t.Run("suspend and resume", func(t *testing.T) {
		for _, pair := range [][2]*vmtest.Guest{{a, b}, {b, a}} {
			l.virsh(t, "suspend %s", pair[0].Name)
			if _, err := pair[1].TryRun("ping -c 2 -W 1 %s", pair[0].IP.Addr()); err == nil {
				t.Errorf("%s answers while it is suspended", pair[0].Name)
			}
			l.virsh(t, "resume %s", pair[0].Name)
			connected(t, a, b)
		}
	})

	t.Run("save and restore", func(t *testing.T) {
		for _, g := range []*vmtest.Guest{a, b} {
			g.Run(t, "touch /tmp/saved")
			file := filepath.Join(l.dir, g.Name+".save")
			l.virsh(t, "save %s %s", g.Name, file)
			l.virsh(t, "restore %s", file)
			g.Hangup()
			g.Run(t, "test -e /tmp/saved") // the very machine, not one that booted
			connected(t, a, b)
		}
	})

	t.Run("link down and up", func(t *testing.T) {
		set := map[*vmtest.Guest]string{
			a: "domif-setlink a tap0 %s",
			b: "qemu-monitor-command b --hmp set_link net0 %s", // libvirt 9 knows no links in shared memory
		}
		for _, g := range []*vmtest.Guest{a, b} {
			l.virsh(t, set[g], map[*vmtest.Guest]string{a: "down", b: "off"}[g])
			carrier(t, g, "eth0", "0")
			l.virsh(t, set[g], map[*vmtest.Guest]string{a: "up", b: "on"}[g])
			carrier(t, g, "eth0", "1")
			connected(t, a, b)
		}
	})

	t.Run("hot plug and unplug", func(t *testing.T) {
		// Each gets the other kind's NIC.
		for n, port := range []string{"vho1", "tap1"} {
			file := filepath.Join(l.dir, port+".xml")
			write(t, l.ns, file, l.nic(t, port))
			g := []*vmtest.Guest{a, b}[n]
			l.virsh(t, "attach-device %s %s --live", g.Name, file)
			until(t, g, "[ -e /sys/class/net/eth1 ]")
			g.Run(t, "ip addr add 10.1.0.%d/24 dev eth1; ip link set eth1 up", n+1)
			sw.AwaitState(t, port, api.StateUp)
		}
		reaches(t, a, "10.1.0.2")
		reaches(t, b, "10.1.0.1")
		for n, port := range []string{"vho1", "tap1"} {
			g := []*vmtest.Guest{a, b}[n]
			l.virsh(t, "detach-device %s %s --live", g.Name, filepath.Join(l.dir, port+".xml"))
			until(t, g, "[ ! -e /sys/class/net/eth1 ]")
			sw.AwaitState(t, port, alone[port[:3]])
		}
		connected(t, a, b)
		// The switch has no hold on a device that libvirt has left, and it is not gone.
		for _, port := range []string{"vho1", "tap1"} {
			sw.Ctl(t, "del-port %s", port)
		}
	})

	t.Run("the switch is killed", func(t *testing.T) {
		sw.Kill()
		sw.Restart(t)
		connected(t, a, b)
	})

	t.Run("a port in use stays", func(t *testing.T) {
		for _, port := range []string{"tap0", "vho0"} {
			if out, err := sw.Try("del-port", port); err == nil || !strings.Contains(out, "--force") {
				t.Errorf("del-port %s: %v: %s", port, err, out)
			}
		}
	})

	t.Run("destroy and start", func(t *testing.T) {
		for _, g := range []*vmtest.Guest{a, b} {
			l.virsh(t, "destroy %s", g.Name)
			g.Hangup()
		}
		if out := sw.Ctl(t, "ports"); strings.Contains(out, "tap0") || strings.Contains(out, "vho0") {
			t.Errorf("ports of machines that have ended:\n%s", out)
		}
		for _, g := range []*vmtest.Guest{a, b} {
			l.virsh(t, "start %s", g.Name)
		}
		vmtest.Wait(t, a, b)
		connected(t, a, b)
	})
}
