// Package vmtest runs small real virtual machines in tests: QEMU with the emulated CPU and a
// NIC on a TAP with the standard options, in a network namespace of the test. A Guest ends
// with the test that started it. Different guests may be used concurrently, each from one
// goroutine at a time.
package vmtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/vmtest/console"
	"github.com/vswitch/vswitch/internal/test/vmtest/guestimg"
)

const (
	// bootLimit is much longer than a boot's five seconds, because other tests may keep the
	// machine busy.
	bootLimit = 2 * time.Minute

	// commandLimit limits one command in a guest.
	commandLimit = time.Minute
)

// Options configure a guest.
type Options struct {
	Name  string         // its host name
	Netns *testenv.Netns // where QEMU runs
	MAC   string
	IP    netip.Prefix // its address on eth0
	IPv6  bool         // otherwise it has none, and sends nothing by itself

	// Tap is the TAP of its NIC. If Net is set, it replaces Tap: QEMU's -netdev and -device
	// options for the NIC.
	Tap string
	Net []string

	// Machine are further QEMU options.
	Machine []string

	// Programs are programs of the host's that the guest has, too.
	Programs []string

	// Kernel is the package of its kernel, if not the distribution's own.
	Kernel string
}

// Guest is a virtual machine.
type Guest struct {
	Options
	cmd     *exec.Cmd
	exited  chan struct{} // closed once QEMU is gone
	stderr  *strings.Builder
	dir     string
	socket  string // of its console
	console *console.Console
}

// Args returns QEMU's command line for a guest with its console at the given socket.
func (o *Options) Args(img guestimg.Image, socket string) []string {
	network := o.Net
	if network == nil {
		network = []string{
			"-netdev", "tap,id=net0,ifname=" + o.Tap + ",script=no,downscript=no",
			"-device", "virtio-net-pci,netdev=net0,mac=" + o.MAC,
		}
	}
	ipv6 := "ipv6.disable=1"
	if o.IPv6 {
		ipv6 = "ipv6.disable=0"
	}
	return slices.Concat([]string{
		"-M", "pc,usb=off", "-accel", "tcg", "-cpu", "qemu64", "-m", "192", "-smp", "1",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", img.Kernel, "-initrd", img.Initrd,
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check %s guest.name=%s guest.ip=%s", ipv6, o.Name, o.IP),
		"-global", "virtio-net-pci.romfile=", // no ROM for network boot
		"-serial", "unix:" + socket + ",server=on,wait=off",
	}, network, o.Machine)
}

// Start starts a guest and returns while it boots; the first command waits until it is up.
// Start needs root. If the test fails, it logs the guest's console.
func Start(t testing.TB, o Options) *Guest {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "qemu-system-x86_64")
	// Not t.TempDir: the test's name in it would make a socket's path too long.
	dir, err := os.MkdirTemp("", "vmtest")
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{Options: o, dir: dir}
	t.Cleanup(func() {
		g.Kill()
		os.RemoveAll(dir)
	})
	g.boot(t)
	return g
}

// Attach returns a guest that another program runs, with its console at a socket. Only the name
// and the address of its options count.
func Attach(t testing.TB, o Options, socket string) *Guest {
	g := &Guest{Options: o, socket: socket, exited: make(chan struct{})}
	t.Cleanup(g.Hangup)
	return g
}

// Hangup leaves the console; the next command connects again and waits until the guest is up.
func (g *Guest) Hangup() {
	if g.console != nil {
		g.console.Close()
		g.console = nil
	}
}

func (g *Guest) boot(t testing.TB) {
	t.Helper()
	cache, err := guestimg.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	img, err := guestimg.EnsureKernel(cache, g.Kernel, g.Programs...)
	if err != nil {
		t.Fatal(err)
	}
	g.socket = filepath.Join(g.dir, "console")
	os.Remove(g.socket) // of an earlier boot

	g.stderr = new(strings.Builder)
	g.cmd = g.Netns.Command("qemu-system-x86_64", g.Args(img, g.socket)...)
	g.cmd.Stderr = g.stderr
	// QEMU must not outlive a test that is killed.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	g.exited = exited
	cmd := g.cmd
	go func() {
		cmd.Wait() // it usually ends by Kill, so the status says nothing
		close(exited)
	}()
}

