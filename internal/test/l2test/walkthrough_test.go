package l2test

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

var update = flag.Bool("update", false, "write what the commands print into docs/walkthrough.md")

const walkthrough = "../../../docs/walkthrough.md"

// TestWalkthrough runs the commands of docs/walkthrough.md and compares what they print with
// what stands there. go test -run TestWalkthrough -update writes it anew.
//
//	guest a ── vm-a ┐
//	guest b ── vm-b ┴ switch
func TestWalkthrough(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(walkthrough)
	if err != nil {
		t.Fatal(err)
	}
	ns := quietNetns(t)
	sw := startDaemon(t, ns)
	sw.ctl("add-port vm-a")
	sw.ctl("add-port vm-b")
	const a, b port.MAC = 0x5254_0000_000a, 0x5254_0000_000b
	boot := func(name string) (g *tuntest.Guest) {
		ns.Do(func() { g = tuntest.Boot(t, name, 0) })
		sw.AwaitState(t, name, api.StateUp)
		return g
	}
	// say has a guest send a frame until the switch has it.
	say := func(g *tuntest.Guest, name string, f frame) {
		t.Helper()
		before := sw.port(name).RX.Frames
		wire, _ := f.wire()
		if err := g.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the switch has the frame", func() bool { return sw.port(name).RX.Frames > before })
	}
	guestA := boot("vm-a")
	var guestB *tuntest.Guest
	arrange := map[string]func(){
		"Does vm-b run?": func() { say(guestA, "vm-a", frame{dst: port.Broadcast, src: a}) },
		"Are both in one VLAN?": func() {
			guestB = boot("vm-b")
			sw.ctl("set-port vm-a --access 10")
			sw.ctl("set-port vm-b --access 20")
			say(guestA, "vm-a", frame{dst: port.Broadcast, src: a})
		},
		"Are both isolated?": func() {
			say(guestB, "vm-b", frame{dst: port.Broadcast, src: b})
			sw.ctl("set-port vm-a --isolated")
			sw.ctl("set-port vm-b --isolated")
		},
		"Does vm-a send what you think?": func() {
			say(guestA, "vm-a", frame{dst: b, src: a, tags: []port.Tag{customer(10)}, size: 64})
		},
		"Does vm-b answer?": func() {},
	}

	var got strings.Builder
	skipping := false
	for _, line := range strings.SplitAfter(string(text), "\n") {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			arrange[strings.TrimSpace(heading)]()
		}
		command, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ vswitch ")
		switch {
		case isCommand:
			skipping = true
			got.WriteString(line)
			stop := func() {}
			if strings.HasPrefix(command, "capture") {
				stop = ping(t, guestA, a, b)
			}
			out, _ := sw.Try(strings.Fields(command)...) // a trace may end with status 1
			stop()
			for _, l := range strings.Split(out, "\n") {
				if l != "" {
					got.WriteString("    " + l + "\n")
				}
			}
		case skipping && strings.HasPrefix(line, "    "): // what it printed before
		default:
			skipping = false
			got.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(walkthrough, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := steady(string(text))
	if !daemontest.FastPath() { // then nothing is said of it
		want = regexp.MustCompile(`(?m)^    kernel .*\n`).ReplaceAllString(want, "")
	}
	if is := steady(got.String()); is != want {
		t.Errorf("docs/walkthrough.md does not say what the commands print now; `go test ./internal/test/l2test -run TestWalkthrough -update` writes:\n%s", got.String())
	}
}

// steady replaces what differs from run to run.
func steady(text string) string {
	text = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{6}`).ReplaceAllString(text, "TIME")
	return regexp.MustCompile(`heard \d+s ago`).ReplaceAllString(text, "heard now")
}

// ping has a guest send pings, which nobody answers, until stop is called.
func ping(t *testing.T, g *tuntest.Guest, from, to port.MAC) (stop func()) {
	wire := append(to.HardwareAddr(), from.HardwareAddr()...)
	wire = append(wire, 8, 0, 0x45, 0, 0, 84, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0, 0, 0, 1, 0, 1)
	wire = append(wire, make([]byte, 56)...)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				_ = g.Send(wire, port.Offload{})
			}
		}
	}()
	return func() { close(done); <-ended }
}
