package stp

import (
	"context"
	"log/slog"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/stp"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// tree is a running spanning tree.
type tree struct {
	host    feature.Host
	config  stp.Config
	bridge  *stp.Bridge
	members map[uint16]feature.Port // by number

	taken map[uint16]struct{} // ports that go on as in the former process, until they are Configured

	due    time.Time // when the next second is over
	cancel func()

	// tripped lists the ports on which BPDU guard saw a BPDU. They are shut after the bridge
	// has returned, because shutting calls it again.
	tripped []feature.Port
}

var group = port.MACFrom(stp.Group[:])

// A port has one of these sets of traps. treeTraps match BPDUs, which have no tag: a tagged one
// belongs to a network that the switch carries. guardTraps match the frames that no station
// sends and for which BPDU guard shuts a port: all frames to the BPDU address, BPDUs or not,
// and to the address of Cisco's PVST+, which sends a BPDU per VLAN.
var (
	treeTraps  = []vswitch.Trap{{Dst: group, Queue: vswitch.QueueTree}}
	guardTraps = []vswitch.Trap{
		{Dst: group, Queue: vswitch.QueueGuard, Tagged: true},
		{Dst: 0x0100_0ccc_cccd, Queue: vswitch.QueueGuard},
	}
)

func start(h feature.Host, s Settings) (*tree, error) {
	t := &tree{host: h, members: make(map[uint16]feature.Port), taken: make(map[uint16]struct{})}
	t.config = stp.DefaultConfig([6]byte(h.MAC().HardwareAddr()))
	t.config.Priority = defaultPriority
	if s.Priority != nil {
		t.config.Priority = *s.Priority
	}
	t.config.GuardRecovery = 0 // an error-disabled port recovers like all others
	var err error
	if t.bridge, err = stp.New(t.config, t); err != nil {
		return nil, err
	}
	h.Speak(port.DefaultVLAN)
	t.due = time.Now()
	t.second()
	return t, nil
}

// second tells the bridge that a second is over, and waits for the next. Seconds that passed
// while the daemon stood still are lost, as with any clock of a bridge.
func (t *tree) second() {
	if now := time.Now(); now.Sub(t.due) > time.Second {
		t.due = now
	}
	t.due = t.due.Add(time.Second)
	t.cancel = t.host.After(time.Until(t.due), func() {
		t.second()
		t.do(t.bridge.Tick)
	})
}

// Stop implements feature.Instance: without a tree, all ports forward.
func (t *tree) Stop() {
	t.cancel()
	for p := range t.host.Ports() {
		p.Core().SetTraps(vswitch.QueueTree, nil)
		p.Core().SetTraps(vswitch.QueueGuard, nil)
		p.Core().SetTree(vswitch.TreeForwarding, false)
	}
}

// number returns a port's number in the protocol, where 0 means none.
func number(p feature.Port) uint16 { return p.Number() + 1 }

// do calls the bridge, then carries out its requests that may call it again.
func (t *tree) do(f func()) {
	f()
	for len(t.tripped) > 0 {
		p := t.tripped[0]
		t.tripped = t.tripped[1:]
		t.host.Shut(p, "BPDU guard: a bridge is behind it")
	}
}

// Configured implements feature.Configured. A new port forwards nothing until the tree allows
// it. One whose settings change tries RSTP again, should it have fallen back to STP.
func (t *tree) Configured(p feature.Port) {
	t.do(func() {
		n, cfg := number(p), portConfig(p)
		_, taken := t.taken[n]
		delete(t.taken, n)
		var err error
		if taken {
			// It goes on as it was.
		} else if t.members[n] != nil {
			err = t.bridge.SetPort(n, cfg)
			t.bridge.Recheck(n)
		} else {
			t.members[n] = p
			p.Core().SetTree(vswitch.TreeDiscarding, true)
			err = t.bridge.AddPort(n, cfg)
		}
		if cfg.BPDUGuard && !cfg.BPDUFilter {
			p.Core().SetTraps(vswitch.QueueGuard, guardTraps)
			p.Core().SetTraps(vswitch.QueueTree, nil)
		} else {
			p.Core().SetTraps(vswitch.QueueTree, treeTraps)
			p.Core().SetTraps(vswitch.QueueGuard, nil)
		}
		if err != nil {
			t.host.Log().Error("spanning tree", "port", p.Name(), "error", err)
		}
	})
}

// portConfig returns a port's configuration for the bridge. A port with a station behind it
// forwards at once and needs no BPDUs. The speed of such a link, often a TAP's, means nothing.
func portConfig(p feature.Port) stp.PortConfig {
	s, edge, station := feature.PortSettings[PortSettings](p), p.Policy().Edge, p.Kind().Station
	c := stp.DefaultPort()
	c.PathCost = s.Cost
	if !station {
		c.Speed = p.Speed()
	}
	if s.Priority != 0 {
		c.Priority = s.Priority
	}
	c.AdminEdge = edge == port.AutoOn || edge == "" && station
	c.AutoEdge = edge != port.AutoOff
	c.BPDUGuard = s.BPDUGuard == port.On || s.BPDUGuard == "" && station
	c.RootGuard, c.BPDUFilter = s.RootGuard, s.BPDUFilter
	if p.Kind().Tunnel {
		c.AdminEdge, c.BPDUFilter = true, true
	}
	return c
}

// Linked implements feature.Linked.
func (t *tree) Linked(p feature.Port, up bool) {
	if up && t.bridge.Link(number(p)) {
		return // the former process knew
	}
	if up {
		t.Configured(p) // its speed is now known
	}
	t.do(func() {
		if up {
			t.bridge.Recover(number(p))
		}
		t.bridge.SetLink(number(p), up)
	})
}

// Removed implements feature.Removed.
func (t *tree) Removed(p feature.Port) {
	t.do(func() { t.bridge.RemovePort(number(p)) })
	delete(t.members, number(p))
}

// Queues implements feature.Queued.
func (t *tree) Queues() []vswitch.Queue {
	return []vswitch.Queue{vswitch.QueueTree, vswitch.QueueGuard}
}

// Receive implements feature.Queued.
func (t *tree) Receive(p feature.Port, f vswitch.ControlFrame) {
	receive := t.bridge.Receive
	if f.Queue == vswitch.QueueGuard {
		receive = t.bridge.Guard
	}
	t.do(func() { receive(number(p), f.Data) })
}

// The rest are the stp.Actions, which the bridge calls.

// SendBPDU ignores a lost frame: the next hello repeats it.
func (t *tree) SendBPDU(n uint16, frame []byte) { _ = t.members[n].Core().Transmit(0, frame) }

// SetState sets the state of a port.
func (t *tree) SetState(n uint16, s stp.State) {
	t.members[n].Core().SetTree([...]vswitch.TreeState{
		stp.Discarding: vswitch.TreeDiscarding,
		stp.Learning:   vswitch.TreeLearning,
		stp.Forwarding: vswitch.TreeForwarding,
	}[s], true)
}

// Flush forgets the stations behind a port.
func (t *tree) Flush(n uint16) { t.host.Forget(t.members[n]) }

// Event logs what happens, and heeds it.
func (t *tree) Event(e stp.Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case stp.EventBPDUGuard, stp.EventRootGuard, stp.EventLooped:
		level = slog.LevelWarn
	}
	log, told := t.host.Log(), api.Event{Type: api.EventSTP, Reason: e.String()}
	if p := t.members[e.Port]; p != nil {
		log, told.Port = log.With("port", p.Name()), p.Name()
		if e.Kind == stp.EventBPDUGuard {
			t.tripped = append(t.tripped, p)
		}
	}
	log.Log(context.Background(), level, "spanning tree", "event", e.String())
	t.host.Emit(told)
	if e.Kind == stp.EventTopologyDetected || e.Kind == stp.EventTopologyNotified {
		t.host.TellTopology()
	}
}
