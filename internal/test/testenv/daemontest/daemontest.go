// Package daemontest runs the vswitch binary in tests as users run it: in a network
// namespace, with its own socket and state, controlled by the command line. A package that
// uses it calls Main from its TestMain. A Daemon is used from one goroutine at a time and
// ends with its test, which logs the daemon's output if it fails.
package daemontest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// dir contains the binary and a folder for each daemon. Main makes and removes it.
var dir string

// Main implements a package's TestMain.
func Main(m *testing.M) {
	var err error
	if dir, err = os.MkdirTemp("", "vswitch"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

var build = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(dir, "vswitch")
	// Without the repository's state: git refuses to report it for another user's clone.
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "github.com/vswitch/vswitch/cmd/vswitch").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
})

// Binary returns the path of vswitch, built once.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// FastPath reports whether daemons may forward in the kernel. VSWITCH_TEST_FASTPATH=off
// prevents it, so that every test can run both ways.
func FastPath() bool { return os.Getenv("VSWITCH_TEST_FASTPATH") != "off" }

// Flags returns a test's own flags of `vswitch run`, behind those that follow from
// FastPath unless its own replace them.
func Flags(own ...string) []string {
	if FastPath() {
		return own
	}
	return override([]string{"--fastpath", "off"}, own)
}

// Daemon is a running `vswitch run`, or one that was killed or stopped.
type Daemon struct {
	Client *api.Client // for its socket

	Netns          *testenv.Netns
	Name           string // of the switch; unique among a test's daemons
	binary, socket string
	args           []string // of the binary, to run a switch
	cmd            *exec.Cmd
	ended          chan struct{} // closed once cmd has ended; cmd.ProcessState then says how
	next           *os.Process   // that took the switch over; nil: none did
	manager        *manager      // nil: no service manager starts it
	log            testenv.Log
}

// Start runs a switch in a namespace with further flags of `vswitch run` and returns once it
// answers.
func Start(t testing.TB, ns *testenv.Netns, flags ...string) *Daemon {
	t.Helper()
	return start(t, Binary(t), false, ns, flags)
}

// StartBinary is Start for another vswitch, which also runs the commands.
func StartBinary(t testing.TB, binary string, ns *testenv.Netns, flags ...string) *Daemon {
	t.Helper()
	return start(t, binary, false, ns, flags)
}

// StartService is Start under a service manager, which keeps files for the switch while that is
// killed and starts again.
func StartService(t testing.TB, ns *testenv.Netns, flags ...string) *Daemon {
	t.Helper()
	return start(t, Binary(t), true, ns, flags)
}

// Running returns a daemon that somebody else runs, in the test's own namespace. It can take commands;
// the test neither starts nor ends it.
func Running(t testing.TB, binary, socket string) *Daemon {
	t.Helper()
	d := &Daemon{Netns: testenv.Here(t), binary: binary, socket: socket, Client: api.NewClient(socket)}
	t.Cleanup(d.Client.Close)
	return d
}

func start(t testing.TB, binary string, service bool, ns *testenv.Netns, flags []string) *Daemon {
	t.Helper()
	// Not t.TempDir: the test's name in it would make a socket's path too long.
	home, err := os.MkdirTemp(dir, "d")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Netns: ns, Name: filepath.Base(home), binary: binary, socket: filepath.Join(home, "s")}
	d.args = append([]string{"run", "--name", d.Name, "--socket", d.socket, "--state", filepath.Join(home, "state")}, Flags()...)
	d.args = override(d.args, flags)
	d.Client = api.NewClient(d.socket)
	if service {
		d.manager = newManager(t, filepath.Join(home, "notify"))
	}
	t.Cleanup(func() {
		d.Client.Close()
		d.Kill()
		d.manager.close()
		if t.Failed() {
			t.Logf("log of vswitch:\n%s", d.Log())
		}
	})
	d.Restart(t)
	return d
}

// override returns args with flags appended. It removes flags of the same name from args,
// with their values: vswitch accepts a flag once.
func override(args, flags []string) []string {
	name := func(arg string) string {
		name, _, _ := strings.Cut(arg, "=")
		return name
	}
	replaced := func(arg string) bool {
		return strings.HasPrefix(arg, "--") && slices.ContainsFunc(flags, func(f string) bool { return name(f) == name(arg) })
	}
	var all []string
	for i := 0; i < len(args); i++ {
		if !replaced(args[i]) {
			all = append(all, args[i])
		} else if !strings.Contains(args[i], "=") && i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			i++ // its value
		}
	}
	return append(all, flags...)
}

// Restart starts the daemon again with the same flags, socket and state. Further flags
// replace those of the same name, this time only. A running daemon is killed first.
func (d *Daemon) Restart(t testing.TB, flags ...string) {
	t.Helper()
	d.Kill()
	cmd := d.Netns.Command(d.binary, override(d.args, flags)...)
	if d.manager != nil {
		cmd = d.manager.command(t, d.Netns, d.binary, override(d.args, flags)...)
		defer func() {
			for _, f := range cmd.ExtraFiles {
				f.Close()
			}
		}()
	}
	// Not the log itself: then cmd would end with the last process that writes to it.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	go func() {
		defer read.Close()
		_, _ = io.Copy(&d.log, read)
	}()
	cmd.Stdout, cmd.Stderr = write, write
	// It must not outlive a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	go func() {
		cmd.Wait() // it usually ends by SIGKILL
		close(ended)
	}()
	testenv.Eventually(t, "vswitch answers", func() bool {
		select {
		case <-ended:
			t.Fatal("vswitch ended by itself")
		default:
		}
		_, err := d.Client.Ports(t.Context())
		return err == nil
	})
}

