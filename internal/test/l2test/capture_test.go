package l2test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// capturing is a running `vswitch capture` or `vswitch drops`.
type capturing struct {
	t      testing.TB
	cmd    *exec.Cmd
	out    *bufio.Reader
	errors strings.Builder
	ended  chan struct{} // closed when all of standard error is in errors
}

// begin runs a vswitch command that follows what happens, and returns once it does.
func (d *daemon) begin(args ...string) *capturing {
	d.t.Helper()
	c := &capturing{t: d.t, cmd: d.Command(args...), ended: make(chan struct{})}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	r := bufio.NewReader(stderr)
	first, err := r.ReadString('\n')
	if err != nil || !strings.HasSuffix(first, "Ctrl-C ends it\n") {
		rest, _ := io.ReadAll(r)
		d.t.Fatalf("vswitch %s: %s%s", strings.Join(args, " "), first, rest)
	}
	go func() {
		defer close(c.ended)
		_, _ = io.Copy(&c.errors, r)
	}()
	return c
}

// end returns what the command printed to standard output and error when it ended by itself.
func (c *capturing) end() (out, errors string) {
	c.t.Helper()
	b, err := io.ReadAll(c.out)
	if err != nil {
		c.t.Error(err)
	}
	<-c.ended
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("%v: %v: %s", c.cmd.Args, err, &c.errors)
	}
	return string(b), c.errors.String()
}

// TestCapture sees a ping at both its ports, as it is there.
//
//	h1 ── p1 (access 10) ┐
//	h2 ── p2 (trunk 10)  ┴ switch
func TestCapture(t *testing.T) {
	t.Parallel()
	tshark := testenv.Tool(t, "tshark")
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("set-port p1 --access 10")
	file := filepath.Join(t.TempDir(), "c.pcapng")
	l.sw.ctl("set-port p2 --trunk 10")
	l.want(h2, h2.to(h1, customer(10)), h1)
	c := l.sw.begin("capture", "--write", file, "--count", "2", "ether", "host", h1.mac.String(), "and", "greater", "300")
	if p := l.sw.port("p1"); daemontest.FastPath() && !p.FastPath.On {
		t.Errorf("a captured port is off the fast path: %v", p.FastPath.Off)
	}
	before := l.sw.port("p1").FastPath.Frames
	l.want(h1, frame{dst: h2.mac, src: h1.mac, size: 60}, h2) // not wanted
	l.want(h1, frame{dst: h2.mac, src: h1.mac, size: 300}, h2)
	if _, errors := c.end(); errors != "2 frames captured\n" {
		t.Errorf("it says %q", errors)
	}
	got := outputOf(t, tshark, "-r", file, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.interface_description",
		"-e", "frame.packet_flags_direction", "-e", "vlan.id", "-e", "frame.len")
	if want := "p1|netdev|0x00000001||300\np2|netdev|0x00000002|10|304\n"; got != want {
		t.Errorf("tshark reads\n%swant\n%s", got, want)
	}
	if n := l.sw.port("p1").FastPath.Frames - before; daemontest.FastPath() && n != 1 { // the first one is from an unknown station
		t.Errorf("the kernel handled %d frames meanwhile, want 1", n)
	}
}

// TestCaptureAll captures a TCP transfer at both its ports: no byte of it is missing.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestCaptureAll(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	l.address()
	h1, h2 := l.hosts[0], l.hosts[1]
	l.want(h1, h1.to(h2), h2) // both are known
	l.want(h2, h2.to(h1), h1)
	c := l.sw.begin("capture", "--write", "-", "ether", "src", h1.mac.String(), "and", "(tcp", "or", "ether", "proto", "0x88b5)")
	const size = 512 << 10 // fits into the buffers, however late they are read
	l.bulk(h1, h2, h2.v4, size)
	l.want(h1, h1.to(h2), h2) // comes last
	type seen struct {
		first    uint32
		segments [][2]int // from the first on
		ended    bool
	}
	at := map[string]*seen{"p1": {}, "p2": {}}
	for r := pcapng.NewReader(c.out); !at["p1"].ended || !at["p2"].ended; {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			continue
		}
		if p.Lost != 0 {
			t.Errorf("%d frames are missing", p.Lost)
		}
		s, ip := at[r.Interface(p.Interface).Name], p.Data[14:]
		if binary.BigEndian.Uint16(p.Data[12:]) != 0x0800 {
			s.ended = true
			continue
		}
		tcp := ip[ip[0]&0xf*4:]
		sequence := binary.BigEndian.Uint32(tcp[4:])
		if tcp[13]&2 != 0 { // SYN
			s.first = sequence + 1
		} else if n := len(tcp) - int(tcp[12]>>4*4); n > 0 {
			from := int(sequence - s.first)
			s.segments = append(s.segments, [2]int{from, from + n})
		}
	}
	for name, s := range at {
		slices.SortFunc(s.segments, func(a, b [2]int) int { return a[0] - b[0] })
		until := 0
		for _, one := range s.segments {
			if one[0] > until {
				break
			}
			until = max(until, one[1])
		}
		if until != size {
			t.Errorf("%s: the byte %d of %d is not captured", name, until, size)
		}
	}
}

