package sflow

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/proto/sflow"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// rig is a switch with the ports vm0 and vm1, whose samples a collector gets.
type rig struct {
	*agent
	t      *testing.T
	host   *featuretest.Host
	ports  []*featuretest.Port
	lines  []*memory.Port
	socket *net.UDPConn
	// What the collector got: words of samples by format, and the last sequence number.
	samples  map[uint32][][]uint32
	sequence uint32
}

func newRig(t *testing.T, s Settings) *rig {
	r := &rig{t: t, host: featuretest.New(t), samples: map[uint32][][]uint32{}}
	var err error
	if r.socket, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.socket.Close() })
	s.Collectors = append(s.Collectors, Collector{r.socket.LocalAddr().(*net.UDPAddr).AddrPort()})
	for _, name := range []string{"vm0", "vm1"} {
		p := r.host.Add(t, port.Spec{Name: name, Kind: "tap"}, true)
		p.LinkSpeed = 10e9
		line := memory.New(memory.Options{Depth: 256})
		if err := p.Core().Attach(line); err != nil {
			t.Fatal(err)
		}
		p.Core().SetForwarding(true)
		r.ports, r.lines = append(r.ports, p), append(r.lines, line)
	}
	r.host.Do(func() {
		if r.agent, err = start(r.host, s); err != nil {
			t.Fatal(err)
		}
		for _, p := range r.ports {
			r.Configured(p)
		}
	})
	t.Cleanup(func() { r.host.Do(r.Stop) })
	return r
}

// put puts a frame to vm0 until the switch has it.
func (r *rig) put(dst, src port.MAC) {
	r.t.Helper()
	b := append(append(dst.HardwareAddr(), src.HardwareAddr()...), make([]byte, 188)...)
	testenv.Eventually(r.t, "there is room for a frame", func() bool { return r.lines[0].Put(0, memory.Packet{Wire: b}) == 1 })
}

// until reads datagrams until what they say is enough.
func (r *rig) until(what string, enough func() bool) {
	r.t.Helper()
	_ = r.socket.SetReadDeadline(time.Now().Add(time.Minute))
	for buf := make([]byte, 2048); !enough(); {
		n, err := r.socket.Read(buf)
		if err != nil {
			r.t.Fatalf("waiting until %s: %v; there is %v", what, err, r.samples)
		}
		var words []uint32
		for i := 0; i+4 <= n; i += 4 {
			words = append(words, binary.BigEndian.Uint32(buf[i:]))
		}
		if words[0] != 5 || words[1] != 1 || words[2] != 127<<24|1 || n > sflow.MaxDatagram {
			r.t.Fatalf("a datagram of %d bytes begins with %v", n, words[:3])
		}
		if r.sequence++; words[4] != r.sequence {
			r.t.Errorf("datagram %d comes after %d", words[4], r.sequence-1)
		}
		all := words[7:]
		for range words[6] {
			format, size := all[0], all[1]/4
			r.samples[format] = append(r.samples[format], all[2:2+size])
			all = all[2+size:]
		}
	}
}

const (
	flows    = 1
	counters = 2
	discards = 5
)

const macA, macB = port.MAC(0x5254_0000_0001), port.MAC(0x5254_0000_0002)

// A frame that is drawn is sent with what became of it, and ports can have another rate.
func TestFlows(t *testing.T) {
	r := newRig(t, Settings{OneIn: 1, HeaderLen: 60})
	r.host.Do(func() {
		r.ports[1].Spec().Sections = []any{PortSettings{OneIn: "off"}}
		r.Configured(r.ports[1])
	})
	r.put(port.Broadcast, macA) // to vm1
	r.put(macA, macA)           // back: dropped
	r.put(0x0180_c200_000e, macA)
	r.until("three frames are sampled", func() bool { return len(r.samples[flows]) >= 3 })
	for i, output := range []uint32{2, 1<<30 | uint32(sflow.ReasonLoopback), 1<<30 | uint32(sflow.ReasonReserved)} {
		got := r.samples[flows][i]
		want := []uint32{uint32(i + 1), 1, 1, uint32(i + 1), 0, 1, output, 2, 1, 16 + 60, 1, 204, 4, 60}
		if !slices.Equal(got[:len(want)], want) {
			t.Errorf("sample %d is %v, want %v", i, got[:len(want)], want)
		}
		vlan := got[len(want)+15:]
		if want := []uint32{1001, 16, 1, 0, map[bool]uint32{true: 1, false: 0}[i == 0], 0}; !slices.Equal(vlan, want) {
			t.Errorf("its VLANs are %v, want %v", vlan, want)
		}
	}
	r.host.Do(func() {
		st := r.status()
		if text := fmt.Sprintf("%+v", st.Ports); text != "[{Name:vm0 Index:1 OneIn:1 Samples:3 Lost:0 Drops:0} {Name:vm1 Index:2 OneIn:0 Samples:0 Lost:0 Drops:0}]" {
			t.Errorf("the ports are %s", text)
		}
		if st.Agent != netip.MustParseAddr("127.0.0.1") || st.Collectors[0].Errors != 0 {
			t.Errorf("the status is %+v", st)
		}
		r.Removed(r.ports[1])
		if len(r.status().Ports) != 1 {
			t.Error("a port that is removed is listed")
		}
	})
}

