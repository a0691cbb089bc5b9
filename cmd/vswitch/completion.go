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

func completionCommand() *cli.Command {
	shell := func(name, file string, script func(*cli.Context) (string, error)) *cli.Command {
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
				s, err := script(c)
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(c.App.Writer, s)
				return err
			},
		}
	}
	fixed := func(s string) func(*cli.Context) (string, error) {
		return func(*cli.Context) (string, error) { return s, nil }
	}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a shell's completion script",
		UsageText: "vswitch completion bash|zsh|fish",
		Description: `The script completes commands, flags and ports.

Example:

    source <(vswitch completion bash)`,
		Subcommands: []*cli.Command{
			shell("bash", "/etc/bash_completion.d/vswitch", fixed(bashCompletion)),
			shell("zsh", "/usr/local/share/zsh/site-functions/_vswitch", fixed(zshCompletion)),
			shell("fish", "/etc/fish/completions/vswitch.fish", fishCompletion),
		},
	}
}

// fishCompletion returns cli's completion without the marks in the flags' usage and without
// files where a command or a port is expected, and with the ports.
func fishCompletion(c *cli.Context) (string, error) {
	s, err := newApp(c.App.Writer).ToFishCompletion()
	return strings.ReplaceAll(s, "`", "") + `
complete -c vswitch -f
complete -c vswitch -n '__fish_seen_subcommand_from set-port del-port stats qemu-args' -a '(vswitch del-port "" --generate-bash-completion 2>/dev/null)'
`, err
}

// completeFlag, as the last argument, requests the completions of the others.
const completeFlag = "--generate-bash-completion"

func completing(args []string) bool { return len(args) > 1 && args[len(args)-1] == completeFlag }

// complete prints the candidates for the last of words, which is begun or empty, one per
// line.
func complete(app *cli.App, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	for _, s := range candidates(app, before, strings.HasPrefix(last, "-")) {
		if strings.HasPrefix(s, last) {
			fmt.Fprintln(app.Writer, s)
		}
	}
}

// takesPort lists the commands whose argument is a port, beside those of features.
var takesPort = map[string]bool{"ports": true, "set-port": true, "del-port": true, "stats": true, "qemu-args": true}

func candidates(app *cli.App, before []string, flag bool) (all []string) {
	var cmd *cli.Command
	commands := app.Commands
	given := map[string]string{} // global flags that select the daemon
	var pending cli.Flag         // flag whose value comes next
	for _, w := range before {
		switch {
		case pending != nil:
			given[pending.Names()[0]], pending = w, nil
		case strings.HasPrefix(w, "-"):
			name, value, hasValue := strings.Cut(strings.TrimLeft(w, "-"), "=")
			f := flagOf(cmd, name)
			if f == nil {
				f = find(app.Flags, name)
			}
			if hasValue {
				given[name] = value
			} else if f != nil && takesValue(f) {
				pending = f
			}
		case command(commands, w) != nil:
			cmd = command(commands, w)
			commands = cmd.Subcommands
		}
	}
	switch {
	case pending != nil:
		if f, ok := pending.(settingFlag); ok && (f.field.Arg == "PORT" || f.field.Arg == "PORTS") {
			return portNames(given)
		}
		return valuesOf(pending)
	case flag:
		flags := append([]cli.Flag{cli.HelpFlag}, app.Flags...)
		if cmd != nil {
			flags = append(flags, cmd.Flags...)
		}
		for _, f := range flags {
			if v, ok := f.(cli.VisibleFlag); !ok || v.IsVisible() {
				all = append(all, spell(f.Names()[0]))
			}
		}
	case cmd != nil && (takesPort[cmd.Name] || strings.Contains(cmd.ArgsUsage, "PORT")):
		return portNames(given)
	default:
		for _, c := range commands {
			if !c.Hidden {
				all = append(all, c.Name)
			}
		}
	}
	return all
}

// portNames asks the daemon that the flags or the environment select. It ignores errors: they
// have no place in a completion.
func portNames(given map[string]string) (names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, socket, err := resolve(given["name"], given["socket"], api.FindSocket)
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
		names = append(names, p.Name)
	}
	return names
}
