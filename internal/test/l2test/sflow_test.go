package l2test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/vswitch/vswitch/internal/feature/sflow"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// collector gets datagrams of sFlow, and keeps them in a capture.
type collector struct {
	t      testing.TB
	socket *net.UDPConn
	file   bytes.Buffer
	pcap   *pcapgo.Writer
}

// collect makes a collector in the switch's namespace.
func (l *lan) collect() *collector {
	l.t.Helper()
	l.ns.Run("ip", "link", "set", "lo", "up")
	c := &collector{t: l.t}
	var err error
	l.ns.Do(func() { c.socket, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6343}) })
	if err == nil {
		c.pcap = pcapgo.NewWriter(&c.file)
		err = c.pcap.WriteFileHeader(65536, layers.LinkTypeIPv4)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.socket.Close() })
	return c
}

// until reads datagrams until all samples together, by format, are enough.
func (c *collector) until(enough func(samples map[uint32]int) bool) {
	c.t.Helper()
	if samples, ok := c.within(time.Minute, enough); !ok {
		c.t.Fatalf("there are %v samples", samples)
	}
}

// within is until for a bounded time. It returns the samples, and whether they are enough.
func (c *collector) within(d time.Duration, enough func(samples map[uint32]int) bool) (samples map[uint32]int, ok bool) {
	c.t.Helper()
	samples = map[uint32]int{}
	_ = c.socket.SetReadDeadline(time.Now().Add(d))
	for buf := make([]byte, 2048); !enough(samples); {
		n, err := c.socket.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return samples, false
		}
		if err != nil {
			c.t.Fatal(err)
		}
		for rest := buf[28:n]; len(rest) > 0; rest = rest[8+binary.BigEndian.Uint32(rest[4:]):] {
			samples[binary.BigEndian.Uint32(rest)]++
		}
		packet := gopacket.NewSerializeBuffer()
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4(127, 0, 0, 1), DstIP: net.IPv4(127, 0, 0, 1)}
		err = gopacket.SerializeLayers(packet, gopacket.SerializeOptions{FixLengths: true}, ip, &layers.UDP{SrcPort: 6343, DstPort: 6343}, gopacket.Payload(buf[:n]))
		if err == nil {
			b := packet.Bytes()
			err = c.pcap.WritePacket(gopacket.CaptureInfo{CaptureLength: len(b), Length: len(b)}, b)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return samples, true
}

// read has tshark print the values of fields in all samples.
func (c *collector) read(fields ...string) map[string][]string {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "sflow.pcap")
	if err := os.WriteFile(file, c.file.Bytes(), 0o600); err != nil {
		c.t.Fatal(err)
	}
	args := []string{"-r", file, "-d", "udp.port==6343,sflow", "-T", "fields", "-E", "separator=;"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	all := map[string][]string{}
	for line := range strings.Lines(outputOf(c.t, testenv.Tool(c.t, "tshark"), args...)) {
		for i, values := range strings.Split(strings.TrimSuffix(line, "\n"), ";") {
			all[fields[i]] = append(all[fields[i]], strings.FieldsFunc(values, func(r rune) bool { return r == ',' })...)
		}
	}
	return all
}

