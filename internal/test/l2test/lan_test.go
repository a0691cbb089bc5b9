package l2test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// lan is a switch and the hosts around it. The switch's ports are p1, p2 and so on,
// veths whose other ends are the hosts' eth0.
type lan struct {
	t     testing.TB
	sw    *daemon
	ns    *testenv.Netns
	hosts []*host
}

// host is a namespace behind a port.
type host struct {
	number uint16 // among the hosts of all tests
	ns     *testenv.Netns
	port   string
	mac    port.MAC
	v4, v6 string // once the lan has addresses
	*tuntest.Station
}

var hostCount atomic.Uint32

// newLAN starts a switch with so many hosts behind it, all ports being up and as
// add-port makes them. The hosts are silent until newLAN's caller has them speak.
func newLAN(t testing.TB, hosts int, flags ...string) *lan {
	t.Helper()
	l := &lan{t: t, ns: quietNetns(t)}
	var links strings.Builder
	for i := range hosts {
		h := &host{number: uint16(hostCount.Add(1)), ns: quietNetns(t), port: "p" + strconv.Itoa(i+1)}
		h.mac = 0x02_00_00_00_00_00 + port.MAC(h.number)
		l.hosts = append(l.hosts, h)
		fmt.Fprintf(&links, "link add %s type veth peer name eth0 address %s netns %s\nlink set %s up\n", h.port, h.mac, h.ns.Name, h.port)
	}
	ip(t, l.ns, links.String())
	for _, h := range l.hosts {
		ip(t, h.ns, "link set eth0 up\n")
		h.ns.Do(func() { h.Station = tuntest.Listen(t, "eth0") })
	}
	l.sw = startDaemon(t, l.ns, flags...)
	add := "add-port %s --kind netdev"
	if daemontest.FastPath() {
		add += " --exclusive" // else the host has a part in its frames, and they stay off the fast path
	}
	for _, h := range l.hosts {
		l.sw.ctl(add, h.port)
	}
	l.awaitUp()
	return l
}

// quietNetns makes a namespace whose kernel sends nothing by itself.
func quietNetns(t testing.TB) *testenv.Netns {
	t.Helper()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	})
	return ns
}

// ip runs commands of ip(8), one a line, in a namespace.
func ip(t testing.TB, ns *testenv.Netns, commands string) {
	t.Helper()
	cmd := exec.Command("ip", "-n", ns.Name, "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip -batch: %v: %s", err, out)
	}
}

func (l *lan) awaitUp() {
	l.t.Helper()
	for _, h := range l.hosts {
		testenv.Eventually(l.t, h.port+" is up", func() bool { return l.sw.port(h.port).State == api.StateUp })
	}
}

// address gives all hosts an IPv4 and an IPv6 address.
func (l *lan) address() {
	l.t.Helper()
	for _, h := range l.hosts {
		h.v4, h.v6 = fmt.Sprintf("10.0.%d.%d", h.number>>8, h.number&0xff), fmt.Sprintf("fd00::%x", h.number)
		h.ns.Run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
		ip(l.t, h.ns, fmt.Sprintf("addr add %s/16 dev eth0\naddr add %s/64 dev eth0 nodad\n", h.v4, h.v6))
	}
}

// wantPing checks that each host reaches the other by IPv4 and IPv6, or that none
// does.
func (l *lan) wantPing(a, b *host, want bool) {
	l.t.Helper()
	for _, h := range []*host{a, b} {
		// A neighbour that did not answer before is asked anew.
		h.ns.Run("ip", "neigh", "flush", "dev", "eth0")
	}
	for _, to := range []string{b.v4, b.v6} {
		// An answer that is due may come late where the machine is busy; one that
		// is not due has come at once, if ever.
		args := []string{"-n", "-q", "-c", "1", "-w", "1", to}
		if want {
			args = []string{"-n", "-q", "-c", "3", "-i", "0.05", "-w", "10", to}
		}
		out, err := a.ns.Command("ping", args...).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1):
			l.t.Fatalf("ping %s: %v: %s", to, err, out)
		case (err == nil) != want:
			l.t.Errorf("ping from %s to %s, %s: answered %v, want %v\n%s", a.port, b.port, to, err == nil, want, out)
		}
	}
}

// frame is an Ethernet frame of a test. What it carries is a token of its own, by
// which it is told from all others.
type frame struct {
	dst, src  port.MAC
	tags      []port.Tag
	etherType uint16 // 0: one that nobody speaks
	size      int    // on the wire; less than the least it can be: that
}

// localExperimental is the EtherType that stays on a LAN of one's own (802 clause 9.2.4).
const localExperimental = 0x88b5

var (
	tokens      atomic.Uint64
	tokenPrefix = []byte("<frame ")
)

func (f frame) String() string {
	s := fmt.Sprintf("%s > %s", f.src, f.dst)
	for _, t := range f.tags {
		s += fmt.Sprintf(", tag %#x.%d.%d", t.TPID(), t.TCI()>>13, t.VID())
	}
	return s
}

