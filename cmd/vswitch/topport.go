package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
)

// portView is what `vswitch top` shows of one port.
type portView struct {
	name     string
	port     *api.Port // nil: it is gone
	before   api.Port  // the sample before
	took     time.Duration
	stations []api.FDBEntry
	words    map[string]string // of drop reasons
}

// first gets what a new view needs, from the samples there are.
func (v *portView) first(ctx context.Context, s *sampler) error {
	reasons, err := s.client.Drops(ctx)
	if err != nil {
		return err
	}
	v.words = make(map[string]string, len(reasons))
	for _, r := range reasons {
		v.words[r.Name] = strings.ReplaceAll(r.Words, "DEV", v.name)
	}
	return v.next(ctx, s)
}

// next takes what it shows from the last two samples, and asks for the stations.
func (v *portView) next(ctx context.Context, s *sampler) error {
	fdb, err := s.client.FDB(ctx)
	if err != nil {
		return err
	}
	v.stations = slices.DeleteFunc(fdb, func(e api.FDBEntry) bool { return e.Port != v.name })
	find := func(ports []api.Port) *api.Port {
		if i := slices.IndexFunc(ports, func(p api.Port) bool { return p.Name == v.name }); i >= 0 {
			return &ports[i]
		}
		return nil
	}
	v.port, v.before, v.took = find(s.ports), api.Port{}, s.took
	if b := find(s.before); b != nil && v.port != nil && b.Number == v.port.Number {
		v.before = *b
	}
	return nil
}

// lines are those of the screen.
func (v *portView) lines(height int) []line {
	lines := v.all()
	if n := len(lines) - height; n > 0 && height > 1 {
		lines = append(lines[:height-1], line{fmt.Sprintf("%d more lines; vswitch ports %s and vswitch fdb list have all", n+1, v.name), plainLine})
	}
	return lines
}

// all are the lines of a screen of any height.
func (v *portView) all() []line {
	lines := []line{{fmt.Sprintf("port %s  (Escape back, q quit)", v.name), plainLine}}
	add := func(color, format string, args ...any) {
		lines = append(lines, line{strings.TrimRight(fmt.Sprintf(format, args...), " "), color})
	}
	p := v.port
	if p == nil {
		add(plainLine, "there is no such port any more")
		return lines
	}
	r := ratesOf([]api.Port{v.before}, []api.Port{*p}, v.took)[0]
	state := string(p.State)
	if p.Reason != "" {
		state += ": " + p.Reason
	}
	fast := "on"
	if !p.FastPath.On {
		fast = "off: " + strings.Join(p.FastPath.Off, "; ")
	}
	if r.RXFrames > 0 {
		fast = share(&r) + " of received frames; " + fast
	}
	add(plainLine, "state      %s, %s", p.Kind, state)
	add(plainLine, "VLAN       %s", inVLANs(p.VLAN))
	add(plainLine, "fast path  %s", fast)
	add(plainLine, "")
	add(headLine, countsFormat, "", "bit/s", "frame/s", "FRAMES", "BYTES")
	add(plainLine, countsFormat, "in", short(r.RXBits), short(r.RXFrames), fmt.Sprint(p.RX.Frames), fmt.Sprint(p.RX.Bytes))
	add(plainLine, countsFormat, "out", short(r.TXBits), short(r.TXFrames), fmt.Sprint(p.TX.Frames), fmt.Sprint(p.TX.Bytes))
	add(plainLine, "")
	add(headLine, dropsFormat, "DROPS", "DROP/s", "FRAMES", "WHY")
	drops := v.drops()
	for _, d := range drops {
		color := plainLine
		if d.perSecond > 0 {
			color = dropLine
		}
		add(color, dropsFormat, d.way, short(d.perSecond), fmt.Sprint(d.frames), d.words)
	}
	if len(drops) == 0 {
		add(plainLine, "none")
	}
	add(plainLine, "")
	add(headLine, stationsFormat, "STATION", "VLAN", "TYPE", "AGE")
	for _, e := range v.stations {
		add(plainLine, stationsFormat, e.MAC.String(), fmt.Sprint(e.VLAN), e.Type, fmt.Sprint(e.AgeS))
	}
	if len(v.stations) == 0 {
		add(plainLine, "none")
	}
	return lines
}

const (
	countsFormat   = "%-10s %9s %9s %15s %18s"
	dropsFormat    = "%-10s %9s %15s  %s"
	stationsFormat = "%-18s %5s  %-8s %6s"
)

// dropCount is what a port lost for one reason.
type dropCount struct {
	way       string // in or out
	words     string
	perSecond float64
	frames    uint64
}

// drops returns what the port lost, what it loses now first.
func (v *portView) drops() (all []dropCount) {
	for _, c := range []struct {
		way       string
		now, then api.Counters
	}{{"in", v.port.RX, v.before.RX}, {"out", v.port.TX, v.before.TX}} {
		for _, why := range slices.Sorted(maps.Keys(c.now.Dropped)) {
			d := dropCount{way: c.way, words: why, frames: c.now.Dropped[why]}
			if w := v.words[why]; w != "" {
				d.words = w
			}
			d.perSecond = perSecond(d.frames, c.then.Dropped[why], v.took)
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b dropCount) int {
		return cmp.Or(cmp.Compare(b.perSecond, a.perSecond), cmp.Compare(b.frames, a.frames))
	})
	return all
}
