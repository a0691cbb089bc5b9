package vxlan_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/vxlan"
)

const (
	patience = 10 * time.Second
	near     = port.MAC(0x02_00_00_00_00_01) // a station here
	far      = port.MAC(0x02_00_00_00_00_02) // and one behind a tunnel
)

// rig is a tunnel and the hosts around it.
type rig struct {
	*plane
	t       *testing.T
	tunnel  port.Tunnel
	spec    port.Spec
	hosts   []netip.Addr // the tunnel's own first
	remotes []*remote    // of the others, all in the network 10010
}

// newRig makes a tunnel among so many hosts, the first of which are its peers.
func newRig(t *testing.T, p *plane, others, peers int, vni string) *rig {
	t.Helper()
	r := &rig{plane: p, t: t, hosts: p.hosts(others+1, false)}
	udp := udpPort()
	s := vxlan.Settings{Local: setting.Addr{Addr: r.hosts[0]}, VNI: vnis(t, vni), VXLANPort: udp}
	for i, h := range r.hosts[1:] {
		p.off(func() { r.remotes = append(r.remotes, newRemote(t, h, r.hosts[0], udp, 10010)) })
		if i < peers {
			s.Peers = append(s.Peers, h.String())
		}
	}
	r.spec = spec(t, s)
	r.tunnel = p.open(t, r.spec)
	return r
}

func frame(dst, src port.MAC, payload string) []byte {
	return append(append(append(dst.HardwareAddr(), src.HardwareAddr()...), 0x88, 0xb5), payload...)
}

// send gives the tunnel a frame with a tag, and returns its fate.
func (r *rig) send(b []byte, tag port.Tag) port.Drop {
	f := new(port.Frame)
	f.SetStripped(b, 0)
	f.Tag = tag
	out := []port.Out{{Frame: f, Tag: tag}}
	r.tunnel.Queues()[0].Send(out)
	return out[0].Drop
}

// want expects exactly the given remotes to get the next frame.
func (r *rig) want(payload string, to ...int) {
	r.t.Helper()
	for i, at := range r.remotes {
		timeout := 20 * time.Millisecond
		if slices.Contains(to, i) {
			timeout = patience
		}
		b, _, err := at.Recv(timeout)
		if got := err == nil && strings.HasSuffix(string(b), payload); got != slices.Contains(to, i) {
			r.t.Errorf("%q at remote %d: %t (% x, %v)", payload, i, got, b, err)
		}
	}
}

// receive takes the next frame that the tunnel receives.
func (r *rig) receive() (f port.Frame) {
	r.t.Helper()
	timeout := time.AfterFunc(patience, func() { r.tunnel.Close() })
	defer timeout.Stop()
	var frames [1]port.Frame
	q := r.tunnel.Queues()[0]
	if _, err := q.Recv(frames[:]); err != nil {
		r.t.Fatal(err)
	}
	f = frames[0]
	f.Data = bytes.Clone(f.Data)
	q.Release()
	return f
}

func (r *rig) remotesOf(learned bool) (all []string) {
	for e := range r.tunnel.Remotes() {
		if e.Learned == learned {
			all = append(all, e.Station.String()+" "+e.VTEP.String())
		}
	}
	slices.Sort(all)
	return all
}

var tag10 = port.MakeTag(port.TPIDCustomer, 10)

// TestTunnel: what a control plane tells decides where frames go and who may send.
func TestTunnel(t *testing.T) { onEach(t, testTunnel) }

