package vswitch

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// FastPath forwards known unicast, and broadcast and groups from known stations, between
// ports on kernel devices, below the switch, from a replica of the FDB. All other frames reach the ports' queues as usual. The switch
// behaves the same without it. Its methods do not call the switch.
type FastPath interface {
	// The Observer hears of each FDB change as it happens; Bind names the table first.
	fdb.Observer
	Bind(*fdb.Table)

	// Publish replaces the set of ports. It returns when the new set is in force.
	Publish([]FastPort, FastFlood)

	// Show names the function that is shown the copies of frames that ports ask for.
	Show(func(*FastCopy))

	// TakeFloods names the function that reports whether the switch floods for a port in the fast
	// path's place: of many frames to many ports the switch makes copies in batches, which cost
	// their readers less. It is asked several times a second while a port floods so much.
	TakeFloods(func(number uint16) bool)

	// Settle returns when every earlier change of the FDB is in force.
	Settle()

	// Refresh updates the FDB with the stations heard so far.
	Refresh()

	// Now returns the time in ns by which budgets count.
	Now() int64

	// Budget returns one of the two budgets of a port: the time until which the frames
	// admitted by both paths use up the port's rate. It stays valid while the FastPath is
	// referenced.
	Budget(number uint16, turn uint8) *atomic.Int64

	// Guard is Switch.SetFastGuard, and GuardHeard is Switch.FastHeard.
	Guard(number uint16, g *FastGuard)
	GuardHeard(number uint16, s FastSender) (ago time.Duration, ok bool)

	// Explain says what it would do with a frame that came by a port now. It counts nothing, and
	// does not look at rates.
	Explain(number uint16, wire []byte) FastVerdict

	// Counters count the port's frames that reached no queue of the switch. Release
	// returns them for the last time, when the port's device is gone.
	Counters(number uint16) PortStats
	Release(number uint16) PortStats
}

// FastVerdict is what a fast path does with a frame.
type FastVerdict uint8

// Values of FastVerdict.
const (
	FastUnknown FastVerdict = iota // there is none, or it cannot say
	FastPunted                     // it leaves the frame to the switch
	FastSent                       // it sends it on
	FastDropped                    // it drops it
	FastHost                       // the host alone gets it, which shares the device
)

// FastPort says how a fast path must treat a port on a kernel device. The VLAN fields are
// those of vlanRules.
type FastPort struct {
	Number uint16
	Device port.KernelEnd

	From  bool // received frames need nothing but forwarding
	To    bool // sent frames need nothing but their tag
	Drops bool // received frames that would be dropped are wanted instead

	Guarded bool // received frames have to be what Guard allows
	Snoop   bool // what is sent to it is punted unless it is plain, see Stage

	Isolated,
	NoLearning,
	Locked,
	UntaggedOnly bool
	Police FastRate

	// Tunnel: the device leads to other hosts. Which one a frame goes to, and whether it
	// came from one, the port's kind tells the fast path.
	Tunnel bool

	Resolution bool // messages of address resolution that it receives are for the switch

	// RouterGuard: of the frames to stations that it receives, those which may be queries of IGMP
	// or MLD are for the switch: all IGMP, and IPv6 with hop-by-hop options.
	RouterGuard bool

	Deaf    bool  // nothing that is flooded leaves by it
	NoFlood Class // classes that are not flooded to it
	Punt    Class // classes of what it receives that the switch floods, or counts, or takes

	// Mirrors that copy what it receives and sends, and whose copies leave by it, a bit
	// each. A mirror copies a frame once.
	MirrorIn, MirrorOut, MirrorTo uint8

	SeeIn, SeeOut bool   // copies of what it receives or sends are shown,
	SnapLen       int    // with so many bytes of a frame; 0: all
	OneIn         uint32 // of so many frames that it receives one is shown as a sample; 0: none
	SeeDrops      bool   // some of those that are dropped are shown

	// Copies of what it receives or sends are shown for mirrors that the switch serves, with
	// so many bytes of a frame.
	CopyIn, CopyOut bool
	CopyLen         int

	PVID, Native, TPID uint16
	VLANs              *port.VLANSet // the VLANs it carries; immutable
}

