package vswitch

import (
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Stage is a check on the path of the frames that a port receives. It stands before
// everything else: reserved addresses, traps, learning, mirrors. What it refuses, nobody
// sees. One test of the flag word skips it on ports that have none.
type Stage struct {
	// Check returns why the port may not accept f, or DropNone. f has its VLAN, unless
	// classified says why the port carries it in none. Several workers call Check at a
	// time. It neither waits nor allocates, and keeps nothing of f. heed asks for the frame's
	// Outcome.
	Check func(f *port.Frame, classified port.Drop) (why port.Drop, heed bool)

	// Outcome is told what becomes of a frame that Check heeds, before it leaves: drop is why
	// no copy of it does, or DropNone. A stage learns from frames here, since a later rule may
	// drop what Check accepts. Workers call it as they call Check.
	Outcome func(f *port.Frame, drop port.Drop)

	// Why is Check without any effect, for traces; nil: Check refuses nothing.
	Why func(f *port.Frame, classified port.Drop) port.Drop

	// Setting names the user's setting behind the stage, in words. A port with a stage of
	// its own stays off the fast path in both directions, unless Fast is set: what is sent to
	// it may have to pass the stages of other ports.
	Setting string

	// Fast says that SetFastGuard tells a fast path what the port may send. It drops what
	// Check would refuse for sure, sends on what Check would accept for sure, and punts the
	// rest, as well as all groups.
	Fast bool

	// Snoop says that the stages of other ports learn from what is sent to the port: a fast
	// path punts all to it that is not plain TCP, UDP or the like, such as ARP and DHCP.
	Snoop bool

	// Unknown floods frames to unknown stations to the port as to others.
	Unknown bool
}

// SetStage gives the port a stage of its own, or takes it away if s is nil. When it returns,
// no frame passes by the former one.
func (p *Port) SetStage(s *Stage) {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.stage != s {
		p.stage = s
		p.publish()
	}
	p.quiesce()
}

// FastGuard is what a port with a stage may send, as far as a fast path can decide it.
type FastGuard struct {
	MACs      []port.MAC
	VLANs     port.VLANSet // that the port carries
	MACOnly   bool         // IP addresses are free
	MoreTypes bool         // the stage accepts EtherTypes beside those of IP and ARP
	Senders   []FastSender

	// Exceptions says that the stage may accept a frame from an address that is none of these,
	// if it is not plain TCP, UDP or the like.
	Exceptions bool

	Prefixes []FastPrefix
}

// FastSender is an IP address of a station.
type FastSender struct {
	VLAN        uint16 // 0: every VLAN of the port
	MAC         port.MAC
	Addr        netip.Addr
	From, Until time.Time // when it may send; zero: always
}

// FastPrefix is a FastSender for each address of a prefix.
type FastPrefix struct {
	VLAN uint16
	MAC  port.MAC
	netip.Prefix
	Until time.Time // zero: always
}

// SetFastGuard tells a fast path what the port of that number may send; nil: nothing that the
// stage is not asked about. What is no longer allowed is no longer sent on when it returns. It
// may be called from any goroutine, also by a stage, and before the port has a device.
func (s *Switch) SetFastGuard(number uint16, g *FastGuard) {
	if s.fast != nil {
		s.fast.Guard(number, g)
	}
}

// FastHeard returns how long ago a fast path last heard one of a port's senders; ok is false if
// it never did.
func (s *Switch) FastHeard(number uint16, sender FastSender) (ago time.Duration, ok bool) {
	if s.fast == nil {
		return 0, false
	}
	return s.fast.GuardHeard(number, sender)
}

// SetDefaultStage gives this stage to all ports that have none of their own; nil: none. It
// does not keep them off the fast path, where known unicast passes without it; but what is
// sent to a port with a stage of its own does not go that way.
func (s *Switch) SetDefaultStage(stage *Stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage != stage {
		s.stage = stage
		s.publish()
	}
}

// stageOf returns the port's stage. The caller holds sw.mu.
func (p *Port) stageOf() *Stage {
	if p.stage != nil {
		return p.stage
	}
	return p.sw.stage
}

// Classify returns why the port carries a frame in no VLAN, or DropNone; then it has set the
// frame's VLAN. It is how the port treats a frame that it receives.
func (p *Port) Classify(f *port.Frame) port.Drop {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	return classify(f, &member{flags: p.flagsOf(), vlanRules: p.vlan})
}
