// Package testenv gives tests what they need of the machine: root, tools, and their own
// network namespaces, which end with the test. A test's traffic stays inside such namespaces,
// so tests can run in parallel and repeatedly. A test whose requirement is missing is skipped
// with a reason, which `make test` lists; as root nothing is skipped.
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

// Tool returns the path of a program that the test runs. As root a missing program is a
// failure, because `make test` installs it.
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

// Eventually polls until done returns true. It waits up to a minute, because the machine may
// be busy.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// OpenFiles returns the number of the process's open descriptors.
func OpenFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Netns is a named network namespace with its loopback up, and a mount namespace with a /sys
// for it.
type Netns struct {
	Name   string
	t      testing.TB
	holder int // a process that keeps both in existence
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
		// A failure here fails the test: no namespace may stay behind.
		if out, err := exec.Command("ip", "netns", "del", n.Name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del %s: %v: %s", n.Name, err, out)
		}
	})
	n.hold()
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// Here returns the namespace of the test itself.
func Here(t testing.TB) *Netns {
	t.Helper()
	Root(t)
	Tool(t, "nsenter")
	return &Netns{t: t, holder: os.Getpid()}
}

// hold keeps ip(8)'s mounts in the namespace for all commands, including the mounts they make
// themselves, such as the bpffs of a daemon that is killed and restarted. The holder ends at
// the latest with the test process, which holds the other end of its input.
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
	// Once it answers, it is running.
	_, err = in.Write([]byte{0})
	if err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	if err != nil {
		n.t.Fatalf("ip netns exec %s: %v", n.Name, err)
	}
	n.holder = cat.Process.Pid
}

// Path returns the file that represents the namespace.
func (n *Netns) Path() string {
	if n.Name == "" {
		return fmt.Sprintf("/proc/%d/ns/net", n.holder)
	}
	return filepath.Join("/run/netns", n.Name)
}

// Do calls f on a thread inside the namespace. What f opens stays there; goroutines that f
// starts do not.
func (n *Netns) Do(f func()) {
	n.t.Helper()
	done := make(chan error, 1)
	ended := false // f; if not, a Fatal in it ended its goroutine, and ends the test
	go func() {
		// If the thread cannot go back, it stays locked: the runtime then ends it with the
		// goroutine.
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
		// A Fatal in f ends this goroutine: it must still signal done.
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
	if !ended {
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
