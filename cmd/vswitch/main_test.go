package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vswitch": main})
}

// TestScript runs testdata/script: what needs no devices, in the namespace of the
// test.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:      "testdata/script",
		Cmds:     commands,
		Setup:    func(env *testscript.Env) error { return setup(env, nil) },
		Deadline: time.Now().Add(patience),
	})
}

// TestScriptNetns runs testdata/netns, each script in a network namespace of its
// own.
func TestScriptNetns(t *testing.T) {
	testenv.Root(t)
	scripts, err := filepath.Glob("testdata/netns/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			ns := testenv.NewNetns(t)
			testscript.Run(t, testscript.Params{
				Files:    []string{script},
				Cmds:     commands,
				Setup:    func(env *testscript.Env) error { return setup(env, ns) },
				Deadline: time.Now().Add(patience),
			})
		})
	}
}

// patience is how long a script may take: each runs some hundred processes, on a
// machine that may have much else to do.
const patience = 2 * time.Minute

func setup(env *testscript.Env, netns *testenv.Netns) error {
	p := &process{dir: env.WorkDir, netns: netns}
	env.Values[processKey{}] = p
	env.Defer(func() { p.letGo(); p.signal(syscall.SIGKILL) })
	env.Setenv("VSWITCH_SOCKET", filepath.Join(env.WorkDir, "s"))
	if netns != nil {
		env.Setenv("NETNS", netns.Name)
	}
	// A program with the race detector in it would wait a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	return nil
}

// commands are what scripts can do beside testscript's own commands.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	// start ARGS... runs the daemon in the background, its log in the file
	// log, and waits until it answers.
	"start": func(ts *testscript.TestScript, _ bool, args []string) {
		p := ts.Value(processKey{}).(*process)
		var env []string
		for _, name := range []string{"PATH", "HOME", "VSWITCH_SOCKET", "VSWITCH_TEST_KIND", "GORACE"} {
			env = append(env, name+"="+ts.Getenv(name))
		}
		// The mode that all daemons of a test run have, as VSWITCH_TEST_FASTPATH.
		if mode := os.Getenv("VSWITCH_SANDBOX"); mode != "" && ts.Getenv("VSWITCH_SANDBOX") == "" {
			env = append(env, "VSWITCH_SANDBOX="+mode)
		}
		ts.Check(p.start(args, env))
		ts.Check(eventually(func() error { return ts.Exec("vswitch", "show") }))
	},
	// end TERM|INT|KILL ends the daemon: but for KILL, with status 0 and in
	// less than a second.
	"end": func(ts *testscript.TestScript, _ bool, args []string) {
		p := ts.Value(processKey{}).(*process)
		sig := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[0]]
		began := time.Now()
		err := p.signal(sig)
		if sig == syscall.SIGKILL {
			return
		}
		ts.Check(err)
		if took := time.Since(began); took > time.Second {
			ts.Fatalf("stopped after %v", took)
		}
	},
	// hold TAP opens a TAP of the script's network namespace as a virtual machine does,
	// until letgo.
	"hold": func(ts *testscript.TestScript, _ bool, args []string) {
		p := ts.Value(processKey{}).(*process)
		ts.Check(p.hold(args[0]))
	},
	"letgo": func(ts *testscript.TestScript, _ bool, _ []string) {
		ts.Value(processKey{}).(*process).letGo()
	},
	// exits CODE COMMAND ARGS... runs a command that must exit with the code,
	// and print one line of error where that is not 0.
	"exits": func(ts *testscript.TestScript, _ bool, args []string) {
		code, err := strconv.Atoi(args[0])
		ts.Check(err)
		err = ts.Exec(args[1], args[2:]...)
		got := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		if got != code {
			ts.Fatalf("exit status %d, want %d", got, code)
		}
		if lines := strings.Count(ts.ReadFile("stderr"), "\n"); code != 0 && lines != 1 {
			ts.Fatalf("%d lines of error, want 1", lines)
		}
	},
	// await PATTERN COMMAND ARGS... repeats a command until it succeeds and its
	// output matches.
	"await": func(ts *testscript.TestScript, _ bool, args []string) {
		pattern := regexp.MustCompile("(?m)" + args[0])
		ts.Check(eventually(func() error {
			if err := ts.Exec(args[1], args[2:]...); err != nil {
				return err
			}
			if !pattern.MatchString(ts.ReadFile("stdout")) {
				return fmt.Errorf("the output does not match %s", pattern)
			}
			return nil
		}))
	},
}

// eventually repeats f until it succeeds, for half a minute at most: the machine may be
// busy.
func eventually(f func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := f(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

type processKey struct{}

// process is the vswitch that a script runs.
type process struct {
	dir   string
	netns *testenv.Netns // nil: that of the test
	cmd   *exec.Cmd

	guest *tuntest.Guest // that holds a TAP; nil: none does
}

func (p *process) hold(tap string) (err error) {
	if p.guest != nil {
		return errors.New("a TAP is held already")
	}
	p.netns.Do(func() { p.guest, err = tuntest.TryBoot(tap, 0) })
	return err
}

func (p *process) letGo() {
	if p.guest != nil {
		p.guest.Kill()
		p.guest = nil
	}
}

func (p *process) start(args, env []string) error {
	if p.cmd != nil {
		return errors.New("a daemon runs already")
	}
	args = append([]string{"--chdir", p.dir, "vswitch", "run"}, daemontest.Flags(args...)...)
	command := exec.Command
	if p.netns != nil {
		command = p.netns.Command
	}
	// env becomes the program: the process is the daemon's own.
	cmd := command("env", args...)
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	return nil
}

// signal sends sig, if a daemon runs, and waits for its end.
func (p *process) signal(sig syscall.Signal) error {
	if p.cmd == nil {
		return nil
	}
	cmd := p.cmd
	p.cmd = nil
	return errors.Join(cmd.Process.Signal(sig), cmd.Wait())
}
