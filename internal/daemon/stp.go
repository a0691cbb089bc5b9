package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/proto/stp"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// STP configures the switch's part in a spanning tree.
type STP struct {
	Priority uint16 // of the bridge: a multiple of 4096, the lowest becomes root
}

// spanningTree runs stp.Bridge over the manager's ports: BPDUs, link states and seconds go
// in, port states and BPDUs come out. A nil one is a switch without spanning tree: all its
// methods except describe do nothing.
type spanningTree struct {
	m       *manager
	bridge  *stp.Bridge
	seconds *time.Ticker
	members map[uint16]*managed // by stpNumber

	// tripped lists the ports on which BPDU guard saw a BPDU. They are shut after the bridge
	// has returned, because shutting calls it again.
	tripped []*managed
}

// guardTraps match the frames that no station sends and for which BPDU guard shuts a port:
// all frames to the BPDU address, BPDUs or not, and to the address of Cisco's PVST+, which
// sends a BPDU per VLAN.
var guardTraps = []vswitch.Trap{
	{Dst: port.MACFrom(stp.Group[:]), Queue: vswitch.QueueGuard, Tagged: true},
	{Dst: 0x0100_0ccc_cccd, Queue: vswitch.QueueGuard},
}

func newSpanningTree(m *manager, o *STP) (*spanningTree, error) {
	if o == nil {
		return nil, nil
	}
	t := &spanningTree{m: m, members: make(map[uint16]*managed)}
	cfg := stp.DefaultConfig([6]byte(m.mac.HardwareAddr()))
	cfg.Priority = o.Priority
	cfg.GuardRecovery = 0 // an error-disabled port recovers like all others
	var err error
	t.bridge, err = stp.New(cfg, t)
	t.seconds = time.NewTicker(time.Second)
	return t, err
}

// stpNumber returns a port's number in the protocol, where 0 means none.
func stpNumber(p *managed) uint16 { return p.sw.Number() + 1 }

// tick returns the channel that fires when second is due.
func (t *spanningTree) tick() <-chan time.Time {
	if t == nil {
		return nil
	}
	return t.seconds.C
}

func (t *spanningTree) second() { t.do(t.bridge.Tick) }

func (t *spanningTree) stop() {
	if t != nil {
		t.seconds.Stop()
	}
}

// do calls the bridge, then carries out its requests that may call it again.
func (t *spanningTree) do(f func()) {
	f()
	for len(t.tripped) > 0 {
		p := t.tripped[0]
		t.tripped = t.tripped[1:]
		t.m.shut(p, "BPDU guard: a bridge is behind it")
	}
}

// configure passes the settings of a port, which may be new, to the bridge. A new port
// forwards nothing until the tree allows it.
func (t *spanningTree) configure(p *managed) {
	if t == nil {
		return
	}
	t.do(func() {
		number, cfg := stpNumber(p), treeConfig(p.spec.Policy, p.station(), p.treeSpeed())
		var err error
		if t.members[number] != nil {
			err = t.bridge.SetPort(number, cfg)
		} else {
			t.members[number] = p
			p.sw.SetTree(vswitch.TreeDiscarding, true)
			err = t.bridge.AddPort(number, cfg)
		}
		if cfg.BPDUGuard && !cfg.BPDUFilter {
			p.sw.SetTraps(guardTraps)
		} else {
			p.sw.SetTraps(nil)
		}
		if err != nil {
			t.m.log.Error("spanning tree", "port", p.spec.Name, "error", err)
		}
	})
}

// link tells the bridge that a port came up or went down.
func (t *spanningTree) link(p *managed, up bool) {
	if t == nil {
		return
	}
	if up {
		t.configure(p) // its speed is now known
	}
	t.do(func() {
		if up {
			t.bridge.Recover(stpNumber(p))
		}
		t.bridge.SetLink(stpNumber(p), up)
	})
}

// remove takes a port out of the tree before the switch forgets it.
func (t *spanningTree) remove(p *managed) {
	if t == nil {
		return
	}
	t.do(func() { t.bridge.RemovePort(stpNumber(p)) })
	delete(t.members, stpNumber(p))
}

func (t *spanningTree) receive(p *managed, frame []byte) {
	if t != nil {
		t.do(func() { t.bridge.Receive(stpNumber(p), frame) })
	}
}

// intruded handles a frame for which BPDU guard shuts the port.
func (t *spanningTree) intruded(p *managed, frame []byte) {
	if t != nil {
		t.do(func() { t.bridge.Guard(stpNumber(p), frame) })
	}
}

// The rest are the stp.Actions, which the bridge calls.

