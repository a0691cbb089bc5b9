package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"

	"github.com/vswitch/vswitch/internal/setting"
)

// arrange reorders a command line to what cli reads: global flags, the command, its flags,
// its arguments. Flags may therefore stand anywhere; cli itself takes everything after the
// first argument as arguments. An unknown flag, or one without its value, is an error here.
// A flag that needs no value takes on and off also as the next word. As usual, "--" ends the
// flags; `help COMMAND` equals `COMMAND --help`.
func arrange(app *cli.App, args []string) ([]string, error) {
	var global, path, own, words []string
	var cmd *cli.Command // the innermost command so far
	commands := app.Commands
	help := false
	seen := make(map[string]bool) // flags by their first name
	for rest := args[1:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			words = append(words, rest...)
			rest = nil
		case len(arg) > 1 && arg[0] == '-':
			name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			if name == "help" || name == "h" {
				help = true
				continue
			}
			if name == "version" && cmd == nil && !hasValue {
				rest = append([]string{name}, rest...) // the command with that name
				continue
			}
			to := &own
			flag := flagOf(cmd, name)
			if flag == nil {
				to, flag = &global, find(app.Flags, name)
			}
			if flag == nil {
				return nil, usagef("there is no flag %s;%s see `%s`", spell(name), maybeFlag(app, cmd, name), helpFor(path))
			}
			if !takesValue(flag) && !hasValue && len(rest) > 0 && (rest[0] == "on" || rest[0] == "off") {
				value, hasValue, rest = rest[0], true, rest[1:]
			}
			if empty := hasValue && value == "" || !hasValue && takesValue(flag) && len(rest) > 0 && rest[0] == ""; empty && !takesEmpty(flag) {
				return nil, usagef("flag %s has an empty value; give it one, or leave the flag out", spell(name))
			}
			if hasValue && !takesValue(flag) {
				on, err := setting.ParseBool(value)
				if err != nil {
					return nil, usagef("%s: %v", spell(name), err)
				}
				arg = fmt.Sprintf("%s=%t", spell(name), on)
			}
			if seen[flag.Names()[0]] && !repeatable(flag) {
				return nil, usagef("flag %s is given twice; give it once%s", spell(name), inOne(flag))
			}
			seen[flag.Names()[0]] = true
			if f, ok := flag.(implied); ok && !hasValue {
				arg, hasValue = arg+"="+f.value, true
			}
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
				return nil, usagef("there is no command %q;%s `%s` lists those there are", arg, maybeCommand(commands, arg), helpFor(path))
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

// maybeFlag suggests an existing flag whose name is close to an unknown one.
func maybeFlag(app *cli.App, cmd *cli.Command, name string) string {
	flags := app.Flags
	if cmd != nil {
		flags = append(slices.Clone(cmd.Flags), flags...)
	}
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()[0])
	}
	if near := closest(name, names); near != "" {
		return " did you mean " + spell(near) + "?"
	}
	return ""
}

// maybeCommand is maybeFlag for commands.
func maybeCommand(commands []*cli.Command, name string) string {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	if near := closest(name, names); near != "" {
		return " did you mean " + near + "?"
	}
	return ""
}

// closest returns the candidate that was probably meant by word, or "" if none is close.
func closest(word string, candidates []string) (near string) {
	best := 0.88 // of 1; "isolate" for isolated has 0.98, "foo" for flood 0.86
	for _, c := range candidates {
		if s := smetrics.JaroWinkler(word, c, 0.7, 4); s > best {
			near, best = c, s
		}
	}
	return near
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

// choice is a flag with a list of possible values.
type choice struct {
	*cli.StringFlag
	values []string
}

// oneOf makes a choice of a flag.
func oneOf(f *cli.StringFlag, values []string) cli.Flag { return choice{f, values} }

// implied is a flag whose value may be left out.
type implied struct {
	choice
	value string // which it has then
}

// Values returns the flag's possible values.
func (c choice) Values() []string { return c.values }

// valuesOf returns a flag's possible values, or nil if there is no list.
func valuesOf(f cli.Flag) []string {
	if v, ok := f.(interface{ Values() []string }); ok {
		return v.Values()
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// takesEmpty reports whether an empty value means something: it takes a setting back that the switch keeps.
// Elsewhere it comes from a variable of a script that is not set, and must not choose all ports, or another switch.
func takesEmpty(f cli.Flag) bool {
	s, ok := f.(settingFlag)
	return ok && s.kept
}

// repeatable reports whether a flag may be repeated.
func repeatable(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationSliceFlag)
	return ok && d.IsSliceFlag()
}

// inOne returns how to give a flag several values, if it accepts them.
func inOne(f cli.Flag) string {
	if s, ok := f.(settingFlag); ok && (s.field.Arg == "LIST" || s.field.Arg == "PORTS") {
		return ", with commas between its values"
	}
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if usage := d.GetUsage(); strings.Contains(usage, "`LIST`") || strings.Contains(usage, "`PORTS`") {
			return ", with commas between its values"
		}
	}
	return ""
}

// spell returns a flag as users write it.
func spell(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func helpFor(path []string) string {
	return strings.Join(append(append([]string{"vswitch"}, path...), "--help"), " ")
}
