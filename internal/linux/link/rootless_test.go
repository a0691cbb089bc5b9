package link

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestWatchRootless: a daemon of a plain user watches interfaces too. As root the
// test runs itself as nobody.
func TestWatchRootless(t *testing.T) {
	if os.Geteuid() == 0 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestWatchRootless$", "-test.v")
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("as nobody: %v\n%s", err, out)
		}
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.Name == "" {
			t.Errorf("first event %+v", e)
		}
	case <-time.After(5 * time.Second):
		t.Error("no interface is listed")
	}
}