// TestSFlow has tshark read what a collector gets: samples of frames, with the kernel's fast path or
// without it, counters of ports, and drops, of which tshark knows only that they are there.
//
//	h1 ── p1 (access 10, isolated) ┐
//	h2 ── p2 (trunk 10)            ┼ switch ── 127.0.0.1:6343
//	h3 ── p3 (access 10, isolated) ┘
func TestSFlow(t *testing.T) {
	t.Parallel()
	testenv.Tool(t, "tshark")
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --access 10 --isolated")
	l.sw.ctl("set-port p2 --trunk 10")
	l.sw.ctl("set-port p3 --access 10 --isolated")
	l.want(h1, frame{dst: station(0), src: h1.mac}, h2) // all are known
	l.want(h3, frame{dst: station(0), src: h3.mac}, h2)
	l.want(h2, h2.to(h1, customer(10)), h1)

	c := l.collect()
	l.sw.ctl("set --sflow-collector 127.0.0.1 --sflow-rate 1 --sflow-drops 100 --sflow-interval 1s")
	l.sw.ctl("set-port p2 --sflow off")
	l.sw.ctl("set-port p3 --sflow 1000")
	if p := l.sw.port("p1"); daemontest.FastPath() && !p.FastPath.On {
		t.Errorf("a sampled port is off the fast path: %v", p.FastPath.Off)
	}
	const frames = 20
	before := l.sw.port("p1").FastPath.Frames
	for range frames {
		l.want(h1, frame{dst: h2.mac, src: h1.mac, size: 400}, h2)
		l.want(h2, h2.to(h1, customer(10)), h1) // not sampled
	}
	l.wantDrop(h1, frame{dst: h3.mac, src: h1.mac, size: 60}, port.DropIsolated)
	if n := l.sw.port("p1").FastPath.Frames - before; daemontest.FastPath() && n != frames+1 {
		t.Errorf("the kernel handled %d frames meanwhile, want %d", n, frames+1)
	}
	c.until(func(n map[uint32]int) bool { return n[1] >= frames+1 && n[2] >= 6 && n[5] >= 1 })

	wants := []struct {
		field, value string
		times        int
	}{
		{"sflow.flow_sample.sampling_rate", "1", frames + 1},
		{"sflow.flow_sample.input_interface", "1", frames + 1},
		{"sflow.flow_sample.output_interface", "0x00000002", frames},
		{"sflow.flow_sample.output_interface", "0x40000008", 1}, // discarded: isolated
		{"sflow_245.vlan.in", "10", frames + 1},
		{"sflow_245.vlan.out", "10", frames},
		{"eth.dst", h2.mac.String(), frames},
		{"sflow_245.sampletype", "5", 1},
	}
	fields := []string{"sflow_245.ifindex", "_ws.malformed"}
	for _, w := range wants {
		if !slices.Contains(fields, w.field) {
			fields = append(fields, w.field)
		}
	}
	got := c.read(fields...)
	for _, w := range wants {
		n := 0
		for _, v := range got[w.field] {
			if v == w.value {
				n++
			}
		}
		if n != w.times {
			t.Errorf("tshark finds %d times that %s is %s, want %d: %v", n, w.field, w.value, w.times, got[w.field])
		}
	}
	if len(got["_ws.malformed"]) != 0 {
		t.Errorf("tshark finds malformed packets: %v", got)
	}
	for _, index := range []string{"1", "2", "3"} {
		if !slices.Contains(got["sflow_245.ifindex"], index) {
			t.Errorf("there are no counters of port %s in %v", index, got["sflow_245.ifindex"])
		}
	}
	var st sflow.Status
	l.sw.decode(&st, "sflow")
	if len(st.Ports) != 3 || st.Ports[0].Samples != frames+1 || st.Ports[0].Lost != 0 || st.Ports[0].Drops != 1 || st.Ports[1].OneIn != 0 || st.Ports[2].OneIn != 1000 {
		t.Errorf("the switch says %+v", st)
	}
	if out := l.sw.ctl("sflow"); !strings.Contains(out, "127.0.0.1:6343") {
		t.Errorf("vswitch sflow prints\n%s", out)
	}
	l.sw.refuse("give --sflow-collector as well", "set --sflow-collector= --sflow-rate 10")
	l.sw.ctl("set --sflow-collector=")
	l.sw.refuse("sFlow is off", "sflow")
}

// TestSFlowNoRoute: where the first collector has no route, the others hear the address of this host
// from which they are reached.
func TestSFlowNoRoute(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 1)
	c := l.collect()
	l.sw.ctl("set --sflow-collector 203.0.113.7 --sflow-collector 127.0.0.1 --sflow-interval 1s")
	c.until(func(n map[uint32]int) bool { return n[2] > 0 })
	var st sflow.Status
	l.sw.decode(&st, "sflow")
	if st.Agent != netip.MustParseAddr("127.0.0.1") || st.Collectors[0].Error == "" || st.Collectors[1].Error != "" {
		t.Errorf("the switch says %+v", st)
	}
}

// TestSFlowAbsent has collectors that answer no ARP hold up no other collector.
//
//	h1 ── p1 ┐
//	         ┼ switch ── 127.0.0.1:6343, and two that are not there
//	h2 ── p2 ┘
func TestSFlowAbsent(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.want(h2, h2.toAll(), h1)
	ip(t, l.ns, "link add far0 type veth peer name far1\nlink set far0 up\nlink set far1 up\naddr add 203.0.113.1/24 dev far0\n")
	c := l.collect()
	l.sw.ctl("set --sflow-collector 203.0.113.7 --sflow-collector 203.0.113.8 --sflow-collector 127.0.0.1 --sflow-rate 1 --sflow-header 256")
	const frames = 5000
	f := h1.to(h2)
	f.size = 400
	// A machine that is busy may lose samples of frames that come at once: it has several tries.
	var got map[uint32]int
	for range 5 {
		var sending sync.WaitGroup
		sending.Go(func() {
			for range frames {
				wire, token := f.wire()
				err := h1.Send(wire, port.Offload{})
				ok := false
				if err == nil {
					_, ok, err = h2.receive(token, time.Now().Add(time.Minute))
				}
				if !ok || err != nil {
					t.Errorf("a frame does not come: %v", err)
					return
				}
			}
		})
		var enough bool
		got, enough = c.within(10*time.Second, func(n map[uint32]int) bool { return n[1] > frames/2 })
		sending.Wait()
		if enough {
			return
		}
	}
	var st sflow.Status
	l.sw.decode(&st, "sflow")
	t.Errorf("of %d frames, the collector that is there gets %d samples; the switch says %+v", frames, got[1], st.Ports[0])
}