// up waits until the guest has booted.
func (g *Guest) up() error {
	if g.console != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	go func() {
		select {
		case <-g.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	c, err := console.Dial(ctx, g.socket)
	if err == nil {
		g.console = c
		err = c.Ready(ctx)
	}
	select {
	case <-g.exited:
		return fmt.Errorf("%s: QEMU ended: %s", g.Name, strings.TrimSpace(g.stderr.String()))
	default:
	}
	if err != nil {
		return fmt.Errorf("%s: %w", g.Name, err)
	}
	return nil
}

// TryRun runs a command in the guest's shell and returns its output; a failing command gives
// a *console.ExitError.
func (g *Guest) TryRun(format string, args ...any) (string, error) {
	if err := g.up(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	out, err := g.console.Run(ctx, fmt.Sprintf(format, args...))
	if err != nil {
		err = fmt.Errorf("%s: %w", g.Name, err)
	}
	return strings.TrimSpace(out), err
}

// Run is TryRun for a command that must succeed; otherwise the test ends.
func (g *Guest) Run(t testing.TB, format string, args ...any) string {
	t.Helper()
	out, err := g.TryRun(format, args...)
	if err != nil {
		g.fatal(t, err)
	}
	return out
}

func (g *Guest) fatal(t testing.TB, err error) {
	t.Helper()
	if g.console != nil {
		log := g.console.Log()
		t.Logf("console of %s, its end:\n%s", g.Name, log[max(0, len(log)-8<<10):])
	}
	t.Fatal(err)
}

// Reboot calls reset, which makes the machine boot again, and waits until it is up.
func (g *Guest) Reboot(t testing.TB, reset func()) {
	t.Helper()
	g.Run(t, "true")
	from := len(g.console.Log())
	reset()
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	err := g.console.Rebooted(ctx, from)
	if err == nil {
		err = g.console.Ready(ctx)
	}
	if err != nil {
		g.fatal(t, err)
	}
}

// Wait waits until the guests have booted; they boot in parallel.
func Wait(t testing.TB, guests ...*Guest) {
	t.Helper()
	for _, g := range guests {
		g.Run(t, "true")
	}
}

// Kill ends QEMU at once, like a crash. The guest can boot again.
func (g *Guest) Kill() {
	g.Hangup()
	if g.exited == nil {
		return // it was never started
	}
	select {
	case <-g.exited:
	default:
		g.cmd.Process.Kill() // the only possible error: QEMU has just ended
		<-g.exited
	}
}

// Restart kills the guest and boots it again with the same options.
func (g *Guest) Restart(t testing.TB) {
	t.Helper()
	g.Kill()
	g.boot(t)
}

// Exit waits for QEMU to end by itself and returns its standard error.
func (g *Guest) Exit(t testing.TB) string {
	t.Helper()
	select {
	case <-g.exited:
	case <-time.After(bootLimit):
		g.fatal(t, errors.New(g.Name+": QEMU runs on"))
	}
	return g.stderr.String()
}

var pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) packets received`)

// Ping sends n echo requests to addr and returns the number of answers.
func (g *Guest) Ping(t testing.TB, addr netip.Addr, n int) (answered int) {
	t.Helper()
	// Status 1 means no answer: that is a result, not a failure.
	out, err := g.TryRun("ping -c %d -i 0.1 -W 2 %s", n, addr)
	var exit *console.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.fatal(t, err)
	}
	m := pingSummary.FindStringSubmatch(out)
	if m == nil || m[1] != strconv.Itoa(n) {
		g.fatal(t, fmt.Errorf("%s: ping %s: %s", g.Name, addr, out))
	}
	answered, _ = strconv.Atoi(m[2]) // the pattern matches digits only
	return answered
}

// Counter reads one of the NIC's counters by its name in sysfs, such as rx_packets.
func (g *Guest) Counter(t testing.TB, name string) int {
	t.Helper()
	n, err := strconv.Atoi(g.Run(t, "cat /sys/class/net/eth0/statistics/%s", name))
	if err != nil {
		g.fatal(t, err)
	}
	return n
}
