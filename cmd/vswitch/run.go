package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/fastpath"
	"github.com/vswitch/vswitch/port/tap"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a switch in the foreground",
		UsageText: "vswitch run [flags]",
		Description: `Runs one switch until SIGTERM or SIGINT. Its ports are those of its last run:
what the other commands change is kept in the state directory. TAP devices stay
when it stops, so virtual machines run on and are connected again by the next
run. SIGHUP changes nothing, so a terminal may hang up; a reader of the log that goes
or stops reading loses lines, and no more. Ports of the kinds tap, host and netdev need CAP_NET_ADMIN and CAP_NET_RAW;
with vhost-user, stream and dgram ports alone it runs as any user.

Example:

    vswitch run --name lab --ephemeral --log-format json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state", TakesFile: true, Usage: "`DIR` to keep ports and static FDB entries in",
				DefaultText: "/var/lib/vswitch/NAME as root, else $XDG_STATE_HOME/vswitch/NAME"},
			&cli.BoolFlag{Name: "ephemeral", Usage: "keep nothing"},
			&cli.DurationFlag{Name: "aging", Value: 300 * time.Second,
				Usage: "`TIME` after which an address that sent nothing is forgotten; 0 for never"},
			&cli.IntFlag{Name: "fdb-size", Value: fdb.DefaultCapacity, Usage: fmt.Sprintf("most `ENTRIES` of the forwarding database, up to %d", fdb.MaxCapacity)},
			oneOf(&cli.StringFlag{Name: "fastpath", Value: "auto", EnvVars: []string{"VSWITCH_FASTPATH"}, Usage: "`MODE` of forwarding known traffic in the kernel: auto, off or require"}, fastPathModes),
			&cli.BoolFlag{Name: "cleanup", Usage: "remove what a switch of this name left in the kernel, and do not run"},
			&cli.IntFlag{Name: "mtu", Usage: "`BYTES` of payload of tap and host ports that --mtu of add-port does not give others", DefaultText: "what each device has"},
			&cli.BoolFlag{Name: "stp", Usage: "take part in a spanning tree (RSTP); netdev ports speak it, others are guarded against bridges"},
			&cli.UintFlag{Name: "stp-priority", Value: 32768, Usage: "`PRIORITY` of this switch to become the root, in steps of 4096; the lowest is the root"},
			&cli.BoolFlag{Name: "snooping", Usage: "send multicast groups only where hosts asked for them by IGMP and MLD"},
			&cli.BoolFlag{Name: "querier", Usage: "with --snooping: ask the hosts for their groups where no router does"},
			&cli.StringFlag{Name: "querier-address", Usage: "with --querier: `ADDRESS` that IGMP queries come from, which no station has; a router with a lower one asks instead",
				DefaultText: "0.0.0.0, so that any router asks instead"},
			oneOf(&cli.StringFlag{Name: "unregistered", Value: "flood", Usage: "with --snooping: `WHERE` groups go that nobody asked for: flood or routers"}, []string{"flood", "routers"}),
			&cli.StringFlag{Name: "group-forward", Value: "0", Usage: "`MASK` of the addresses 01:80:c2:00:00:00 to 0f to forward, bit 14 being 0e, as the kernel's group_fwd_mask"},
			&cli.BoolFlag{Name: "loop-detect", Usage: "send probes, and shut down the port where they come back"},
			&cli.DurationFlag{Name: "hold-down", Usage: "`TIME` for which a station that flaps between ports is held at its first one; 0 for not at all"},
			&cli.DurationFlag{Name: "recovery", Value: 300 * time.Second,
				Usage: "`TIME` after which a port comes back that a guard shut down; 0 for never"},
			oneOf(&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log on standard error: text or json"}, []string{"text", "json"}),
			&cli.StringFlag{Name: "socket-group", Usage: "`GROUP` whose members may steer the switch, besides root"},
		},
		Action: runSwitch,
	}
}

// The range of ageing times (802.1Q-2018 table 8-6), in which its lower end is
// left to users: tests of networks want to be quick.
const (
	minAging = time.Second
	maxAging = 1_000_000 * time.Second
)

func runSwitch(c *cli.Context) error {
	if _, err := words(c); err != nil {
		return err
	}
	o := daemon.Options{
		Version:     buildVersion().Version,
		SocketGroup: c.String("socket-group"),
		Aging:       c.Duration("aging"),
		Links:       daemon.HostLinks{},
	}
	var err error
	if o.Name, o.Socket, err = resolve(c.String("name"), c.String("socket")); err != nil {
		return err
	}
	if o.Socket, err = filepath.Abs(o.Socket); err != nil {
		return err
	}
	o.SocketDir = filepath.Join(filepath.Dir(o.Socket), o.Name)
	mtu := c.Int("mtu")
	if c.IsSet("mtu") && (mtu < tap.MinMTU || mtu > tap.MaxMTU) {
		return usagef("MTU %d is out of range; a TAP takes %d to %d", mtu, tap.MinMTU, tap.MaxMTU)
	}
	if c.Bool("cleanup") {
		return fastpath.Cleanup(o.Name)
	}
	o.FDBSize = c.Int("fdb-size")
	if o.FDBSize < 1 || o.FDBSize > fdb.MaxCapacity {
		return usagef("a forwarding database has 1 to %d entries, not %d", fdb.MaxCapacity, o.FDBSize)
	}
	if o.StateDir, err = stateDir(c, o.Name); err != nil {
		return err
	}
	if o.Aging != 0 && (o.Aging < minAging || o.Aging > maxAging) {
		return usagef("an ageing time of %v is not possible; use %v to %v, or 0 for never", o.Aging, minAging, maxAging)
	}
	if err = guardFlags(c, &o); err != nil {
		return err
	}
	if o.STP, err = stpFlags(c); err != nil {
		return err
	}
	if o.Snooping, err = snoopingFlags(c); err != nil {
		return err
	}
	mode := c.String("fastpath")
	if !slices.Contains(fastPathModes, mode) {
		return usagef("there is no fast path mode %q; use %s", mode, strings.Join(fastPathModes, ", "))
	}
	var endLog func()
	if o.Log, endLog, err = daemonLog(c.String("log-format"), os.Stderr); err != nil {
		return err
	}
	defer endLog()
	defer outliveTerminal(o.Log)()
	o.Prepare = func(o *daemon.Options) error {
		ingress, err := openFastPath(mode, o)
		if err != nil {
			return err
		}
		o.Kinds, err = kinds(kindOptions{Switch: o.Name, SocketDir: o.SocketDir, MTU: mtu, Ingress: ingress})
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return daemon.Run(ctx, o)
}

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

func stpFlags(c *cli.Context) (*daemon.STP, error) {
	priority := c.Uint("stp-priority")
	switch {
	case priority > 61440 || priority%4096 != 0:
		return nil, usagef("a switch's priority is a multiple of 4096 up to 61440, not %d", priority)
	case c.Bool("stp"):
		return &daemon.STP{Priority: uint16(priority)}, nil
	case c.IsSet("stp-priority"):
		return nil, usagef("--stp-priority is for a spanning tree; give --stp as well")
	}
	return nil, nil
}

func snoopingFlags(c *cli.Context) (*daemon.Snooping, error) {
	if !c.Bool("snooping") {
		if c.Bool("querier") || c.IsSet("querier-address") || c.IsSet("unregistered") {
			return nil, usagef("--querier, --querier-address and --unregistered are for multicast snooping; give --snooping as well")
		}
		return nil, nil
	}
	o := &daemon.Snooping{Querier: c.Bool("querier")}
	if text := c.String("querier-address"); text != "" {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || !a.Is4():
			return nil, usagef("%q is not an IPv4 address; write --querier-address as 192.0.2.1", text)
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.As4()[0] >= 240:
			return nil, usagef("queries cannot come from %v; use an address of this network that no station has", a)
		case !o.Querier:
			return nil, usagef("--querier-address is for a switch that asks; give --querier as well")
		}
		o.Address = a
	}
	switch u := c.String("unregistered"); u {
	case "flood":
	case "routers":
		o.RoutersOnly = true
	default:
		return nil, usagef("unregistered groups cannot go to %q; use flood or routers", u)
	}
	return o, nil
}

// pauseGroup is the bit of the address of 802.3 PAUSE frames, which concern one
// link and would stop others.
const pauseGroup = 1 << 1

func guardFlags(c *cli.Context, o *daemon.Options) error {
	text := c.String("group-forward")
	mask, err := strconv.ParseUint(text, 0, 16)
	switch {
	case err != nil:
		return usagef("%q is not a mask of 16 bits; write it as 0x4000", text)
	case mask&pauseGroup != 0:
		return usagef("PAUSE frames (01:80:c2:00:00:01) are never forwarded; leave bit 1 out of --group-forward")
	}
	o.GroupForward = uint16(mask)
	o.LoopDetect, o.HoldDown, o.Recovery = c.Bool("loop-detect"), c.Duration("hold-down"), c.Duration("recovery")
	if o.HoldDown < 0 || o.Recovery < 0 {
		return usagef("a time below 0 makes no sense; use 0 for --hold-down or --recovery to turn it off")
	}
	return nil
}