// SendBPDU ignores a lost frame: the next hello repeats it.
func (t *spanningTree) SendBPDU(number uint16, frame []byte) {
	_ = t.members[number].sw.Transmit(0, frame)
}

func (t *spanningTree) SetState(number uint16, s stp.State) {
	p := t.members[number]
	p.sw.SetTree([...]vswitch.TreeState{
		stp.Discarding: vswitch.TreeDiscarding,
		stp.Learning:   vswitch.TreeLearning,
		stp.Forwarding: vswitch.TreeForwarding,
	}[s], true)
}

func (t *spanningTree) Flush(number uint16) { t.m.forget(t.members[number]) }

func (t *spanningTree) Event(e stp.Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case stp.EventBPDUGuard, stp.EventRootGuard, stp.EventLooped:
		level = slog.LevelWarn
	}
	log := t.m.log
	if p := t.members[e.Port]; p != nil {
		log = log.With("port", p.spec.Name)
		if e.Kind == stp.EventBPDUGuard {
			t.tripped = append(t.tripped, p)
		}
	}
	log.Log(context.Background(), level, "spanning tree", "event", e.String())
	if e.Kind == stp.EventTopologyDetected || e.Kind == stp.EventTopologyNotified {
		t.m.snoop.topologyChange()
	}
}

// hasStation reports whether one station, rather than a network, is behind the port. A user's
// statement about bridges overrides the kind.
func (p *managed) hasStation() bool {
	return p.spec.Edge == port.AutoOn || p.spec.Edge != port.AutoOff && p.station()
}

// treeConfig returns a port's configuration for the tree. A port with a station behind it
// forwards at once and needs no BPDUs. speed is the link's in bit/s, 0 if unknown.
func treeConfig(spec port.Policy, station bool, speed uint64) stp.PortConfig {
	c := stp.DefaultPort()
	c.PathCost, c.Speed = spec.STPCost, speed
	if spec.STPPriority != 0 {
		c.Priority = spec.STPPriority
	}
	c.AdminEdge = spec.Edge == "on" || spec.Edge == "" && station
	c.AutoEdge = spec.Edge != "off"
	c.BPDUGuard = spec.BPDUGuard == "on" || spec.BPDUGuard == "" && station
	c.RootGuard, c.BPDUFilter = spec.RootGuard, spec.BPDUFilter
	return c
}

// treeSpeed returns the speed of a port's link in bit/s, 0 if unknown. A TAP's speed is
// meaningless.
func (p *managed) treeSpeed() uint64 {
	if p.station() {
		return 0
	}
	return p.speed
}

// linkSpeed returns the link speed that an interface's driver reports, in bit/s, or 0 if it
// reports none. The kernel may be slow to answer.
func linkSpeed(ifname string) uint64 {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", ifname, "speed"))
	if err != nil {
		return 0
	}
	mbit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || mbit <= 0 { // -1: unknown
		return 0
	}
	return uint64(mbit) * 1e6
}

func (t *spanningTree) describe() (api.STP, error) {
	if t == nil {
		return api.STP{}, fail(api.CodeInvalid, "spanning tree is off; start the switch with `vswitch run --stp` to have it")
	}
	s := t.bridge.Status()
	a := api.STP{
		Bridge: s.Bridge.String(), Root: s.Root.String(), RootCost: s.RootCost,
		HelloTimeS: s.HelloTime, MaxAgeS: s.MaxAge, ForwardDelayS: s.ForwardDelay,
		TopologyChanges: s.TopologyChanges, SinceTopologyChangeS: s.SinceTopologyChange,
		Ports: []api.STPPort{},
	}
	for _, sp := range s.Ports {
		p := t.members[sp.Number]
		if sp.Number == s.RootPort {
			a.RootPort = p.spec.Name
		}
		a.Ports = append(a.Ports, treePort(p.spec.Name, &sp))
	}
	return a, nil
}

func treePort(name string, s *stp.PortStatus) api.STPPort {
	a := api.STPPort{
		Port: name, Role: s.Role.String(), State: s.State.String(),
		Cost: s.PathCost, Priority: s.ID.Priority(), Edge: s.Edge, Protocol: "rstp",
		DesignatedBridge: s.DesignatedBridge.String(), DesignatedPort: s.DesignatedPort.String(),
		DesignatedCost: s.DesignatedCost,
		RX:             api.BPDUs(s.Rx), TX: api.BPDUs(s.Tx), Invalid: s.Invalid,
	}
	if s.STP {
		a.Protocol = "stp"
	}
	switch {
	case s.BPDUGuarded:
		a.Blocked = "bpdu_guard"
	case s.RootGuarded:
		a.Blocked = "root_guard"
	case s.SelfLooped:
		a.Blocked = "loop"
	}
	return a
}
