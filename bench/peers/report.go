package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// Results is a whole run, as saved in JSON.
type Results struct {
	Machine Machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"`           // of each measurement
	PollUs  float64  `json:"poll_us,omitempty"` // how long guests poll for frames before they sleep
	Peers   []Tested `json:"peers"`
	Lines   []*Line  `json:"lines"`
}

// Tested is a measured peer.
type Tested struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Line is the result of one peer at one work.
type Line struct {
	Work   work      `json:"work"`
	Peer   string    `json:"peer"`
	Rounds []*Sample `json:"rounds"` // null if the round failed
	Errors []string  `json:"errors,omitempty"`

	// Medians of the rounds.
	FramesPerS float64 `json:"frames_per_s"`
	BitsPerS   float64 `json:"bits_per_s"`
	Arrived    float64 `json:"delivered_of_sent"`
	CPUNanos   float64 `json:"cpu_ns_per_frame,omitempty"` // left out if the machine was not quiet
	P50Micros  float64 `json:"rtt_p50_us,omitempty"`
	P99Micros  float64 `json:"rtt_p99_us,omitempty"`

	// Ratios to the base in the same round: of frames/s, or of the p50 of a round
	// trip; and of CPU time per frame.
	Base     string `json:"base"`
	Ratio    *Ratio `json:"ratio_to_base,omitempty"`
	CPURatio *Ratio `json:"cpu_ratio_to_base,omitempty"`
}

// values returns one figure of all rounds, NaN for a failed round.
func (l *Line) values(figure func(Sample) float64) []float64 {
	v := make([]float64, len(l.Rounds))
	for i, s := range l.Rounds {
		if v[i] = math.NaN(); s != nil {
			v[i] = figure(*s)
		}
	}
	return v
}

func framesPerS(s Sample) float64 { return s.FramesPerS }
func p50(s Sample) float64        { return s.P50Micros }

// compared returns the figure that the ratio compares.
func (l *Line) compared() func(Sample) float64 {
	if l.Work.Pattern.isTrip() {
		return p50
	}
	return framesPerS
}

// worked reports whether any round of the line gave a result.
func (l *Line) worked() bool { return len(l.Errors) < len(l.Rounds) }

// summarise computes what follows from the rounds.
func (r *Results) summarise() {
	for _, l := range r.Lines {
		if !l.worked() {
			continue
		}
		for _, f := range []struct {
			to     *float64
			figure func(Sample) float64
		}{
			{&l.FramesPerS, framesPerS}, {&l.CPUNanos, Sample.cpuNanos}, {&l.P50Micros, p50},
			{&l.BitsPerS, func(s Sample) float64 { return s.BitsPerS }},
			{&l.Arrived, Sample.arrived},
			{&l.P99Micros, func(s Sample) float64 { return s.P99Micros }},
		} {
			if v := numbers(l.values(f.figure)); len(v) > 0 {
				*f.to = median(v)
			}
		}
		for _, b := range r.Lines {
			if b.Peer != l.Base || b.Work != l.Work || l.Peer == l.Base {
				continue
			}
			if q, ok := ratio(l.values(l.compared()), b.values(l.compared())); ok {
				l.Ratio = &q
			}
			if q, ok := ratio(l.values(Sample.cpuNanos), b.values(Sample.cpuNanos)); ok {
				l.CPURatio = &q
			}
		}
	}
}

// failed returns the number of measurements without a result.
func (r *Results) failed() (n int) {
	for _, l := range r.Lines {
		n += len(l.Errors)
	}
	return n
}

// delivered describes the line's result.
func (l *Line) delivered() string {
	switch {
	case l.Work.Pattern.isTrip():
		return fmt.Sprintf("p50 %.1f µs, p99 %.1f µs", l.P50Micros, l.P99Micros)
	case l.Work.Size == superFrame:
		return fmt.Sprintf("%.1f Gbit/s", l.BitsPerS/1e9)
	case l.FramesPerS >= 1e6:
		return fmt.Sprintf("%.2f M frames/s", l.FramesPerS/1e6)
	}
	return fmt.Sprintf("%.0f k frames/s", l.FramesPerS/1e3)
}

func (r *Ratio) String() string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Min, r.Max)
}

// notes explains how to read the table.
const notes = `
Medians of the rounds; x first: median (least–most) of the ratios to the switch that stands first at a work (-base names
another; an observed switch is compared with the same one unobserved), round by round: of frames/s, and of p50 for round trips, where less is better. CPU is that of the whole machine, idle taken off, per
frame delivered: switch, kernel, and the guests that send and receive, which are the same for all; where all poll it says
nothing. Sizes are without check sequence.
`

// write prints the results for people.
func (r *Results) write(to io.Writer) error {
	fmt.Fprintf(to, "%s, %d CPUs, %s, kernel %s, %s\n", r.Machine.CPU, r.Machine.CPUs, r.Machine.System, r.Machine.Kernel, r.Machine.Started)
	fmt.Fprintf(to, "rounds: %d, of %g s a measurement", r.Rounds, r.Seconds)
	if r.PollUs > 0 {
		fmt.Fprintf(to, ", guests poll %g µs before they sleep", r.PollUs)
	}
	fmt.Fprintln(to)
	for _, p := range r.Peers {
		fmt.Fprintf(to, "%s: %s\n", p.Name, p.Version)
	}
	fmt.Fprintln(to)
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORK\tSWITCH\tDELIVERED\tOF SENT\tX FIRST\tCPU/FRAME\tX FIRST")
	var last work
	for _, l := range r.Lines {
		name := ""
		if l.Work != last {
			name, last = l.Work.String(), l.Work
		}
		if !l.worked() {
			fmt.Fprintf(t, "%s\t%s\tfailed: %s\n", name, l.Peer, l.Errors[0])
			continue
		}
		note := ""
		if n := len(l.Errors); n > 0 {
			note = fmt.Sprintf("\t%d of %d rounds failed: %s", n, len(l.Rounds), l.Errors[0])
		}
		cpu := "-"
		if l.CPUNanos > 0 {
			cpu = fmt.Sprintf("%.2f µs", l.CPUNanos/1e3)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%v\t%s\t%v%s\n",
			name, l.Peer, l.delivered(), percent(l.Arrived), l.Ratio, cpu, l.CPURatio, note)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(to, notes)
	return err
}

// percent never rounds a loss to 0.
func percent(part float64) string {
	if p := fmt.Sprintf("%.2f %%", part*100); part >= 1 || !strings.HasPrefix(p, "100") {
		return p
	}
	return "99.99 %"
}
