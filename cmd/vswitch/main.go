//go:generate go test . -run IsGenerated$ -update

// Command vswitch runs an Ethernet switch for virtual machines and controls a running one.
// Each command has a file of its own, which parses, calls and prints.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	_ "github.com/vswitch/vswitch/internal/linux/limits/atstart"
)

// Exit codes other than 0.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNoDaemon = 3
)

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run executes the command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	out := &output{Writer: stdout}
	app := newApp(out)
	if completing(args) {
		complete(app, args[1:len(args)-1], args[len(args)-1] == describeFlag)
		return 0
	}
	asJSON := wantsJSON(args)
	args, err := arrange(app, args)
	if err == nil {
		err = app.Run(args)
		err = cmp.Or(err, out.err)
	}
	if err == nil {
		return 0
	}
	var quiet exitCode
	if errors.As(err, &quiet) {
		return int(quiet)
	}
	if errors.Is(err, feature.ErrNegative) {
		return exitFailed
	}
	printError(stderr, err, asJSON)
	switch {
	case errors.As(err, new(usageError)), errors.As(err, new(fileError)):
		return exitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	}
	return exitFailed
}

// output is where commands print. It keeps the first error, since not everything that prints
// reports one: help does not.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(b []byte) (n int, err error) {
	n, err = o.Writer.Write(b)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// wantsJSON reports whether a command line, valid or not, requests -o json.
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

// Codes of the command's own errors, beside those of the API.
const (
	codeUsage    = "usage"
	codeNoDaemon = "no_daemon"
)

// asAPI returns an error in the API's form, as -o json prints it.
func asAPI(err error) api.Error {
	e := api.Error{Message: err.Error(), Code: api.CodeFailed}
	var told *api.Error
	var failed failedError
	switch {
	case errors.As(err, &told):
		e.Code = told.Code
	case errors.As(err, new(fileError)):
		e.Code = api.CodeInvalid
	case errors.As(err, &failed):
		e.Code = failed.code
	case errors.As(err, new(usageError)):
		e.Code = codeUsage
	case errors.Is(err, api.ErrNoDaemon):
		e.Code = codeNoDaemon
	}
	return e
}

// printError prints an error. The reader of a daemon's log may have stopped reading, which
// must not keep the daemon from ending.
func printError(stderr io.Writer, err error, asJSON bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if asJSON {
			e := json.NewEncoder(stderr)
			e.SetEscapeHTML(false)
			_ = e.Encode(asAPI(err))
			return
		}
		lines := []string{err.Error()}
		if e := severalLines(nil); errors.As(err, &e) {
			lines = e.lines()
		}
		for _, line := range lines {
			fmt.Fprintln(stderr, "vswitch:", printable(line))
		}
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
}

// severalLines is an error about several things, with a line for each. Any other is one line, whatever
// characters the names in it have.
type severalLines interface {
	error
	lines() []string
}

// printable writes characters that a terminal might obey as Go does.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// usageError is an error in the command line.
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
			upgradeCommand(),
			portsCommand(),
			showCommand(),
			setCommand(),
			statsCommand(),
			topCommand(),
			applyCommand(),
			diffCommand(),
			confirmCommand(),
			rollbackCommand(),
			configCommand(),
			qemuArgsCommand(),
			libvirtHookCommand(),
			versionCommand(),
			completionCommand(),
			manCommand(),
		},
		CustomAppHelpTemplate: appHelp,
		HideHelpCommand:       true,
		HideVersion:           true,
		Writer:                out,
		ExitErrHandler:        func(*cli.Context, error) {}, // run handles errors
		OnUsageError:          onUsageError,
	}
	app.Commands = slices.Insert(app.Commands, slices.IndexFunc(app.Commands, func(c *cli.Command) bool { return c.Name == "qemu-args" }), featureCommands()...)
	prepare(app.Commands)
	return app
}

// prepare sets what all commands share.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.CustomHelpTemplate = commandHelp
		c.OnUsageError = onUsageError
		for _, f := range c.Flags {
			if b, ok := f.(*cli.BoolFlag); ok {
				b.DisableDefaultText = true // everybody expects off
			}
		}
		prepare(c.Subcommands)
	}
}

// onUsageError reports a flag value that could not be read; arrange has found all other
// errors in flags.
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

// resolve returns the name and control socket of the switch that the flags --name and
// --socket select, or the environment for those that are empty. A name on the command line
// takes precedence over a socket in the environment. If no socket is given, find returns its
// path.
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

// client returns a client of the selected switch. It checks --output first, so that an
// invalid format is found before anything changes.
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

// steering returns the action of a command that calls the daemon: do gets a client and the
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

// several reports whether an argument takes several words. Their list may be empty, as a filter is where a program
// always passes one.
func several(name string) bool { return strings.HasSuffix(strings.TrimSuffix(name, "]"), "...") }

// words returns the command's arguments, one for each of names; those in brackets are
// optional. A last name that ends in dots stands for several words, joined by spaces.
func words(c *cli.Context, names ...string) ([]string, error) {
	got := c.Args().Slice()
	if n := len(names); n > 0 && len(got) > n && several(names[n-1]) {
		got = append(got[:n-1:n-1], strings.Join(got[n-1:], " "))
	}
	for i, name := range names {
		switch {
		case i >= len(got) && name[0] != '[':
			return nil, usagef("%s is missing; usage: `%s`", name, c.Command.UsageText)
		case i < len(got) && !utf8.ValidString(got[i]):
			return nil, usagef("%q is no text in UTF-8; write it in letters that are", got[i]) // JSON would make another of it
		case i < len(got) && got[i] == "" && !several(name):
			return nil, usagef("%s is empty; usage: `%s`", strings.Trim(name, "[.]"), c.Command.UsageText)
		}
	}
	if len(got) > len(names) {
		return nil, usagef("unexpected argument %q; usage: `%s`", got[len(names)], c.Command.UsageText)
	}
	return append(got, make([]string, len(names)-len(got))...), nil
}