func testTunnel(t *testing.T, p *plane) {
	r := newRig(t, p, 3, 0, "10=10010,20=10020")
	if got := r.tunnel.VNIs(); !slices.Equal(got, []port.VNI{{VLAN: 10, VNI: 10010}, {VLAN: 20, VNI: 10020}}) || r.tunnel.VTEP() != r.hosts[0] {
		t.Errorf("%v at %v", got, r.tunnel.VTEP())
	}
	if why := r.send(frame(port.Broadcast, near, "nobody"), tag10); why != port.DropNoVTEP {
		t.Errorf("a frame for nobody: %v", why)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.tunnel.SetFlood(10010, slices.Concat(r.hosts[1:3], r.hosts[1:2]))) // who is named twice gets it once
	r.send(frame(port.Broadcast, near, "to two"), tag10)
	r.want("to two", 0, 1)
	r.want("to two") // no copy more
	if why := r.send(frame(port.Broadcast, near, "other"), port.MakeTag(port.TPIDCustomer, 20)); why != port.DropNoVTEP {
		t.Errorf("a frame in the other network: %v", why)
	}
	must(r.tunnel.SetRemote(10010, far, r.hosts[3]))
	r.send(frame(far, near, "to one"), tag10)
	r.want("to one", 2)
	// Who has a station is a member, though it gets no floods.
	must(r.remotes[2].Send(frame(near, far, "back"), port.Offload{}))
	if f := r.receive(); f.Drop != port.DropNone || f.Tag != tag10 || !bytes.HasSuffix(f.Data, []byte("back")) {
		t.Errorf("its frame comes with %v, tag %#x", f.Drop, f.Tag)
	}
	// What was told is not changed by frames.
	must(r.remotes[0].Send(frame(near, far, "thief"), port.Offload{}))
	r.receive()
	r.send(frame(far, near, "still"), tag10)
	r.want("still", 2)
	must(r.tunnel.SetRemote(10010, far, r.hosts[1]))
	r.send(frame(far, near, "moved"), tag10)
	r.want("moved", 0)
	must(r.remotes[2].Send(frame(near, far, "late"), port.Offload{}))
	if f := r.receive(); f.Drop != port.DropUnknownVTEP {
		t.Errorf("a frame of one that is no member any more: %v", f.Drop)
	}
	r.tunnel.DeleteRemote(10010, far)
	r.send(frame(far, near, "flooded"), tag10)
	r.want("flooded", 0, 1)
	must(r.tunnel.SetFlood(10010, nil))
	if why := r.send(frame(port.Broadcast, near, "gone"), tag10); why != port.DropNoVTEP {
		t.Errorf("with an empty list: %v", why)
	}
	for name, err := range map[string]error{
		"no such network": r.tunnel.SetFlood(5, nil),
		"itself":          r.tunnel.SetFlood(10010, r.hosts[:1]),
		"a group":         r.tunnel.SetRemote(10010, port.Broadcast, r.hosts[1]),
		"no address":      r.tunnel.SetRemote(10010, far, netip.Addr{}),
		"IPv6":            r.tunnel.SetRemote(10010, far, netip.MustParseAddr("2001:db8::1")),
	} {
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := append(r.remotesOf(true), r.remotesOf(false)...); len(got) != 0 {
		t.Errorf("stations are left: %v", got)
	}
}

// TestLearning: with peers alone the tunnel learns from frames, until it is told not to.
func TestLearning(t *testing.T) { onEach(t, testLearning) }

func testLearning(t *testing.T, p *plane) {
	r := newRig(t, p, 3, 3, "10010")
	r.send(frame(far, near, "unknown"), 0)
	r.want("unknown", 0, 1, 2)
	if err := r.remotes[1].Send(frame(near, far, "here"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	r.receive()
	r.send(frame(far, near, "known"), tag10) // one network for all frames, tags and all
	r.want("known", 1)
	if got := r.remotesOf(true); !slices.Equal(got, []string{far.String() + " " + r.hosts[2].String()}) {
		t.Errorf("learned: %v", got)
	}
	if err := r.remotes[2].Send(frame(near, far, "moved"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	r.receive()
	r.send(frame(far, near, "moved"), 0)
	r.want("moved", 2)
	r.tunnel.SetLearning(false)
	r.send(frame(far, near, "forgotten"), 0)
	r.want("forgotten", 0, 1, 2)
	if err := r.remotes[1].Send(frame(near, far, "here"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	r.receive()
	if got := r.remotesOf(true); len(got) != 0 {
		t.Errorf("learned though it should not: %v", got)
	}
	// A peer that is taken away takes its stations with it.
	r.tunnel.SetLearning(true)
	if err := r.remotes[1].Send(frame(near, far, "here"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	r.receive()
	next := r.spec
	s := port.SettingsOf[vxlan.Settings](next)
	s.Peers = s.Peers[:1]
	next.Settings = s
	if err := r.kind.Set(r.tunnel, r.spec, next); err != nil {
		t.Fatal(err)
	}
	r.send(frame(far, near, "to the rest"), 0)
	r.want("to the rest", 0)
}

// TestNetworksChange: networks come and go while the port is open, and what was known about
// one that went is forgotten.
func TestNetworksChange(t *testing.T) { onEach(t, testNetworksChange) }

func testNetworksChange(t *testing.T, p *plane) {
	r := newRig(t, p, 2, 1, "10=10010,20=10020")
	if err := r.tunnel.SetRemote(10010, far, r.hosts[2]); err != nil {
		t.Fatal(err)
	}
	set := func(vni string) {
		t.Helper()
		next := r.spec
		s := port.SettingsOf[vxlan.Settings](next)
		s.VNI = vnis(t, vni)
		next.Settings = s
		if err := r.kind.Set(r.tunnel, r.spec, next); err != nil {
			t.Fatal(err)
		}
		r.spec = next
	}
	set("20=10020,30=10030")
	if why := r.send(frame(far, near, "gone"), tag10); why != port.DropNoVTEP {
		t.Errorf("a frame in a network that is gone: %v", why)
	}
	if err := r.remotes[0].Send(frame(near, far, "gone"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	if f := r.receive(); f.Drop != port.DropUnknownVNI {
		t.Errorf("a received one: %v", f.Drop)
	}
	set("10=10010")
	r.send(frame(far, near, "flooded"), tag10)
	r.want("flooded", 0) // the static peer alone
	if got := r.remotesOf(false); len(got) != 0 {
		t.Errorf("stations are left: %v", got)
	}
}

// TestHostile: outer packets that are wrong in each way are dropped by name; what comes
// behind them comes.
func TestHostile(t *testing.T) { onEach(t, testHostile) }

func testHostile(t *testing.T, p *plane) {
	r := newRig(t, p, 2, 1, "10=10010")
	good := frame(near, far, "good")
	tagged := append(append(bytes.Clone(good[:12]), 0x81, 0, 0, 5), good[12:]...)
	for _, c := range []struct {
		name string
		from int
		raw  []byte
		want port.Drop
	}{
		{"empty", 0, nil, port.DropBadTunnel},
		{"half a header", 0, header(10010)[:7], port.DropBadTunnel},
		{"no VNI", 0, append([]byte{0, 0, 0, 0, 0, 39, 26, 0}, good...), port.DropBadTunnel},
		{"another protocol", 0, append([]byte{0x0c, 0, 0, 1, 0, 39, 26, 0}, good...), port.DropBadTunnel},
		{"reserved bits", 0, append([]byte{0x88, 1, 2, 3, 0, 39, 26, 255}, good...), port.DropNone},
		{"another network", 0, append(header(10011), good...), port.DropUnknownVNI},
		{"no frame", 0, header(10010), port.DropRunt},
		{"a runt", 0, append(header(10010), good[:13]...), port.DropRunt},
		{"a tag", 0, append(header(10010), tagged...), port.DropVLANTagged},
		{"a stranger", 1, append(header(10010), good...), port.DropUnknownVTEP},
		{"a stranger's nonsense", 1, []byte("?"), port.DropBadTunnel},
		{"a good one", 0, append(header(10010), good...), port.DropNone},
	} {
		if _, err := r.remotes[c.from].conn.WriteToUDPAddrPort(c.raw, r.remotes[c.from].to); err != nil {
			t.Fatal(err)
		}
		if p.path != nil && (c.want == port.DropBadTunnel || c.want == port.DropRunt || c.name == "reserved bits") {
			continue // the device counts it as an error
		}
		if f := r.receive(); f.Drop != c.want {
			t.Errorf("%s: %v, want %v", c.name, f.Drop, c.want)
		}
	}
	testenv.Eventually(t, "a notice names the stranger", func() bool {
		return strings.Contains(r.tunnel.(port.Noticer).Notice(), r.hosts[2].String())
	})
	if err := r.tunnel.SetFlood(10010, r.hosts[2:3]); err != nil {
		t.Fatal(err)
	}
	if n := r.tunnel.(port.Noticer).Notice(); n != "" {
		t.Errorf("the stranger is a member, and the notice stays: %s", n)
	}
	// A priority in a tag without a VLAN is kept.
	priority := append(append(bytes.Clone(good[:12]), 0x81, 0, 0xa0, 0), good[12:]...)
	if err := r.remotes[0].Send(priority, port.Offload{}); err != nil {
		t.Fatal(err)
	}
	if f := r.receive(); f.Drop != port.DropNone || f.Tag != port.MakeTag(port.TPIDCustomer, 0xa000|10) || !bytes.Equal(f.Data, good) {
		t.Errorf("a priority tag: %v, tag %#x", f.Drop, f.Tag)
	}
}

// udp makes an IPv4 packet from one port to another.
func udp(from, to uint16, payload string) []byte {
	b := append(far.HardwareAddr(), near.HardwareAddr()...)
	b = append(b, 8, 0, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(28+len(payload)))
	b = append(b, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	b = binary.BigEndian.AppendUint16(b, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// TestEntropy: flows leave by several source ports, the frames of each by one, and in order,
// whatever their lengths.
func TestEntropy(t *testing.T) { onEach(t, testEntropy) }

func testEntropy(t *testing.T, p *plane) {
	r := newRig(t, p, 1, 1, "10010")
	const flows, each = 64, 24
	for n := range each {
		var out []port.Out
		for flow := range uint16(flows) {
			f := new(port.Frame)
			f.SetStripped(udp(1000+flow, 53, string(byte(n))+strings.Repeat("x", n*7%5*100)), 0)
			out = append(out, port.Out{Frame: f})
		}
		r.tunnel.Queues()[0].Send(out)
		for i := range out {
			if out[i].Drop != port.DropNone {
				t.Fatalf("frame %d of round %d: %v", i, n, out[i].Drop)
			}
		}
	}
	sources, next := make(map[uint16]uint16), make(map[uint16]byte)
	b := make([]byte, 1<<16)
	for range flows * each {
		_ = r.remotes[0].conn.SetReadDeadline(time.Now().Add(patience))
		n, from, err := r.remotes[0].conn.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		flow, number := binary.BigEndian.Uint16(b[8+34:n]), b[8+42]
		if was := sources[flow]; was != 0 && was != from.Port() {
			t.Fatalf("flow %d leaves by ports %d and %d", flow, was, from.Port())
		}
		if number != next[flow] {
			t.Fatalf("flow %d: frame %d comes where %d is due", flow, number, next[flow])
		}
		sources[flow], next[flow] = from.Port(), number+1
	}
	ports := make(map[uint16]bool)
	for _, p := range sources {
		ports[p] = true
	}
	if len(ports) < 8 {
		t.Errorf("%d flows leave by %d ports", flows, len(ports))
	}
}

// TestManyVTEPs: a flood to more hosts than a batch has room for reaches each once; a tunnel
// is bounded.
func TestManyVTEPs(t *testing.T) { onEach(t, testManyVTEPs) }

func testManyVTEPs(t *testing.T, p *plane) {
	r := newRig(t, p, 1, 0, "10010")
	var list []netip.Addr
	for i := range 4095 {
		list = append(list, netip.AddrFrom4([4]byte{127, 77, byte(i >> 8), byte(i)}))
	}
	list[3000] = r.hosts[1]
	if err := r.tunnel.SetFlood(10010, append(slices.Clone(list), r.hosts[0].Next().Next().Next())); err == nil {
		t.Error("4096 hosts are taken")
	}
	if err := r.tunnel.SetFlood(10010, list); err != nil {
		t.Fatal(err)
	}
	// One that goes makes room for one that comes; of too many, as many as there is room for get floods.
	list[7] = r.hosts[0].Next().Next().Next().Next()
	if err := r.tunnel.SetFlood(10010, list); err != nil {
		t.Fatal(err)
	}
	more := []netip.Addr{r.hosts[0].Next().Next().Next(), r.hosts[0].Next().Next().Next().Next().Next()}
	if err := r.tunnel.SetFlood(10010, append(more, list[:4094]...)); err == nil || !strings.HasPrefix(err.Error(), "floods do not go to 1 of 4096 hosts") {
		t.Errorf("4096 hosts: %v", err)
	}
	r.send(frame(port.Broadcast, near, "all"), 0)
	r.want("all", 0)
	if b, _, err := r.remotes[0].Recv(20 * time.Millisecond); err == nil {
		t.Errorf("it comes twice: % x", b)
	}
	if err := r.tunnel.SetFlood(10010, r.hosts[1:]); err != nil {
		t.Fatal(err)
	}
	r.send(frame(port.Broadcast, near, "again"), 0)
	r.want("again", 0)
}

// TestSuperFrames: a super-frame arrives as its segments, in order, at each host that gets it,
// however many there are; so do the frames around it. One whose segments are too long for the
// path does not.
func TestSuperFrames(t *testing.T) {
	r := newRig(t, &plane{kind: kind}, 2, 2, "10=10010")
	super := func(payload, size int) *port.Frame {
		b := append(frame(port.Broadcast, near, ""), make([]byte, 40+payload)...)
		copy(b[12:], "\x08\x00\x45\x00")
		binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
		b[22], b[23], b[46], b[47] = 64, 6, 0x50, 0x10
		for i := range payload {
			b[54+i] = byte(i % 251)
		}
		pseudo := []byte{0, 6, byte((20 + payload) >> 8), byte(20 + payload)}
		binary.BigEndian.PutUint16(b[50:], vnet.Sum(pseudo))
		f := new(port.Frame)
		f.SetStripped(b, 0)
		f.Offload = port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, HdrLen: 54, GSOSize: uint16(size), CsumStart: 34, CsumOffset: 16}
		if payload <= size {
			f.Offload.GSOType, f.Offload.GSOSize = port.GSONone, 0
		}
		return f
	}
	var out []port.Out
	var want [][]byte
	for _, f := range []*port.Frame{
		super(1448, 1448), super(45*1448, 1448), super(700*64, 64), super(2000, 1448), super(100, 1448),
	} {
		f.Tag = tag10
		out = append(out, port.Out{Frame: f, Tag: tag10})
		var s vnet.Segmenter
		if err := s.Init(f.Data, f.Offload, port.CapsNone); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, s.FrameLen())
		for n, ok := s.Next(b); ok; n, ok = s.Next(b) {
			want = append(want, bytes.Clone(b[:n]))
		}
	}
	long := super(65_480, 65_460)
	long.Tag = tag10
	longer := []port.Out{{Frame: long, Tag: tag10}}
	if caps := r.tunnel.Caps(); out[1].Frame.Needs()&^caps != 0 {
		t.Fatalf("no super-frames with caps %b", caps)
	}
	// What waits at a remote is bounded.
	for i := range out {
		r.tunnel.Queues()[0].Send(out[i : i+1])
		var s vnet.Segmenter
		_ = s.Init(out[i].Frame.Data, out[i].Frame.Offload, port.CapsNone)
		for j := range s.Count() {
			for k, at := range r.remotes {
				b, _, err := at.Recv(patience)
				if err != nil || !bytes.Equal(b, want[j]) {
					t.Fatalf("frame %d, segment %d at remote %d: %d bytes, want %d (%v)", i, j, k, len(b), len(want[j]), err)
				}
			}
		}
		want = want[s.Count():]
		if out[i].Drop != port.DropNone {
			t.Errorf("frame %d: %v", i, out[i].Drop)
		}
	}
	r.tunnel.Queues()[0].Send(longer)
	if longer[0].Drop == port.DropNone {
		t.Error("segments too long for a packet are sent")
	}
}
