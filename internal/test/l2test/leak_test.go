package l2test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// leakVIDs are the VLANs that frames are sent in: both ends of the range, both sides
// of each bit pattern, and those that the tests use.
var leakVIDs = []uint16{0, 1, 2, 3, 10, 20, 127, 128, 2047, 2048, 3000, 4000, 4093, 4094}

// everyKind makes frames of all kinds from a host to another: known and unknown
// unicast, multicast and broadcast of IPv4, IPv6 and no IP, without a tag, in each of
// leakVIDs by each TPID, and with a second tag behind that one.
func everyKind(from, to *host) (frames []frame) {
	const ipv4, ipv6 = 0x0800, 0x86dd
	plain := []frame{
		{dst: to.mac},
		{dst: to.mac, etherType: ipv4},
		{dst: to.mac, etherType: ipv6},
		{dst: station(0)},
		{dst: station(0), etherType: ipv4},
		{dst: 0x0100_5e01_0203, etherType: ipv4},
		{dst: 0x3333_0001_0203, etherType: ipv6},
		{dst: 0x0300_0000_0001},
		{dst: port.Broadcast},
		{dst: port.Broadcast, etherType: ipv4},
	}
	stacks := [][]port.Tag{nil}
	for _, vid := range leakVIDs {
		for _, tag := range []port.Tag{customer(vid), service(vid)} {
			stacks = append(stacks, []port.Tag{tag}, []port.Tag{tag, customer(20)})
		}
	}
	for _, f := range plain {
		f.src = from.mac
		for _, f.tags = range stacks {
			frames = append(frames, f)
		}
	}
	return frames
}

// sendEvery has a host send frames of every kind to another, and returns how many
// they were and how many of them each host got. counted is how many frames the
// switch has taken from the sender.
func (l *lan) sendEvery(from, to *host, counted func() uint64) (sent int, got map[*host]int) {
	l.t.Helper()
	frames := everyKind(from, to)
	all := counted() + uint64(len(frames))
	for _, f := range frames {
		wire, _ := f.wire()
		if err := from.Send(wire, port.Offload{}); err != nil {
			l.t.Fatalf("%s sends %v: %v", from.port, f, err)
		}
	}
	testenv.Eventually(l.t, "all frames are counted", func() bool { return counted() >= all })
	got = map[*host]int{}
	for _, h := range l.hosts {
		got[h] = h.countFrames(l.t)
	}
	return len(frames), got
}

// countFrames takes all frames with a token that came to a host.
func (h *host) countFrames(t testing.TB) (n int) {
	t.Helper()
	for {
		b, _, err := h.Recv(quiet)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, tokenPrefix) {
			n++
		}
	}
}

// TestNoForwardingBetweenVLANs is no_forwarding between different PVIDs, and between
// ports of all other modes that have no VLAN in common.
//
//	h1 ── p1 access 10                ┐
//	h2 ── p2 access 20 accept all     │
//	h3 ── p3 trunk 2,3,10             ┼ switch
//	h4 ── p4 trunk 20,3000 by S-tags  │
//	h5 ── p5 QinQ 4000                ┘
func TestNoForwardingBetweenVLANs(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 5)
	vlans := make(map[*host][]int)
	for i, c := range []struct {
		set   string
		vlans []int
	}{
		{"--access 10", []int{10}},
		{"--access 20 --accept all", []int{20}},
		{"--trunk 2,3,10", []int{2, 3, 10}},
		{"--trunk 20,3000 --native 20 --trunk-tpid 0x88a8", []int{20, 3000}},
		{"--qinq 4000", []int{4000}},
	} {
		h := l.hosts[i]
		l.sw.ctl("set-port %s %s", h.port, c.set)
		vlans[h] = c.vlans
	}
	share := func(a, b *host) bool {
		return slices.ContainsFunc(vlans[a], func(vid int) bool { return slices.Contains(vlans[b], vid) })
	}
	for _, from := range l.hosts {
		for _, to := range l.hosts {
			if to == from {
				continue
			}
			// That the destination is known in its own VLAN must not help.
			for _, vid := range vlans[to] {
				l.sw.ctl("fdb add %s %s --vlan %d", to.mac, to.port, vid)
			}
			_, got := l.sendEvery(from, to, l.counted(from))
			for _, h := range l.hosts {
				switch {
				case h == from:
				case share(from, h) && h == to && got[h] == 0:
					t.Errorf("from %s to %s, which share a VLAN, no frame comes", from.port, h.port)
				case !share(from, h) && got[h] > 0:
					t.Errorf("from %s to %s: %d frames come to %s", from.port, to.port, got[h], h.port)
				}
			}
		}
	}
}

// TestNoForwardingBetweenIsolated is no_forwarding between isolated ports.
//
//	h1 ── p1 (isolated) ┐
//	h2 ── p2 (isolated) ┼ switch
//	h3 ── p3            ┘
func TestNoForwardingBetweenIsolated(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --isolated")
	l.sw.ctl("set-port p2 --isolated")
	l.want(h2, h2.toAll(), h3) // so that it is known
	sent, got := l.sendEvery(h1, h2, l.counted(h1))
	if got[h2] != 0 {
		t.Errorf("%d of %d frames pass between isolated ports", got[h2], sent)
	}
	if got[h3] == 0 {
		t.Error("no frame comes to the port that is not isolated")
	}
	if sent, got := l.sendEvery(h1, h3, l.counted(h1)); got[h2] != 0 || got[h3] != sent {
		t.Errorf("of %d frames to h3, %d come to h2 and %d to h3", sent, got[h2], got[h3])
	}
}

// TestNoForwardingBetweenSwitches is no_forwarding between two switches, and between
// a switch and an interface beside it.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
//	h3 ── p3 ─ another switch
//	h4 ── p4
func TestNoForwardingBetweenSwitches(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4)
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("del-port p3")
	l.sw.ctl("del-port p4")
	ip(t, l.ns, "link set p3 up\nlink set p4 up\n")
	other := startDaemon(t, l.ns)
	other.ctl("add-port p3 --kind netdev")
	for _, c := range []struct {
		from, to *host
		counted  func() uint64
		reaches  *host
	}{
		{h1, h3, l.counted(h1), h2},
		{h1, h4, l.counted(h1), h2},
		{h3, h1, func() uint64 { return other.port("p3").RX.Frames }, nil},
		{h4, h1, func() uint64 {
			n, err := strconv.ParseUint(l.ns.Run("cat", "/sys/class/net/p4/statistics/rx_packets"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}, nil},
	} {
		sent, got := l.sendEvery(c.from, c.to, c.counted)
		for _, h := range l.hosts {
			want := 0
			if h == c.reaches {
				want = sent
			}
			if got[h] != want {
				t.Errorf("from %s to %s: %d frames come to %s, want %d", c.from.port, c.to.port, got[h], h.port, want)
			}
		}
	}
}