// The counters of each port are sent again and again, as they are.
func TestCounters(t *testing.T) {
	r := newRig(t, Settings{Interval: setting.Duration(time.Second)})
	for range 3 {
		r.put(port.Broadcast, macA)
	}
	r.put(macA, macA)
	r.host.Do(func() { r.ports[1].Why = "loop"; r.Linked(r.ports[1], false) })
	last := func(source uint32) (words []uint32) {
		for _, s := range r.samples[counters] {
			if s[1] == source {
				words = s
			}
		}
		return words
	}
	r.until("both ports have sent what they count", func() bool {
		a, b := last(1), last(2)
		return a != nil && b != nil && a[0] >= 2 && a[13] == 4 && b[21] == 3
	})
	// A record: format, length, ifIndex, type, speed, direction, status, then what it received.
	wantIn := []uint32{1, 88, 1, 6, 2, 1410065408, 1, 3, 0, 4 * 200, 4, sflow.Unknown, sflow.Unknown, 1, 0, sflow.Unknown}
	if got := last(1)[3 : 3+len(wantIn)]; !slices.Equal(got, wantIn) {
		t.Errorf("vm0 counts %v, want %v", got, wantIn)
	}
	if got := last(2)[10]; got != 2 {
		t.Errorf("the status of a port that is shut is %d", got)
	}
	name := last(1)[len(last(1))-4:]
	if want := []uint32{1005, 8, 3, 'v'<<24 | 'm'<<16 | '0'<<8}; !slices.Equal(name, want) {
		t.Errorf("its name is %x, want %x", name, want)
	}
}

// Dropped frames are told with the reason, at a rate, of which a flood takes no more than its
// share; the others are counted.
func TestDrops(t *testing.T) {
	r := newRig(t, Settings{OneIn: 1 << 20, Drops: 3})
	const flood = 2000
	for range flood {
		r.put(macA, macA)
	}
	r.put(0x0180_c200_000e, macA)
	reason := func(s []uint32) sflow.Reason { return sflow.Reason(s[6]) }
	var told, last uint32
	r.until("both reasons are told", func() bool {
		told, last = 0, 0
		other := false
		for _, s := range r.samples[discards] {
			if reason(s) == sflow.ReasonReserved {
				other = true
			} else {
				told++
			}
			last = s[3]
		}
		return other && told > 0
	})
	for _, s := range r.samples[discards] {
		if s[2] != 1 || s[4] != 1 || s[5] != 0 {
			t.Errorf("a drop is of %v", s[:6])
		}
	}
	if told > flood/10 || last == 0 {
		t.Errorf("%d drops are told, and %d counted", told, last)
	}
}

// A worker does not wait for the sender, and what is lost is counted.
func TestFullQueue(t *testing.T) {
	r := newRig(t, Settings{OneIn: 1})
	r.sender.mu.Lock() // the sender waits for it before it begins a datagram
	goOn := sync.OnceFunc(r.sender.mu.Unlock)
	defer goOn() // or the agent cannot be stopped after a failure
	for range queueLen * 3 {
		r.put(macA, macA)
	}
	testenv.Eventually(t, "the switch has all frames", func() bool { return r.ports[0].Core().Stats().RX.Frames == queueLen*3 })
	goOn()
	testenv.Eventually(t, "all samples are sent or lost", func() bool {
		vm0 := r.status().Ports[0]
		return vm0.Samples+vm0.Lost == queueLen*3
	})
	if vm0 := r.status().Ports[0]; vm0.Lost == 0 || vm0.Samples < queueLen {
		t.Errorf("the port has %+v", vm0)
	}
}

