package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/linux/fastpath"
	"github.com/vswitch/vswitch/internal/linux/limits/atstart"
	"github.com/vswitch/vswitch/internal/linux/losses"
	"github.com/vswitch/vswitch/internal/linux/sandbox"
	"github.com/vswitch/vswitch/internal/linux/sdnotify"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a switch in the foreground",
		UsageText: "vswitch run [flags]",
		Description: `Runs one switch until SIGTERM or SIGINT. It begins with the ports and settings of
its last run, which it keeps in the state directory. TAP devices stay when it
stops: virtual machines run on, and the next run connects them again.

A start removes devices that the switch made and that belong to none of its ports, as a
kill leaves them, also if it was run with another --state. What a machine or a container
uses stays. With --cleanup, which is for a switch that does not run, all of its TAPs, tunnel
devices and NICs of containers and of the host go, but for TAPs that machines hold. The next
run makes them again, with the addresses of their ports; routes by them are gone.

SIGHUP changes nothing, so the terminal may hang up. A log reader that goes away or
stops reading loses log lines; the switch goes on.

Ports of the kinds tap, host, netdev, lag and veth need CAP_NET_ADMIN and CAP_NET_RAW. With
vhost-user, stream and dgram ports alone the switch runs as any user.

Example:

    vswitch run --name lab --ephemeral --log-format json`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "state", TakesFile: true, Usage: "`DIR` to keep ports and static FDB entries in",
				DefaultText: "/var/lib/vswitch/NAME as root, else $XDG_STATE_HOME/vswitch/NAME"},
			&cli.BoolFlag{Name: "ephemeral", Usage: "keep nothing"},
			oneOf(&cli.StringFlag{Name: "fastpath", Value: "auto", EnvVars: []string{"VSWITCH_FASTPATH"}, Usage: "`MODE` of forwarding known traffic in the kernel: auto, off or require"}, fastPathModes),
			&cli.StringFlag{Name: "config", TakesFile: true, Usage: "configuration `FILE` to apply at the start, with --prune; see vswitch apply. A file with - in front may be absent"},
			oneOf(&cli.StringFlag{Name: "sandbox", Value: "off", EnvVars: []string{"VSWITCH_SANDBOX"}, Usage: "`MODE` in which the daemon gives up what a switch does not need: auto (as far as the kernel can), off or require"}, sandbox.Modes),
			&cli.BoolFlag{Name: "cleanup", Usage: "remove what a switch of this name left in the kernel, programs and devices that no machine holds, and do not run"},
			oneOf(&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log on standard error: text, json or journal (for systemd)"}, []string{"text", "json", "journal"}),
			&cli.StringFlag{Name: "socket-group", Usage: "`GROUP` whose members may steer the switch, besides root"},
		}, slices.Concat(ownFlags(runFlags{}), switchFlags())...),
		Action: runSwitch,
	}
}

// runFlags are the flags of run whose ranges those of other settings are.
type runFlags struct {
	FDBSize int `json:"fdb_size" arg:"ENTRIES" min:"1" max:"1048576" default:"65536" help:"most entries of the forwarding database, up to 1048576"`
	MTU     int `json:"mtu" arg:"BYTES" min:"68" max:"65521" default:"what each device has" help:"payload of tap and host ports that --mtu of add-port does not give others"`
}

