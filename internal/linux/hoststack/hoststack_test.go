package hoststack_test

import (
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// A host's socket hears a guest's broadcast on a plain TAP and while the switch is
// away, and none while the host stack is shut out; a packet socket hears all.
func TestHidden(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "vm0")
	ns.Run("ip", "link", "set", "vm0", "up")
	ns.Do(func() {
		g, s := tuntest.Boot(t, "vm0", tuntest.TSO), tuntest.Listen(t, "vm0")
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 4999})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		hears := func(wait time.Duration) bool {
			t.Helper()
			if err := g.Send(tuntest.Broadcast(4999), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Recv(patience); err != nil {
				t.Fatalf("the packet socket: %v", err)
			}
			if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
				t.Fatal(err)
			}
			_, err := c.Read(make([]byte, 64))
			return err == nil
		}

		if !hears(patience) {
			t.Fatal("the host does not hear a guest on a plain TAP")
		}
		l, err := link.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		guard, err := hoststack.Shut("vm0", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !guard.Hidden() {
			t.Error("no tcx; this kernel has it")
		}
		if hears(300 * time.Millisecond) {
			t.Error("the host hears the guest though it is shut out")
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		if !hears(patience) {
			t.Error("the host does not hear the guest after Close")
		}
	})
}

// The sysctls are set, survive Close, and go back to what they were.
func TestSysctls(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0.100", "mode", "tap")
	for _, a := range []string{"fe80::1/64", "2001:db8::1/64", "2001:db8::2/128"} {
		ns.Run("ip", "addr", "add", a, "dev", "vm0.100")
	}
	ns.Do(func() {
		before := hoststack.Read("vm0.100")
		if before.DisableIPv6 != "0" || before.ARPIgnore != "0" || before.StaticIPv6 != "2001:db8::2/128 2001:db8::1/64 fe80::1/64" {
			t.Fatalf("%+v before", before)
		}
		l, err := link.ByName("vm0.100")
		if err != nil {
			t.Fatal(err)
		}
		guard, err := hoststack.Shut("vm0.100", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		if got := hoststack.Read("vm0.100"); got.DisableIPv6 != "1" || got.ARPIgnore != "8" || got.AddrGenMode != "1" || got.StaticIPv6 != "" {
			t.Errorf("shut: %+v", got)
		}
		if err := hoststack.Restore("vm0.100", before); err != nil {
			t.Fatal(err)
		}
		if got := hoststack.Read("vm0.100"); got != before {
			t.Errorf("restored: %+v, before %+v", got, before)
		}
		if err := hoststack.Restore("gone", before); err != nil {
			t.Errorf("restore an interface that is gone: %v", err)
		}
	})
}

// Whoever gives the interface IPv6 back, the host says nothing on it, and the interface
// has none again.
func TestIPv6StaysAway(t *testing.T) {
	t.Parallel()
	for what, enable := range map[string][]string{
		"all of the host's":  {"sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=0"},
		"the interface's":    {"sysctl", "-qw", "net.ipv6.conf.vm1.disable_ipv6=0"},
		"its addresses, too": {"sysctl", "-qw", "net.ipv6.conf.vm1.addr_gen_mode=0", "net.ipv6.conf.vm1.disable_ipv6=0"},
		"a small MTU":        {"sh", "-c", "ip link set vm1 mtu 1000 && ip link set vm1 mtu 1500"}, // the kernel forgets what was set
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ns := testenv.NewNetns(t)
			ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
			ns.Do(func() {
				l, err := link.ByName("vm0")
				if err != nil {
					t.Fatal(err)
				}
				guard, err := hoststack.Shut("vm0", l.Index, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer guard.Close()
				if err := l.SetUp(true); err != nil {
					t.Fatal(err)
				}
				g := tuntest.Boot(t, "vm0", tuntest.TSO)
				ns.Run("ip", "link", "set", "vm0", "name", "vm1")
				ns.Run(enable[0], enable[1:]...)
				testenv.Eventually(t, "IPv6 is disabled", func() bool {
					s := hoststack.Read("vm1")
					return s.DisableIPv6 == "1" && s.AddrGenMode == "1"
				})
				// The kernel would solicit a router within a second.
				ready := what == "all of the host's" || what == "the interface's"
				for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
					frame, _, err := g.Recv(time.Until(end))
					if err == nil && len(frame) >= 14 && frame[12] == 0x86 && frame[13] == 0xdd {
						// An interface with an address has 10 ms from the kernel's report until
						// it announces its groups, which a busy machine can miss.
						const mld, icmpv6 = 143, 62
						if ready || len(frame) <= icmpv6 || frame[icmpv6] != mld {
							t.Errorf("the host says %x", frame)
						}
					}
				}
				if err := guard.Lift(); err != nil {
					t.Fatal(err)
				}
				// Then it is the host's.
				ns.Run("sysctl", "-qw", "net.ipv6.conf.vm1.disable_ipv6=0")
				time.Sleep(50 * time.Millisecond)
				if got := hoststack.Read("vm1"); got.DisableIPv6 != "0" {
					t.Error("IPv6 is disabled on an interface that was given back")
				}
			})
		})
	}
}

// An interface whose name means all interfaces must not change the host.
func TestNamesOfAll(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		for _, name := range []string{"all", "default"} {
			before := hoststack.Read(name)
			if _, err := hoststack.Shut(name, 1, nil); err == nil {
				t.Errorf("%q is taken", name)
			}
			if got := hoststack.Read(name); got != before {
				t.Errorf("%s is now %+v", name, got)
			}
		}
	})
}

// Without the right to load programs the sysctls must do.
func TestWithoutBPF(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Do(func() {
		// What the library finds out about the kernel it keeps for all tests of the process, so it
		// must find that out with all rights: without them it takes programs to have no names.
		l, err := link.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		able, err := hoststack.Shut("vm0", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := able.Close(); err != nil {
			t.Fatal(err)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
		less := all
		less[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		less[1].Effective &^= 1 << (unix.CAP_BPF - 32)
		if err := unix.Capset(&header, &less[0]); err != nil {
			t.Fatal(err)
		}
		defer unix.Capset(&header, &all[0])
		guard, err := hoststack.Shut("vm0", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		if guard.Hidden() {
			t.Error("a program was loaded without CAP_BPF")
		}
		if got := hoststack.Read("vm0"); got.DisableIPv6 != "1" || got.ARPIgnore != "8" {
			t.Errorf("%+v", got)
		}
		if err := guard.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What cannot be written is named, and what was written is taken back.
func TestReadOnlySysctls(t *testing.T) {
	testenv.Root(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread ends with its namespaces
		for _, do := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return exec.Command("ip", "tuntap", "add", "dev", "vm0", "mode", "tap").Run() },
			func() error { return unix.Mount("/proc/sys/net/ipv4", "/proc/sys/net/ipv4", "", unix.MS_BIND, "") },
			func() error {
				return unix.Mount("", "/proc/sys/net/ipv4", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
			},
		} {
			if err := do(); err != nil {
				t.Error(err)
				return
			}
		}
		_, err := hoststack.Shut("vm0", 2, nil)
		if err == nil || !strings.Contains(err.Error(), "arp_ignore cannot be written") || strings.Contains(err.Error(), "\n") {
			t.Errorf("read-only: %v", err)
		}
		if got := hoststack.Read("vm0"); got.DisableIPv6 != "0" || got.ARPIgnore != "0" {
			t.Errorf("left: %+v", got)
		}
	}()
	<-ended
}
