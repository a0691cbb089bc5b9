package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/config"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/setting"
)

// configFormat returns the form of this program's configurations.
func configFormat() config.Format {
	return config.Format{
		Ports: portCatalog(), Switch: switchFields(), Features: daemon.ConfigSections(features), Sections: daemon.Sections(features),
		CheckSwitch: func(p setting.Patch) error { return daemon.CheckSettings(features, p) },
	}
}

// configFile is a configuration that was read from a file.
type configFile struct {
	path   string
	doc    api.Config
	places config.Places
}

// maxConfig is the size in bytes up to which files are read. The parser says that one is too
// long.
const maxConfig = 8 << 20

// readConfig reads a configuration from a file; "-" is the standard input.
func readConfig(path string) (configFile, error) {
	f := configFile{path: path}
	in := os.Stdin
	if path == "-" {
		f.path = "stdin"
	} else {
		var err error
		if in, err = os.Open(path); err != nil {
			return f, usagef("%v; name a configuration with -f", err)
		}
		defer in.Close()
	}
	text, err := io.ReadAll(io.LimitReader(in, maxConfig))
	if err != nil {
		return f, usagef("%v", err)
	}
	doc, places, err := configFormat().Parse(text)
	var wrong config.Problems
	if errors.As(err, &wrong) {
		return f, fileError{f.path, wrong}
	}
	f.places = places
	f.doc.RawMessage, err = configFormat().Encode(doc)
	return f, err
}

// fileError is what is wrong with a configuration, a line for each problem.
type fileError struct {
	path     string
	problems config.Problems
}

func (e fileError) Error() string { return strings.Join(e.lines(), "\n") }

// lines implements severalLines.
func (e fileError) lines() []string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", e.path, p.Line, p.Column, p.Message)
	}
	return lines
}

// inFile gives an error of the daemon about parts of the configuration their places in the
// file.
func (f configFile) inFile(err error) error {
	var e *api.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		return err
	}
	at := fileError{path: f.path}
	for _, p := range e.Problems {
		at.problems = append(at.problems, f.places.Problem(config.Path(p.At), p.Message))
	}
	if e.Code == api.CodeInvalid {
		return at
	}
	return failedError{at, e.Code}
}

// failedError is a fileError that is not the file's fault.
type failedError struct {
	fileError
	code string
}

// fileFlag is the flag of a configuration's file.
func fileFlag() cli.Flag {
	return &cli.StringFlag{Name: "file", Aliases: []string{"f"}, TakesFile: true, Usage: "configuration `FILE`; - is the standard input"}
}

// pruneFlag is the flag --prune, which may have a value.
func pruneFlag() cli.Flag {
	return implied{oneOf(&cli.StringFlag{Name: "prune", Usage: "remove `WHAT` the file does not name: applied, what an earlier apply brought (as without a value), or all"}, []string{api.PruneApplied, api.PruneAll}).(choice), api.PruneApplied}
}

const configHelp = `The file says which ports, settings, static entries and mirrors the switch should
have; docs/config.md describes it, vswitch config export writes one. What it names
is completely described by it. What it does not name stays, unless it is pruned.`

func applyCommand() *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "make the switch as a file says",
		UsageText: "vswitch apply -f FILE [flags]",
		Description: configHelp + `

All of it is done or, if something fails, nothing. A second apply of the same file
changes nothing. Ports whose devices are absent wait for them. --dry-run shows the
plan: + is added, ~ changed, -/+ removed and made again, - removed.

With --confirm the change is taken back after that time unless vswitch confirm is
run, also by a daemon that was killed meanwhile.

Example:

    vswitch apply -f switch.yaml --dry-run
    vswitch apply -f switch.yaml --prune --confirm 10m
    vswitch confirm`,
		Flags: []cli.Flag{
			fileFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "show the plan and change nothing"},
			pruneFlag(),
			&cli.BoolFlag{Name: "allow-replace", Usage: "remove ports and make them again where a setting cannot change"},
			&cli.BoolFlag{Name: "force", Usage: "remove and replace ports also where machines are attached"},
			&cli.StringFlag{Name: "confirm", Usage: "take the change back after `TIME` unless it is confirmed"},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask before something is removed"},
		},
		Action: steering(applyFile),
	}
}

