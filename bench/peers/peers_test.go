package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == gvisorName {
		main() // a process of gvisor.attach
		return
	}
	os.Exit(m.Run())
}

// The command runs: everything that is measured of the switch in this tree and of
// those that need no package, for a moment each.
func TestRun(t *testing.T) { runAll(t, works()) }

// Settings are made at peers that have them.
func TestRunMore(t *testing.T) { runAll(t, moreWorks(), "-more") }

// So are hosts, joined by what carries the frames with and without the fast path.
func TestRunOverlay(t *testing.T) { runAll(t, overlayWorks(), "-overlay") }

// A switch that is observed is compared with the same one that is not.
func TestRunObserved(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "ip")
	jsonFile := filepath.Join(t.TempDir(), "r.json")
	var stderr strings.Builder
	err := run(t.Context(), []string{
		"-observed", "-seconds", "0.1", "-rounds", "1", "-only", "vswitch,vswitch-watched,vswitch-sampled", "-work", "64 B, one way",
		"-vswitch", buildVswitch(t), "-json", jsonFile,
	}, io.Discard, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	b, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var r Results
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Lines) != 3 {
		t.Errorf("%d lines", len(r.Lines))
	}
	for _, l := range r.Lines {
		if observed := l.Peer != "vswitch"; observed != (l.Base == "vswitch") || observed != (l.Ratio != nil) || l.FramesPerS <= 0 {
			t.Errorf("%+v", l)
		}
	}
}

// buildVswitch builds the switch of this tree and returns its path.
func buildVswitch(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "vswitch")
	if out, err := exec.Command("go", "build", "-C", "../..", "-buildvcs=false", "-o", binary, "./cmd/vswitch").CombinedOutput(); err != nil {
		t.Fatalf("build vswitch: %v\n%s", err, out)
	}
	return binary
}

func runAll(t *testing.T, all []work, args ...string) {
	testenv.Root(t)
	testenv.Tool(t, "ip")
	testenv.Tool(t, testpmdName)
	testenv.Tool(t, "nft")
	dir, binary := t.TempDir(), buildVswitch(t)
	jsonFile, svgFile := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg")
	var stdout, stderr strings.Builder
	err := run(t.Context(), append(args,
		"-seconds", "0.1", "-rounds", "1", "-only", "vswitch,bridge,bridge-nft,vswitch-guard (fast path),vswitch-guard-apart (fast path),gvisor",
		"-vswitch", binary, "-json", jsonFile, "-svg", svgFile,
	), &stdout, &stderr)
	t.Logf("%s\n%s", stderr.String(), stdout.String())
	if err != nil {
		t.Fatal(err)
	}

	b, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var r Results
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	for _, l := range r.Lines {
		lines[l.Peer]++
	}
	has := func(pattern func(work) bool) bool { return slices.ContainsFunc(all, pattern) }
	streams := has(func(w work) bool { return w.By == byStream })
	guards := has(func(w work) bool { return w.With == plain && w.Ports == 2 && w.By == byTAP })
	if lines["vswitch"] != len(all) || lines["bridge"] == 0 || lines["gvisor"] > 0 != streams ||
		lines["bridge-nft"] > 0 != guards || lines["vswitch-guard (fast path)"] != lines["bridge-nft"] {
		t.Errorf("lines by peer: %v", lines)
	}
	besides := 0
	for _, w := range all {
		if w.Pattern == spoofed {
			besides++
		}
	}
	if lines["vswitch-guard-apart (fast path)"] != besides {
		t.Errorf("%d works with a spoofer; lines by peer: %v", besides, lines)
	}
	for _, l := range r.Lines {
		if unguarded := l.Peer == "vswitch" || l.Peer == "bridge"; unguarded && l.Work.Pattern == spoofed {
			continue // a spoofer may leave nothing to its neighbours
		}
		if l.FramesPerS <= 0 || l.Arrived <= 0 || l.Arrived > 1 {
			t.Errorf("%s, %s: %.0f frames/s, %v of what was sent", l.Work, l.Peer, l.FramesPerS, l.Arrived)
		}
		if l.Work.Pattern.isTrip() != (l.P50Micros > 0 && l.P99Micros >= l.P50Micros) {
			t.Errorf("%s, %s: p50 %v, p99 %v", l.Work, l.Peer, l.P50Micros, l.P99Micros)
		}
		if compared := l.Peer != l.Base && l.Base != ovsDPDKName; compared != (l.Ratio != nil) && l.Work.Pattern != spoofed {
			t.Errorf("%s, %s: ratio %v", l.Work, l.Peer, l.Ratio)
		}
		if !strings.Contains(stdout.String(), l.Work.String()) {
			t.Errorf("%s is not in the table", l.Work)
		}
	}
	if svg, err := os.ReadFile(svgFile); err != nil || !bytes.HasPrefix(svg, []byte("<svg")) {
		t.Errorf("the plot: %v", err)
	}
}

