package upgradetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// former builds vswitch as it was one commit before this one.
func former(t *testing.T) string {
	t.Helper()
	// The clone may be another user's.
	git := func(args ...string) ([]byte, error) {
		out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", "../../.."}, args...)...).Output()
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			err = errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return out, err
	}
	const before = "HEAD~1"
	if _, err := git("rev-parse", "--verify", before+"^{commit}"); err != nil {
		t.Skipf("left out: no upgrade from an earlier program was tested, since git has no %s here (a shallow clone: `git fetch --unshallow`): %v", before, err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source.tar")
	if _, err := git("archive", "-o", source, before); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", dir, "-xf", source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	binary := filepath.Join(dir, "vswitch.former")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./cmd/vswitch")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", before, err, out)
	}
	return binary
}

// A switch of the commit before is upgraded to this one, and no frame is lost.
func TestUpgradeFromTheFormerCommit(t *testing.T) {
	testenv.Root(t)
	t.Parallel()
	binary := former(t)
	sw, flows := ring(t, binary, []string{"dgram", "host", "lag", "netdev", "stream", "tap", "veth", "vhost-user", "vxlan"},
		"--stp", "--snooping", "--querier", "--loop-detect", "--lldp")
	if is := program(t, sw); is != binary {
		t.Fatalf("the switch runs %s, not %s", is, binary)
	}
	for range 2 {
		sw.UpgradeTo(t, daemontest.Binary(t))
		for _, f := range flows {
			f.more(t, 30)
		}
	}
	wantAll(t, "upgrade", flows)
	if is := program(t, sw); is != daemontest.Binary(t) {
		t.Errorf("the switch runs %s", is)
	}
}

// program returns the path of the program that a switch runs.
func program(t *testing.T, sw *daemontest.Daemon) string {
	t.Helper()
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", sw.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