// A collector that is not there costs nothing, and one that cannot be reached is told in the log
// once.
func TestDeadCollector(t *testing.T) {
	dead, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	nowhere := Collector{netip.MustParseAddrPort("127.0.0.1:0")} // the kernel refuses
	r := newRig(t, Settings{OneIn: 1, Agent: setting.Addr{Addr: netip.MustParseAddr("127.0.0.1")},
		Collectors: []Collector{{dead.LocalAddr().(*net.UDPAddr).AddrPort()}, nowhere}})
	for range 3 {
		r.put(macA, macA)
		n := len(r.samples[flows])
		r.until("the live collector gets a sample", func() bool { return len(r.samples[flows]) > n })
	}
	r.host.Do(func() {
		st := r.status()
		if st.Collectors[0].Errors != 0 || st.Collectors[1].Errors == 0 || st.Collectors[1].Error == "" {
			t.Errorf("the collectors are %+v", st.Collectors)
		}
	})
	if log := r.host.Logged(); strings.Count(log, "sFlow cannot be sent") != 1 {
		t.Errorf("the log says %s", log)
	}
}

// Settings that contradict each other are refused, and texts are read.
func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                   "",
		`{"sflow_rate": 10}`:                   "give --sflow-collector as well",
		`{"sflow_drops": 10}`:                  "give --sflow-collector as well",
		`{"sflow_collector": ["x"]}`:           "is not the address of a collector",
		`{"sflow_collector": ["0.0.0.0"]}`:     "nothing can be sent",
		`{"sflow_collector": ["192.0.2.1:0"]}`: "nothing can be sent",
		`{"sflow_collector": ["192.0.2.1", "192.0.2.1:6343"]}`:                                                                                                 "is there twice",
		`{"sflow_collector": ["192.0.2.1", "2001:db8::1", "[2001:db8::1]:99"]}`:                                                                                "",
		`{"sflow_collector": ["192.0.2.1"], "sflow_interval": "10ms"}`:                                                                                         "use 1s to 1h",
		`{"sflow_collector": ["192.0.2.1"], "sflow_agent": "::"}`:                                                                                              "is the address of no host",
		`{"sflow_collector": ["192.0.2.1"], "sflow_header": 300}`:                                                                                              "256",
		`{"sflow_collector": ["192.0.2.1"], "sflow_rate": 100000000}`:                                                                                          "16777216",
		`{"sflow_collector": ["1","2","3","4","5","6","7","8","9"]}`:                                                                                           "",
		`{"sflow_collector": ["192.0.2.1:1","192.0.2.1:2","192.0.2.1:3","192.0.2.1:4","192.0.2.1:5","192.0.2.1:6","192.0.2.1:7","192.0.2.1:8","192.0.2.1:9"]}`: "too many",
	} {
		var patch setting.Patch
		if err := json.Unmarshal([]byte(text), &patch); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, `"1"`) {
			want = "is not the address"
		}
		merged, err := setting.Merge(Settings{}, patch)
		if err == nil {
			err = merged.(Settings).Check()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	on := Settings{Collectors: []Collector{{netip.MustParseAddrPort("192.0.2.1:1")}}, OneIn: 5}
	off, err := setting.Merge(on, setting.Patch{"sflow_collector": json.RawMessage("null")})
	if s, _ := off.(Settings); err != nil || !s.isZero() {
		t.Errorf("turned off it is %+v, %v", off, err)
	}
	for text, want := range map[OneIn]uint32{"": 7, "off": 0, "5": 5} {
		var o OneIn
		if err := o.UnmarshalText([]byte(text)); err != nil || o.of(7) != want {
			t.Errorf("%q is %d, %v", text, o.of(7), err)
		}
	}
	for _, text := range []string{"0", "-1", "x", "16777217", "05", "on"} {
		var o OneIn
		if o.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

var _ interface {
	feature.Configured
	feature.Linked
	feature.Removed
	feature.Collected
} = (*agent)(nil)