// outputOf returns what a program prints.
func outputOf(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

// TestExtcap has tshark capture at a port, and only dropped frames, by
// packaging/wireshark/vswitch-extcap.
func TestExtcap(t *testing.T) {
	t.Parallel()
	tshark := testenv.Tool(t, "tshark")
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	_, folder, ok := strings.Cut(outputOf(t, tshark, "-G", "folders"), "xtcap path:")
	if !ok {
		t.Fatal("tshark does not say where its folder for extcap is")
	}
	folder = strings.TrimSpace(strings.SplitN(folder, "\n", 2)[0])
	script, err := filepath.Abs("../../../packaging/wireshark/vswitch-extcap")
	if err != nil {
		t.Fatal(err)
	}
	// The folder is tshark's alone in a mount namespace.
	run := func(args ...string) *exec.Cmd {
		cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c",
			`mkdir -p "$0" && mount -t tmpfs none "$0" && cp "$1" "$0" && shift && exec "$@"`, folder, script, tshark}, args...)...)
		cmd.Env = append(os.Environ(), "VSWITCH="+daemontest.Binary(t), "VSWITCH_SOCKETS="+l.sw.Socket(), "HOME="+t.TempDir())
		return cmd
	}
	name := filepath.Base(l.sw.Socket())
	out, err := run("-D").CombinedOutput()
	for _, want := range []string{name + ":p1 (vswitch " + name + ": p1 (netdev))", name + "::drops (vswitch " + name + ": dropped frames)"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("%v: tshark -D lists\n%s without %s", err, out, want)
		}
	}
	for on, want := range map[string]string{
		name + ":p2":     "p2|0x00000002|",
		name + "::drops": "p1|0x00000001|dropped: bad_source (its source address is zero or a group address)",
	} {
		cmd := run("-i", on, "-f", "ether host "+h2.mac.String(), "-c", "1", "-l", "-T", "fields", "-E", "separator=|",
			"-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "frame.comment")
		var got, errors strings.Builder
		cmd.Stdout, cmd.Stderr = &got, &errors
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		// tshark does not say when it captures.
		var ended error
		testenv.Eventually(t, "tshark has a frame", func() bool {
			l.want(h1, h1.to(h2), h2)
			l.want(h1, frame{dst: h2.mac, src: 0})
			select {
			case ended = <-done:
				return true
			default:
				return false
			}
		})
		if ended != nil || strings.TrimSpace(got.String()) != want {
			t.Errorf("%s: %v: tshark prints %q, want %q\n%s", on, ended, got.String(), want, &errors)
		}
	}
}

// TestDrops follows what is dropped while other frames stay on the fast path.
//
//	h1 ── p1 (isolated) ┐
//	h2 ── p2 (isolated) ┼ switch
//	h3 ── p3            ┘
func TestDrops(t *testing.T) {
	t.Parallel()
	tshark := testenv.Tool(t, "tshark")
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --isolated")
	l.sw.ctl("set-port p2 --isolated")
	for _, h := range l.hosts {
		l.want(h, frame{dst: station(0), src: h.mac}, l.others(h)...)
	}
	file := filepath.Join(t.TempDir(), "d.pcapng")
	c := l.sw.begin("drops", "--follow", "--count", "2", "--reason", "isolated", "--reason", "bad_source")
	w := l.sw.begin("drops", "--follow", "--count", "1", "--write", file, "--filter", "ether src 00:00:00:00:00:00", "--port", "p1")
	if p := l.sw.port("p1"); daemontest.FastPath() && !p.FastPath.On {
		t.Errorf("a port whose drops are followed is off the fast path: %v", p.FastPath.Off)
	}
	before := l.sw.port("p1").FastPath.Frames
	l.wantDrop(h1, frame{dst: h2.mac, src: h1.mac, size: 60}, port.DropIsolated)
	l.want(h1, h1.to(h3), h3)
	if n := l.sw.port("p1").FastPath.Frames - before; daemontest.FastPath() && n != 1 {
		t.Errorf("the kernel handled %d frames meanwhile, want 1", n)
	}
	l.wantDrop(h1, frame{dst: h3.mac, src: 0, size: 60}, port.DropBadSource)
	out, _ := c.end()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, want := range []string{
		"p1 in  isolated  " + h1.mac.String() + " > " + h2.mac.String() + " type 0x88b5 len 60  (" + port.DropIsolated.Info().Words + ")",
		"p1 in  bad_source  00:00:00:00:00:00 > " + h3.mac.String() + " type 0x88b5 len 60  (its source address is zero or a group address)",
	} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Errorf("line %d of\n%swant …%s", i, out, want)
		}
	}
	w.end()
	got := outputOf(t, tshark, "-r", file, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "eth.src", "-e", "frame.len")
	if want := "p1|dropped: bad_source (its source address is zero or a group address)|00:00:00:00:00:00|60\n"; got != want {
		t.Errorf("tshark reads\n%swant\n%s", got, want)
	}
	if out := l.sw.ctl("drops --reason bad_source"); strings.Count(out, "\n") != 0 || !strings.HasSuffix(out, lines[1][16:]) {
		t.Errorf("without --follow:\n%s", out)
	}
	// Programs get a frame in the same words as people.
	f := l.sw.begin("drops", "--follow", "--count", "1", "-o", "json", "--reason", "bad_source")
	l.wantDrop(h1, frame{dst: h3.mac, src: 0, size: 60}, port.DropBadSource)
	followed, _ := f.end()
	for _, out := range []string{followed, l.sw.ctl("drops -o json --reason bad_source")} {
		if !strings.Contains(out, "00:00:00:00:00:00 > "+h3.mac.String()) {
			t.Errorf("drops -o json:\n%s", out)
		}
	}
}