// FastFlood says how a fast path must treat frames to broadcast and group addresses.
type FastFlood struct {
	VLANs  port.VLANSet // the VLANs in which it may flood: all their ports that are not Deaf are FastPorts
	Traps  []port.MAC   // groups that are for the switch, besides reserved addresses; fastTraps at most
	Groups *Groups      // of its functions, a fast path calls Each and Rest; nil: nothing is snooped
	Slow   []uint16     // ports, in order, to which only the switch can send copies
}

// fastTraps is how many traps a fast path can have.
const fastTraps = 8

// FastRate is a rate in the budget of that turn; the zero FastRate is no limit. A new rate
// comes with the other turn, so that no frame charges a budget at an earlier rate.
type FastRate struct {
	port.Rate
	Burst time.Duration
	Turn  uint8
}

// The flags that keep a port's frames on the path through the workers.
const (
	slowFrom = flagBlocked | flagMirrorTarget | flagGuarded
	slowTo   = flagBlocked | flagMirrorTarget | flagGuarded
)

// fastMirrors is how many mirrors a fast path can have: the first ones.
const fastMirrors = 8

// fastTaps are the taps of a port in one direction, in the form of FastPort.
type fastTaps struct {
	mirrors uint8    // those that the fast path serves
	copies  int      // bytes of a frame that the others need, which the switch serves by copies; 0: there are none
	slow    []string // what keeps the direction off the fast path, in words
}

// wholeFrame is more bytes than any frame has.
const wholeFrame = math.MaxInt32

// fastTapsOf returns how a fast path treats taps.
func fastTapsOf(taps []tap) (f fastTaps) {
	for i := range taps {
		t := &taps[i]
		switch {
		case t.ToVLAN == 0 && t.to[0].flags&flagBlocked != 0:
			// It copies nothing.
		case t.isFast():
			f.mirrors |= 1 << t.number
		case t.isByCopy():
			length := wholeFrame
			if t.SnapLen != 0 {
				length = max(t.SnapLen, port.MinHead) + 4 // for a filter, and a tag of its own
			}
			f.copies = max(f.copies, length)
		case t.ToVLAN != 0:
			f.slow = append(f.slow, "mirror "+t.Name+" copies what is sent into a VLAN")
		default:
			f.slow = append(f.slow, "mirror "+t.Name+" has a filter, and copies what several ports receive and send")
		}
	}
	return f
}

// isFast reports whether a fast path copies frames for the tap by itself.
func (t *tap) isFast() bool {
	if t.ToVLAN != 0 || t.VLANs.Len() > 0 || t.Filter != nil || t.SnapLen != 0 || t.number >= fastMirrors {
		return false
	}
	to := t.to[0]
	_, kernel := to.dev.(port.KernelEnd)
	_, several := to.dev.(port.Aggregate)
	return kernel && !several && to.flags&(flagWatchOut|flagTunnel) == 0 && to.port.shaper == nil
}

// isByCopy reports whether the switch serves the tap by copies that a fast path shows. A copy of
// a frame that was sent says by which port it came, but no longer what it was like there.
func (t *tap) isByCopy() bool {
	if t.isFast() || t.ToVLAN != 0 && t.Out {
		return false
	}
	return t.Filter == nil || !t.In || !t.Out || len(t.Ports) == 1 && t.VLANs.Len() == 0
}

// hasCopied reports whether one of these taps of the same mirror copied f, which came there.
func (t *tap) hasCopied(f *port.Frame, taps []tap) bool {
	return slices.ContainsFunc(taps, func(in tap) bool { return in.number == t.number && (in.all || in.VLANs.Has(f.VLAN)) })
}

// keepsOff describes in words the flags that keep a port's frames off the fast path.
// Those in both slowFrom and slowTo keep off both directions.
var keepsOff = []struct {
	flag  flags
	words string
}{
	{flagBlocked, "spanning tree does not forward by it"},
	{flagMirrorTarget, "mirrored frames leave by it"},
}

