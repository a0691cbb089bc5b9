// Package testenv gives tests what they need of the machine: root, tools, and
// network namespaces of their own that are gone when the test ends. Traffic of a
// test stays inside such namespaces, so tests can run in parallel and twice.
// A test that lacks what it asks for is skipped with a reason, which `make test`
// lists; as root nothing is skipped.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Root skips the test unless it runs with root's rights.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("left out: needs root")
	}
}

// Tool returns the path of a program that the test runs. As root its absence is
// a failure, for then `make test` has installed it.
func Tool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Geteuid() == 0 {
		t.Fatalf("%s is missing; `make deps` installs it", name)
	}
	t.Skipf("left out: needs %s", name)
	return ""
}

// Eventually polls until something that others do is done. It waits long, for the
// machine may be busy: a failure takes a minute.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// OpenFiles counts the descriptors that the process has.
func OpenFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Netns is a named network namespace, with its loopback up, and a mount namespace of
// its own for /sys.
type Netns struct {
	Name   string
	t      testing.TB
	holder int // a process that is in both as long as they are
}

var netnsSerial atomic.Int64

// NewNetns makes a namespace that ends with the test. It needs root.
func NewNetns(t testing.TB) *Netns {
	t.Helper()
	Root(t)
	Tool(t, "ip")
	Tool(t, "nsenter")
	n := &Netns{Name: fmt.Sprintf("vswt-%d-%d", os.Getpid(), netnsSerial.Add(1)), t: t}
	run(t, exec.Command("ip", "netns", "add", n.Name))
	t.Cleanup(func() {
		// A failure here is the test's: a namespace must not stay behind.
		if out, err := exec.Command("ip", "netns", "del", n.Name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del %s: %v: %s", n.Name, err, out)
		}
	})
	n.hold()
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// hold keeps what ip(8) mounts in the namespace for all commands, among it what they
// mount themselves, such as the bpffs of a daemon that is killed and started again. The
// holder ends with the test process at the latest, which has the other end of its input.
func (n *Netns) hold() {
	n.t.Helper()
	cat := exec.Command("ip", "netns", "exec", n.Name, "cat")
	in, err := cat.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cat.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		in.Close()
		cat.Wait() // nobody needs its status
	})
	// Once it answers, it is there.
	_, err = in.Write([]byte{0})
	if err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	if err != nil {
		n.t.Fatalf("ip netns exec %s: %v", n.Name, err)
	}
	n.holder = cat.Process.Pid
}

// Path is the file that stands for the namespace.
func (n *Netns) Path() string { return filepath.Join("/run/netns", n.Name) }

// Do calls f on a thread that is inside the namespace. What f opens stays there;
// goroutines that f starts do not.
func (n *Netns) Do(f func()) {
	n.t.Helper()
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked again when it cannot go back: the
		// runtime then ends it with the goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		there, err := os.Open(n.Path())
		if err != nil {
			done <- err
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("setns %s: %w", n.Name, err)
			return
		}
		// A Fatal in f ends this goroutine: done must be told all the same.
		ended := false
		defer func() {
			if !ended {
				done <- nil
			}
		}()
		f()
		ended = true
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
	if n.t.Failed() {
		n.t.FailNow()
	}
}

// Command is exec.Command inside the namespace. Its working directory is the root: a
// directory from outside its mount namespace has no path there.
func (n *Netns) Command(name string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(n.holder), "--net", "--mount", "--", name}
	return exec.Command("nsenter", append(enter, args...)...)
}

// Run runs a program inside the namespace and returns its standard output with
// white space trimmed; a program that fails ends the test.
func (n *Netns) Run(name string, args ...string) string {
	n.t.Helper()
	return run(n.t, n.Command(name, args...))
}

func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out))
}
