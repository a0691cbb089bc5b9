package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lab is an unnamed network namespace and the processes in it. It belongs to a thread: when
// the thread ends, even because this program was killed, the kernel kills the processes
// (PR_SET_PDEATHSIG) and removes the namespace with its devices.
type lab struct {
	dir   string // for sockets and databases
	cpu   int    // see pin
	calls chan func()
	ended chan struct{}
	procs []*process
	netns string // its path

	life context.Context // until close
	end  context.CancelFunc

	far    *lab   // another host, nil: none; see hosts
	guests []*lab // containers
}

// The first thread outlives its goroutine, so it must not become a lab's.
func init() { runtime.LockOSThread() }

func newLab() (*lab, error) {
	dir, err := os.MkdirTemp("", "vswitch-peers-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, calls: make(chan func()), ended: make(chan struct{})}
	l.life, l.end = context.WithCancel(context.Background())
	made := make(chan error)
	go func() {
		defer close(l.ended)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = silenceIPv6()
		}
		l.netns = netnsPath()
		made <- err
		for f := range l.calls {
			f()
		}
	}()
	if err := <-made; err != nil {
		l.close()
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return l, nil
}

// silenceIPv6 keeps the namespace's own stack from speaking on new devices.
func silenceIPv6() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// do calls f on the thread in the namespace.
func (l *lab) do(f func()) {
	done := make(chan struct{})
	l.calls <- func() { defer close(done); f() }
	<-done
}

// pin binds everything started from now on to one processor.
func (l *lab) pin(cpu int) (err error) {
	var only unix.CPUSet
	only.Set(cpu)
	l.cpu = cpu
	l.do(func() { err = unix.SchedSetaffinity(0, &only) })
	return err
}

// close ends the processes, last started first, and the namespace.
func (l *lab) close() {
	l.end()
	for i := len(l.procs) - 1; i >= 0; i-- {
		l.procs[i].stop()
	}
	if l.far != nil {
		l.far.close()
	}
	for _, g := range l.guests {
		g.close()
	}
	close(l.calls)
	<-l.ended
	os.RemoveAll(l.dir)
}

// run runs a program in the namespace until it ends, and returns its output.
func (l *lab) run(ctx context.Context, name string, args ...string) (string, error) {
	return l.runInput(ctx, "", name, args...)
}

// runInput is run with standard input.
func (l *lab) runInput(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var err error
	l.do(func() { err = cmd.Run() })
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLine(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// process is a program that runs in a lab until stopped.
type process struct {
	cmd    *exec.Cmd
	stderr tail
	exited chan struct{}
	err    error // of Wait, set before exited is closed
}

// start starts a program in the namespace; it ends with the lab at the latest.
func (l *lab) start(env []string, name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	return l.launch(cmd)
}

// launch is start for an existing command.
func (l *lab) launch(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	p.cmd.Stderr = &p.stderr
	var err error
	l.do(func() { err = p.cmd.Start() })
	if err != nil {
		return nil, err
	}
	l.procs = append(l.procs, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// alive returns an error if a process that should run has ended.
func (l *lab) alive() error {
	for _, p := range l.procs {
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended (%v): %s", p.cmd.Path, p.err, lastLine(p.stderr.String()))
		default:
		}
	}
	if l.far != nil {
		return l.far.alive()
	}
	return nil
}

// stopTime is how long a process may take to end after SIGTERM.
const stopTime = 5 * time.Second

func (p *process) stop() {
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	_ = p.cmd.Process.Signal(unix.SIGTERM) // an error means that it has already ended
	select {
	case <-p.exited:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// poll calls f until it returns nil, the context ends or a process ends.
func (l *lab) poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var missing error // what f last waited for, unless its time ran out
	for {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			missing = err
		}
		if dead := l.alive(); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), cmp.Or(missing, err))
		case <-tick.C:
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 4096

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