// KeptOff returns in words what keeps the port's known unicast off the fast path. It
// returns nil if nothing does, and if there is no fast path.
func (p *Port) KeptOff() (why []string) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fast == nil || p.at == nil {
		return nil
	}
	dev, ok := p.at.dev.(port.KernelEnd)
	if !ok {
		if s, ok := p.at.dev.(port.Substitute); ok {
			return []string{s.Substitutes()}
		}
		return []string{"its frames come by memory or a socket, not by a device of the kernel"}
	}
	if !dev.Punted() {
		why = append(why, "no program is at its device; the log says why")
	}
	if !p.active() {
		return append(why, "it does not forward")
	}
	m := s.ports.Load().byNumber[p.number]
	for _, k := range keepsOff {
		if m.flags&k.flag != 0 {
			why = append(why, k.words)
		}
	}
	for _, words := range append(fastTapsOf(m.mirrorIn).slow, fastTapsOf(m.mirrorOut).slow...) {
		if !slices.Contains(why, words) {
			why = append(why, words)
		}
	}
	if m.flags&(flagNoLearn|flagLocked|flagTunnel) == flagNoLearn && m.flags&flagUntaggedOnly == 0 && m.tpid != 0 && m.vlans.Len() > 1 {
		why = append(why, "--learning off, for tagged frames")
	}
	if m.flags&flagGuarded != 0 {
		why = append(why, m.stage.Setting)
	}
	if p.shaper != nil {
		words := "--rate-out"
		if p.config.NotBelow != "" {
			words += ", " + p.config.NotBelow
		}
		why = append(why, words)
	}
	return why
}

// publishFast gives the fast path the ports of the set. The caller holds mu.
func (s *Switch) publishFast(set *portSet) {
	if s.fast == nil {
		return
	}
	var ports []FastPort
	flood := fastFlood(set)
	for _, m := range set.flood {
		dev, ok := m.dev.(port.KernelEnd)
		if !ok {
			flood.leave(m)
			continue
		}
		var police FastRate
		if b := m.police; b != nil {
			police = FastRate{b.rate, time.Duration(b.burst), b.turn}
		}
		in, out := fastTapsOf(m.mirrorIn), fastTapsOf(m.mirrorOut)
		p := FastPort{
			Number:       m.number,
			Device:       dev,
			From:         m.flags&slowFrom == 0 && in.slow == nil,
			To:           m.flags&slowTo == 0 && out.slow == nil && m.port.shaper == nil,
			MirrorIn:     in.mirrors,
			MirrorOut:    out.mirrors,
			CopyIn:       in.copies > 0,
			CopyOut:      out.copies > 0,
			CopyLen:      max(in.copies, out.copies),
			MirrorTo:     m.mirrorTo,
			SeeIn:        m.flags&flagWatchIn != 0,
			SeeOut:       m.flags&flagWatchOut != 0,
			SnapLen:      set.snapLen(m.number),
			OneIn:        m.sampler.oneIn(),
			SeeDrops:     m.flags&flagSeeDrops != 0,
			Deaf:         m.isDeaf(),
			NoFlood:      Class(m.flags >> flagNoFloodShift),
			Punt:         m.storm.limited(),
			Drops:        m.flags&flagPuntDrops != 0,
			Guarded:      m.port.stage != nil && m.port.stage.Fast,
			Snoop:        m.port.stage != nil && m.port.stage.Snoop,
			Tunnel:       m.flags&flagTunnel != 0,
			Resolution:   m.flags&flagResolution != 0,
			RouterGuard:  m.flags&flagRouterGuard != 0 && set.groups != nil,
			Isolated:     m.flags&flagIsolated != 0,
			NoLearning:   m.flags&flagNoLearn != 0,
			Locked:       m.flags&flagLocked != 0,
			UntaggedOnly: m.flags&flagUntaggedOnly != 0,
			Police:       police,
			PVID:         m.pvid,
			Native:       m.native,
			TPID:         m.tpid,
			VLANs:        m.vlans,
		}
		if !p.To || p.Tunnel || p.MirrorOut != 0 || p.CopyOut { // a mirror copies a frame once, however many copies leave
			flood.leave(m)
		}
		if m.flags&(flagResolution|flagStage) != 0 {
			p.Punt |= Broadcast | Multicast
		}
		if len(flood.Traps) > fastTraps {
			p.Punt |= Multicast
		}
		ports = append(ports, p)
	}
	if len(flood.Traps) > fastTraps {
		flood.Traps = nil
	}
	slices.Sort(flood.Slow)
	s.fast.Publish(ports, flood)
}

