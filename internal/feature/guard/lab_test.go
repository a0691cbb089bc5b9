package guard_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

func TestMain(m *testing.M) { daemontest.Main(m) }

// The stations: a tenant behind a guarded port, a neighbour, a trusted router and a bystander.
const (
	macA port.MAC = 0x5254_0099_000a
	macV port.MAC = 0x5254_0099_000b
	macB port.MAC = 0x5254_0099_000c
	macT port.MAC = 0x5254_0000_0001

	localA = "fe80::5054:ff:fe99:a"
	localV = "fe80::5054:ff:fe99:b"
	localT = "fe80::5054:ff:fe00:1"
)

var stations = []struct {
	name, port string
	mac        port.MAC
}{{"A", "vm0", macA}, {"V", "vm1", macV}, {"T", "vm2", macT}, {"B", "vm3", macB}}

// lab is a switch with the four stations.
type lab struct {
	testing.TB
	kind
	sw      *daemontest.Daemon
	dir     string         // of sockets
	outside *testenv.Netns // of the other ends of ports
	guests  map[string]guest
	marks   uint32
	xids    uint32
}

// newLab starts a switch. Every port of it is of the kind.
func newLab(t testing.TB, k kind) *lab {
	t.Helper()
	testenv.Root(t)
	ns, dir := testenv.NewNetns(t), t.TempDir() // removed once the daemon has ended
	l := &lab{TB: t, kind: k, sw: daemontest.Start(t, ns), dir: dir, guests: make(map[string]guest)}
	for _, s := range stations {
		l.guests[s.name] = k.plug(l, s.port)
		l.sw.AwaitState(t, s.port, "up")
	}
	for _, s := range stations {
		l.settle(s.name)
	}
	return l
}

// mark is a frame that every guarded port lets pass, RARP's announcement, with a number.
func (l *lab) mark(from port.MAC) []byte {
	l.marks++
	b := packettest.Eth(packettest.Broadcast, from, 0x8035, packettest.ARP(3, from, "0.0.0.0", from, "0.0.0.0"))
	binary.BigEndian.PutUint32(b[56:], l.marks)
	return b
}

func macOf(name string) port.MAC {
	for _, s := range stations {
		if s.name == name {
			return s.mac
		}
	}
	panic(name)
}

// settle has a station send a mark, waits until it has arrived everywhere, and returns what
// arrived before it. The frames of a guarded port pass in order.
func (l *lab) settle(from string) map[string][][]byte {
	l.Helper()
	mark := l.mark(macOf(from))
	if err := l.guests[from].Send(mark, port.Offload{}); err != nil {
		l.Fatal(err)
	}
	got := make(map[string][][]byte)
	for _, s := range stations {
		if s.name == from {
			continue
		}
		for {
			b, err := l.guests[s.name].Recv(20 * time.Second)
			if err != nil {
				l.Fatalf("%s's own frame does not reach %s: %v", from, s.name, err)
			}
			if bytes.Equal(b, mark) {
				break
			}
			got[s.name] = append(got[s.name], b)
		}
	}
	return got
}

// dropped returns the guard's drop counters of a port.
func (l *lab) dropped(port string) map[string]uint64 {
	l.Helper()
	all := make(map[string]uint64)
	for name, n := range l.sw.Port(l, port).RX.Dropped {
		if strings.HasPrefix(name, "guard_") {
			all[name] = n
		}
	}
	return all
}

func portOf(name string) string {
	for _, s := range stations {
		if s.name == name {
			return s.port
		}
	}
	panic(name)
}

// pass has a station send a frame and expects it, unchanged, at these stations and no others.
func (l *lab) pass(what, from string, wire []byte, to ...string) {
	l.Helper()
	before := l.dropped(portOf(from))
	l.put(from, wire)
	got := l.settle(from)
	for _, s := range stations {
		want := 0
		if slices.Contains(to, s.name) {
			want = 1
		}
		if want == 1 && len(got[s.name]) == 0 {
			// The kernel may have been faster with the mark than the daemon with the frame.
			if b, err := l.guests[s.name].Recv(20 * time.Second); err == nil {
				got[s.name] = append(got[s.name], b)
			}
		}
		if n := len(got[s.name]); n != want || n == 1 && !bytes.Equal(got[s.name][0], wire) {
			l.Errorf("%s: %d frames %x at %s, want %d %x; dropped %v, before %v", what, n, got[s.name], s.name, want, wire, l.dropped(portOf(from)), before)
		}
	}
}

func (l *lab) put(from string, wire []byte) {
	l.Helper()
	if err := l.guests[from].Send(wire, port.Offload{}); err != nil {
		l.Fatal(err)
	}
}

// drop has a station send a frame and expects that nobody gets it, and that it is counted
// once for this reason; "any" is any reason of the guard.
func (l *lab) drop(what, reason, from string, wire []byte) {
	l.Helper()
	l.dropWith(what, reason, from, wire, port.Offload{})
}

func (l *lab) dropWith(what, reason, from string, wire []byte, o port.Offload) {
	l.Helper()
	before := l.dropped(portOf(from))
	if err := l.guests[from].Send(wire, o); err != nil {
		l.Fatal(err)
	}
	for name, frames := range l.settle(from) {
		l.Errorf("%s: %s got %x", what, name, frames)
	}
	l.countedAt(portOf(from), what, before, reason)
}

// countedAt expects that a port dropped one frame since before, for this reason.
func (l *lab) countedAt(port, what string, before map[string]uint64, reason string) {
	l.Helper()
	got := make(map[string]uint64)
	for name, n := range l.dropped(port) {
		if n != before[name] {
			got[name] = n - before[name]
		}
	}
	if reason == "any" && len(got) == 1 {
		for name := range got {
			reason = name
		}
	}
	if !maps.Equal(got, map[string]uint64{reason: 1}) {
		l.Errorf("%s: counted as %v, want %s", what, got, reason)
	}
}

// set makes a port guarded with these settings alone.
func (l *lab) set(name string, flags string) {
	l.Helper()
	for _, f := range []string{"--guard=on", "--guard-mac=" + macOf(name).String(), "--guard-address=", "--guard-pair=", "--guard-allow=", "--guard-learn=", "--guard-prefix=", "--guard-ethertypes="} {
		if flag, _, _ := strings.Cut(f, "="); !strings.Contains(flags+" ", flag+" ") {
			flags += " " + f
		}
	}
	l.sw.Ctl(l, "set-port %s %s", portOf(name), flags)
	l.sw.Ctl(l, "guard flush %s", portOf(name))
}

// static is the setting of a tenant whose addresses are known.
const static = "--guard-address 10.99.0.10 --guard-address fd99::10 --guard-learn none"

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	testenv.Eventually(t, what, done)
}

// binding is a row of `guard list`.
type binding struct {
	Port, MAC, Address, Source, State string
	VLAN                              uint16
	ExpiresS                          int64 `json:"expires_s"`
}

// list returns the addresses of a port.
func (l *lab) list(port string) []binding {
	l.Helper()
	var all []binding
	if err := json.Unmarshal([]byte(l.sw.Ctl(l, "guard list %s -o json", port)), &all); err != nil {
		l.Fatal(err)
	}
	return all
}
