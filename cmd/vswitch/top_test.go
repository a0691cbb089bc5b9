package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
)

func sampled(name string, number uint16, rx, tx, dropped, fast uint64) api.Port {
	p := api.Port{Name: name, Number: number, Kind: "tap", State: api.StateUp}
	p.RX = api.Counters{Frames: rx, Bytes: 100 * rx, Dropped: map[string]uint64{}}
	p.TX = api.Counters{Frames: tx, Bytes: 100 * tx, Dropped: map[string]uint64{}}
	if dropped > 0 {
		p.RX.Dropped["isolated"], p.TX.Dropped["queue_full"] = 1, dropped-1
	}
	p.FastPath.Frames = fast
	return p
}

func TestRates(t *testing.T) {
	before := []api.Port{sampled("vm0", 0, 100, 50, 1, 0), sampled("vm1", 1, 1000, 0, 0, 0), sampled("gone", 2, 9, 9, 0, 0)}
	after := []api.Port{sampled("vm0", 0, 300, 60, 11, 150), sampled("vm1", 1, 10, 0, 0, 0), sampled("new", 2, 8, 0, 0, 0)}
	got := ratesOf(before, after, 2*time.Second)
	want := []rate{
		{Name: "vm0", Kind: "tap", State: "up", RXBits: 80000, RXFrames: 100, TXBits: 4000, TXFrames: 5, Drops: 5, Reason: "queue_full", FastPath: 0.75},
		{Name: "vm1", Kind: "tap", State: "up", RXBits: 4000, RXFrames: 5},
		{Name: "new", Kind: "tap", State: "up", RXBits: 3200, RXFrames: 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rates (-want +got):\n%s", diff)
	}
	for order, want := range map[string]string{
		"traffic": "vm0 vm1 new", "rx": "vm0 vm1 new", "tx": "vm0 new vm1", "drops": "vm0 new vm1", "fastpath": "vm0 new vm1", "name": "new vm0 vm1",
	} {
		sortRates(got, order)
		var names []string
		for _, r := range got {
			names = append(names, r.Name)
		}
		if s := strings.Join(names, " "); s != want {
			t.Errorf("by %s: %s, want %s", order, s, want)
		}
	}
	if len(rateOrder) != len(rateOrders) {
		t.Errorf("%d orders are named, of %d", len(rateOrder), len(rateOrders))
	}
	for text, want := range map[string]int{"vm": 2, "tap": 3, "up": 3, "vm1": 1, "": 3, "none": 0} {
		if n := len(matchRates(got, text)); n != want {
			t.Errorf("%d ports with %q, want %d", n, text, want)
		}
	}
}

func TestShort(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "7": 7.2, "999": 999.4, "1.0k": 999.6, "1.2k": 1234, "9.9k": 9940, "10k": 9960, "345k": 345432, "1.0M": 999600, "2.5G": 2.5e9, "100G": 1e11, "1.0T": 1e12, "18P": 1.8e16,
	} {
		if got := short(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

// plain removes what moves the cursor and colours.
func plain(s string) string {
	return regexp.MustCompile(`\x1b\[[?0-9;]*[a-zA-Z]`).ReplaceAllString(s, "")
}

func manyRates(n int) (all []rate) {
	for i := range n {
		all = append(all, rate{Name: fmt.Sprintf("a-long-port%04d", i), State: "no-carrier", RXBits: 123456789, RXFrames: 123456, TXBits: 1e12 - float64(i), Drops: 5, Reason: "storm_unknown_unicast", FastPath: 1})
	}
	return all
}

func TestScreen(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {200, 60}, {20, 5}, {1, 1}, {80, 2000}} {
		for _, color := range []bool{false, true} {
			v := topView{order: "traffic", color: color, rates: manyRates(1000), taken: true}
			s := v.screen(size[0], size[1])
			if colored := strings.Contains(s, "m") && regexp.MustCompile(`\x1b\[[0-9]*m`).MatchString(s); colored != (color && size[1] > 2) {
				t.Errorf("%v: colours %v", size, colored)
			}
			lines := strings.Split(plain(s), "\r\n")
			if want := min(size[1], 1003); len(lines) != want {
				t.Errorf("%v: %d lines, want %d", size, len(lines), want)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > size[0] {
					t.Errorf("%v: a line is too long: %q", size, l)
				}
			}
		}
	}
	v := topView{order: "traffic", rates: manyRates(2), taken: true}
	want := `2 ports: 2 no-carrier  in 247Mbit/s  out 2.0Tbit/s  drops 10/s
by traffic  (t r x d f n sort, / filter, Enter port, q quit)
NAME            STATE       IN bit/s frame/s OUT bit/s frame/s  DROP/s  FAST  REASON
a-long-port0000 no-carrier      123M    123k      1.0T       0       5  100%  storm_unknown_unicast
a-long-port0001 no-carrier      123M    123k      1.0T       0       5  100%  storm_unknown_unicast`
	if diff := cmp.Diff(want, strings.ReplaceAll(plain(v.screen(120, 24)), "\r\n", "\n")); diff != "" {
		t.Errorf("the screen (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(rateHead[:77], "NAME") || strings.Index(rateHead, "REASON") > 79 {
		t.Error("the numbers do not fit into 80 columns")
	}
}

func TestKeys(t *testing.T) {
	v := topView{order: "traffic"}
	for _, k := range "d/vm9\x7f1\r" {
		if v.key(k) {
			t.Errorf("%q ends it", k)
		}
	}
	if v.order != "drops" || v.filter != "vm1" || v.typing {
		t.Errorf("after the keys: %+v", v)
	}
	for _, k := range "/q\x1b" {
		if v.key(k) {
			t.Errorf("%q ends it while a filter is typed", k)
		}
	}
	if v.filter != "" || v.typing {
		t.Errorf("after Escape: %+v", v)
	}
	if !v.key('q') || !v.key(keyInterrupt) {
		t.Error("q or Ctrl-C does not end it")
	}
}

// What terminals send for keys is read as those, and nothing that follows is lost.
func TestReadKeys(t *testing.T) {
	in, out := io.Pipe()
	keys := make(chan rune, 32)
	go readKeys(in, keys)
	for _, s := range []string{"\x1b[A\x1bOBq", "\x1b", "\x1b[6~é\x1b[1;5C", "\x1b[5~\x1b[99999999999999"} {
		if _, err := io.WriteString(out, s); err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
	var got []rune
	for k := range keys {
		got = append(got, k)
	}
	want := []rune{keyUp, keyDown, 'q', keyEscape, keyPageDown, 'é', keyOther, keyPageUp, keyOther}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("the keys are %q, want %q", got, want)
	}
}

func TestCursor(t *testing.T) {
	v := topView{order: "name", rates: manyRates(100), taken: true}
	for _, c := range []struct {
		key    rune
		chosen int
	}{{keyUp, 0}, {keyUp, 0}, {keyDown, 1}, {'j', 2}, {'k', 1}, {keyPageDown, 11}, {keyPageDown, 21}, {keyPageUp, 11}} {
		v.key(c.key)
		if want := fmt.Sprintf("a-long-port%04d", c.chosen); v.chosen != want {
			t.Errorf("the cursor is at %s, want %s", v.chosen, want)
		}
	}
	// It stays in sight, and at its port when the order changes.
	if s := plain(v.screen(80, 8)); !strings.Contains(s, "a-long-port0011<") || strings.Contains(s, "a-long-port0012") {
		t.Errorf("the screen: %q", s)
	}
	for range 20 {
		v.key(keyPageDown)
	}
	if v.chosen != "a-long-port0099" {
		t.Errorf("at the end it is at %s", v.chosen)
	}
	v.key(keyEscape)
	if v.chosen != "" || strings.Contains(v.screen(80, 8), "<") {
		t.Error("Escape leaves a cursor")
	}
	v.filter = "none has this"
	if v.key('\r') || v.shown != nil {
		t.Error("Enter shows a port where there is none")
	}
	v.filter = ""
	if v.key('\r'); v.shown == nil || v.shown.name != "a-long-port0000" {
		t.Errorf("Enter shows %+v", v.shown)
	}
	v.key('t')
	if v.shown == nil || v.order != "name" {
		t.Error("a key of the table changes it behind a port")
	}
}

func TestPortView(t *testing.T) {
	before, p := sampled("vm0", 3, 100, 50, 1, 0), sampled("vm0", 3, 300, 60, 11, 150)
	p.FastPath.On = true
	v := portView{
		name: "vm0", before: before, port: &p, took: 2 * time.Second,
		stations: []api.FDBEntry{{MAC: 0x0200_0000_0001, VLAN: 10, Port: "vm0", Type: "dynamic", AgeS: 4}},
		words:    map[string]string{"isolated": "vm0 and the receiver are isolated"},
	}
	text := func(height int) (s string) {
		for _, l := range v.lines(height) {
			s += l.text + "\n"
		}
		return s
	}
	want := `port vm0  (Escape back, q quit)
state      tap, up
VLAN       -
fast path  75% of received frames; on

               bit/s   frame/s          FRAMES              BYTES
in               80k       100             300              30000
out             4.0k         5              60               6000

DROPS         DROP/s          FRAMES  WHY
out                5              10  queue_full
in                 0               1  vm0 and the receiver are isolated

STATION             VLAN  TYPE        AGE
02:00:00:00:00:01     10  dynamic       4
`
	if diff := cmp.Diff(want, text(50)); diff != "" {
		t.Errorf("the port (-want +got):\n%s", diff)
	}
	if s := text(5); strings.Count(s, "\n") != 5 || !strings.HasSuffix(s, "\n11 more lines; vswitch ports vm0 and vswitch fdb list have all\n") {
		t.Errorf("in five lines: %s", s)
	}
	v.port = nil
	if s := text(50); !strings.HasSuffix(s, "\nthere is no such port any more\n") {
		t.Errorf("without the port: %s", s)
	}
}

// terminal is a pseudo terminal with a program in it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	text strings.Builder
}

func runInTerminal(t *testing.T, width, height uint16, env []string, name string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{t: t, master: master, cmd: exec.Command(name, args...)}
	term.cmd.Env = append(os.Environ(), env...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.cmd.Process.Kill(); _ = term.cmd.Wait() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.text.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

// screens returns what was drawn so far, each screen as its lines.
func (t *terminal) screens() (all [][]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range strings.Split(t.text.String(), "\x1b[H")[1:] {
		if head, _, ok := strings.Cut(s, "\x1b[J"); ok {
			all = append(all, strings.Split(plain(head), "\r\n"))
		}
	}
	return all
}

// await waits for a screen that is right.
func (t *terminal) await(what string, right func(lines []string) bool) {
	t.t.Helper()
	if err := eventually(func() error {
		if !slices.ContainsFunc(t.screens(), right) {
			return fmt.Errorf("not so: %s", what)
		}
		return nil
	}); err != nil {
		t.t.Fatalf("%v; the screens: %q", err, t.screens())
	}
}

// vswitch top draws the daemon's ports in a terminal, heeds keys, and leaves the terminal as it
// was.
func TestTopInTerminal(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // see setup
	dir, err := os.MkdirTemp("", "vswitch") // t.TempDir makes a socket's path too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := dir + "/s"
	daemon := exec.Command("vswitch", "run", "--socket", socket, "--ephemeral", "--fastpath", "off")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	ctl := func(args ...string) string {
		t.Helper()
		var out []byte
		if err := eventually(func() (err error) {
			out, err = exec.Command("vswitch", append(args, "--socket", socket)...).CombinedOutput()
			return err
		}); err != nil {
			t.Fatalf("vswitch %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	for i := range 30 {
		ctl("add-port", fmt.Sprintf("vm%02d", i), "--kind", "dgram", "--may-exist")
	}
	// No terminal: one table.
	out := ctl("top", "--interval", "100ms", "--filter", "vm0")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 11 || !strings.HasPrefix(lines[1], "vm00            waiting ") || strings.Contains(out, "\x1b") {
		t.Errorf("without a terminal:\n%s", out)
	}
	if out := ctl("ports", "vm07", "--rate"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "vm07 ") {
		t.Errorf("ports --rate:\n%s", out)
	}

	term := runInTerminal(t, 80, 12, []string{"NO_COLOR=1", "TERM=xterm", "GORACE=atexit_sleep_ms=0"}, "vswitch", "top", "--socket", socket, "--interval", "100ms")
	term.await("the ports", func(lines []string) bool {
		return len(lines) == 12 && strings.HasPrefix(lines[0], "30 ports: 30 waiting  in 0bit/s") && strings.HasPrefix(lines[3], "vm00 ") && strings.HasPrefix(lines[11], "vm08 ")
	})
	for _, s := range term.screens() {
		for _, l := range s {
			if utf8.RuneCountInString(l) > 80 {
				t.Errorf("a line is wider than the terminal: %q", l)
			}
		}
	}
	if _, err := term.master.WriteString("n/vm2\r"); err != nil {
		t.Fatal(err)
	}
	term.await("the filter", func(lines []string) bool {
		return strings.HasPrefix(lines[1], `by name, 10 ports with "vm2"`) && len(lines) == 12 && strings.HasPrefix(lines[3], "vm20 ")
	})

	// The arrows choose a port, and Enter shows it, with what happens to it meanwhile.
	guest, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/guest", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close() })
	if _, err := term.master.WriteString("/\x7f\x7f\x7f\r\x1b[B\x1b[B\x1b[B\x1b[A\x1b[5~\x1b[B"); err != nil {
		t.Fatal(err)
	}
	term.await("the cursor", func(lines []string) bool {
		return len(lines) == 12 && strings.HasPrefix(lines[4], "vm01           <waiting")
	})
	if _, err := term.master.WriteString("\r"); err != nil {
		t.Fatal(err)
	}
	term.await("the port", func(lines []string) bool {
		return strings.HasPrefix(lines[0], "port vm01 ") && strings.HasPrefix(lines[1], "state      dgram, waiting: ") && strings.Contains(strings.Join(lines, "\n"), "fast path  off: ")
	})
	if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 80}); err != nil {
		t.Fatal(err)
	}
	var sw api.Switch
	if err := json.Unmarshal([]byte(ctl("show", "-o", "json")), &sw); err != nil {
		t.Fatal(err)
	}
	to := &net.UnixAddr{Name: filepath.Join(sw.SocketDir, "vm01.sock"), Net: "unixgram"}
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 0x88, 0xb5}, make([]byte, 46)...)
	for _, datagram := range [][]byte{[]byte("runt"), frame} {
		if _, err := guest.WriteTo(datagram, to); err != nil {
			t.Fatal(err)
		}
	}
	term.await("what the port lost, and its station", func(lines []string) bool {
		all := strings.Join(lines, "\n")
		return strings.HasPrefix(lines[1], "state      dgram, up") &&
			regexp.MustCompile(`(?m)^in +[0-9]+ +1  shorter than an Ethernet header$`).MatchString(all) &&
			regexp.MustCompile(`(?m)^02:00:00:00:00:07 +1 +dynamic +[0-9]+$`).MatchString(all)
	})
	if _, err := term.master.WriteString("\x1b"); err != nil {
		t.Fatal(err)
	}
	term.await("the table again", func(lines []string) bool {
		return len(lines) == 33 && strings.HasPrefix(lines[4], "vm01           <up")
	})
	if _, err := term.master.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if err := term.cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if err := eventually(func() error {
		term.mu.Lock()
		defer term.mu.Unlock()
		if s := term.text.String(); !strings.HasSuffix(s, "\x1b[?25h\x1b[?1049l") {
			return fmt.Errorf("the terminal is left with %q", s[max(0, len(s)-40):])
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	term.mu.Lock()
	defer term.mu.Unlock()
	if strings.Contains(term.text.String(), "\x1b[7m") {
		t.Error("colours in spite of NO_COLOR")
	}
}