// Kill ends the daemon like a crash.
func (d *Daemon) Kill() {
	d.end(syscall.SIGKILL)
	if d.cmd != nil {
		d.cmd.Process.Kill() // the only possible error: the daemon has ended
		<-d.ended
		d.cmd = nil
	}
}

// end ends the process that took the switch over, if one did. Another process waits for its status.
func (d *Daemon) end(sig os.Signal) {
	if d.next == nil {
		return
	}
	_ = d.next.Signal(sig) // or it has ended
	for running(d.next.Pid) {
		time.Sleep(time.Millisecond)
	}
	d.next = nil
}

// running reports whether a process has not ended, with all of its threads.
func running(pid int) bool {
	stat, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	threads, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err1 != nil || err2 != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return len(threads) > 1 || state[0] != 'Z' && state[0] != 'X'
}

// Upgraded is what `vswitch upgrade -o json` prints.
type Upgraded struct {
	PID      int
	Ports    int
	Stations int
	HeldMS   float64 `json:"held_ms"`
}

// Upgrade has another process take the switch over, by `vswitch upgrade` with further flags.
func (d *Daemon) Upgrade(t testing.TB, flags ...string) (u Upgraded) {
	t.Helper()
	out, err := d.UpgradeCommand(flags...).Output()
	if err != nil {
		t.Fatalf("vswitch upgrade: %v: %s", err, stderrOf(err))
	}
	if err := json.Unmarshal(out, &u); err != nil {
		t.Fatalf("vswitch upgrade prints %s: %v", out, err)
	}
	former := d.next
	if d.next, err = os.FindProcess(u.PID); err != nil {
		t.Fatal(err)
	}
	if d.cmd != nil {
		<-d.ended
		if !d.cmd.ProcessState.Success() {
			t.Errorf("the former process ends with %v", d.cmd.ProcessState)
		}
		d.cmd = nil
	} else {
		testenv.Eventually(t, "the former process has ended", func() bool { return !running(former.Pid) })
	}
	return u
}

// UpgradeTo is Upgrade to another vswitch, which runs the commands from now on.
func (d *Daemon) UpgradeTo(t testing.TB, binary string) Upgraded {
	t.Helper()
	d.binary = binary
	return d.Upgrade(t)
}

// PID returns the number of the daemon's process.
func (d *Daemon) PID() int {
	if d.next != nil {
		return d.next.Pid
	}
	return d.cmd.Process.Pid
}

func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}

// UpgradeCommand returns `vswitch upgrade -o json` in the daemon's namespace.
func (d *Daemon) UpgradeCommand(flags ...string) *exec.Cmd {
	return d.Netns.Command(d.binary, append([]string{"--socket", d.socket, "-o", "json", "upgrade"}, flags...)...)
}

// Stop ends the daemon with SIGTERM, as a service manager does; it must succeed.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if d.next != nil {
		d.end(syscall.SIGTERM)
		return
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-d.ended
	if !d.cmd.ProcessState.Success() {
		t.Errorf("vswitch ends with %v after SIGTERM", d.cmd.ProcessState)
	}
	d.cmd = nil
}

// Cleanup removes what a killed or stopped daemon left in the kernel.
func (d *Daemon) Cleanup(t testing.TB) {
	t.Helper()
	if out, err := d.TryCleanup(); err != nil {
		t.Errorf("vswitch run --cleanup: %v: %s", err, out)
	}
}

// TryCleanup runs `vswitch run --cleanup` and returns its output.
func (d *Daemon) TryCleanup() (string, error) {
	out, err := d.Netns.Command(d.binary, "run", "--cleanup", "--name", d.Name).CombinedOutput()
	return string(out), err
}

// Log returns the daemon's output so far, of all its runs.
func (d *Daemon) Log() string { return d.log.String() }

// Socket returns the path of the daemon's control socket.
func (d *Daemon) Socket() string { return d.socket }

// Command returns a vswitch command to be run.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	return exec.Command(d.binary, append([]string{"--socket", d.socket}, args...)...)
}

// Try runs a vswitch command and returns its output.
func (d *Daemon) Try(args ...string) (string, error) {
	out, err := d.Command(args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Ctl runs a vswitch command, split at spaces, that must succeed, and returns its output.
func (d *Daemon) Ctl(t testing.TB, format string, args ...any) string {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := d.Try(strings.Fields(line)...)
	if err != nil {
		t.Fatalf("vswitch %s: %v: %s", line, err, out)
	}
	return out
}

// Port returns the current state of a port, which must exist.
func (d *Daemon) Port(t testing.TB, name string) api.Port {
	t.Helper()
	p, err := d.Client.Port(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// AwaitState waits until a port is in a state, such as api.StateUp.
func (d *Daemon) AwaitState(t testing.TB, name string, state api.State) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("port %s is %s", name, state), func() bool {
		return d.Port(t, name).State == state
	})
}
