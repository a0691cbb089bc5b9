package daemon

import (
	"encoding/json"
	"os"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// describe returns a port as users see it.
func (m *manager) describe(p *managed) api.Port { return m.describeAmong(p, m.passages()) }

// describeAmong is describe where the switch's tunnels are known.
func (m *manager) describeAmong(p *managed, tunnels []passage) api.Port {
	st := p.sw.Stats()
	state, reason := p.shown()
	if why := p.linkError(); why != "" && p.state == api.StateWaiting {
		reason = why // the port may know a better one by now
	}
	if reason == "" {
		reason = p.notice()
	}
	mtu := p.link.MTU
	if t, ok := p.dev.(port.Tunnel); ok {
		mtu = t.MTU()
	}
	return api.Port{
		Name:   p.spec.Name,
		Number: p.sw.Number(),
		Kind:   p.spec.Kind,
		State:  state,
		Reason: reason,
		Ifname: p.ifname(),
		MTU:    mtu,

		GuestMAC: m.stationMAC(p),
		GuestMTU: guestMTU(p, tunnels),
		Station:  p.hasStation(),

		VLAN:     vlanOf(&p.spec.Policy),
		FastPath: m.portFastPath(p, st.Fast),
		Members:  membersOf(p.dev),

		RX:   counters(st.RX),
		TX:   counters(st.TX),
		Spec: specOf(p.spec),
	}
}

// membersOf returns the interfaces that carry a port as users see them; nil: it has one at most.
func membersOf(dev port.Port) (all []api.Member) {
	b, ok := dev.(port.Bundled)
	if !ok {
		return nil
	}
	for _, m := range b.Members() {
		one := api.Member{Ifname: m.Ifname, State: m.State, Reason: m.Reason}
		if l := m.LACP; l != nil {
			one.LACP = &api.LACP{State: l.State, Churn: l.Churn, Sent: l.Sent, Received: l.Received, Discarded: l.Discarded}
			if p := l.Partner; p != nil {
				one.LACP.Partner = &api.LACPPartner{System: p.System, Key: p.Key, Port: p.Port, State: p.State}
			}
		}
		all = append(all, one)
	}
	return all
}

// stationMAC returns the address that qemu-args gives the machine behind a port, or 0 if the
// port's kind is not for QEMU.
func (m *manager) stationMAC(p *managed) port.MAC {
	if p.kind == nil || p.kind.Describe().QEMU == nil {
		return 0
	}
	return m.ids.guestMAC(p.spec.Name)
}

// shown returns the port's state and reason, also while it is first opened.
func (p *managed) shown() (api.State, string) {
	if p.state == "" {
		return api.StateWaiting, "its device is being opened"
	}
	return p.state, p.reason
}

// portFastPath returns whether a port's traffic is on the fast path, and why not.
func (m *manager) portFastPath(p *managed, frames uint64) api.PortFastPath {
	f := api.PortFastPath{Frames: frames}
	switch {
	case m.fast == nil:
		f.Off = []string{"the switch has none: " + m.fastOff}
	case p.dev == nil:
		f.Off = []string{"nothing is attached"}
	default:
		f.Off = p.sw.KeptOff()
	}
	f.On = len(f.Off) == 0
	if r, ok := p.dev.(port.Routed); ok && f.On {
		f.By = r.Ways()
	}
	if p.shaping.below != 0 && f.On {
		f.By = "--rate-out by " + p.shaping.how
	}
	return f
}

// asSpec returns a patch as users see it.
func asSpec(p setting.Patch) api.Spec {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // cannot fail: it was read from JSON
	}
	return api.Spec{RawMessage: b}
}

// specOf returns a spec as users see it.
func specOf(s port.Spec) api.Spec {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // cannot fail: its settings are structs read from JSON
	}
	return api.Spec{RawMessage: b}
}

// dropReasons returns the reasons why frames are not delivered.
func dropReasons() (all []api.DropReason) {
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		i := d.Info()
		all = append(all, api.DropReason{Name: i.Name, Direction: string(i.Direction), Words: i.Words})
	}
	return all
}

func (m *manager) describeAll() []api.Port {
	ports, tunnels := []api.Port{}, m.passages()
	for _, p := range m.sorted() {
		ports = append(ports, m.describeAmong(p, tunnels))
	}
	return ports
}

func (m *manager) describeSwitch() api.Switch {
	made := m.settings.patch()
	s := api.Switch{
		Name:     m.name,
		PID:      os.Getpid(),
		UptimeS:  int64(time.Since(m.start).Seconds()),
		Version:  m.version,
		StateDir: m.stateDir,

		SocketDir: m.socketDir,

		Ports: make(map[api.State]int),
		FDB: api.FDBInfo{
			Size: m.sw.FDB().Len(), Capacity: m.sw.FDB().Stats().Capacity, AgingS: int64(m.aging.Seconds()),
		},
		MAC:          m.mac,
		GroupForward: m.groupForward,
		LoopDetect:   made["loop_detect"] != nil,
		RecoveryS:    m.recovery.Seconds(),
		Sandbox:      append([]string{}, m.sandbox...),
		Settings:     asSpec(made),
		FastPath:     api.FastPath{On: m.fast != nil, Pinned: m.fast != nil && m.fast.Pinned(), Reason: m.fastOff},
	}
	for d := range instances[feature.Described](m) {
		d.Describe(&s)
	}
	for _, state := range api.States {
		s.Ports[state] = 0
	}
	var rx, tx vswitch.Counters
	for _, p := range m.ports {
		state, _ := p.shown()
		s.Ports[state]++
		st := p.sw.Stats()
		sum(&rx, st.RX)
		sum(&tx, st.TX)
		s.FastPath.Frames += st.Fast
	}
	s.RX, s.TX = counters(rx), counters(tx)
	return s
}

func sum(total *vswitch.Counters, c vswitch.Counters) {
	total.Frames += c.Frames
	total.Bytes += c.Bytes
	total.Copies += c.Copies
	for why, n := range c.Dropped {
		total.Dropped[why] += n
	}
}

func counters(c vswitch.Counters) api.Counters {
	a := api.Counters{Frames: c.Frames, Bytes: c.Bytes, Copies: c.Copies, Dropped: make(map[string]uint64)}
	for why, n := range c.Dropped {
		if n > 0 {
			a.Dropped[port.Drop(why).String()] = n
		}
	}
	return a
}
