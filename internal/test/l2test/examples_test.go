package l2test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// helpFile has the help of all commands; a test of the command holds it to what they print.
const helpFile = "../../../cmd/vswitch/testdata/help.golden"

// examples returns the lines of each command's example, by its name.
func examples(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(helpFile)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]string)
	for _, block := range strings.Split(string(text), "=== vswitch ")[1:] {
		head, body, _ := strings.Cut(block, "\n")
		name, ok := strings.CutSuffix(head, "--help")
		if !ok {
			continue // what a shell completes
		}
		_, example, ok := strings.Cut(body, "Example:\n")
		if !ok {
			t.Errorf("vswitch %s has no example", name)
		}
		var lines []string
		for line := range strings.Lines(example) {
			if line = strings.TrimRight(line, "\n"); line != "" && !strings.HasPrefix(line, "    ") {
				break
			} else if line != "" {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		all[strings.TrimSpace(name)] = lines
	}
	return all
}

// before is what an example takes for granted, in shell, by the command or its family: ports,
// files, and settings that others made. Without one, there are two TAPs.
var before = map[string]string{
	"": "export VSWITCH_SOCKET=$PWD/own",

	"add-port": "ip netns add $OTHER; ip link add eth1 type veth peer name eth1b; ip link set eth1 up; ip addr add 192.0.2.1/24 dev lo; mkdir vm",
	"set-port": "vswitch add-port vm0; ip link add eth1 type veth peer name eth1b; ip link set eth1 up; vswitch add-port eth1 --kind netdev",
	"apply":    "vswitch add-port vm0; " + changes + "cp 1.yaml switch.yaml",
	"diff":     "vswitch add-port vm0; vswitch config export >switch.yaml",
	"confirm":  changes + "vswitch apply -f 1.yaml --confirm 10m",
	"rollback": changes + "for n in 1 2 3 4; do vswitch apply -f $n.yaml; done",
	"fdb":      "vswitch add-port vm0 --may-exist; vswitch add-port vm1 --may-exist --trunk 10 --native 1",
	"fdb del":  "vswitch fdb add 52:54:00:12:34:56 vm0 || true",
	"stp":      "vswitch set --stp",
	"mdb":      "vswitch set --snooping; vswitch add-port vm0 --may-exist --trunk 10 --native 1",
	"mdb del":  "vswitch mdb add 239.1.2.3 vm0",
	"mirror": `for p in vm0 vm1 vm2 mon0; do vswitch add-port $p --may-exist; done
		vswitch add-port all0 --may-exist --trunk 10,900`,
	"mirror del": "vswitch mirror list | grep m0",
	"guard":      "vswitch add-port vm0 --may-exist --guard on",
	"guard del":  "vswitch guard add vm0 192.0.2.10",

	"guard import":      "vswitch guard export vm0 > vm0.json",
	"evpn":              "ip addr replace 192.0.2.1/24 dev lo",
	"evpn neighbors":    tunnel,
	"evpn routes":       tunnel,
	"evpn macs":         tunnel,
	"evpn neighbor":     noNeighbor,
	"evpn neighbor add": noNeighbor,
	"evpn neighbor del": "vswitch evpn neighbor add 192.0.2.254 --as 65000 || true",
	"qemu-args":         "vswitch add-port vm0; vswitch add-port fast0 --kind vhost-user",
	"web":               "vswitch add-port vm0",
	"libvirt-hook": `cat >web.xml <<-'END'
		<domain type='kvm'><name>web</name><uuid>9c0f2b52-5d4e-4a0a-8f5f-3f9f7a1c0001</uuid><metadata>
		<vswitch:ports xmlns:vswitch='https://github.com/vswitch/vswitch/libvirt/1'><vswitch:port name='vm7'/></vswitch:ports>
		</metadata></domain>
		END`,
	"config":     "vswitch add-port vm0 --may-exist",
	"completion": "true",
	"man":        "true",
	"version":    "true",
	"trace": `for p in vm0 h0; do vswitch add-port $p --kind host --trunk 20 --native 1; done
		vswitch set-port vm0 --access 30
		ip addr add 10.0.0.1/24 dev vm0; ping -c 1 -W 1 10.0.0.9 >ping.txt || true
		until vswitch drops --port vm0 --filter arp | grep .; do sleep 0.05; done >drops.txt
		vswitch set-port vm0 --trunk 20 --native 1
		vswitch fdb add 52:54:00:00:00:01 vm0; vswitch fdb add 52:54:00:00:00:01 vm0 --vlan 20`,
}

const (
	changes = `for n in 1 2 3 4; do printf 'version: 1\nswitch: {aging: %ds}\n' ${n}0 >$n.yaml; done; `
	tunnel  = `vswitch add-port up0 --may-exist --kind vxlan --local 192.0.2.1 --vni 10010; vswitch set --evpn-as 65001`

	noNeighbor = "vswitch evpn neighbor del 192.0.2.254 || true"
)

// endless are examples that go on until somebody ends them.
var endless = regexp.MustCompile(`^vswitch run |^vswitch (capture|drops --follow|events --follow)|^vswitch web$`)

// TestExamples runs the example of each command's help. What is not on a host of a test is
// another: the switch lab, QEMU, the user libvirt-qemu, directories of the host.
func TestExamples(t *testing.T) {
	t.Parallel()
	all := examples(t)
	if len(all) < 50 {
		t.Fatalf("only %d commands have help", len(all))
	}
	families := make(map[string][]string)
	for name := range all {
		family, _, _ := strings.Cut(name, " ")
		families[family] = append(families[family], name)
	}
	for family, names := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			slices.Sort(names)
			b := newBench(t)
			for _, name := range names {
				arrange, ok := before[name]
				if f, has := before[family]; name != family && has && name != "" {
					arrange = f + "\n" + arrange
				} else if !ok {
					arrange = "vswitch add-port vm0 --may-exist; vswitch add-port vm1 --may-exist"
				}
				b.example(name, arrange, all[name])
			}
		})
	}
}