func runSwitch(c *cli.Context) error {
	if _, err := words(c); err != nil {
		return err
	}
	o := daemon.Options{
		Version:     buildVersion().Version,
		Revision:    buildVersion().Commit,
		SocketGroup: c.String("socket-group"),
		Features:    features,
		Links:       daemon.HostLinks{},
		How:         howStarted(),
	}
	for _, f := range sdnotify.Stored() { // before anything opens files: their numbers are fixed
		o.Stored = append(o.Stored, daemon.Stored(f))
	}
	var err error
	if o.TakeOver, err = takeOver(); err != nil {
		return err
	}
	if o.TakeOver == nil { // else it got what it needs for that
		o.Inherited = max(0, atstart.Inherited-len(o.Stored))
	}
	if o.Name, o.Socket, err = resolve(c.String("name"), c.String("socket"), api.SocketPath); err != nil {
		return err
	}
	if o.Socket, err = filepath.Abs(o.Socket); err != nil {
		return err
	}
	o.SocketDir = filepath.Join(filepath.Dir(o.Socket), o.Name)
	own, err := readOwn(c, runFlags{})
	if err != nil {
		return err
	}
	given := own.(runFlags)
	if c.Bool("cleanup") {
		var endLog func()
		if o.Log, endLog, err = daemonLog(c.String("log-format"), os.Stderr); err != nil {
			return err
		}
		defer endLog()
		if err := fastpath.Cleanup(o.Name); err != nil {
			return err
		}
		return daemon.RemoveDevices(o.Links, o.Name, o.Log)
	}
	if err := daemon.RoomToStart(o.Inherited); err != nil {
		return err
	}
	o.FDBSize = cmp.Or(given.FDBSize, fdb.DefaultCapacity)
	if o.StateDir, err = stateDir(c, o.Name); err != nil {
		return err
	}
	if path, optional := strings.CutPrefix(c.String("config"), "-"); path != "" {
		f, err := readOwnConfig(path)
		switch {
		case optional && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			o.Config = api.ApplyConfig{Config: f.doc, By: path, Prune: api.PruneApplied}
			o.ConfigError = func(err error) error { return f.inFile(err) }
		}
	}
	if o.Overrides, err = read(c, switchFields()); err == nil {
		err = refuseZero(c, switchFields(), "")
	}
	if err != nil {
		return err
	}
	mode := c.String("fastpath")
	if !slices.Contains(fastPathModes, mode) {
		return usagef("there is no fast path mode %q; use %s", mode, strings.Join(fastPathModes, ", "))
	}
	confine := c.String("sandbox")
	if !slices.Contains(sandbox.Modes, confine) {
		return usagef("there is no sandbox mode %q; use %s", confine, strings.Join(sandbox.Modes, ", "))
	}
	var endLog func()
	if o.Log, endLog, err = daemonLog(c.String("log-format"), os.Stderr); err != nil {
		return err
	}
	defer endLog()
	defer outliveTerminal(o.Log)()
	service, err := sdnotify.New()
	if err != nil {
		o.Log.Warn("the service manager is not told how the switch is", "error", err)
	}
	defer service.Close()
	if service != nil {
		o.Service = service
	}
	o.Prepare = func(o *daemon.Options) error {
		fast, err := openFastPath(mode, o)
		if err != nil {
			return err
		}
		k := kindOptions{Switch: o.Name, SocketDir: o.SocketDir, MTU: given.MTU}
		k.giveFastPath(fast, o.FastPathOff)
		o.Losses = losses.New(o.Log)
		if o.Kinds, err = kinds(k); err != nil {
			return err
		}
		return enterSandbox(confine, o)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	spareProcessors()
	err = daemon.Run(ctx, o)
	if errors.As(err, new(daemon.SettingsError)) {
		return usageError(err.Error())
	}
	return err
}

// spareProcessors gives Go's scheduler four processors on a host with fewer. A worker that waits in the kernel
// keeps its processor while there is an idle one. Where there is none, the runtime looks every 20 µs for workers that
// wait, wakes a thread for each processor that it takes from them, and puts them to sleep a second time.
func spareProcessors() {
	const enough = 4
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < enough {
		runtime.GOMAXPROCS(enough)
	}
}

// enterSandbox gives up what the daemon does not need once it has its lock, state and fast path.
func enterSandbox(mode string, o *daemon.Options) error {
	if mode == "off" {
		return nil
	}
	write := []string{filepath.Dir(o.Socket)}
	if o.StateDir != "" {
		write = append(write, o.StateDir)
	}
	var err error
	o.Sandbox, err = sandbox.Enter(write)
	switch {
	case err == nil:
	case mode == "require":
		return fmt.Errorf("the sandbox cannot be entered: %w; use --sandbox auto to run without what is missing", err)
	default:
		o.Log.Warn("a part of the sandbox is missing", "error", err)
	}
	return nil
}

// readOwnConfig is readConfig for a file that only root, or the user of the daemon, can change.
func readOwnConfig(path string) (configFile, error) {
	i, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return configFile{}, noFileError{usagef("%v; name a configuration with --config", err)}
	case err != nil:
		return configFile{}, usageError(err.Error())
	}
	st, ok := i.Sys().(*syscall.Stat_t)
	if own := ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid()); !own || i.Mode().Perm()&0o022 != 0 {
		return configFile{}, usagef("%s can be changed by other users; make it root's, or your own, with `chmod go-w`", path)
	}
	return readConfig(path)
}

// noFileError is a usageError: the file that a flag names is absent.
type noFileError struct{ error }

func (e noFileError) Unwrap() error      { return e.error }
func (noFileError) Is(target error) bool { return target == fs.ErrNotExist }

func stateDir(c *cli.Context, name string) (string, error) {
	switch dir := c.String("state"); {
	case c.Bool("ephemeral") && dir != "":
		return "", usagef("--state and --ephemeral exclude each other; use one of them")
	case c.Bool("ephemeral"):
		return "", nil
	case dir != "":
		return filepath.Abs(dir)
	}
	dir, err := api.StatePath(name)
	if err != nil {
		return "", usageError(err.Error())
	}
	return dir, nil
}
