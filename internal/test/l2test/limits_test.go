package l2test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// TestThreadLimitLowered lowers the limit of threads of a running daemon to those that it has. It goes
// on under many requests.
func TestThreadLimitLowered(t *testing.T) {
	t.Parallel()
	group := cgroup(t, "pids")
	d := startDaemon(t, testenv.NewNetns(t), "--fastpath", "off")
	d.Ctl(t, "add-port before --kind stream")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, name), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.procs", fmt.Sprint(d.PID()))
	now, err := os.ReadFile(filepath.Join(group, "pids.current"))
	if err != nil {
		t.Fatal(err)
	}
	write("pids.max", string(now))
	// There are more clients than the daemon has places for, so some get no answer.
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			for range 10 {
				_, _ = d.Client.Ports(t.Context())
			}
		})
	}
	for range 40 {
		reader := d.Command("capture")
		if err := reader.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Process.Kill(); _ = reader.Wait() }()
	}
	for range 5 {
		_, _ = d.Try("del-port", "before", "--force")
		_, _ = d.Try("add-port", "before", "--kind", "stream")
	}
	clients.Wait()
	testenv.Eventually(t, "the daemon answers", func() bool { _, err := d.Client.Ports(t.Context()); return err == nil })
}

// TestFileLimitLowered lowers the limit of open files of a running daemon below those that it has. Each command
// gets its answer, and what needs a file is refused in one line.
func TestFileLimitLowered(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, testenv.NewNetns(t), "--fastpath", "off")
	for i := range 20 {
		d.Ctl(t, "add-port s%d --kind dgram", i)
	}
	limit := func(n uint64) {
		t.Helper()
		var l unix.Rlimit
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, nil, &l); err != nil {
			t.Fatal(err)
		}
		l.Cur = min(n, l.Max)
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &l, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(24)
	for range 10 { // more than are held for clients
		if out := d.Ctl(t, "ports"); !strings.Contains(out, "s19") {
			t.Fatalf("it answers %q", out)
		}
		out, err := d.Try("add-port", "more", "--kind", "dgram")
		if err == nil || strings.Count(out, "\n") > 1 || !strings.Contains(out, "files") {
			t.Fatalf("add-port: %v, %q", err, out)
		}
	}
	limit(4096)
	testenv.Eventually(t, "a port is added", func() bool { _, err := d.Try("add-port", "more", "--kind", "dgram"); return err == nil })
}

// TestMemoryLimitLowered gives a running daemon a limit of memory. A port for whose queues there is none is refused,
// and those that are there keep within the limit, though their machines do not read.
func TestMemoryLimitLowered(t *testing.T) {
	t.Parallel()
	group := cgroup(t, "memory")
	file := "memory.max"
	if _, err := os.Stat(filepath.Join(group, file)); err != nil {
		file = "memory.limit_in_bytes"
	}
	ns := testenv.NewNetns(t)
	mount := filepath.Dir(group) // which `ip netns exec` hides
	if mount != "/sys/fs/cgroup" {
		ns.Run("mount", "-t", "tmpfs", "cgroup", filepath.Dir(mount))
		ns.Run("mkdir", mount)
	}
	if file == "memory.max" {
		ns.Run("mount", "-t", "cgroup2", "cgroup", mount)
	} else {
		ns.Run("mount", "-t", "cgroup", "-o", "memory", "cgroup", mount)
	}
	d := startDaemon(t, ns, "--fastpath", "off")
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(d.PID())), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(group, file), []byte(fmt.Sprint(50<<20)), 0); err != nil {
		t.Fatal(err)
	}
	var machines []net.Conn
	add := func() error {
		name := fmt.Sprint("s", len(machines))
		if out, err := d.Try("add-port", name, "--kind", "stream"); err != nil {
			return errors.New(out)
		}
		c, err := net.Dial("unix", filepath.Join(filepath.Dir(d.Socket()), d.Name, name+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		machines = append(machines, c)
		return nil
	}
	var err error
	for range 40 {
		if err = add(); err != nil {
			break
		}
	}
	if err == nil || len(machines) == 0 || !strings.Contains(err.Error(), file) {
		t.Fatalf("with %d ports: %v", len(machines), err)
	}
	frame := append([]byte{255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0, 0, 1, 8, 0}, make([]byte, 60000)...)
	frame = append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	var sending sync.WaitGroup
	for _, c := range machines {
		sending.Go(func() {
			for range 500 {
				if _, err := c.Write(frame); err != nil {
					t.Error(err)
					return
				}
			}
			_, _ = c.Write(frame[:len(frame)/2])
		})
	}
	sending.Wait()
	// All that waits would be in memory many times, and the kernel would end the daemon.
	upgrade := d.UpgradeCommand()
	inGroup := ns.Command("sh", append([]string{"-c", `echo $$ >&3; exec 3>&-; exec "$@"`, "sh"}, upgrade.Args...)...)
	procs, err := os.OpenFile(filepath.Join(group, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer procs.Close()
	inGroup.ExtraFiles = []*os.File{procs}
	if said, err := inGroup.CombinedOutput(); err == nil || !strings.Contains(string(said), "of memory or more, and ") {
		t.Errorf("upgrade without memory: %v: %s", err, said)
	}
	if _, err := d.Client.Ports(t.Context()); err != nil {
		t.Error(err)
	}
}

// cgroup makes a cgroup in which a controller can have limits.
func cgroup(t *testing.T, controller string) string {
	t.Helper()
	for _, c := range []struct{ root, controllers string }{
		{"/sys/fs/cgroup", "cgroup.subtree_control"}, {"/sys/fs/cgroup/unified", "cgroup.subtree_control"}, {"/sys/fs/cgroup/" + controller, ""},
	} {
		if c.controllers != "" {
			b, err := os.ReadFile(filepath.Join(c.root, c.controllers))
			if err != nil || !slices.Contains(strings.Fields(string(b)), controller) {
				continue
			}
		}
		group, err := os.MkdirTemp(c.root, "vswitch-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			testenv.Eventually(t, "the cgroup is empty", func() bool { return os.Remove(group) == nil })
		})
		return group
	}
	t.Skip("left out: no cgroup here can limit " + controller)
	return ""
}
