package main

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

//go:embed completion.fish
var fishCompletion string

func completionCommand() *cli.Command {
	shell := func(name, file, script string) *cli.Command {
		return &cli.Command{
			Name:      name,
			Usage:     "print the completion for " + name,
			UsageText: "vswitch completion " + name,
			Description: `Prints a script that completes commands, flags and ports in this shell.

Example:

    vswitch completion ` + name + " >" + file,
			Action: func(c *cli.Context) error {
				if _, err := words(c); err != nil {
					return err
				}
				_, err := fmt.Fprint(c.App.Writer, script)
				return err
			},
		}
	}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a shell's completion script",
		UsageText: "vswitch completion bash|zsh|fish",
		Description: `The script completes commands, flags and ports.

Example:

    source <(vswitch completion bash)`,
		Subcommands: []*cli.Command{
			shell("bash", "/etc/bash_completion.d/vswitch", bashCompletion),
			shell("zsh", "/usr/local/share/zsh/site-functions/_vswitch", zshCompletion),
			shell("fish", "/etc/fish/completions/vswitch.fish", fishCompletion),
		},
	}
}

// completeFlag, as the last argument, asks for the completions of the others. describeFlag also asks
// what each of them is, which stands behind a tab. The scripts of bash and zsh use the first, that of
// fish the second.
const (
	completeFlag = "--generate-bash-completion"
	describeFlag = "--generate-fish-completion"
)

func completing(args []string) bool {
	return len(args) > 1 && (args[len(args)-1] == completeFlag || args[len(args)-1] == describeFlag)
}

// candidate is what a word may become.
type candidate struct {
	word  string
	about string // what that is, or ""
}

// complete prints the candidates for the last of words, which is begun or empty, one per line.
func complete(app *cli.App, words []string, describe bool) {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	at := follow(app, before)
	kept := "" // the part of the last word that stays: a flag, and the first values of a list
	switch name, _, hasValue := strings.Cut(last, "="); {
	case last == "=" && at.pending != nil: // bash has it as a word
		last = ""
	case hasValue && strings.HasPrefix(name, "-"):
		if at.pending = at.flag(name); at.pending == nil {
			return
		}
		kept = name + "="
	}
	if at.pending != nil && inOne(at.pending) != "" {
		kept = last[:max(len(kept), strings.LastIndex(last, ",")+1)]
	}
	for _, c := range at.candidates(strings.HasPrefix(last, "-") && kept == "") {
		if !strings.HasPrefix(kept+c.word, last) {
			continue
		}
		if describe && c.about != "" {
			c.word += "\t" + c.about
		}
		fmt.Fprintln(app.Writer, kept+c.word)
	}
}

// takesPort lists the commands whose argument is a port, beside those of features.
var takesPort = map[string]bool{"ports": true, "set-port": true, "del-port": true, "stats": true, "qemu-args": true}

// place is where in a command line the next word stands.
type place struct {
	app      *cli.App
	cmd      *cli.Command      // nil: none yet
	commands []*cli.Command    // that may follow
	given    map[string]string // flags and their values
	pending  cli.Flag          // whose value is next
}

// follow returns the place behind words.
func follow(app *cli.App, words []string) *place {
	at := &place{app: app, commands: app.Commands, given: map[string]string{}}
	for _, w := range words {
		switch {
		case at.pending != nil && w == "=": // bash has it as a word
		case at.pending != nil:
			at.given[at.pending.Names()[0]], at.pending = w, nil
		case strings.HasPrefix(w, "-"):
			name, value, hasValue := strings.Cut(w, "=")
			if f := at.flag(name); hasValue {
				at.given[strings.TrimLeft(name, "-")] = value
			} else if f != nil && takesValue(f) {
				at.pending = f
			}
		case command(at.commands, w) != nil:
			at.cmd = command(at.commands, w)
			at.commands = at.cmd.Subcommands
		}
	}
	return at
}

// flag returns the flag that a word with its dashes is, or nil.
func (at *place) flag(word string) cli.Flag {
	name := strings.TrimLeft(word, "-")
	if f := flagOf(at.cmd, name); f != nil {
		return f
	}
	return find(at.app.Flags, name)
}

// candidates returns what may be there: a flag, or else what is no flag.
func (at *place) candidates(flag bool) (all []candidate) {
	switch cmd := at.cmd; {
	case at.pending != nil:
		if f, ok := at.pending.(settingFlag); ok && (f.field.Arg == "PORT" || f.field.Arg == "PORTS") {
			return at.ports()
		}
		values := valuesOf(at.pending)
		if !takesValue(at.pending) {
			values = []string{"on", "off"}
		}
		for _, v := range values {
			all = append(all, candidate{word: v})
		}
	case flag:
		flags := append([]cli.Flag{cli.HelpFlag}, at.app.Flags...)
		if cmd != nil {
			flags = append(flags, cmd.Flags...)
		}
		for _, f := range flags {
			if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
				continue
			}
			c := candidate{word: spell(f.Names()[0])}
			if d, ok := f.(cli.DocGenerationFlag); ok {
				c.about = strings.ReplaceAll(d.GetUsage(), "`", "")
			}
			all = append(all, c)
		}
	case cmd != nil && (takesPort[cmd.Name] || strings.Contains(cmd.ArgsUsage, "PORT")):
		return at.ports()
	default:
		for _, c := range at.commands {
			if !c.Hidden {
				all = append(all, candidate{c.Name, c.Usage})
			}
		}
	}
	return all
}

// ports asks the daemon that the flags or the environment select for its ports. It ignores errors:
// they have no place in a completion.
func (at *place) ports() (all []candidate) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, socket, err := resolve(at.given["name"], at.given["socket"], api.FindSocket)
	if err != nil {
		return nil
	}
	cl := api.NewClient(socket)
	defer cl.Close()
	ports, err := cl.Ports(ctx)
	if err != nil {
		return nil
	}
	for _, p := range ports {
		all = append(all, candidate{p.Name, p.Kind + ", " + string(p.State)})
	}
	return all
}
