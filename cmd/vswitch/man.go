package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/port"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print a manual page",
		UsageText: "vswitch man [state]",
		Description: `Prints the manual page vswitch(8), or vswitch.state(5), which describes the state
file.

Example:

    vswitch man >/usr/local/share/man/man8/vswitch.8
    vswitch man state >/usr/local/share/man/man5/vswitch.state.5`,
		Hidden: true,
		Action: printMan,
	}
}

func printMan(c *cli.Context) error {
	args, err := words(c, "[state]")
	if err != nil {
		return err
	}
	var page string
	switch args[0] {
	case "":
		page = toolPage()
	case "state":
		page = statePage()
	default:
		return usagef("there is no manual page %q; write `vswitch man` or `vswitch man state`", args[0])
	}
	_, err = fmt.Fprint(c.App.Writer, page)
	return err
}

// toolPage is vswitch(8).
func toolPage() string {
	app := newApp(nil)
	p := newManPage("vswitch", "8")
	p.section("NAME")
	p.line(`vswitch \- %s`, roff(app.Usage))
	p.section("SYNOPSIS")
	for _, l := range strings.Split(app.UsageText, "\n") {
		p.line(".br\n%s", roff(l))
	}
	p.section("DESCRIPTION")
	p.text(app.Description)
	p.section("COMMANDS")
	p.text("These flags belong to all commands:")
	p.flags(app.Flags)
	p.commands(app.Commands)
	p.section("PORT KINDS")
	for _, k := range kindList() {
		p.item(k.Name(), k.Describe().Help)
	}
	p.section("PORT SETTINGS")
	p.text("The flags of add-port and set-port. A flag that begins with the names of kinds belongs to ports of those kinds, the others to every port.")
	p.flags(portFlags(false))
	p.section("SWITCH SETTINGS")
	p.text("The flags of run and set. set changes a setting at once and keeps it; a flag of run holds for that run.")
	p.flags(switchFlags())
	p.section("PORT STATES")
	for _, s := range stateWords {
		p.item(s[0], s[1])
	}
	p.section("DROP REASONS")
	p.text("Every frame that is not delivered is counted once under one of these names, which `vswitch stats` shows. rx: the frame came in by the port and no copy of it left the switch. tx: one copy did not leave by the port.")
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		i := d.Info()
		p.item(fmt.Sprintf("%s (%s)", i.Name, i.Direction), i.Words)
	}
	p.section("UNITS")
	p.units()
	p.section("FILES")
	for _, f := range fileWords {
		p.item(f[0], f[1])
	}
	p.section("ENVIRONMENT")
	for _, v := range environmentWords {
		p.item(v[0], v[1])
	}
	p.section("EXIT STATUS")
	for _, e := range exitCodes {
		p.item(fmt.Sprint(e.code), e.words)
	}
	p.section("SIGNALS")
	for _, s := range signalWords {
		p.item(s[0], s[1])
	}
	p.section("SEE ALSO")
	p.text("vswitch.state(5), ip-link(8), bridge(8), tc(8), qemu(1)")
	return p.String()
}

// exitCodes says what each exit code means.
var exitCodes = []struct {
	code  int
	words string
}{
	{0, "The command did what it was asked to do."},
	{exitFailed, "It failed. Standard error says why, and how to mend it. Nothing is left half done."},
	{exitUsage, "The command line is wrong. Nothing was changed."},
	{exitNoDaemon, "No daemon answers at the control socket."},
}

var stateWords = [][2]string{
	{"up", "Frames pass."},
	{"no-carrier", "The port's device is there, but nobody holds its other end: the virtual machine does not run."},
	{"waiting", "The port's device, or its peer on a socket, is gone. The port attaches again when that comes back."},
	{"down", "Somebody set the interface down, another program took it, or a guard put the port into the error-disabled state. `vswitch set-port NAME` without flags brings an error-disabled port back at once."},
}

