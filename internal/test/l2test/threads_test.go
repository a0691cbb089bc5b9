package l2test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// TestThreadLimitLowered lowers the limit of threads of a running daemon to those that it has. It goes
// on under many requests.
func TestThreadLimitLowered(t *testing.T) {
	t.Parallel()
	group := pidsGroup(t)
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

// pidsGroup makes a cgroup that can limit threads.
func pidsGroup(t *testing.T) string {
	t.Helper()
	for _, c := range []struct{ root, controllers string }{
		{"/sys/fs/cgroup", "cgroup.subtree_control"}, {"/sys/fs/cgroup/unified", "cgroup.subtree_control"}, {"/sys/fs/cgroup/pids", ""},
	} {
		if c.controllers != "" {
			b, err := os.ReadFile(filepath.Join(c.root, c.controllers))
			if err != nil || !slices.Contains(strings.Fields(string(b)), "pids") {
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
	t.Skip("left out: no cgroup here can limit threads")
	return ""
}
