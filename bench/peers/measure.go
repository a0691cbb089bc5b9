package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Sample is the result of one measurement of one peer at one work.
type Sample struct {
	FramesPerS float64 `json:"frames_per_s"`         // delivered
	BitsPerS   float64 `json:"bits_per_s"`           // of those frames, without check sequence and gap
	Sent       uint64  `json:"sent"`                 // from the first frame to the last, including warm-up
	Delivered  uint64  `json:"delivered"`            // of those; each copy of a flood counts
	Expected   uint64  `json:"expected"`             // deliveries without loss
	Timeouts   uint64  `json:"timeouts"`             // senders that heard nothing for 20 ms, requests for 1 s
	CPUs       float64 `json:"cpus"`                 // in use on the whole machine, less IdleCPUs
	IdleCPUs   float64 `json:"idle_cpus"`            // in use before the round
	P50Micros  float64 `json:"rtt_p50_us,omitempty"` // round trip
	P99Micros  float64 `json:"rtt_p99_us,omitempty"`
}

// arrived returns the part of the expected frames that was delivered.
func (s Sample) arrived() float64 {
	if s.Expected == 0 {
		return 0
	}
	return float64(s.Delivered) / float64(s.Expected)
}

// quiet is how many CPUs may be in use before a round. With more, it is unknown whose work
// the CPUs did during the round.
const quiet = 0.1

// cpuNanos returns the CPU time per delivered frame; NaN if the machine was not quiet.
func (s Sample) cpuNanos() float64 {
	if s.IdleCPUs > quiet || s.CPUs <= 0 || s.FramesPerS <= 0 {
		return math.NaN()
	}
	return s.CPUs / s.FramesPerS * 1e9
}

// Time limits of one measurement, besides the measured time.
const (
	setupTime = 30 * time.Second // to start a peer until all guests reach each other
	drainTime = time.Second      // for the last frames to arrive
	drainStep = 5 * time.Millisecond
	silence   = 200 * time.Millisecond // without a frame: no more are expected
)

// warmUp returns how long traffic flows before it is measured. Polling switches must have
// touched all of their shared memory.
func warmUp(w work, d time.Duration) time.Duration {
	switch {
	case w.Since == atOnce:
		return 0
	case w.Since == later:
		return 5 * time.Second
	case w.By == byVhost:
		return max(time.Second, d/5)
	}
	return max(50*time.Millisecond, d/5)
}

// traffic is the guests at work, which a measurement controls and counts.
type traffic interface {
	// turn begins a phase other than the first.
	turn(phase int32) error
	// count returns the counts since the first phase began.
	count() (counts, error)
}

// measure starts the peer in its own namespace, connects the guests that the work needs, lets
// them work, and ends everything. idle is the number of CPUs that the machine uses by itself.
func (o options) measure(ctx context.Context, p peer, w work, idle float64) (s Sample, err error) {
	l, err := newLab()
	if err != nil {
		return s, err
	}
	defer l.close()
	setup, cancel := context.WithTimeout(ctx, setupTime)
	defer cancel()
	if w.By == byVhost {
		pmd, err := l.circulate(setup, p, w)
		if err != nil {
			return s, err
		}
		defer pmd.close()
		if s, err = observe(ctx, w, pmd, o.time, idle); err == nil {
			err = pmd.check(s)
		}
		s.CPUs = 0 // always all of two processors, which says nothing
		return s, errors.Join(err, l.alive())
	}

	if w.Pattern.congestion() != "" {
		c, err := l.converse(setup, p, w)
		if err != nil {
			return s, err
		}
		defer c.close()
		s, err = observe(ctx, w, c, o.time, idle)
		return s, errors.Join(err, l.alive())
	}

	ends, err := l.connect(setup, p, w)
	if err != nil {
		return s, err
	}
	defer closeAll(ends)
	poll := o.poll
	switch w.Pattern {
	case pollTrip:
		poll = max(poll, pollTime)
	case awakeTrip:
		awake, err := keepAwake()
		if err != nil {
			return s, err
		}
		defer awake.Close()
	}
	t := &team{phase: new(phase), guests: make([]*guest, len(ends))}
	for i, e := range ends {
		t.guests[i] = &guest{index: byte(i), end: e, phase: t.phase, poll: poll}
	}
	if err := greet(setup, l, t.guests); err != nil {
		return s, err
	}
	if w.With != plain {
		if err := p.(adjustable).adjust(setup, l, w); err != nil {
			return s, err
		}
	}
	if w.Pattern == multicast {
		if err := join(setup, l, t.guests); err != nil {
			return s, err
		}
	}
	if a, ok := p.(apart); ok && a.spoofsApart() {
		own, err := l.taps(setup, []string{"apart"})
		if err != nil {
			return s, err
		}
		defer closeAll(own)
		t.guests[2].end = own[0]
	}
	w.assign(t.guests)
	for _, g := range t.guests {
		if g.asks {
			g.trips = make([]time.Duration, 0, int(o.time.Seconds()*200_000)) // no round trip is shorter than 5 µs
		}
	}

	var all sync.WaitGroup
	for _, g := range t.guests {
		all.Go(g.run)
	}
	s, err = observe(ctx, w, t, o.time, idle)
	t.phase.Store(phaseEnd)
	all.Wait()
	if err == nil {
		err = l.alive()
	}
	if err != nil {
		return s, err
	}
	if s.Delivered == 0 {
		return s, fmt.Errorf("no frame arrived of %d", s.Sent)
	}
	if w.Pattern.isTrip() {
		trips := t.guests[0].trips
		if len(trips) == 0 {
			return s, fmt.Errorf("no answer arrived in time")
		}
		slices.Sort(trips)
		s.P50Micros, s.P99Micros = micros(quantile(trips, 0.5)), micros(quantile(trips, 0.99))
	}
	return s, nil
}