func (f frame) head() []byte {
	b := append(f.dst.HardwareAddr(), f.src.HardwareAddr()...)
	for _, t := range f.tags {
		b = binary.BigEndian.AppendUint32(b, uint32(t))
	}
	if f.etherType == 0 {
		f.etherType = localExperimental
	}
	return binary.BigEndian.AppendUint16(b, f.etherType)
}

// wire makes the frame with a new token.
func (f frame) wire() (wire, token []byte) {
	token = fmt.Appendf(nil, "%s%010d>", tokenPrefix, tokens.Add(1))
	wire = append(f.head(), token...)
	return append(wire, make([]byte, max(0, f.size-len(wire)))...), token
}

func customer(vid uint16) port.Tag { return port.MakeTag(port.TPIDCustomer, vid) }
func service(vid uint16) port.Tag  { return port.MakeTag(port.TPIDService, vid) }

// to makes a frame from a host to another.
func (h *host) to(other *host, tags ...port.Tag) frame {
	return frame{dst: other.mac, src: h.mac, tags: tags}
}

// toAll makes a broadcast frame.
func (h *host) toAll(tags ...port.Tag) frame {
	return frame{dst: port.Broadcast, src: h.mac, tags: tags}
}

// receive takes the next frame with a token in it, up to a deadline.
func (h *host) receive(token []byte, deadline time.Time) (wire []byte, ok bool, err error) {
	for {
		b, _, err := h.Recv(time.Until(deadline))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if bytes.Contains(b, token) {
			return b, true, nil
		}
	}
}

// quiet is how long a host waits for what it should not get, once the switch has
// counted the frame: then it has sent all copies.
const quiet = 15 * time.Millisecond

// received is what hosts got of one frame.
type received map[*host][][]byte

// send has a host send a frame, and returns what all hosts got of it. First it waits
// for the hosts that should get it.
func (l *lan) send(from *host, f frame, to ...*host) received {
	l.t.Helper()
	got := received{}
	counted := l.counted(from)
	before := counted()
	wire, token := f.wire()
	if err := from.Send(wire, port.Offload{}); err != nil {
		l.t.Fatalf("%s sends %v: %v", from.port, f, err)
	}
	take := func(h *host, deadline time.Time) bool {
		b, ok, err := h.receive(token, deadline)
		if err != nil {
			l.t.Fatalf("%s: %v", h.port, err)
		}
		if ok {
			got[h] = append(got[h], b)
		}
		return ok
	}
	for _, h := range to {
		if !take(h, time.Now().Add(5*time.Second)) {
			return got // without the frame that the caller misses
		}
	}
	testenv.Eventually(l.t, "the frame is counted", func() bool { return counted() > before })
	wait := quiet
	for _, h := range l.hosts {
		for take(h, time.Now().Add(wait)) {
		}
		wait = time.Millisecond
	}
	return got
}

// counted reads how many frames the switch has dealt with that came from a host.
func (l *lan) counted(from *host) func() uint64 {
	return func() uint64 { return l.sw.port(from.port).RX.Frames }
}

// want has a host send a frame that goes to exactly those others, once to each. It
// returns the tags with which it came to the first.
func (l *lan) want(from *host, f frame, to ...*host) []port.Tag {
	l.t.Helper()
	got := l.send(from, f, to...)
	var tags []port.Tag
	for _, h := range l.hosts {
		n := 0
		if slices.Contains(to, h) {
			n = 1
		}
		if len(got[h]) != n {
			l.t.Errorf("%s sends %v: %s gets it %d times, want %d", from.port, f, h.port, len(got[h]), n)
		}
		if len(got[h]) > 0 && len(to) > 0 && h == to[0] {
			tags = tagsOf(got[h][0])
		}
	}
	return tags
}

// wantDrop has a host send a frame that goes nowhere, for that reason.
func (l *lan) wantDrop(from *host, f frame, why port.Drop) {
	l.t.Helper()
	before := l.sw.dropped(from.port, why)
	l.want(from, f)
	if n := l.sw.dropped(from.port, why) - before; n != 1 {
		l.t.Errorf("%s sends %v: %d drops for %s, want 1; all: %v", from.port, f, n, why, l.sw.port(from.port).RX.Dropped)
	}
}

// tagsOf reads the tags of a frame as it is on the wire.
func tagsOf(wire []byte) (tags []port.Tag) {
	for b := wire[12:]; len(b) >= 4; b = b[4:] {
		tpid := binary.BigEndian.Uint16(b)
		if tpid != port.TPIDCustomer && tpid != port.TPIDService {
			break
		}
		tags = append(tags, port.MakeTag(tpid, binary.BigEndian.Uint16(b[2:])))
	}
	return tags
}

// wantTags compares tags.
func (l *lan) wantTags(got []port.Tag, want ...port.Tag) {
	l.t.Helper()
	if !slices.Equal(got, want) {
		l.t.Errorf("the frame comes with tags %#x, want %#x", got, want)
	}
}

func joined(names []string) string { return strings.Join(names, " ") }
