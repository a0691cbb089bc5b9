package stp_test

import (
	"cmp"

	"github.com/vswitch/vswitch/internal/proto/stp"
)

// legacy is a bridge of 802.1D-1998 clause 8, as far as its neighbours can tell: it
// relays Config BPDUs from its root port, waits two forward delays for every port,
// acknowledges TCNs, and ignores whatever has another version than 0.
type legacy struct {
	id    stp.BridgeID
	cfg   stp.Config
	act   stp.Actions
	ports []*legacyPort // by number, from 1

	root      stp.BridgeID
	cost      uint32
	rootPort  *legacyPort
	hello     int
	tcnWhile  int // seconds between two TCNs
	tcn       bool
	tcWhile   int // at the root: how long to set the flag
	tc        bool
	timesFrom stp.BPDU
}

type legacyPort struct {
	number uint16
	cost   uint32
	up     bool
	state  stp.State
	listen bool // listening, to be told from blocking
	delay  int
	age    int
	held   stp.BPDU // the best heard or told on the link
	heard  bool
	ack    bool
}

func newLegacy(cfg stp.Config, act stp.Actions) *legacy {
	var id stp.BridgeID
	for _, o := range cfg.Address {
		id = id<<8 | stp.BridgeID(o)
	}
	b := &legacy{id: id | stp.BridgeID(cfg.Priority)<<48, cfg: cfg, act: act}
	b.root = b.id
	return b
}

func (b *legacy) addPort(number uint16, cfg stp.PortConfig) {
	b.ports = append(b.ports, &legacyPort{number: number, cost: max(cfg.PathCost, 1)})
}

func (p *legacyPort) id() stp.PortID { return 0x8000 | stp.PortID(p.number) }

func (b *legacy) SetLink(number uint16, up bool) {
	p := b.ports[number-1]
	if p.up == up {
		return
	}
	p.up, p.heard = up, false
	if !up {
		b.setState(p, stp.Discarding, false)
	}
	b.update()
	if up && b.root == b.id {
		b.config(p)
	}
}

func less(a, b stp.BPDU) bool {
	return cmp.Or(cmp.Compare(a.Root, b.Root), cmp.Compare(a.RootCost, b.RootCost),
		cmp.Compare(a.Bridge, b.Bridge), cmp.Compare(a.Port, b.Port)) < 0
}

// own is what the bridge would tell on a port.
func (b *legacy) own(p *legacyPort) stp.BPDU {
	return stp.BPDU{Type: stp.TypeConfig, Root: b.root, RootCost: b.cost, Bridge: b.id, Port: p.id()}
}

func (b *legacy) Receive(number uint16, frame []byte) {
	p := b.ports[number-1]
	m, err := stp.Parse(frame)
	if err != nil || frame[19] != 0 || !p.up { // frame[19] is the version
		return
	}
	if m.Type == stp.TypeTCN {
		if b.designated(p) {
			p.ack = true
			b.topology()
			b.config(p)
		}
		return
	}
	same := p.heard && m.Bridge == p.held.Bridge && m.Port == p.held.Port
	switch {
	case p.heard && (same || !less(p.held, m)) || !p.heard && less(m, b.own(p)):
		p.held, p.heard = m, true
		p.age = int(m.MessageAge) / 256
		wasRoot := b.root == b.id
		b.update()
		if p != b.rootPort {
			return
		}
		b.timesFrom = m
		if wasRoot {
			b.tcWhile = 0
		}
		b.tc = m.Flags&stp.FlagTC != 0
		if m.Flags&stp.FlagTCAck != 0 {
			b.tcn = false
		}
		for _, q := range b.ports { // relay
			if b.designated(q) {
				b.config(q)
			}
		}
	case b.designated(p):
		b.config(p) // to correct the sender
	}
}

func (b *legacy) designated(p *legacyPort) bool {
	return p.up && p != b.rootPort && (!p.heard || less(b.own(p), p.held))
}

// update elects the root and sets the states.
func (b *legacy) update() {
	b.root, b.cost, b.rootPort = b.id, 0, nil
	var best stp.BPDU
	for _, p := range b.ports {
		if !p.up || !p.heard || p.held.Bridge == b.id || p.held.Root >= b.id {
			continue
		}
		v := p.held
		v.RootCost += p.cost
		if b.rootPort == nil || less(v, best) {
			best, b.rootPort = v, p
			b.root, b.cost = v.Root, v.RootCost
		}
	}
	for _, p := range b.ports {
		switch {
		case !p.up:
		case p == b.rootPort || b.designated(p):
			if p.heard && p != b.rootPort {
				p.heard = false // this bridge is to tell here now
			}
			if p.state == stp.Discarding && !p.listen {
				p.listen, p.delay = true, b.cfg.ForwardDelay
			}
		default:
			b.setState(p, stp.Discarding, false)
		}
	}
}

func (b *legacy) setState(p *legacyPort, s stp.State, listen bool) {
	was := p.state
	p.listen = listen
	if s != was {
		p.state = s
		b.act.SetState(p.number, s)
	}
	if s == stp.Forwarding || was == stp.Forwarding {
		b.topology()
	}
}

// topology tells of a topology change: at once when it is the root, else by TCNs.
func (b *legacy) topology() {
	if b.root == b.id {
		b.tcWhile = b.cfg.MaxAge + b.cfg.ForwardDelay
		b.tc = true
		return
	}
	b.tcn, b.tcnWhile = true, 0
}

func (b *legacy) config(p *legacyPort) {
	m := b.own(p)
	m.HelloTime, m.MaxAge, m.ForwardDelay = uint16(b.cfg.HelloTime)*256, uint16(b.cfg.MaxAge)*256, uint16(b.cfg.ForwardDelay)*256
	if b.rootPort != nil {
		m.HelloTime, m.MaxAge, m.ForwardDelay = b.timesFrom.HelloTime, b.timesFrom.MaxAge, b.timesFrom.ForwardDelay
		m.MessageAge = uint16(b.rootPort.age)*256 + 1
	}
	if b.tc {
		m.Flags |= stp.FlagTC
	}
	if p.ack {
		m.Flags |= stp.FlagTCAck
		p.ack = false
	}
	var buf [stp.FrameLen]byte
	b.act.SendBPDU(p.number, m.Put(&buf, b.cfg.Address))
}

func (b *legacy) Tick() {
	for _, p := range b.ports {
		if p.heard {
			if p.age++; p.age >= b.cfg.MaxAge {
				p.heard = false
				b.update()
			}
		}
		if p.delay > 0 {
			p.delay--
		}
		if p.up && p.delay == 0 && (p.listen || p.state == stp.Learning) {
			if p.state == stp.Discarding {
				b.setState(p, stp.Learning, false)
				p.delay = b.cfg.ForwardDelay
			} else {
				b.setState(p, stp.Forwarding, false)
			}
		}
	}
	if b.hello--; b.hello <= 0 {
		b.hello = b.cfg.HelloTime
		for _, p := range b.ports {
			if b.root == b.id && p.up {
				b.config(p)
			}
		}
	}
	if b.root == b.id {
		b.tcn = false
		if b.tcWhile > 0 {
			b.tcWhile--
		}
		b.tc = b.tcWhile > 0
	}
	if b.tcnWhile > 0 {
		b.tcnWhile--
	}
	if b.tcn && b.tcnWhile == 0 && b.rootPort != nil {
		b.tcnWhile = b.cfg.HelloTime
		var buf [stp.FrameLen]byte
		m := stp.BPDU{Type: stp.TypeTCN}
		b.act.SendBPDU(b.rootPort.number, m.Put(&buf, b.cfg.Address))
	}
}