// others returns the hosts of TestDrops that get what a host floods.
func (l *lan) others(from *host) (to []*host) {
	for _, h := range l.hosts {
		if h != from && !(from.port != "p3" && h.port != "p3") {
			to = append(to, h)
		}
	}
	return to
}

// TestTrace holds what a trace says to what the switch then does, on the fast path and beside
// it.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘
func TestTrace(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	for _, c := range []struct {
		set  string // on p1 and p2
		tags []port.Tag
		says string
	}{
		{"", nil, "verdict  delivered"},
		{"--isolated", nil, "DROPPED isolated: p1 and p2 are both isolated"},
		{"--isolated=off --access 10", nil, "verdict  delivered"},
		{"", []port.Tag{customer(10)}, "DROPPED vlan_tagged"},
		{"--trunk 10,20", []port.Tag{customer(20)}, "verdict  delivered"},
		{"", []port.Tag{customer(30)}, "DROPPED vlan_filtered: p1 carries VLAN 10,20, not the frame's"},
		{"", nil, "DROPPED vlan_untagged"},
		{"--no-vlan --locked", nil, "DROPPED locked"},
		{"--locked=off --rate-in 1kbit", nil, "verdict  delivered"},
	} {
		if c.set != "" {
			l.sw.ctl("set-port p1 %s", c.set)
			l.sw.ctl("set-port p2 %s", c.set)
		}
		for _, destinationKnown := range []bool{false, true} {
			wire, _ := h1.to(h2, c.tags...).wire()
			out, err := l.sw.Try("trace", "p1", "--hex", hex.EncodeToString(wire))
			delivered := err == nil
			if destinationKnown && !strings.Contains(out, c.says) {
				t.Errorf("%s, tags %x: the trace says\n%s\nwithout %q", c.set, c.tags, out, c.says)
			}
			var to []*host
			if delivered {
				to = append(to, h2)
			}
			if delivered && sentByP3.MatchString(out) {
				to = append(to, h3)
			}
			before := l.sw.port("p1")
			l.want(h1, h1.to(h2, c.tags...), to...)
			after := l.sw.port("p1")
			if n := after.RX.Frames - before.RX.Frames; n != 1 {
				t.Errorf("%s, tags %x: %d frames came by p1, want 1: a trace is counted", c.set, c.tags, n)
			}
			if fast, says := after.FastPath.Frames > before.FastPath.Frames, byKernel.MatchString(out); fast != says {
				t.Errorf("%s, tags %x: whether the kernel handles the frame: %v, but the trace says\n%s", c.set, c.tags, fast, out)
			}
			l.send(h2, h2.to(h1, c.tags...)) // h2 is known now, where its port admits it
		}
	}
	l.sw.refuse("there is no port p9", "trace p9 --from %s", h1.mac)
	l.sw.refuse("there is no port p9", "trace p9")
	// What p1 dropped when it was locked would pass now.
	if out, err := l.sw.Try("trace", "p1", "--last"); err != nil || !strings.Contains(out, "behind p2") {
		t.Errorf("the last dropped frame: %v: %s", err, out)
	}
}

var byKernel = regexp.MustCompile(`kernel +p1 +(on|dropped by) the fast path`)

var sentByP3 = regexp.MustCompile(`out +p3 \(netdev\) +sent`)
