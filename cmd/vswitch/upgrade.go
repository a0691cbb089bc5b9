package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/handover"
)

func upgradeCommand() *cli.Command {
	return &cli.Command{
		Name:      "upgrade",
		Usage:     "replace the program of the running switch, without a lost frame",
		UsageText: "vswitch upgrade [flags]",
		Description: `Starts the switch anew with the flags of its last start and this vswitch, or another.
The new process takes over sockets, ports, stations and counters, and machines notice
nothing; frames wait in the kernel for some milliseconds. If the new process fails,
whatever the reason, the former one goes on.

A switch that systemd runs is upgraded by "systemctl reload vswitch@NAME", which runs
this command in the service. See docs/upgrade.md.

Example:

    vswitch upgrade --if-changed`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "binary", TakesFile: true, Usage: "`PATH` of the program that takes over", DefaultText: "this one"},
			&cli.BoolFlag{Name: "if-changed", Usage: "do nothing where the switch runs this very program"},
		},
		Action: steering(upgrade),
	}
}

// Descriptors of a process that takes a switch over. envTakeOver tells it so.
const (
	envTakeOver = "VSWITCH_TAKE_OVER"

	fdConn   = 3 // to the former process
	fdReport = 4 // for the handover.Report
	fdStdout = 5 // of the former process
	fdStderr = 6
)

// upgradeWait bounds the whole upgrade.
const upgradeWait = 90 * time.Second

func upgrade(c *cli.Context, cl *api.Client, _ []string) error {
	binary, err := os.Executable()
	if path := c.String("binary"); path != "" {
		binary, err = filepath.Abs(path)
	}
	if err != nil {
		return err
	}
	if i, err := os.Stat(binary); err != nil {
		return usageError(err.Error())
	} else if i.IsDir() || i.Mode()&0o111 == 0 {
		return usagef("%s is no program; name one with --binary", binary)
	}
	if _, err := cl.Switch(c.Context); err != nil {
		return err
	}
	_, socket, err := resolve(c.String("name"), c.String("socket"), api.FindSocket)
	if err != nil {
		return err
	}
	conn, hello, files, err := askUpgrade(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer handover.Close(files)
	if err := mayStart(hello); err != nil {
		return err
	}
	if c.Bool("if-changed") && hello.Executable == handover.IDOf(binary) {
		return show(c, upgraded{PID: hello.PID}, func(w io.Writer) {
			fmt.Fprintf(w, "the switch runs %s already\n", binary)
		})
	}
	next, report, err := startNext(binary, conn, hello, files, c.App.ErrWriter)
	if err != nil {
		return fmt.Errorf("%w; the switch goes on as before", err)
	}
	done := upgraded{next, report.Ports, report.Stations, float64(report.Held.Microseconds()) / 1000}
	return show(c, done, func(w io.Writer) {
		fmt.Fprintf(w, "handed over %d ports, %d stations; frames were held for %v, none lost\n", report.Ports, report.Stations, report.Held.Round(100*time.Microsecond))
	})
}

// upgraded is the result as JSON.
type upgraded struct {
	PID      int     `json:"pid"`
	Ports    int     `json:"ports"`
	Stations int     `json:"stations"`
	HeldMS   float64 `json:"held_ms"`
}

// askUpgrade asks the running process to hand over, and returns how it was started, with its
// standard output and error.
func askUpgrade(socket string) (_ handover.Conn, hello handover.Hello, files []int, err error) {
	nc, err := net.DialTimeout("unix", socket, api.Timeout)
	if err != nil {
		return handover.Conn{}, hello, nil, err
	}
	conn := handover.Conn{UnixConn: nc.(*net.UnixConn)}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(upgradeWait))
	if _, err := io.WriteString(conn, "POST /v1/upgrade HTTP/1.1\r\nHost: vswitch\r\nConnection: Upgrade\r\nUpgrade: vswitch-handover\r\nContent-Length: 0\r\n\r\n"); err != nil {
		return conn, hello, nil, err
	}
	// The other end says nothing more before it is spoken to, so the reader reads no further.
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return conn, hello, nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return conn, hello, nil, refusal(answer)
	}
	if err := conn.Send(handover.Result{}); err != nil {
		return conn, hello, nil, err
	}
	if files, err = conn.Receive(&hello); err != nil {
		return conn, hello, nil, err
	}
	if len(files) != 2 {
		handover.Close(files)
		return conn, hello, nil, fmt.Errorf("vswitch %s gives %d outputs, not 2", hello.Version, len(files))
	}
	return conn, hello, files, nil
}

// refusal returns the error of an answer.
func refusal(answer *http.Response) error {
	e := new(api.Error)
	if json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(e) != nil || e.Message == "" {
		return fmt.Errorf("the switch answers %s", answer.Status)
	}
	if e.Code == api.CodeNotFound {
		return errors.New("the running vswitch is too old to hand over; stop it and start this one")
	}
	return e
}