// isDeaf reports whether nothing that is flooded leaves by the port.
func (m *member) isDeaf() bool { return m.flags&(flagBlocked|flagMirrorTarget) != 0 }

// leave takes the VLANs of a port out of f: its copies are not for a fast path.
func (f *FastFlood) leave(m *member) {
	if m.isDeaf() {
		return
	}
	f.Slow = append(f.Slow, m.number)
	for i, w := range m.vlans {
		f.VLANs[i] &^= w
	}
}

// fastFlood returns what a fast path would flood if it had all ports.
func fastFlood(set *portSet) FastFlood {
	f := FastFlood{VLANs: port.AllVLANs, Groups: set.groups}
	for _, m := range set.flood {
		for i := range m.traps {
			if dst := m.traps[i].Dst; !eth.IsReserved(uint64(dst)) && !slices.Contains(f.Traps, dst) {
				f.Traps = append(f.Traps, dst)
			}
		}
	}
	return f
}

// Settle returns when every frame is forwarded by the FDB as of the call or later.
func (s *Switch) Settle() {
	if s.fast != nil {
		s.fast.Settle()
	}
}

// refreshEvery returns the time between Refreshes, given how long the last one took. It is
// short compared with the ageing time, so that stations heard only by the kernel do not
// expire; and walks of a large table use at most one part in 20 of the time.
func refreshEvery(aging, took time.Duration) time.Duration {
	const longest, share = 5 * time.Second, 20
	every := longest
	if aging >= 0 {
		every = min(aging/8, longest)
	}
	return max(every, share*took) - time.Second/2 // the nearest tick
}

// Refresh updates the ages of FDB entries for stations that a fast path heard.
func (s *Switch) Refresh() {
	if s.fast != nil {
		s.fast.Refresh()
	}
}

// add adds the counters of o.
func (st *PortStats) add(o PortStats) {
	st.Fast += o.Fast
	for _, d := range []struct {
		to   *Counters
		from *Counters
	}{{&st.RX, &o.RX}, {&st.TX, &o.TX}} {
		d.to.Frames += d.from.Frames
		d.to.Bytes += d.from.Bytes
		d.to.Copies += d.from.Copies
		for why, n := range d.from.Dropped {
			d.to.Dropped[why] += n
		}
	}
}

// behindFor is how long the fast path floods itself after the switch could not keep up with a port:
// a port that sends as fast as it can then pays for its floods with its own CPU time.
const behindFor = 10 * time.Second

// behind says when the switch did not keep up with a port.
type behind struct {
	overruns uint64 // that were seen
	until    time.Time
}

// takesFloods reports whether the switch floods for a port in the fast path's place. It does unless it
// lost frames of the port lately.
func (s *Switch) takesFloods(number uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.ports.Load().member(number)
	if m == nil {
		return false
	}
	p, now := m.port, time.Now()
	if n := p.lostBefore(); n != p.behind.overruns {
		p.behind = behind{n, now.Add(behindFor)}
	}
	return now.After(p.behind.until)
}

// lostBefore returns how many frames were lost before the switch received them. The caller holds sw.mu.
func (p *Port) lostBefore() uint64 {
	n := p.overruns
	if p.at != nil {
		if o, ok := p.at.dev.(port.Overrun); ok {
			n += o.Overruns()
		}
	}
	return n
}

// Fast reports whether the switch has a fast path.
func (s *Switch) Fast() bool { return s.fast != nil }
