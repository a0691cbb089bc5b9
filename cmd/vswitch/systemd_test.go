package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
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

	"github.com/google/go-cmp/cmp"
)

// The daemon speaks to systemd as a service of Type=notify does: ready, alive, stopping.
func TestNotifiesTheServiceManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "vsw") // not t.TempDir, whose name is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	var log bytes.Buffer
	cmd := exec.Command("vswitch", "run", "--ephemeral", "--fastpath", "off", "--socket", filepath.Join(dir, "s"),
		"--log-format", "journal", "--config", "-"+filepath.Join(dir, "none.yaml"))
	cmd.Stderr = &log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=200000", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}()
	await := func(want string) {
		t.Helper()
		b := make([]byte, 1024)
		manager.SetReadDeadline(time.Now().Add(patience))
		for {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v; log:\n%s", want, err, &log)
			}
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	await("READY=1\nSTATUS=switch sw0 has 0 ports")
	await("WATCHDOG=1")
	await("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("STOPPING=1")
	ended = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v; log:\n%s", err, &log)
	}
	if !strings.HasPrefix(log.String(), `<6>msg="switch started" name=sw0 `) {
		t.Errorf("the journal gets:\n%s", &log)
	}
}

// A service is upgraded: the service manager hears of the new main process from the former one, and
// then from the new one that it is ready.
func TestUpgradesAService(t *testing.T) {
	dir, err := os.MkdirTemp("", "vsw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	socket := filepath.Join(dir, "s")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	said := func() string { b, _ := os.ReadFile(log.Name()); return string(b) }
	cmd := exec.Command("vswitch", "run", "--ephemeral", "--fastpath", "off", "--socket", socket, "--sandbox", "auto")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=200000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	// The socket has room for ten messages, and what does not fit is lost.
	heard := make(chan string, 10_000)
	go func() {
		defer close(heard)
		for b := make([]byte, 1024); ; {
			n, err := manager.Read(b)
			if err != nil {
				return
			}
			heard <- string(b[:n])
		}
	}()
	await := func(want string) (rest string) {
		t.Helper()
		for late := time.After(patience); ; {
			select {
			case text := <-heard:
				if rest, ok := strings.CutPrefix(text, want); ok {
					return rest
				}
			case <-late:
				t.Fatalf("waiting for %s; log:\n%s", want, said())
			}
		}
	}
	await("READY=1")
	for range 2 {
		upgrade := exec.Command("vswitch", "--socket", socket, "upgrade")
		out, err := upgrade.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "handed over 0 ports, ") {
			t.Fatalf("%v: %s; log:\n%s", err, out, said())
		}
		next, err := strconv.Atoi(await("MAINPID="))
		if err != nil || next == pid {
			t.Fatalf("the main process is %d, after %d: %v", next, pid, err)
		}
		if cmd != nil {
			if err := cmd.Wait(); err != nil {
				t.Errorf("the former process: %v", err)
			}
			cmd = nil
		}
		pid = next
		await("READY=1")
		await("WATCHDOG=1")
	}
	upgrade := exec.Command("vswitch", "--socket", socket, "upgrade", "--if-changed")
	if out, err := upgrade.CombinedOutput(); err != nil || !strings.Contains(string(out), "already") {
		t.Errorf("the same program: %v: %s", err, out)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("STOPPING=1")
	if n := strings.Count(said(), `msg="switch taken over"`); n != 2 {
		t.Errorf("the log has %d take-overs:\n%s", n, said())
	}
}

func TestJournal(t *testing.T) {
	var b bytes.Buffer
	l := slog.New(newJournal(&b)).With("name", "sw0")
	l.Debug("not shown")
	l.Info("ok", "n", 1)
	l.WithGroup("g").Warn("careful", "level", 2)
	l.Error("bad")
	l.Log(context.Background(), slog.LevelInfo+1, "between")
	want := "<6>msg=ok name=sw0 n=1\n<4>msg=careful name=sw0 g.level=2\n<3>msg=bad name=sw0\n<6>msg=between name=sw0\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

const unit = "../../packaging/systemd/vswitch@.service"

// The unit's command lines are ones that this program takes.
func TestUnitCommands(t *testing.T) {
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^Exec(?:Start|Reload)=.*?/usr/bin/(vswitch [^'\n]*)`).FindAllStringSubmatch(string(text), -1)
	if len(commands) != 3 {
		t.Fatalf("%d commands in the unit", len(commands))
	}
	for _, c := range commands {
		line := strings.NewReplacer("%i", "sw0", " $VSWITCH_FLAGS", "").Replace(c[1])
		args, err := arrange(newApp(nil), strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if !slices.ContainsFunc([]string{" run ", " upgrade ", " apply "}, func(name string) bool { return strings.Contains(line, name) }) {
			t.Errorf("%s: not run, upgrade or apply: %q", line, args)
		}
	}
}

// systemd finds nothing wrong with the unit, and its exposure low.
func TestUnitIsHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("left out: needs systemd-analyze")
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	level := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+) `).FindStringSubmatch(string(out))
	if level == nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n, err := strconv.ParseFloat(level[1], 64); err != nil || n > 3.0 {
		t.Errorf("exposure level %s, want 3.0 at most:\n%s", level[1], out)
	}
}