func applyFile(c *cli.Context, cl *api.Client, _ []string) error {
	req, f, err := applyRequest(c)
	if err != nil {
		return err
	}
	if text := c.String("confirm"); c.IsSet("confirm") {
		var d setting.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil {
			return usagef("--confirm: %v", err)
		}
		req.ConfirmS = int64(math.Ceil(time.Duration(d).Seconds()))
	}
	req.DryRun = c.Bool("dry-run")
	if req.Prune != "" && !req.DryRun && !c.Bool("yes") && onTerminal() {
		goOn, plan, err := ask(c, cl, req)
		if err != nil || !goOn {
			return f.inFile(err)
		}
		req.Plan = plan
	}
	done, err := cl.ApplyConfig(c.Context, req)
	if err != nil {
		return f.inFile(err)
	}
	return show(c, done, func(w io.Writer) { printApplied(w, done, req.DryRun) })
}

// applyRequest reads the flags that apply and diff share, and the file.
func applyRequest(c *cli.Context) (api.ApplyConfig, configFile, error) {
	path := c.String("file")
	if path == "" {
		return api.ApplyConfig{}, configFile{}, usagef("no file is named; usage: `%s`", c.Command.UsageText)
	}
	req := api.ApplyConfig{Prune: c.String("prune"), AllowReplace: c.Bool("allow-replace"), Force: c.Bool("force")}
	if req.Prune != "" && req.Prune != api.PruneApplied && req.Prune != api.PruneAll {
		return req, configFile{}, usagef("--prune: there is no %q; use applied or all", req.Prune)
	}
	f, err := readConfig(path)
	req.Config, req.By = f.doc, f.path
	return req, f, err
}

// onTerminal reports whether there is somebody to ask.
func onTerminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// ask shows the plan and asks whether to go on, if something would be removed.
func ask(c *cli.Context, cl *api.Client, req api.ApplyConfig) (yes bool, plan string, err error) {
	req.DryRun = true
	dry, err := cl.ApplyConfig(c.Context, req)
	if err != nil {
		return false, "", err
	}
	removes := 0
	for _, s := range dry.Steps {
		if s.Change == "remove" {
			removes++
		}
	}
	if removes == 0 {
		return true, dry.Plan, nil
	}
	printSteps(c.App.Writer, dry)
	fmt.Fprintf(c.App.Writer, "Remove %d? [y/N] ", removes)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(answer), "y"), dry.Plan, nil
}

// signs are what stands before a step in a plan.
var signs = map[string]string{"add": "+", "set": "~", "replace": "-/+", "remove": "-"}

func printSteps(w io.Writer, done api.AppliedConfig) {
	for _, s := range done.Steps {
		how := s.How
		switch {
		case how == "":
		case s.Change == "set" || s.Change == "replace":
			how = ": " + how
		default:
			how = " (" + how + ")"
		}
		fmt.Fprintf(w, "%s %s%s\n", signs[s.Change], s.What, how)
	}
	for _, n := range done.Notes {
		fmt.Fprintln(w, "note:", n)
	}
}

func printApplied(w io.Writer, done api.AppliedConfig, dry bool) {
	printSteps(w, done)
	switch {
	case len(done.Steps) == 0:
		fmt.Fprintln(w, "no changes")
	case dry:
		fmt.Fprintln(w, "dry run: nothing is changed")
	}
	if p := done.Pending; p != nil {
		fmt.Fprintf(w, "the change by %s is taken back at %s; `vswitch confirm` keeps it\n", p.By, p.Until.Local().Format(time.DateTime))
	}
}

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what apply would change",
		UsageText: "vswitch diff -f FILE [flags]",
		Description: configHelp + `

Shows the difference between the configuration of the switch and what it would be
after vswitch apply with the same flags; with -o json the plan of apply --dry-run.
Exit status: 0 no difference, 1 a difference, 2 the file or the command line is
wrong, 3 no daemon answers.

Example:

    vswitch diff -f switch.yaml --prune`,
		Flags:  []cli.Flag{fileFlag(), pruneFlag()},
		Action: steering(diffFile),
	}
}

func diffFile(c *cli.Context, cl *api.Client, _ []string) error {
	req, f, err := applyRequest(c)
	if err != nil {
		return err
	}
	req.DryRun = true
	var is, becomes []byte
	dry, err := cl.ApplyConfig(c.Context, req)
	if err == nil {
		becomes, err = configText(dry.Config)
	}
	if err == nil {
		is, err = exported(c, cl)
	}
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return err
	case err != nil:
		return usageError(f.inFile(err).Error()) // 1 is a difference
	}
	d := diff.Diff("switch", is, f.path, becomes)
	_, rest, _ := strings.Cut(string(d), "\n") // without the line "diff A B"
	if err := show(c, dry, func(w io.Writer) { fmt.Fprint(w, rest) }); err != nil {
		return err
	}
	if len(d) > 0 {
		return exitCode(exitFailed)
	}
	return nil
}

