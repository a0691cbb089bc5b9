package sflow

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

var frame = append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0x60, 10, 0x88, 0xb5}, "payload"...)

var (
	header = Header{Agent: netip.MustParseAddr("192.0.2.1"), SubAgent: 7, Sequence: 8, Uptime: 9}
	flow   = Flow{
		Sequence: 1, Source: 3, Rate: 1000, Pool: 12345, Drops: 2, Input: Index(3), Output: Index(4),
		Packet: Packet{frame, 1514}, VLANIn: 10, PriorityIn: 3, VLANOut: 20, PriorityOut: 4,
	}
	counters = Counters{
		Sequence: 5, Source: 3, Name: "vm0", Speed: 10e9, Up: true, Admin: true,
		In: Traffic{1 << 40, 100, 3}, Out: Traffic{200, 201, 202}, TooLong: 6, TransmitFails: 7,
	}
	discard = Discard{Sequence: 6, Source: 3, Drops: 4, Input: 3, Output: 5, Reason: ReasonIsolated, Packet: Packet{frame, 60}}
)

// full returns a datagram with a sample of each kind.
func full(agent string) []byte {
	var d Datagram
	h := header
	h.Agent = netip.MustParseAddr(agent)
	d.Reset(h)
	d.AddFlow(&flow)
	d.AddCounters(&counters)
	d.AddDiscard(&discard)
	return d.Bytes()
}

// Another program reads what a datagram says.
func TestTshark(t *testing.T) {
	tshark := testenv.Tool(t, "tshark")
	for agent, field := range map[string]string{"192.0.2.1": "sflow_245.agent", "2001:db8::1": "sflow_245.agent.v6"} {
		file := filepath.Join(t.TempDir(), "sflow.pcap")
		if err := os.WriteFile(file, inUDP(t, full(agent)), 0o600); err != nil {
			t.Fatal(err)
		}
		fields := []struct{ name, want string }{
			{"sflow_245.version", "5"}, {field, agent}, {"sflow_245.sub_agent_id", "7"}, {"sflow_245.sysuptime", "9"},
			{"sflow_245.sequence_number", "8"}, {"sflow_245.numsamples", "3"}, {"sflow_245.sampletype", "1,2,5"},
			{"sflow.flow_sample.sampling_rate", "1000"}, {"sflow.flow_sample.sample_pool", "12345"}, {"sflow.flow_sample.dropped_packets", "2"},
			{"sflow.flow_sample.input_interface", "3"}, {"sflow_245.vlan.in", "10"}, {"sflow_245.vlan.out", "20"}, {"sflow_245.pri.in", "3"}, {"sflow_245.pri.out", "4"},
			{"vlan.id", "10"}, {"eth.src", "00:00:00:00:00:00,02:00:00:00:00:02"},
			{"sflow_245.ifindex", "3"}, {"sflow_245.ifspeed", "10000000000"}, {"sflow_245.ifinoct", "1099511627776"}, {"sflow_245.ifinpkt", "100"}, {"sflow_245.ifindisc", "3"},
			{"sflow_245.ifoutoct", "200"}, {"sflow_245.ifoutpkt", "201"}, {"sflow_245.ifoutdisc", "202"}, {"sflow_245.ifinmcast", "4294967295"},
			{"sflow_245.dot3StatsFrameTooLongs", "6"}, {"sflow_245.dot3StatsInternalMacTransmitErrors", "7"}, {"sflow_245.dot3StatsFCSErrors", "0"},
			{"_ws.malformed", ""},
		}
		args := []string{"-r", file, "-d", "udp.port==6343,sflow", "-T", "fields", "-E", "separator=;"}
		for _, f := range fields {
			args = append(args, "-e", f.name)
		}
		out, err := exec.Command(tshark, args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimRight(string(out), "\n"), ";")
		for i, f := range fields {
			if i >= len(got) || got[i] != f.want {
				t.Errorf("%s is %q, want %q", f.name, got[i:min(i+1, len(got))], f.want)
			}
		}
	}
}

// inUDP puts a datagram into a capture.
func inUDP(t testing.TB, payload []byte) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{127, 0, 0, 1}, DstIP: []byte{127, 0, 0, 1}}
	udp := &layers.UDP{SrcPort: Port, DstPort: Port}
	eth := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}
	_ = udp.SetNetworkLayerForChecksum(ip)
	packet := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(packet, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	b := packet.Bytes()
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	if err := w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(b), Length: len(b)}, b); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// A notification of a drop has the words of sflow_drops.txt, which tshark does not know.
func TestDiscard(t *testing.T) {
	got, rest := words(func(d *Datagram) { d.AddDiscard(&discard) }, 16)
	want := []uint32{
		5, 4*8 + 8 + 44, // format, length
		6, 0, 3, 4, 3, 5, 8, 1, // sequence, class and index of the source, drops, input, output, reason, records
		1, 44, 1, 64, 4, 25, // a header: format, length, Ethernet, frame with its FCS, stripped, bytes
	}
	if !slices.Equal(got, want) {
		t.Errorf("it is %v, want %v", got, want)
	}
	if !bytes.Equal(rest, slices.Concat(frame, make([]byte, 3))) {
		t.Errorf("the frame is % x", rest)
	}
}

// words returns what a datagram with one sample says of it, word by word, up to the first opaque bytes.
func words(add func(d *Datagram), n int) (all []uint32, rest []byte) {
	var d Datagram
	d.Reset(header)
	before := len(d.Bytes())
	add(&d)
	b := d.Bytes()[before:]
	for i := range n {
		all = append(all, binary.BigEndian.Uint32(b[4*i:]))
	}
	return all, b[4*n:]
}

