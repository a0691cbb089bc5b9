//go:generate go test . -run ^TestOpenAPIHasTheSettings$ -update

// Command vswitch runs an Ethernet switch for virtual machines, and steers the one
// that runs. Each command has a file of its own that parses, calls, and prints.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

// Exit codes, besides 0.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNoDaemon = 3
)

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run does what the command line says and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout)
	if completing(args) {
		complete(app, args[1:len(args)-1])
		return 0
	}
	asJSON := wantsJSON(args)
	args, err := arrange(app, args)
	if err == nil {
		err = app.Run(args)
	}
	if err == nil {
		return 0
	}
	printError(stderr, err, asJSON)
	switch {
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	}
	return exitFailed
}

// wantsJSON reports whether a command line, right or wrong, asks for -o json.
func wantsJSON(args []string) bool {
	for i, a := range args {
		switch strings.TrimLeft(a, "-") {
		case "o=json", "output=json":
			return true
		case "o", "output":
			if a[0] == '-' && i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}

// Codes of errors that the command itself finds, beside those of the API.
const (
	codeUsage    = "usage"
	codeNoDaemon = "no_daemon"
)

// asAPI returns an error as -o json prints it: in the shape of the API's.
func asAPI(err error) api.Error {
	e := api.Error{Message: err.Error(), Code: api.CodeFailed}
	var told *api.Error
	switch {
	case errors.As(err, &told):
		e.Code = told.Code
	case errors.As(err, new(usageError)):
		e.Code = codeUsage
	case errors.Is(err, api.ErrNoDaemon):
		e.Code = codeNoDaemon
	}
	return e
}

// printError prints what went wrong. The reader of a daemon's log may have stopped
// reading, which must not keep the daemon from its end.
func printError(stderr io.Writer, err error, asJSON bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if asJSON {
			_ = json.NewEncoder(stderr).Encode(asAPI(err))
			return
		}
		fmt.Fprintln(stderr, "vswitch:", err)
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
}

// usageError is an error in the command line itself.
type usageError string

func (e usageError) Error() string { return string(e) }

func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

func newApp(out io.Writer) *cli.App {
	app := &cli.App{
		Name:     "vswitch",
		HelpName: "vswitch",
		Usage:    "an Ethernet switch for virtual machines",
		UsageText: `vswitch run [flags]
vswitch COMMAND [arguments] [flags]`,
		Description: `vswitch run is one switch, in the foreground. The other commands control it over
a unix socket. What they change takes effect at once and survives a restart.
Flags may stand before or after a command and its arguments.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon answers.

Example:

    vswitch run &
    vswitch add-port vm0
    qemu-system-x86_64 … $(vswitch qemu-args vm0)`,
		Flags: globalFlags(),
		Commands: []*cli.Command{
			runCommand(),
			addPortCommand(),
			setPortCommand(),
			delPortCommand(),
			portsCommand(),
			showCommand(),
			setCommand(),
			statsCommand(),
			fdbCommand(),
			vlanCommand(),
			mirrorCommand(),
			mdbCommand(),
			stpCommand(),
			qemuArgsCommand(),
			versionCommand(),
			completionCommand(),
			manCommand(),
		},
		CustomAppHelpTemplate: appHelp,
		HideHelpCommand:       true,
		HideVersion:           true,
		Writer:                out,
		ExitErrHandler:        func(*cli.Context, error) {}, // run does that
		OnUsageError:          onUsageError,
	}
	prepare(app.Commands)
	return app
}

// prepare sets what all commands have in common.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.CustomHelpTemplate = commandHelp
		c.OnUsageError = onUsageError
		for _, f := range c.Flags {
			if b, ok := f.(*cli.BoolFlag); ok {
				b.DisableDefaultText = true // off, as everybody expects
			}
		}
		prepare(c.Subcommands)
	}
}

// onUsageError words a flag's value that could not be read; arrange has found
// everything else that can be wrong with flags.
func onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef("%v; see `%s --help`", err, c.Command.HelpName)
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the switch", DefaultText: "$VSWITCH_NAME, else " + api.DefaultName},
		&cli.StringFlag{Name: "socket", TakesFile: true, Usage: "`PATH` of the control socket",
			DefaultText: "$VSWITCH_SOCKET, else /run/vswitch/NAME.sock as root, $XDG_RUNTIME_DIR/vswitch/NAME.sock for others, then /run/vswitch/NAME.sock"},
		oneOf(&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT` of what is printed: table or json"}, []string{"table", "json"}),
	}
}

// resolve returns the name and the control socket of the switch that is meant by
// the flags --name and --socket, and by the environment where they are empty. A
// name on the command line is nearer than a socket in the environment. Without a socket
// find has its path.
func resolve(name, socket string, find func(name string) (string, error)) (string, string, error) {
	if name == "" {
		socket = cmp.Or(socket, os.Getenv("VSWITCH_SOCKET"))
		name = cmp.Or(os.Getenv("VSWITCH_NAME"), api.DefaultName)
	}
	err := api.CheckName(name)
	if err == nil && socket == "" {
		socket, err = find(name)
	}
	if err != nil {
		return "", "", usageError(err.Error())
	}
	return name, socket, nil
}

// client returns a client of the switch that is meant. What could not be printed
// in the end is found here, before anything is changed.
func client(c *cli.Context) (*api.Client, error) {
	if _, err := format(c); err != nil {
		return nil, err
	}
	_, socket, err := resolve(c.String("name"), c.String("socket"), api.FindSocket)
	if err != nil {
		return nil, err
	}
	return api.NewClient(socket), nil
}

// steering is a command that talks to the daemon: do gets a client of it, and the
// command's arguments as words returns them.
func steering(do func(c *cli.Context, cl *api.Client, args []string) error, names ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		args, err := words(c, names...)
		if err != nil {
			return err
		}
		cl, err := client(c)
		if err != nil {
			return err
		}
		defer cl.Close()
		return do(c, cl, args)
	}
}

// words returns the command's arguments, which must be as many as names; those in
// brackets may be missing.
func words(c *cli.Context, names ...string) ([]string, error) {
	got := c.Args().Slice()
	for i, name := range names {
		if i >= len(got) && name[0] != '[' {
			return nil, usagef("%s is missing; usage: `%s`", name, c.Command.UsageText)
		}
	}
	if len(got) > len(names) {
		return nil, usagef("unexpected argument %q; usage: `%s`", got[len(names)], c.Command.UsageText)
	}
	return append(got, make([]string, len(names)-len(got))...), nil
}
