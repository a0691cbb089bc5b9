// Command peers measures vswitch against the switches that its users would run instead, on
// this machine, as root, each in its own network namespaces. It plays the virtual machines
// and holds the fd ends of TAPs, as QEMU does. Peers take turns at each work, in several
// rounds, so that a disturbance of the machine affects all alike. docs/bench/README.md
// describes what is measured and how.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == gvisorName {
		err = serveGvisor(os.Args[2:]) // see gvisor.attach
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// options are the command line's options.
type options struct {
	rounds    int
	time      time.Duration
	poll      time.Duration
	peers     []peer
	works     []work
	base      string // empty: each medium's, or the peer's own
	json, svg string
}

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "how many times each peer is measured at each work")
	seconds := flags.Float64("seconds", 1, "how long each measurement takes")
	flags.DurationVar(&o.poll, "poll", 0, "how long guests look for frames before they sleep, such as 50us")
	only := flags.String("only", "", "the peers to measure, such as vswitch,bridge; all if empty")
	more := flags.Bool("more", false, "measure ports with settings, and shared memory with few and many frames and ports, in place of the usual works")
	observed := flags.Bool("observed", false, "measure what metrics, a follower of drops, and sFlow cost, in place of the usual works")
	overlay := flags.Bool("overlay", false, "measure the guests of two hosts that VXLAN joins, in place of the usual works")
	match := flags.String("work", "", "a regular expression for the works to measure, such as '^64 B, one way'")
	flags.StringVar(&o.base, "base", "", "the peer that others are compared with, such as old")
	builds := flags.String("vswitch", "../../vswitch", "the vswitch to measure, or several such as new=../../vswitch,old=/tmp/vswitch")
	flags.StringVar(&o.json, "json", "", "a file to write all results to")
	flags.StringVar(&o.svg, "svg", "", "a file to write a plot to")
	if err := flags.Parse(args); err != nil {
		return o, errors.Join(flag.ErrHelp, err)
	}
	o.time = time.Duration(*seconds * float64(time.Second))
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is too much; all settings are flags, see -help", flags.Arg(0))
	case o.rounds < 1 || o.rounds > 1000:
		return o, fmt.Errorf("%d rounds make no sense; use 1 to 1000", o.rounds)
	case o.time < 100*time.Millisecond || o.time > 10*time.Minute:
		return o, fmt.Errorf("-seconds %g makes no sense; use 0.1 to 600", *seconds)
	case o.poll < 0 || o.poll > time.Second:
		return o, fmt.Errorf("-poll %v makes no sense; use 0 to 1s", o.poll)
	}
	all, err := peers(*builds)
	if err != nil {
		return o, err
	}
	if o.peers, err = choosePeers(all, *only); err != nil {
		return o, err
	}
	expression, err := regexp.Compile(*match)
	if err != nil {
		return o, fmt.Errorf("-work: %w", err)
	}
	if o.base != "" && !slices.ContainsFunc(o.peers, func(p peer) bool { return p.name() == o.base }) {
		return o, fmt.Errorf("-base: the peer %q is not measured", o.base)
	}
	candidates := works()
	switch {
	case *more && *overlay, *more && *observed, *overlay && *observed:
		return o, errors.New("-more, -observed and -overlay each choose the works; use one")
	case *more:
		candidates = moreWorks()
	case *observed:
		candidates = observedWorks()
	case *overlay:
		candidates = overlayWorks()
	}
	for _, w := range candidates {
		if expression.MatchString(w.String()) && len(o.having(w)) > 0 {
			o.works = append(o.works, w)
		}
	}
	if len(o.works) == 0 {
		return o, fmt.Errorf("no work of these peers matches %q; the works are named as %q", *match, candidates[0])
	}
	return o, nil
}

// having returns the peers that can be measured at w.
func (o options) having(w work) (able []peer) {
	for _, p := range o.peers {
		if has(p, w) {
			able = append(able, p)
		}
	}
	return able
}

// baseOf returns the peer that p is compared with at w.
func (o options) baseOf(p peer, w work) string {
	if o.base != "" {
		return o.base
	}
	if v, ok := p.(variant); ok && v.of() != "" {
		return v.of()
	}
	return w.By.base()
}

func choosePeers(all []peer, only string) ([]peer, error) {
	if only == "" {
		return all, nil
	}
	var names []string
	for _, p := range all {
		names = append(names, p.name())
	}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no peer %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(p peer) bool { return !slices.Contains(wanted, p.name()) }), nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces and TAPs; run it with sudo")
	}
	r := &Results{Machine: thisMachine(), Rounds: o.rounds, Seconds: o.time.Seconds(), PollUs: micros(o.poll)}
	for _, p := range o.peers {
		if !slices.ContainsFunc(o.works, func(w work) bool { return has(p, w) }) {
			continue
		}
		v, err := p.version(ctx)
		if err != nil {
			return err
		}
		r.Peers = append(r.Peers, Tested{p.name(), v})
	}
	if err := r.measure(ctx, o, stderr); err != nil {
		return err
	}
	r.summarise()
	if err := r.write(stdout); err != nil {
		return err
	}
	if err := r.save(o); err != nil {
		return err
	}
	if n := r.failed(); n > 0 {
		return fmt.Errorf("%d measurements failed", n)
	}
	return nil
}

// measure runs the rounds. In each, every peer takes its turn at a work before the next work
// begins, and another peer is first.
func (r *Results) measure(ctx context.Context, o options, stderr io.Writer) error {
	// Each guest has a thread that never yields to another in the Go scheduler.
	guests := slices.MaxFunc(o.works, func(a, b work) int { return a.Ports - b.Ports }).Ports
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(guests, 9) + 4))
	for _, w := range o.works {
		for _, p := range o.having(w) {
			r.Lines = append(r.Lines, &Line{Work: w, Peer: p.name(), Base: o.baseOf(p, w)})
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(stderr, "round %d of %d\n", round+1, o.rounds)
		idle, err := idleCPU(ctx, o.time)
		if err != nil {
			return err
		}
		if idle > quiet {
			fmt.Fprintf(stderr, "peers: do not trust this round: before it %.1f CPUs were busy with something else\n", idle)
		}
		lines := r.Lines
		for _, w := range o.works {
			able := o.having(w)
			for turn := range able {
				k := (round + turn) % len(able)
				s, err := o.measure(ctx, able[k], w, idle)
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				line := lines[k]
				if err != nil {
					fmt.Fprintf(stderr, "peers: %s, %s: %v\n", w, line.Peer, err)
					line.Errors = append(line.Errors, err.Error())
					line.Rounds = append(line.Rounds, nil)
					continue
				}
				line.Rounds = append(line.Rounds, &s)
			}
			lines = lines[len(able):]
		}
	}
	return nil
}

// idleCPU returns the number of CPUs in use while nothing is measured.
func idleCPU(ctx context.Context, d time.Duration) (float64, error) {
	before, err := busyCPU()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := pause(ctx, d); err != nil {
		return 0, errors.New("interrupted")
	}
	after, err := busyCPU()
	return (after - before).Seconds() / time.Since(start).Seconds(), err
}

// save writes the requested files.
func (r *Results) save(o options) error {
	if o.json != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(o.json, append(b, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	if o.svg != "" {
		var b bytes.Buffer
		err := r.plot(&b)
		if err == nil {
			err = os.WriteFile(o.svg, b.Bytes(), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
