package guard

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	proto "github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// reason is a drop reason at a port.
type reason struct {
	port string
	why  port.Drop
}

// summary counts the frames of one reason at one port since it was logged.
type summary struct {
	frames uint64
	logged time.Time
}

// summaryGap is how often drops for one reason at one port are logged while they go on.
const summaryGap = time.Minute

// dropped has events count the frames that the fast path dropped, too. It adds events for
// reasons of which it dropped frames after the last one that the workers saw.
func (g *guard) dropped(events []proto.Event) []proto.Event {
	isDrop := func(ev proto.Event) bool { return ev.Kind == proto.Violation }
	if len(g.drops) == 0 && !slices.ContainsFunc(events, isDrop) {
		return events
	}
	ports := make(map[string]*guarded, len(g.ports))
	for _, x := range g.ports {
		ports[x.port.Name()] = x
	}
	since := func(k reason) (n uint64) {
		x := ports[k.port]
		if x == nil {
			return 0
		}
		now := x.port.Core().Stats().RX.Dropped[k.why]
		n, x.told[k.why] = now-x.told[k.why], now
		return n
	}
	seen := make(map[reason]bool)
	for i := range events {
		if ev := &events[i]; isDrop(*ev) {
			k := reason{ev.Port, ev.Reason}
			seen[k] = true
			ev.Count = max(ev.Count, since(k))
		}
	}
	for k := range g.drops {
		if n := since(k); n != 0 && !seen[k] {
			events = append(events, proto.Event{Kind: proto.Violation, Port: k.port, Reason: k.why, Count: n})
		}
	}
	return events
}

// shut shuts down the ports whose VMs sent too many frames that they may not send.
func (g *guard) shut(events []proto.Event) {
	frames := make(map[string]uint64)
	for i := range events {
		if ev := &events[i]; ev.Kind == proto.Violation {
			frames[ev.Port] += ev.Count
		}
	}
	if len(frames) == 0 {
		return
	}
	for _, x := range g.ports {
		s := feature.PortSettings[Settings](x.port)
		if n := frames[x.port.Name()]; s.Action == shutdown && n >= uint64(cmp.Or(s.Most, tooMany)) {
			g.host.Shut(x.port, fmt.Sprintf("the guard dropped %d of its frames in a second", n))
		}
	}
}

// report logs an event. The first drop for a reason at a port is logged at once, further ones
// are summed up; the daemon's log limits the other lines.
func (g *guard) report(ev proto.Event, now time.Time) {
	if ev.Kind == proto.Server {
		ev.Port = g.behind(ev.VLAN, ev.MAC)
	}
	g.emit(&ev)
	log := g.host.Log().With("port", ev.Port)
	if ev.Kind != proto.Violation {
		attrs := []any{"vlan", ev.VLAN, "mac", ev.MAC, "address", ev.Address}
		if ev.Source != "" {
			attrs = append(attrs, "source", ev.Source)
		}
		if ev.Other != "" {
			attrs = append(attrs, "other", ev.Other)
		}
		if ev.Text != "" {
			attrs = append(attrs, "reason", ev.Text)
		}
		switch ev.Kind {
		case proto.Bound:
			log.Info("the guard learned an address", attrs...)
		case proto.Changed:
			log.Info("the guard learned an address again, from elsewhere", attrs...)
		case proto.Removed:
			log.Info("an address of a guarded port ended", attrs...)
		case proto.Refused:
			log.Warn("the guard does not learn an address", attrs...)
		case proto.Server:
			log.Info("there is a DHCP server", "vlan", ev.VLAN, "mac", ev.MAC, "address", ev.Address)
		case proto.Conflict:
			log.Warn("two ports claim an address", attrs...)
		}
		return
	}
	k := reason{ev.Port, ev.Reason}
	if s := g.drops[k]; s != nil {
		s.frames += ev.Count
		return
	}
	g.drops[k] = &summary{logged: now}
	attrs := []any{"reason", ev.Reason, "frames", ev.Count, "mac", ev.MAC}
	if ev.VLAN != 0 {
		attrs = append(attrs, "vlan", ev.VLAN)
	}
	if ev.Claimed != 0 {
		attrs = append(attrs, "claimed_mac", ev.Claimed)
	}
	if ev.Address.IsValid() {
		attrs = append(attrs, "claimed_address", ev.Address)
	}
	log.Warn("the guard dropped frames", attrs...)
}

// behind returns the name of the port behind which a station is, or "".
func (g *guard) behind(vlan uint16, mac port.MAC) string {
	if e, known := g.host.Switch().FDB().Get(fdb.MakeKey(vlan, uint64(mac))); known {
		if p := g.host.Port(e.Port); p != nil {
			return p.Name()
		}
	}
	return ""
}

// emit tells users what happened.
func (g *guard) emit(ev *proto.Event) {
	told := api.Event{
		Type: "guard." + string(ev.Kind), Port: ev.Port, From: ev.Other, Reason: ev.Text, MAC: ev.MAC, VLAN: ev.VLAN,
		Count: ev.Count, ClaimedMAC: ev.Claimed,
	}
	if ev.Address.IsValid() {
		told.Address = ev.Address.String()
	}
	switch ev.Kind {
	case proto.Violation:
		told.Reason = ev.Reason.String()
	case proto.Bound, proto.Changed:
		told.Reason = string(ev.Source)
	}
	g.host.Emit(told)
}

// sumUp logs the drops that go on, once a minute each.
func (g *guard) sumUp(now time.Time) {
	for k, s := range g.drops {
		switch {
		case now.Sub(s.logged) < summaryGap:
		case s.frames == 0:
			delete(g.drops, k)
		default:
			g.host.Log().Warn("the guard dropped more frames", "port", k.port, "reason", k.why, "frames", s.frames)
			s.frames, s.logged = 0, now
		}
	}
}