// announced is a bridge that tells when it has started.
type announced struct {
	bridge
	started chan *lab
}

func (a announced) attach(ctx context.Context, l *lab, by medium, taps []string) error {
	err := a.bridge.attach(ctx, l, by, taps)
	a.started <- l
	return err
}

// A run that is interrupted ends soon, and takes with it what it made.
func TestInterrupt(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "ip")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := announced{started: make(chan *lab, 1)}
	ended := make(chan error)
	go func() {
		_, err := options{time: time.Hour}.measure(ctx, p, works()[0], 0)
		ended <- err
	}()
	l := <-p.started
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the run goes on")
	}
	<-l.ended
	if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", l.dir, err)
	}
}

// What a lab started has ended, and what it made is gone, once it is closed.
func TestLabCloses(t *testing.T) {
	testenv.Root(t)
	l, err := newLab()
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.start(nil, "sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.alive(); err != nil {
		t.Error(err)
	}
	inside, err := l.run(t.Context(), "readlink", "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if outside, err := os.Readlink("/proc/self/ns/net"); err != nil || inside == outside {
		t.Errorf("the lab is in the namespace %s of this test, %v", outside, err)
	}
	l.close()
	if err := unix.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}
	if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", l.dir, err)
	}
}

// A peer whose process dies is a failure that says so, at once.
func TestDeadProcess(t *testing.T) {
	testenv.Root(t)
	l, err := newLab()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if _, err := l.start(nil, "sh", "-c", "echo no room >&2; exit 3"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = l.poll(ctx, func() error { return errors.New("not ready") })
	if err == nil || !strings.Contains(err.Error(), "no room") || ctx.Err() != nil {
		t.Errorf("%v", err)
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-only", "bridge,vswitch", "-work", "^64 B, (one|both)", "-seconds", "0.5"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.peers) != 2 || len(o.works) != 5 || len(o.having(o.works[0])) != 2 || len(o.having(o.works[4])) != 1 || o.time != time.Second/2 || o.rounds != 5 {
		t.Errorf("%+v", o)
	}
	o, err = parseOptions([]string{"-only", "bridge,new,old", "-vswitch", "new=a,old=b/c"}, io.Discard)
	if err != nil || len(o.peers) != 3 || o.peers[1] != (vswitch{as: "new", binary: "a"}) || o.peers[2] != (vswitch{as: "old", binary: "b/c"}) {
		t.Errorf("two builds: %+v, %v", o.peers, err)
	}
	for _, args := range [][]string{
		{"-vswitch", "a,b"}, {"-vswitch", "bridge=a"}, {"-vswitch", "new="}, {"-vswitch", ""},
		{"-only", "cisco"}, {"-work", "nothing"}, {"-only", "bridge", "-work", "stream"}, {"-work", "("}, {"-more", "-overlay"}, {"-more", "-observed"}, {"-base", "cisco"}, {"-only", "vswitch", "-base", "bridge"}, {"-rounds", "0"}, {"-seconds", "0"}, {"-poll", "1h"}, {"more"}, {"-such"},
	} {
		if o, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%q is taken: %+v", args, o)
		}
	}
}