// team is a set of guests that run by themselves, all in one phase.
type team struct {
	guests []*guest
	phase  *phase
}

func (t *team) turn(phase int32) error {
	t.phase.Store(phase)
	return nil
}

func (t *team) count() (c counts, err error) {
	for _, g := range t.guests {
		if !g.aside {
			c.sent += g.sent.Load()
		}
		c.delivered += g.delivered.Load()
		c.timeouts += g.timeouts.Load()
	}
	return c, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// observe takes traffic through the phases of a measurement.
func observe(ctx context.Context, w work, t traffic, d time.Duration, idle float64) (s Sample, err error) {
	if err := pause(ctx, warmUp(w, d)); err != nil {
		return s, err
	}
	if err := t.turn(phaseTimed); err != nil {
		return s, err
	}
	cpu, err := busyCPU()
	if err != nil {
		return s, err
	}
	start := time.Now()
	before, err := t.count()
	if err != nil {
		return s, err
	}
	if err := pause(ctx, d); err != nil {
		return s, err
	}
	took := time.Since(start)
	after, err := t.count()
	if err != nil {
		return s, err
	}
	cpuAfter, err := busyCPU()
	if err != nil {
		return s, err
	}
	if err := t.turn(phaseDrain); err != nil {
		return s, err
	}
	end, err := drain(ctx, w, t)
	if err != nil {
		return s, err
	}

	frames := float64(after.delivered - before.delivered)
	s = Sample{
		FramesPerS: frames / took.Seconds(),
		Sent:       end.sent,
		Delivered:  end.delivered,
		Expected:   w.expected(end),
		Timeouts:   end.timeouts,
		CPUs:       (cpuAfter-cpu).Seconds()/took.Seconds() - idle,
		IdleCPUs:   idle,
	}
	s.BitsPerS = s.FramesPerS * float64(w.Size) * 8
	return s, nil
}

type counts struct{ sent, delivered, timeouts uint64 }

// drain waits until everything sent has arrived, or nothing more arrives, and returns the
// last counts. The ends are not counted at the same moment, so all has arrived only if two looks agree.
func drain(ctx context.Context, w work, t traffic) (last counts, err error) {
	start := time.Now()
	since := start
	for {
		if err := pause(ctx, drainStep); err != nil {
			return last, err
		}
		c, err := t.count()
		if err != nil {
			return last, err
		}
		now := time.Now()
		settled := c == last
		if !settled {
			last, since = c, now
		}
		if settled && c.delivered >= w.expected(c) || now.Sub(since) > silence || now.Sub(start) > drainTime {
			return last, nil
		}
	}
}

// pause waits for d or until the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// greet makes each guest broadcast until it has heard all others. This shows that the peer
// works and teaches it where each address is.
func greet(ctx context.Context, l *lab, guests []*guest) error {
	heard := make([][maxGuests]bool, len(guests))
	for i := range heard {
		heard[i][i] = true
	}
	next := time.Now()
	return l.poll(ctx, func() error {
		if !time.Now().Before(next) {
			next = time.Now().Add(50 * time.Millisecond)
			for _, g := range guests {
				p := newPacket(g.index, everyone, smallest)
				message{kind: kindHello, from: g.index}.put(p)
				g.end.write(p)
				g.end.flush()
			}
		}
		for i, g := range guests {
			for p := g.end.read(); p != nil; p = g.end.read() {
				if m, ok := parse(p); ok && m.kind == kindHello && int(m.from) < maxGuests {
					heard[i][m.from] = true
				}
			}
		}
		for i := range guests {
			for j := range guests {
				if !heard[i][j] {
					return fmt.Errorf("no frame from %s reaches %s", guestName(j), guestName(i))
				}
			}
		}
		return nil
	})
}

// join waits until what the first guest sends to the group reaches its members, and nobody else:
// a switch that snoops first hears who joined.
func join(ctx context.Context, l *lab, guests []*guest) error {
	return l.poll(ctx, func() error {
		p := newPacket(guests[0].index, theGroup, smallest)
		message{kind: kindHello, from: guests[0].index}.put(p)
		guests[0].end.write(p)
		guests[0].end.flush()
		if err := pause(ctx, silence/4); err != nil {
			return err
		}
		for i, g := range guests[1:] {
			heard := false
			for p := g.end.read(); p != nil; p = g.end.read() {
				m, ok := parse(p)
				heard = heard || ok && m.kind == kindHello
			}
			if isMember := i < members; heard != isMember {
				return fmt.Errorf("a frame to the group reaches %s: %v", guestName(i+1), heard)
			}
		}
		return nil
	})
}
