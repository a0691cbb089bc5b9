package l2test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/port"
)

// built is the binary, made once for all tests, and the folder that it lies in.
var built struct {
	dir    string
	binary func() (string, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "l2test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	built.binary = sync.OnceValues(func() (string, error) {
		bin := filepath.Join(dir, "vswitch")
		if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/vswitch").CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build: %w: %s", err, out)
		}
		return bin, nil
	})
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// daemon is a vswitch in a namespace. Settings are made by the command line, and
// what is polled is read by the API.
type daemon struct {
	t           testing.TB
	bin, socket string
	state       string
	ns          *testenv.Netns
	flags       []string // of `vswitch run`
	client      *api.Client
	cmd         *exec.Cmd
	ended       chan struct{} // closed when cmd has
	log         logged
}

// logged is what a process has written so far.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startDaemon runs a switch until the test ends, with further flags of `vswitch run`.
func startDaemon(t testing.TB, ns *testenv.Netns, flags ...string) *daemon {
	t.Helper()
	bin, err := built.binary()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: with the test's name in it, a socket's path gets too long.
	dir, err := os.MkdirTemp(built.dir, "d")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, bin: bin, socket: filepath.Join(dir, "s"), state: filepath.Join(dir, "state"), ns: ns, flags: flags}
	d.client = api.NewClient(d.socket)
	t.Cleanup(func() {
		d.client.Close()
		d.kill()
		if t.Failed() {
			t.Logf("log of vswitch:\n%s", d.log.String())
		}
	})
	d.start()
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	args := append([]string{"run", "--socket", d.socket, "--state", d.state}, d.flags...)
	cmd := d.ns.Command(d.bin, args...)
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	// It must not outlive a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.cmd = cmd
	ended := make(chan struct{})
	d.ended = ended
	go func() {
		cmd.Wait() // SIGKILL is its usual end
		close(ended)
	}()
	eventually(d.t, "vswitch answers", func() bool {
		select {
		case <-ended:
			d.t.Fatalf("vswitch ended: %s", d.log.String())
		default:
		}
		_, err := d.client.Ports(context.Background())
		return err == nil
	})
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	if d.cmd != nil {
		d.cmd.Process.Kill() // its only error is that the daemon ended before
		<-d.ended
		d.cmd = nil
	}
}

// try runs a command of the command line and returns what it printed.
func (d *daemon) try(args ...string) (string, error) {
	out, err := exec.Command(d.bin, append([]string{"--socket", d.socket}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// ctl runs a command line, split at spaces, that must succeed.
func (d *daemon) ctl(format string, args ...any) string {
	d.t.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := d.try(strings.Fields(line)...)
	if err != nil {
		d.t.Fatalf("vswitch %s: %v: %s", line, err, out)
	}
	return out
}

// refuse runs a command line that must fail and say so on one line with words in it.
func (d *daemon) refuse(words, format string, args ...any) {
	d.t.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := d.try(strings.Fields(line)...)
	if err == nil {
		d.t.Errorf("vswitch %s is accepted", line)
	} else if !strings.Contains(out, words) || strings.Contains(out, "\n") {
		d.t.Errorf("vswitch %s says %q, without %q on one line", line, out, words)
	}
}

// decode reads what a command prints with -o json.
func (d *daemon) decode(into any, format string, args ...any) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.ctl(format+" -o json", args...)), into); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) port(name string) api.Port {
	d.t.Helper()
	p, err := d.client.Port(context.Background(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// dropped is how many frames a port has lost for a reason, in both directions.
func (d *daemon) dropped(name string, why port.Drop) int {
	d.t.Helper()
	p := d.port(name)
	return int(p.RX.Dropped[why.String()] + p.TX.Dropped[why.String()])
}

// entry returns the FDB's entry of an address in a VLAN; its Port is "" where there
// is none.
func (d *daemon) entry(mac port.MAC, vlan uint16) api.FDBEntry {
	d.t.Helper()
	entries, err := d.client.FDB(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		if e.MAC == mac && e.VLAN == vlan {
			return e
		}
	}
	return api.FDBEntry{}
}

// wantEntry checks behind which port an address is, "" for none.
func (d *daemon) wantEntry(mac port.MAC, vlan uint16, at string) {
	d.t.Helper()
	if e := d.entry(mac, vlan); e.Port != at {
		d.t.Errorf("%s in VLAN %d is behind port %q, want %q", mac, vlan, e.Port, at)
	}
}

// eventually polls until something that others do is done.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}