// mayStart returns an error unless a process that this one starts can be in the place of the former
// one.
func mayStart(h handover.Hello) error {
	switch {
	case h.Format != handover.Format:
		return fmt.Errorf("vswitch %s hands over in format %d, and this vswitch knows format %d; stop the one and start the other", h.Version, h.Format, handover.Format)
	case h.Netns != handover.Netns():
		return fmt.Errorf("the switch runs in another network namespace; run this there, as by `nsenter -t %d -n vswitch upgrade`", h.PID)
	case h.Managed && h.Cgroup != handover.Cgroup():
		return fmt.Errorf("the switch is a service; use `systemctl reload %s`", cmp.Or(unitOf(h.Cgroup), "vswitch@NAME"))
	}
	return nil
}

// unitOf returns the systemd unit of a control group.
func unitOf(cgroup string) string {
	base := filepath.Base(cgroup)
	if strings.HasSuffix(base, ".service") {
		return base
	}
	return ""
}

// startNext starts the process that takes over, and returns its number and what it reports. It says
// what the process writes before it took over.
func startNext(binary string, conn handover.Conn, hello handover.Hello, outputs []int, stderr io.Writer) (pid int, r handover.Report, err error) {
	connFD, err := handover.DupOf(conn)
	if err != nil {
		return 0, r, err
	}
	connFile := os.NewFile(uintptr(connFD), "handover")
	reportFrom, reportTo, err := os.Pipe()
	if err != nil {
		connFile.Close()
		return 0, r, err
	}
	defer reportFrom.Close()
	said, saying, err := os.Pipe()
	if err != nil {
		connFile.Close()
		reportTo.Close()
		return 0, r, err
	}
	defer said.Close()
	cmd := exec.Command(binary, hello.Args...)
	cmd.Dir = hello.Dir
	cmd.Env = append(slices.DeleteFunc(hello.Env, func(v string) bool {
		return strings.HasPrefix(v, "WATCHDOG_PID=") || strings.HasPrefix(v, envTakeOver+"=")
	}), envTakeOver+"=1")
	cmd.Stdout, cmd.Stderr = saying, saying
	cmd.ExtraFiles = []*os.File{connFile, reportTo}
	for _, fd := range outputs {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "output"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the terminal of this command
	if hello.Managed {
		// systemd waits for the end of a main process only if that is a child of its own, as this one is:
		// else a stop kills it as soon as it was asked to end.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_PARENT
	}
	err = cmd.Start()
	for _, f := range append(cmd.ExtraFiles[:2:2], saying) {
		f.Close()
	}
	conn.Close() // only the next process has it from now on: its end is the process's
	if err != nil {
		return 0, r, err
	}
	// Its words end when it has taken over, and writes to the former process's output.
	words := new(strings.Builder)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_, _ = io.Copy(words, io.LimitReader(said, 1<<20))
	}()
	_ = reportFrom.SetReadDeadline(time.Now().Add(upgradeWait))
	if json.NewDecoder(reportFrom).Decode(&r) == nil {
		pid = cmd.Process.Pid
		return pid, r, cmd.Process.Release()
	}
	_ = cmd.Process.Kill() // or it has ended
	<-told
	why := cmd.Wait()
	if errors.Is(why, syscall.ECHILD) { // it is the service manager's
		why = errors.New("it ended without a word")
	}
	lines := strings.Split(strings.TrimSpace(words.String()), "\n")
	for _, line := range lines[:len(lines)-1] {
		fmt.Fprintln(stderr, line)
	}
	if last := strings.TrimPrefix(lines[len(lines)-1], "vswitch: "); last != "" {
		return 0, r, fmt.Errorf("%s: %s", binary, last)
	}
	return 0, r, fmt.Errorf("%s did not take over: %w", binary, why)
}

// takeOver returns how this process takes a switch over; nil: it does not.
func takeOver() (*daemon.TakeOver, error) {
	if os.Getenv(envTakeOver) == "" {
		return nil, nil
	}
	_ = os.Unsetenv(envTakeOver)
	for fd := fdConn; fd <= fdStderr; fd++ {
		syscall.CloseOnExec(fd)
	}
	f := os.NewFile(fdConn, "handover")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s is set by `vswitch upgrade`, not by hand: %w", envTakeOver, err)
	}
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%s is set by `vswitch upgrade`, not by hand", envTakeOver)
	}
	return &daemon.TakeOver{Conn: handover.Conn{UnixConn: conn}, Began: func(r handover.Report) {
		report := os.NewFile(fdReport, "report")
		_ = json.NewEncoder(report).Encode(r) // the reader may have gone
		report.Close()
		for to, from := range map[int]int{1: fdStdout, 2: fdStderr} {
			_ = syscall.Dup3(from, to, 0)
			_ = syscall.Close(from)
		}
	}}, nil
}

// howStarted says how this process was started, for `vswitch upgrade`.
func howStarted() handover.Hello {
	dir, _ := os.Getwd() // "": that of the next process's parent
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envTakeOver+"=") })
	return handover.Hello{Args: slices.Clone(os.Args[1:]), Env: env, Dir: dir, Managed: os.Getenv("NOTIFY_SOCKET") != ""}
}