func TestBusyCPU(t *testing.T) {
	got, err := parseBusy("cpu  100 20 3000 99999 8888 4 50 777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	if want := 31740 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu  1 2 3\n", "cpu  1 2 3 4 5 6 x 8\n", "intr 1 2 3 4 5 6 7 8\n"} {
		if got, err := parseBusy(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

// results are three peers at two works, of which one peer failed once and one always.
func results() *Results {
	w, trip := atTAPs(oneWay, smallest, 2), atTAPs(roundTrip, smallest, 2)
	r := &Results{
		Machine: Machine{CPU: "A <CPU> & more", Started: "2026-01-02T03:04:05Z"},
		Rounds:  3, Seconds: 1,
		Peers: []Tested{{bridgeName, "b"}, {"half", "h"}, {"none", "n"}},
	}
	frames := func(n float64) *Sample {
		return &Sample{FramesPerS: n, CPUs: 1, Sent: 100, Expected: 100, Delivered: 99}
	}
	trips := func(us float64) *Sample {
		return &Sample{FramesPerS: 1e6 / us, P50Micros: us, P99Micros: 2 * us, CPUs: 1, IdleCPUs: 0.5, Sent: 1, Expected: 1, Delivered: 1}
	}
	r.Lines = []*Line{
		{Work: w, Peer: bridgeName, Base: bridgeName, Rounds: []*Sample{frames(100_000), frames(200_000), frames(400_000)}},
		{Work: w, Peer: "half", Base: bridgeName, Rounds: []*Sample{frames(50_000), nil, frames(400_000)}, Errors: []string{"lost"}},
		{Work: w, Peer: "none", Base: bridgeName, Rounds: []*Sample{nil, nil, nil}, Errors: []string{"broken", "broken", "broken"}},
		{Work: trip, Peer: bridgeName, Base: bridgeName, Rounds: []*Sample{trips(10), trips(10), trips(10)}},
		{Work: trip, Peer: "half", Base: bridgeName, Rounds: []*Sample{trips(20), trips(30), trips(40)}},
	}
	r.summarise()
	return r
}

func TestSummary(t *testing.T) {
	r := results()
	half, none, trip := r.Lines[1], r.Lines[2], r.Lines[4]
	if want := (Ratio{0.75, 0.5, 1}); half.FramesPerS != 225_000 || half.Ratio == nil || *half.Ratio != want {
		t.Errorf("%v frames/s, ratio %v; want %v", half.FramesPerS, half.Ratio, &want)
	}
	if want := (Ratio{1.5, 1, 2}); half.CPURatio == nil || *half.CPURatio != want {
		t.Errorf("CPU ratio %v, want %v", half.CPURatio, &want)
	}
	if half.Arrived != 0.99 {
		t.Errorf("%v arrived", half.Arrived)
	}
	if none.Ratio != nil || none.FramesPerS != 0 {
		t.Errorf("of nothing: %+v", none)
	}
	if want := (Ratio{3, 2, 4}); trip.Ratio == nil || *trip.Ratio != want || trip.P99Micros != 60 {
		t.Errorf("round trips %v, want %v; p99 %v", trip.Ratio, &want, trip.P99Micros)
	}
	// On a busy machine CPU time is no result.
	if trip.CPURatio != nil || trip.CPUNanos != 0 {
		t.Errorf("CPU of a busy machine: %v, ratio %v", trip.CPUNanos, trip.CPURatio)
	}
	if n := r.failed(); n != 4 {
		t.Errorf("%d failed", n)
	}
	// What failed is null in JSON, and comes back as such.
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again Results
	if err := json.Unmarshal(b, &again); err != nil || again.Lines[1].Rounds[1] != nil || *again.Lines[1].Rounds[0] != *half.Rounds[0] {
		t.Errorf("JSON: %v", err)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := results().write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"225 k frames/s", "99.00 %", "0.75 (0.50–1.00)", "1 of 3 rounds failed: lost", "failed: broken", "p50 30.0 µs, p99 60.0 µs",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if got := percent(0.999999); got != "99.99 %" {
		t.Errorf("a loss is shown as %s", got)
	}
	if got := percent(1); got != "100.00 %" {
		t.Errorf("no loss is shown as %s", got)
	}
}

func TestPlot(t *testing.T) {
	var b bytes.Buffer
	if err := results().plot(&b); err != nil {
		t.Fatal(err)
	}
	bars := map[string][]string{} // widths by colour
	text := ""
	for d := xml.NewDecoder(&b); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.CharData:
			text += string(e)
		case xml.StartElement:
			a := map[string]string{}
			for _, attr := range e.Attr {
				a[attr.Name.Local] = attr.Value
			}
			if e.Name.Local == "rect" {
				bars[a["fill"]] = append(bars[a["fill"]], a["width"])
			}
		}
	}
	// One bar a panel and one in the legend. The first panel goes to 1.25 times the
	// bridge, the second to 4 times.
	for colour, want := range map[string][]string{
		colours[0]: {"344.0", "107.5", "13"}, colours[1]: {"258.0", "322.5", "13"}, colours[2]: {"13"},
	} {
		if got := bars[colour]; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("bars of %s are %v wide, want %v", colour, got, want)
		}
	}
	for _, want := range []string{"A <CPU> & more", "225 k frames/s (0.75)", "64 B, round trip, 2 ports", "2026-01-02"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	if err := (&Results{}).plot(io.Discard); err == nil {
		t.Error("a plot of nothing")
	}
}
