package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/api"
)

// runLogging runs a daemon that logs into a small pipe, and returns the pipe's other end.
func runLogging(t *testing.T) (cmd *exec.Cmd, cl *api.Client, log *os.File) {
	t.Helper()
	log, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.Cleanup(func() { log.Close() })
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "vs") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd = exec.Command(self, "run", "--ephemeral", "--fastpath", "off", "--socket", socket)
	cmd.Args[0] = "vswitch"
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	cl = api.NewClient(socket)
	t.Cleanup(cl.Close)
	if err := eventually(func() error { _, err := cl.Switch(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	return cmd, cl, log
}

// chatter makes the daemon log more than the pipe holds.
func chatter(t *testing.T, cl *api.Client) {
	t.Helper()
	for i := range 40 {
		name := fmt.Sprint("p", i)
		if _, err := cl.AddPort(t.Context(), api.AddPort{Name: name, Kind: "stream"}); err != nil {
			t.Fatal(err)
		}
		if err := cl.DelPort(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// terminate stops the daemon, which must be done soon and well.
func terminate(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the daemon ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the daemon does not end")
		_ = cmd.Process.Kill()
		<-ended
	}
}

func TestLogReaderStopsReading(t *testing.T) {
	cmd, cl, _ := runLogging(t)
	chatter(t, cl)
	terminate(t, cmd)
}

func TestLogReaderGoes(t *testing.T) {
	cmd, cl, log := runLogging(t)
	log.Close()
	chatter(t, cl)
	terminate(t, cmd)
}

func TestHangup(t *testing.T) {
	cmd, cl, log := runLogging(t)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(text.String(), "SIGHUP") {
		n, err := log.Read(b)
		text.Write(b[:n])
		if errors.Is(err, io.EOF) {
			t.Fatalf("the daemon ended; its log: %s", text.String())
		}
	}
	if _, err := cl.Switch(t.Context()); err != nil {
		t.Error(err)
	}
	terminate(t, cmd)
}

// The terminal of a daemon in the background lets only the foreground write.
func TestTerminalStopsWriters(t *testing.T) {
	cmd, cl, _ := runLogging(t)
	if err := cmd.Process.Signal(syscall.SIGTTOU); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Switch(t.Context()); err != nil {
		t.Error(err)
	}
	terminate(t, cmd)
}
