package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// eachCommand calls f for every command with its path.
func eachCommand(commands []*cli.Command, path []string, f func(path []string, c *cli.Command)) {
	for _, c := range commands {
		p := append(slices.Clone(path), c.Name)
		f(p, c)
		eachCommand(c.Subcommands, p, f)
	}
}

// Every command explains itself, with an example that names it.
func TestHelpOfEveryCommand(t *testing.T) {
	n := 0
	eachCommand(newApp(nil).Commands, nil, func(path []string, c *cli.Command) {
		n++
		var out testenv.OneWrite
		var errs bytes.Buffer
		args := append(append([]string{"vswitch"}, path...), "--help")
		if code := run(args, &out, &errs); code != 0 || errs.Len() > 0 {
			t.Fatalf("%q: exit status %d, %s", args, code, &errs)
		}
		text := out.String()
		name := strings.Join(args[:len(args)-1], " ")
		_, example, ok := strings.Cut(text, "Example:\n")
		if !ok || !strings.Contains(example, name) {
			t.Errorf("%s: no example of it:\n%s", name, text)
		}
		if !strings.Contains(text, "Usage:\n   "+name) {
			t.Errorf("%s: no usage:\n%s", name, text)
		}
		for _, f := range c.Flags {
			if shown := f.(cli.VisibleFlag).IsVisible(); strings.Contains(text, "--"+f.Names()[0]) != shown {
				t.Errorf("%s: flag %s is in the help: %v", name, f.Names()[0], !shown)
			}
		}
	})
	if n < 15 {
		t.Errorf("only %d commands", n)
	}
}

func TestCandidates(t *testing.T) {
	t.Setenv("VSWITCH_SOCKET", t.TempDir()+"/none")
	for _, test := range []struct{ words, want string }{
		{"po", "ports"},
		{"-o json show-", ""},
		{"add-port --kind ", "tap host netdev lag veth vhost-user stream dgram vxlan"},
		{"add-port --ki", "--kind"},
		{"add-port vm0 --may", "--may-exist"},
		{"add-port vm0 --n", "--name --no-wait --netns --native"},
		{"set-port vm0 --learning ", "on off"},
		{"-o ", "table json"},
		{"--name show s", "set-port show set stats stp sflow"},
		{"fdb ", "list add del flush"},
		{"fdb flush --v", "--vlan"},
		{"completion ba", "bash"},
		{"evpn neighbor ", "add del"},
		{"add-port --kind=v", "--kind=veth --kind=vhost-user --kind=vxlan"},
		{"add-port --kind =", "tap host netdev lag veth vhost-user stream dgram vxlan"}, // bash makes words of it
		{"add-port --kind = v", "veth vhost-user vxlan"},
		{"set-port vm0 --isolated=", "--isolated=on --isolated=off"},
		{"set-port vm0 --none=", ""},
		{"set-port vm0 --flood broadcast,m", "broadcast,multicast"},
		{"set-port vm0 --flood=broadcast,m", "--flood=broadcast,multicast"},
		{"add-port --kind tap,", ""},
		{"del-port v", ""},
		{"del-port vm0 --", "--help --name --socket --output --if-exists --force"},
		{"ma", ""},
	} {
		var out bytes.Buffer
		words := append(append([]string{"vswitch"}, strings.Split(test.words, " ")...), completeFlag)
		if code := run(words, &out, &out); code != 0 {
			t.Errorf("%q: exit status %d", test.words, code)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != test.want {
			t.Errorf("%q: candidates %q, want %q", test.words, got, test.want)
		}
	}
}

// Each shell's script really completes.
func TestCompletion(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // see setup
	t.Setenv("HOME", t.TempDir())           // where fish keeps what it learns
	for shell, test := range map[string]struct{ script, want string }{
		"bash": {`
			source <(vswitch completion bash)
			complete -p vswitch
			COMP_WORDS=(vswitch add-port vm0 --ki) COMP_CWORD=3
			_vswitch
			echo "got ${COMPREPLY[*]}"`,
			"complete -o default -F _vswitch vswitch\ngot --kind\n"},
		"zsh": {`
			compdef() { }
			compadd() { echo got ${(P)2} }
			_files() { echo got files }
			source <(vswitch completion zsh)
			words=(vswitch add-port vm0 --ki) CURRENT=4
			_vswitch
			words=(vswitch apply -f s) CURRENT=4
			_vswitch`,
			"got --kind\ngot files\n"},
		"fish": {`
			vswitch completion fish | source
			complete -C "vswitch add-port vm0 --ki"
			complete -C "vswitch evpn neighbor "
			complete -C "vswitch mirror add m0 --to-"
			complete -C "vswitch add-port vm0 --kind v"
			cd (mktemp -d)
			touch switch.yaml
			complete -C "vswitch apply -f s"`,
			"--kind\tKIND of port: tap, host, netdev, lag, veth, vhost-user, stream, dgram, vxlan\nadd\texchange routes with a BGP neighbor\ndel\tend the exchange with a BGP neighbor\n" +
				"--to-vlan\tVLAN whose frames copies become\nveth\nvhost-user\nvxlan\nswitch.yaml\n"},
	} {
		t.Run(shell, func(t *testing.T) {
			out, err := exec.Command(testenv.Tool(t, shell), "-c", test.script).CombinedOutput()
			if err != nil || string(out) != test.want {
				t.Errorf("%v: %s; want %s", err, out, test.want)
			}
		})
	}
}

// The help of all commands, and what a shell completes in them, are in a file, so that a change
// shows what users see of it.
func TestHelpIsGenerated(t *testing.T) {
	var all bytes.Buffer
	show := func(args ...string) {
		var out, errs bytes.Buffer
		if code := run(append([]string{"vswitch"}, args...), &out, &errs); code != 0 || errs.Len() > 0 {
			t.Fatalf("%q: exit status %d, %s", args, code, &errs)
		}
		fmt.Fprintf(&all, "=== vswitch %s\n%s\n", strings.Join(args, " "), &out)
	}
	show("--help")
	eachCommand(newApp(nil).Commands, nil, func(path []string, c *cli.Command) {
		show(append(slices.Clone(path), "--help")...)
		for _, f := range c.Flags {
			if v, ok := f.(interface{ Values() []string }); ok && len(v.Values()) > 0 {
				show(append(slices.Clone(path), spell(f.Names()[0]), "", completeFlag)...)
			}
		}
		if len(c.Subcommands) > 0 {
			show(append(slices.Clone(path), "", completeFlag)...)
		}
	})
	generated(t, "testdata/help.golden", all.Bytes())
}
