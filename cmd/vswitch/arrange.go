package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange puts a command line into the order that cli reads: global flags, the
// command, its flags, its arguments. So all flags may stand anywhere, which cli
// does not allow: it takes what follows the first argument for arguments. What is
// no flag of the command, or lacks its value, is an error here. As everywhere, a
// "--" ends the flags; `help COMMAND` is the same as `COMMAND --help`.
func arrange(app *cli.App, args []string) ([]string, error) {
	var global, path, own, words []string
	var cmd *cli.Command // the innermost that was named
	commands := app.Commands
	help := false
	seen := make(map[cli.Flag]bool)
	for rest := args[1:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			words = append(words, rest...)
			rest = nil
		case len(arg) > 1 && arg[0] == '-':
			name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			if name == "help" || name == "h" {
				help = true
				continue
			}
			to := &own
			flag := flagOf(cmd, name)
			if flag == nil {
				to, flag = &global, find(app.Flags, name)
			}
			if flag == nil {
				return nil, usagef("there is no flag %s; see `%s`", spell(name), helpFor(path))
			}
			if seen[flag] && !repeatable(flag) {
				return nil, usagef("flag %s is given twice; give it once%s", spell(name), inOne(flag))
			}
			seen[flag] = true
			*to = append(*to, arg)
			if hasValue || !takesValue(flag) {
				continue
			}
			if len(rest) == 0 {
				return nil, usagef("flag %s needs a value; see `%s`", spell(name), helpFor(path))
			}
			*to = append(*to, rest[0])
			rest = rest[1:]
		case cmd == nil && arg == "help":
			help = true
		case len(commands) > 0:
			sub := command(commands, arg)
			if sub == nil {
				return nil, usagef("there is no command %q; `%s` lists those there are", arg, helpFor(path))
			}
			cmd, path, commands = sub, append(path, arg), sub.Subcommands
		default:
			words = append(words, arg)
		}
	}
	if help {
		own = []string{"--help"}
	}
	out := append([]string{args[0]}, global...)
	out = append(append(out, path...), own...)
	if len(words) > 0 && !help {
		out = append(append(out, "--"), words...)
	}
	return out, nil
}

func command(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func flagOf(cmd *cli.Command, name string) cli.Flag {
	if cmd == nil {
		return nil
	}
	return find(cmd.Flags, name)
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// repeatable reports whether each value of a flag counts.
func repeatable(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationSliceFlag)
	return ok && d.IsSliceFlag()
}

// inOne says how to give a flag several values, where it takes them.
func inOne(f cli.Flag) string {
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if usage := d.GetUsage(); strings.Contains(usage, "`LIST`") || strings.Contains(usage, "`PORTS`") {
			return ", with commas between its values"
		}
	}
	return ""
}

// spell writes a flag as users do.
func spell(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func helpFor(path []string) string {
	return strings.Join(append(append([]string{"vswitch"}, path...), "--help"), " ")
}