// exitCode ends the program with a status and without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// configText writes a configuration as YAML.
func configText(c api.Config) ([]byte, error) {
	doc, err := configFormat().Decode(c.RawMessage)
	if err != nil {
		return nil, err
	}
	return configFormat().YAML(doc), nil
}

// exported returns the configuration of the switch as YAML.
func exported(c *cli.Context, cl *api.Client) ([]byte, error) {
	cfg, err := cl.Config(c.Context)
	if err != nil {
		return nil, err
	}
	return configText(cfg)
}

func confirmCommand() *cli.Command {
	return &cli.Command{
		Name:      "confirm",
		Usage:     "keep the change of apply --confirm",
		UsageText: "vswitch confirm",
		Description: `Keeps the change that waits for its confirmation. vswitch rollback takes it back.

Example:

    vswitch confirm`,
		Action: steering(func(c *cli.Context, cl *api.Client, _ []string) error { return cl.ConfirmConfig(c.Context) }),
	}
}

type rollbackFlags struct {
	To int `json:"to" arg:"N" min:"1" default:"the last" help:"take back change N and all after it"`
}

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "take back what apply changed",
		UsageText: "vswitch rollback [--to N]",
		Description: `Takes back the change that waits for its confirmation; if none does, the last one
of the history. With --to it takes back that change of the history and all after it.
What was changed by other commands stays, except on the same ports and entries.
Rollback itself becomes a change of the history, so another one takes it back.

Ports that come back wait if their devices cannot be made.

Example:

    vswitch config history
    vswitch rollback --to 3`,
		Flags: ownFlags(rollbackFlags{}),
		Action: steering(func(c *cli.Context, cl *api.Client, _ []string) error {
			given, err := readOwn(c, rollbackFlags{})
			if err != nil {
				return err
			}
			done, err := cl.RollbackConfig(c.Context, api.RollbackConfig{To: given.(rollbackFlags).To})
			if err != nil {
				return err
			}
			return show(c, done, func(w io.Writer) { printApplied(w, done, false) })
		}),
	}
}

func configCommand() *cli.Command {
	return &cli.Command{
		Name:      "config",
		Usage:     "write the configuration, show what changed it",
		UsageText: "vswitch config export|history|schema",
		Description: configHelp + `

Example:

    vswitch config export >switch.yaml`,
		Subcommands: []*cli.Command{{
			Name:      "export",
			Usage:     "write the configuration of the switch",
			UsageText: "vswitch config export [-o json]",
			Description: `Writes what the switch should have as a file that vswitch apply reads: YAML, or JSON
with -o json. Settings at their defaults are left out.

Example:

    vswitch config export >switch.yaml`,
			Action: steering(exportConfig),
		}, {
			Name:      "history",
			Usage:     "list the last changes of apply and rollback",
			UsageText: "vswitch config history [-o json]",
			Description: `Lists the last ten changes, with the numbers that vswitch rollback --to takes.

Example:

    vswitch config history`,
			Action: func(c *cli.Context) error {
				return showing(c, (*api.Client).ConfigHistory, func(w io.Writer, all []api.ConfigChange) {
					row(w, "N", "TIME", "BY", "CHANGES")
					for _, h := range all {
						row(w, h.Number, h.Time.Local().Format(time.DateTime), h.By, summary(h.Steps))
					}
				})
			},
		}, {
			Name:      "schema",
			Usage:     "write the JSON Schema of the file",
			UsageText: "vswitch config schema",
			Description: `Writes the schema that lets an editor complete and check a configuration.

Example:

    vswitch config schema >switch.schema.json`,
			Action: func(c *cli.Context) error {
				if _, err := words(c); err != nil {
					return err
				}
				_, err := c.App.Writer.Write(configFormat().Schema())
				return err
			},
		}},
	}
}

func exportConfig(c *cli.Context, cl *api.Client, _ []string) error {
	cfg, err := cl.Config(c.Context)
	if err != nil {
		return err
	}
	if f, _ := format(c); f == "json" {
		return show(c, cfg, nil)
	}
	text, err := configText(cfg)
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(text)
	return err
}

// summary describes steps by their number.
func summary(steps []api.ConfigStep) string {
	count := make(map[string]int)
	for _, s := range steps {
		count[s.Change]++
	}
	var parts []string
	for _, change := range []struct{ key, word string }{{"add", "added"}, {"set", "changed"}, {"replace", "replaced"}, {"remove", "removed"}} {
		if n := count[change.key]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, change.word))
		}
	}
	return dash(strings.Join(parts, ", "))
}