// bench is where examples run: a namespace with a switch, and a directory.
type bench struct {
	t    *testing.T
	sw   *daemon
	dir  string
	env  []string
	swap *strings.Replacer // what is another here
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ns := quietNetns(t)
	ns.Run("ip", "link", "set", "lo", "up")
	b := &bench{t: t, sw: startDaemon(t, ns)}
	var err error
	if b.dir, err = os.MkdirTemp("", "ex"); err != nil { // t.TempDir makes sockets' paths too long
		t.Fatal(err)
	}
	bin, other := filepath.Join(b.dir, "bin"), ns.Name+"-web"
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", other).Run() // few examples make it
		os.RemoveAll(b.dir)
	})
	err = errors.Join(os.Mkdir(bin, 0o755), os.Symlink(daemontest.Binary(t), filepath.Join(bin, "vswitch")))
	for _, name := range []string{"qemu-system-x86_64", "virsh"} { // they want a machine's disk
		err = errors.Join(err, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	b.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "VSWITCH_SOCKET="+b.sw.Socket(), "OTHER="+other, "GORACE=atexit_sleep_ms=0")
	b.swap = strings.NewReplacer("show --name lab", "show", "--name lab", "--socket own", "libvirt-qemu", "root", "--netns web", "--netns "+other, "/run/vm/", b.dir+"/vm/", "…", "")
	return b
}

// toFile is where an example writes a file of the host.
var toFile = regexp.MustCompile(`>/(etc|usr)/\S+`)

// example runs what a command's example takes for granted, and then the example.
func (b *bench) example(name, arrange string, lines []string) {
	b.t.Helper()
	if name == "" { // all of it is one session, whose switch is ready when the second line comes
		lines = []string{strings.Replace(strings.Join(lines, "\n"), "vswitch run &",
			"vswitch run --state state & trap 'kill %1; wait' EXIT; until vswitch show &>/dev/null; do sleep 0.05; done", 1)}
		lines[0], arrange = arrange+"\n"+lines[0], "true"
	}
	b.run(name, arrange, false)
	for _, line := range lines {
		line = toFile.ReplaceAllStringFunc(b.swap.Replace(line), func(s string) string {
			path := filepath.Join(b.dir, s[1:])
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.t.Fatal(err)
			}
			return ">" + path
		})
		b.run(name, line, endless.MatchString(line))
	}
}

// run runs a script, which succeeds, or goes on until it is ended.
func (b *bench) run(name, script string, endless bool) {
	b.t.Helper()
	limit, want := "60", 0
	if endless {
		limit, want = "2", timedOut
	}
	cmd := b.sw.Netns.Command("timeout", limit, "bash", "-c", "set -eo pipefail; cd "+b.dir+"\n"+script)
	cmd.Env = b.env
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != want {
		b.t.Errorf("the example of vswitch %s: %s\n%v, want status %d: %s", name, script, err, want, out)
	}
}

// timedOut is the status of timeout(1) if it has ended the program.
const timedOut = 124