// The words of a flow sample (sFlow version 5, section 5.3).
func TestFlow(t *testing.T) {
	got, rest := words(func(d *Datagram) { d.AddFlow(&flow) }, 16)
	want := []uint32{
		1, 4*8 + 8 + 44 + 8 + 16, // format, length
		1, 3, 1000, 12345, 2, 3, 4, 2, // sequence, source, rate, pool, drops, input, output, records
		1, 44, 1, 1518, 4, 25, // a header: format, length, Ethernet, frame with its FCS, stripped, bytes
	}
	if !slices.Equal(got, want) {
		t.Errorf("it is %v, want %v", got, want)
	}
	tail := slices.Concat(frame, make([]byte, 3), []byte{0, 0, 3, 233, 0, 0, 0, 16, 0, 0, 0, 10, 0, 0, 0, 3, 0, 0, 0, 20, 0, 0, 0, 4})
	if !bytes.Equal(rest, tail) {
		t.Errorf("then % x, want % x", rest, tail)
	}
}

// The words of a counter sample (sFlow version 5, section 5.3), and its name, filled up to words.
func TestCounters(t *testing.T) {
	for name, filled := range map[string]int{"vm0": 4, "vm10": 4, "vm100": 8, "vm1000": 8} {
		for status, c := range []struct{ admin, up bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
			x := counters
			x.Name, x.Admin, x.Up = name, c.admin, c.up
			got, rest := words(func(d *Datagram) { d.AddCounters(&x) }, 5+2+22+2+13+3)
			want := []uint32{
				2, uint32(4*3 + 8 + 88 + 8 + 52 + 8 + 4 + filled), // format, length
				5, 3, 3, // sequence, source, records
				1, 88, 3, 6, 2, 1410065408, 1, uint32(status), // interface: format, length, index, ethernetCsmacd, 10 Gbit/s, full duplex, status
				1 << 8, 0, 100, Unknown, Unknown, 3, 0, Unknown, // received: octets, packets, multicast, broadcast, discards, errors, unknown protocols
				0, 200, 201, Unknown, Unknown, 202, 0, 1, // sent, likewise; promiscuous
				2, 52, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 6, 0, 0, // Ethernet: format, length, errors of which two are counted
				1005, uint32(4 + filled), uint32(len(name)), // name: format, length, bytes
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: it is\n%v, want\n%v", name, got, want)
			}
			if string(rest) != name+strings.Repeat("\x00", filled-len(name)) {
				t.Errorf("%s: the name is %q", name, rest)
			}
		}
	}
}

// A datagram takes samples until it would be too long, and at least one.
func TestFull(t *testing.T) {
	var d Datagram
	d.Reset(header)
	n := 0
	for d.AddFlow(&flow) {
		n++
	}
	if n < 2 || n != d.Samples() || len(d.Bytes()) > MaxDatagram {
		t.Errorf("%d samples are in %d bytes, of which it counts %d", n, len(d.Bytes()), d.Samples())
	}
	if got := binary.BigEndian.Uint32(d.Bytes()[24:]); got != uint32(n) {
		t.Errorf("it says that it has %d samples, of %d", got, n)
	}
	d.Reset(header)
	long := flow
	long.Packet.Header = make([]byte, MaxDatagram)
	if !d.AddFlow(&long) || d.AddFlow(&flow) {
		t.Error("a long sample is not alone")
	}
}

// Writing allocates nothing.
func TestNoAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates; this runs without it")
	}
	var d Datagram
	if n := testing.AllocsPerRun(100, func() {
		d.Reset(header)
		d.AddFlow(&flow)
		d.AddCounters(&counters)
		d.AddDiscard(&discard)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Each reason of a drop has one of sFlow, and only those that say nothing to a collector are
// unknown.
func TestReasons(t *testing.T) {
	unknown := []port.Drop{port.DropNone, port.DropUnsupported, port.DropConsumed, port.DropLocal, port.DropSecondPeer, port.DropMemoryGone, port.DropIOError}
	for d := range port.NumDrops {
		if is := ReasonOf(d) == ReasonUnknown; is != slices.Contains(unknown, d) {
			t.Errorf("%v has the reason %d", d, ReasonOf(d))
		}
	}
	if r := ReasonOf(port.NumDrops); r != ReasonUnknown {
		t.Errorf("a drop that there is not has the reason %d", r)
	}
	// The numbers are those of sflow_drops.txt.
	for d, want := range map[port.Drop]Reason{
		port.DropIsolated: 8, port.DropMirrorTarget: 13, port.DropNone: 256, port.DropGuardMAC: 258, port.DropQueueFull: 259,
		port.DropShaped: 261, port.DropTooBig: 262, port.DropBadSource: 263, port.DropVLANTagged: 264, port.DropVLANFiltered: 265,
		port.DropBlocked: 266, port.DropNoDestination: 267, port.DropSamePort: 268, port.DropBadTunnel: 282, port.DropUnknownVNI: 288,
		port.DropReserved: 294, port.DropLocked: 304, port.DropBadOffload: 323, port.DropRunt: 324, port.DropNoCarrier: 331,
	} {
		if got := ReasonOf(d); got != want {
			t.Errorf("%v has the reason %d, want %d", d, got, want)
		}
	}
	for to, want := range map[Interface]uint32{
		Index(5): 5, Discarded(ReasonACL): 1<<30 | 258, Several: 2 << 30, Internal: 0x3fffffff,
	} {
		if uint32(to) != want {
			t.Errorf("an interface is %x, want %x", to, want)
		}
	}
}