var fileWords = [][2]string{
	{"/run/vswitch/NAME.sock", "The control socket of switch NAME, for root and the group of --socket-group. Other users have $XDG_RUNTIME_DIR/vswitch/NAME.sock."},
	{"/run/vswitch/NAME/PORT.sock", "The socket of a vhost-user, stream or dgram port without --path, beside the control socket. PORT.rings keeps how far packed rings are, for the next daemon."},
	{"/var/lib/vswitch/NAME/state.json", "Settings, ports, static entries and mirrors: see vswitch.state(5). Other users have $XDG_STATE_HOME/vswitch/NAME. --state names another directory."},
	{"/var/lib/vswitch/NAME/state.json.corrupt-TIME", "A state file that could not be read. The daemon sets it aside, names it in the log, and starts with an empty state."},
	{"/var/lib/vswitch/NAME/identity.json", "The random seed from which the switch's own address and the addresses of its guests follow. A clone of the host draws a new one."},
	{"/sys/fs/bpf/vswitch/NAME", "What the fast path keeps in the kernel, so that known traffic passes while the daemon is away. `vswitch run --cleanup` removes it, and the devices that no machine holds."},
}

var environmentWords = [][2]string{
	{"VSWITCH_NAME", "The name of the switch where --name is not given."},
	{"VSWITCH_SOCKET", "The control socket where neither --socket nor --name is given."},
	{"VSWITCH_FASTPATH", "The mode of `vswitch run` where --fastpath is not given."},
	{"VSWITCH_SANDBOX", "The mode of `vswitch run` where --sandbox is not given."},
	{"XDG_RUNTIME_DIR", "Where users other than root have their control sockets."},
	{"XDG_STATE_HOME", "Where users other than root have their state; ~/.local/state if unset."},
}

var signalWords = [][2]string{
	{"SIGTERM, SIGINT", "The daemon stops. TAP devices stay, so virtual machines run on, and the next run connects them again."},
	{"SIGHUP", "The daemon logs a line and goes on. There is nothing to read anew: settings change by commands."},
	{"SIGPIPE", "Ignored. A log reader that goes away costs log lines, not the daemon."},
	{"SIGKILL", "Nothing is lost that a command reported as done. With a state directory, the fast path forwards known traffic until the next run."},
}

// units says how values are written, on the command line and in JSON.
func (p *manPage) units() {
	p.item("Rates", "Frames per second as 100pps, 10kpps or 1mpps; bits per second as 64kbit, 10mbit or 1gbit. Prefixes are powers of 1000. off is no limit.")
	p.item("Times", "A number with its unit, such as 250ms, 60s, 5m or 1h. Where 0 or never is allowed, the time never comes.")
	p.item("VLAN lists", fmt.Sprintf("Numbers and ranges from 1 to %d, such as 10,20-29; all is every VLAN.", port.MaxVID))
	p.item("MAC addresses", "Six bytes in hexadecimal, such as 52:54:00:12:34:56.")
	p.item("Switches", "on or off: --isolated, --isolated=on and --isolated on mean the same; --isolated=off takes it back.")
}

// commands writes a part for each command that help shows.
func (p *manPage) commands(commands []*cli.Command) {
	shared := make(map[string]string)
	for _, f := range portFlags(false) {
		shared[f.Names()[0]] = "PORT SETTINGS"
	}
	for _, f := range switchFlags() {
		if shared[f.Names()[0]] == "" {
			shared[f.Names()[0]] = "SWITCH SETTINGS"
		}
	}
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		p.part(c.UsageText)
		p.text(c.Description)
		var own []cli.Flag
		see := ""
		for _, f := range c.Flags {
			if _, ok := f.(settingFlag); ok && shared[f.Names()[0]] != "" {
				see = shared[f.Names()[0]]
			} else {
				own = append(own, f)
			}
		}
		p.flags(own)
		if see != "" {
			p.text("Further flags: see " + see + ".")
		}
		p.commands(c.Subcommands)
	}
}

// flags writes flags as help has them.
func (p *manPage) flags(flags []cli.Flag) {
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() || f.Names()[0] == "help" {
			continue
		}
		term, text, _ := strings.Cut(f.String(), "\t")
		p.item(strings.TrimSpace(term), strings.TrimSpace(text))
	}
}
