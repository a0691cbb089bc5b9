package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestArrange(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{"", "", ""},
		{"ports", "ports", ""},
		{"-o json ports", "-o json ports", ""},
		{"ports -o json", "-o json ports", ""},
		{"ports --output=json --name lab", "--output=json --name lab ports", ""},
		{"add-port vm0 --kind host --address 10.0.0.1/24", "add-port --kind host --address 10.0.0.1/24 -- vm0", ""},
		{"add-port --address a vm0 --address b", "add-port --address a --address b -- vm0", ""},
		{"add-port --no-wait vm0", "add-port --no-wait -- vm0", ""},
		{"add-port --no-wait=false vm0 -mtu 9000", "add-port --no-wait=false -mtu 9000 -- vm0", ""},
		{"set-port --isolated=on --locked=off vm0", "set-port --isolated=true --locked=false -- vm0", ""},
		{"set-port --isolated on vm0 --locked off", "set-port --isolated=true --locked=false -- vm0", ""},
		{"set-port --isolated vm0", "set-port --isolated -- vm0", ""},
		{"set-port --isolated -- on", "set-port --isolated -- on", ""},
		{"--socket /s fdb --name x add 02::1 vm0 --vlan 5", "--socket /s --name x fdb add --vlan 5 -- 02::1 vm0", ""},
		{"del-port -- --help", "del-port -- --help", ""},
		{"del-port -- a -- b", "del-port -- a -- b", ""},
		{"del-port -", "del-port -- -", ""},
		{"del-port help", "del-port -- help", ""},
		{"del-port ports", "del-port -- ports", ""},
		{"add-port vm0 --owner --group", "add-port --owner --group -- vm0", ""},
		{"add-port vm0 --mtu -1", "add-port --mtu -1 -- vm0", ""},
		{"add-port vm0 --help", "add-port --help", ""},
		{"-h", "--help", ""},
		{"--version", "version", ""},
		{"--version -o json", "-o json version", ""},
		{"fdb -h", "fdb --help", ""},
		{"help fdb add", "fdb add --help", ""},

		{"add-port vm0 --foo", "", "there is no flag --foo; see `vswitch add-port --help`"},
		{"add-port vm0 -f=1", "", "there is no flag -f; see `vswitch add-port --help`"},
		{"--kind tap add-port vm0", "", "there is no flag --kind; see `vswitch --help`"},
		{"ports --kind tap", "", "there is no flag --kind; see `vswitch ports --help`"},
		{"add-port vm0 --mtu", "", "flag --mtu needs a value; see `vswitch add-port --help`"},
		{"ports -o", "", "flag -o needs a value; see `vswitch ports --help`"},
		{"ports -o json --output json", "", "flag --output is given twice; give it once"},
		{"--name a ports --name a", "", "flag --name is given twice; give it once"},
		{"add-port vm0 --isolated --isolated=false", "", "flag --isolated is given twice; give it once"},
		{"set-port vm0 --trunk 10 --trunk=20", "", "flag --trunk is given twice; give it once, with commas between its values"},
		{"mirror add m --from a --from b --to c", "", "flag --from is given twice; give it once, with commas between its values"},
		{"prots", "", "there is no command \"prots\"; did you mean ports? `vswitch --help` lists those there are"},
		{"xyzzy", "", "there is no command \"xyzzy\"; `vswitch --help` lists those there are"},
		{"set-port vm0 --isolate", "", "there is no flag --isolate; did you mean --isolated? see `vswitch set-port --help`"},
		{"ports --outptu json", "", "there is no flag --outptu; did you mean --output? see `vswitch ports --help`"},
		{"set-port vm0 --access= --isolated=", "set-port --access= --isolated=false -- vm0", ""},
		{"fdb flush --port=", "", "flag --port has an empty value; give it one, or leave the flag out"},
		{"add-port vm0 --kind= --access 5", "", "flag --kind has an empty value; give it one, or leave the flag out"},
		{"set-port vm0 --isolated=maybe", "", "--isolated: \"maybe\" is neither; use on or off"},
		{"fdb show", "", "there is no command \"show\"; `vswitch fdb --help` lists those there are"},
	} {
		args := append([]string{"vswitch"}, strings.Fields(test.in)...)
		got, err := arrange(newApp(io.Discard), args)
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%q: error %v, want %q", test.in, err, test.err)
			}
			continue
		}
		want := append([]string{"vswitch"}, strings.Fields(test.want)...)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got)\n%s", test.in, err, diff)
		}
	}
}

// No flag of any command, but those that are lists by themselves, can be given twice.
func TestNoFlagTwice(t *testing.T) {
	app := newApp(io.Discard)
	var try func(path []string, commands []*cli.Command)
	try = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			path := append(slices.Clone(path), c.Name)
			try(path, c.Subcommands)
			for _, f := range slices.Concat(c.Flags, app.Flags) {
				names := f.Names()
				args := slices.Clone(path)
				for _, name := range []string{names[0], names[len(names)-1]} {
					args = append(args, "--"+name)
					if takesValue(f) {
						args = append(args, "1")
					}
				}
				_, err := arrange(app, args)
				if repeatable(f) != (err == nil) || err != nil && !errors.As(err, new(usageError)) {
					t.Errorf("%q: %v", args, err)
				}
			}
		}
	}
	try([]string{"vswitch"}, app.Commands)
}

// FuzzArrange: whatever is written, arrange loses no argument, and what it makes is
// in order already.
func FuzzArrange(f *testing.F) {
	f.Add("add-port\nvm0\n--kind\nhost")
	f.Add("fdb\n--vlan\n5\nadd\n--\n-x")
	f.Add("help\nports\n-o\n--")
	f.Fuzz(func(t *testing.T, line string) {
		app := newApp(io.Discard)
		args := append([]string{"vswitch"}, strings.Split(line, "\n")...)
		once, err := arrange(app, args)
		if err != nil {
			return
		}
		help := false
		for _, a := range once {
			help = help || a == "--help"
		}
		if !help && len(once) < len(args)-1 { // a "--" before nothing may go
			t.Fatalf("%q became %q", args, once)
		}
		twice, err := arrange(app, once)
		if err != nil {
			t.Fatalf("%q: %v", once, err)
		}
		if diff := cmp.Diff(once, twice); diff != "" {
			t.Fatalf("%q is not in order (-once +twice):\n%s", once, diff)
		}
	})
}
