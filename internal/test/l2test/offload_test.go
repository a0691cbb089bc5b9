package l2test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// bulkTime is how long a busy machine may take for a few megabytes.
const bulkTime = 60 * time.Second

// bulk sends so many bytes by TCP from one host to an address of another, who must get
// them in order and in time. Where super-frames are lost, TCP goes on with small frames at
// a few of them a second.
func (l *lan) bulk(from, to *host, address string, size int) {
	l.t.Helper()
	var listener net.Listener
	var conn net.Conn
	var err error
	to.ns.Do(func() { listener, err = net.Listen("tcp", net.JoinHostPort(address, "0")) })
	if err != nil {
		l.t.Fatal(err)
	}
	defer listener.Close()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	result := make(chan error, 1)
	go func() {
		in, err := listener.Accept()
		if err != nil {
			result <- err
			return
		}
		defer in.Close()
		if err := in.SetDeadline(time.Now().Add(bulkTime)); err != nil {
			result <- err
			return
		}
		got, err := io.ReadAll(in)
		if err == nil && !bytes.Equal(got, data) {
			err = errors.New("other bytes arrive than were sent")
		}
		if err != nil {
			err = fmt.Errorf("after %d of %d bytes: %w", len(got), size, err)
		}
		result <- err
	}()
	from.ns.Do(func() { conn, err = net.DialTimeout("tcp", listener.Addr().String(), bulkTime) })
	if err == nil {
		if err = conn.SetDeadline(time.Now().Add(bulkTime)); err == nil {
			_, err = conn.Write(data)
		}
		conn.Close()
	}
	if err != nil {
		l.t.Errorf("TCP to %s: %v", address, err)
		return
	}
	if err := <-result; err != nil {
		l.t.Errorf("TCP to %s: %v", address, err)
	}
}

// wantNoLies expects that no frame was dropped for its offload.
func (l *lan) wantNoLies() {
	l.t.Helper()
	for _, h := range l.hosts {
		for _, why := range []port.Drop{port.DropBadOffload, port.DropUnsupported, port.DropOversize} {
			if n := l.sw.dropped(h.port, why); n != 0 {
				l.t.Errorf("%d frames of %s dropped as %v", n, h.port, why)
			}
		}
	}
}

// TestTunnels: TCP in a VXLAN between hosts moves super-frames, whatever the path: by the
// kernel, by the switch where the host takes part in the ports' frames, where they are
// mirrored, and where they are counted against a rate.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘ (mirror of p1)
func TestTunnels(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	l.address()
	h1, h2 := l.hosts[0], l.hosts[1]
	type tunnel struct{ id, options, address1, address2 string }
	tunnels := []tunnel{
		{"1", "local %[1]s remote %[2]s udpcsum", "10.9.1.1", "10.9.1.2"},
		{"2", "local %[1]s remote %[2]s noudpcsum", "10.9.2.1", "10.9.2.2"},
		{"3", "local %[3]s remote %[4]s", "fd09::1", "fd09::2"},
	}
	for _, tun := range tunnels {
		for i, h := range []*host{h1, h2} {
			other, address, length := h2, tun.address1, "24"
			if i == 1 {
				other, address = h1, tun.address2
			}
			if tun.id == "3" {
				length = "64 nodad"
			}
			options := fmt.Sprintf(tun.options, h.v4, other.v4, h.v6, other.v6)
			// One tunnel to a port: a socket of each family, and with and without checksums.
			ip(t, h.ns, fmt.Sprintf("link add vx%[1]s mtu 1400 type vxlan id %[1]s dstport 478%[1]s dev eth0 %[2]s\n", tun.id, options))
			h.ns.Run("sysctl", "-qw", "net.ipv6.conf.vx"+tun.id+".disable_ipv6=0")
			ip(t, h.ns, fmt.Sprintf("addr add %[2]s/%[3]s dev vx%[1]s\nlink set vx%[1]s up\n", tun.id, address, length))
		}
	}
	all := func(path string) {
		t.Helper()
		for _, tun := range tunnels {
			l.bulk(h1, h2, tun.address2, 8<<20)
			l.bulk(h2, h1, tun.address1, 1<<20)
			if t.Failed() {
				t.Fatalf("%s, tunnel %s (%s)", path, tun.id, tun.options)
			}
		}
		l.wantNoLies()
	}
	all("known stations")
	l.sw.ctl("set-port p1 --exclusive=false")
	all("the host takes part")
	l.sw.ctl("set-port p1 --rate-in 2gbit --rate-out 2gbit")
	all("rates")
	l.sw.ctl("set-port p1 --rate-in off --rate-out off")
	l.sw.ctl("mirror add m1 --from p1 --to p3")
	all("mirrored")
}

// TestBigTunnels: TCP over IPv6 in a VXLAN over IPv6 whose super-frames are longer than 64 KiB (BIG TCP) is not dropped.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestBigTunnels(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	l.address()
	h1, h2 := l.hosts[0], l.hosts[1]
	const big = " gso_max_size 200000 gro_max_size 200000\n"
	ip(t, l.ns, "link set p1"+big+"link set p2"+big)
	for i, h := range l.hosts {
		ip(t, h.ns, fmt.Sprintf("link add vx1 mtu 1400 type vxlan id 1 dstport 4781 dev eth0 local %s remote %s\n", h.v6, l.hosts[1-i].v6))
		h.ns.Run("sysctl", "-qw", "net.ipv6.conf.vx1.disable_ipv6=0", "net.ipv4.tcp_wmem=4096 4000000 8000000")
		ip(t, h.ns, fmt.Sprintf("link set eth0%slink set vx1%slink set vx1 up\naddr add fd09::%d/64 dev vx1 nodad\n", big, big, i+1))
	}
	l.bulk(h1, h2, "fd09::2", 32<<20)
	// One that comes after thousands of other frames is lost: the next ones are read with more care.
	if n := l.sw.dropped(h1.port, port.DropUnsupported); n > 32 {
		t.Errorf("%d frames are dropped as %v, want at most a few of some hundred", n, port.DropUnsupported)
	}
}

// TestUnsaidOffloads: what a guest leaves undone that the header of a packet socket has no
// words for reaches stations that it does not know, and those it does.
//
//	guest ── vm0 ┐
//	h1 ───── p1  ┴ switch
func TestUnsaidOffloads(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 1)
	h := l.hosts[0]
	l.sw.ctl("add-port vm0")
	var guest *tuntest.Guest
	l.ns.Do(func() { guest = tuntest.Boot(t, "vm0", tuntest.TSO) })
	testenv.Eventually(t, "vm0 is up", func() bool { return l.sw.port("vm0").State == api.StateUp })
	// arrives returns what comes to h from the guest until so many bytes behind the IP
	// headers are there.
	arrives := func(bytes int) (frames [][]byte) {
		t.Helper()
		for deadline := time.Now().Add(bulkTime); bytes > 0; {
			b, _, err := h.Recv(time.Until(deadline))
			if err != nil {
				t.Fatalf("%d bytes do not arrive: %v", bytes, err)
			}
			if port.MACFrom(b[6:]) == tuntest.MACA {
				frames = append(frames, b)
				bytes -= len(b) - 34
			}
		}
		return frames
	}
	for _, known := range []bool{false, true} {
		if known {
			// From the address that the guest sends to.
			wire := append(append(tuntest.MACA.HardwareAddr(), tuntest.MACB.HardwareAddr()...), 0x88, 0xb5, 0, 0)
			if err := h.Send(wire, port.Offload{}); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "MACB is learnt", func() bool { return l.sw.entry(tuntest.MACB, 1).Port == h.port })
		}
		datagram, o := tuntest.UFO(4000)
		if err := guest.Send(datagram, o); err != nil {
			t.Fatal(err)
		}
		if n := len(arrives(4008)); n != 1 && n != 3 {
			t.Errorf("a datagram to be fragmented arrives in %d frames, the destination known: %v", n, known)
		}
	}
	// The kernel itself would put the internet's checksum there: the switch knows better.
	l.sw.ctl("set-port %s --rate-out 1mpps", h.port) // and no kernel counts frames
	packet, _ := tuntest.TCP4(34 + 12 + 32)
	packet[23] = unix.IPPROTO_SCTP
	clear(packet[42:46])
	want := crc32.Checksum(packet[34:], crc32.MakeTable(crc32.Castagnoli))
	segments := append([]byte{4, 2, 4, 0, 0, 0, 0, 0}, make([]byte, 16)...) // IPv4 behind a segment routing header
	routed := packettest.Bare(tuntest.MACB, tuntest.MACA, 0x86dd, packettest.IPv6("fd00::1", "fd00::2", 43, append(segments, packet[14:]...)))
	for _, b := range [][]byte{packet, routed} {
		at := len(b) - len(packet) + 34
		if err := guest.Send(b, port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(at), CsumOffset: 8}); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint32(arrives(len(b) - 34)[0][at+8:]); got != want {
			t.Errorf("SCTP arrives with the checksum %#x, want %#x", got, want)
		}
	}
	for _, why := range []port.Drop{port.DropBadOffload, port.DropUnsupported} {
		if n := l.sw.dropped("vm0", why); n != 0 {
			t.Errorf("%d frames dropped as %v", n, why)
		}
	}
}

// TestGuestTunnels: super-frames of TCP in a guest's own tunnels, in PPPoE sessions and behind MPLS labels
// reach guests that take no super-frames, and those that take some. The offload header has the place of the inner
// checksum, and says nothing of a tunnel.
//
//	guest ── vm0 ┐        ┌ vm1 ── takes nothing
//	             ├ switch ┼ vm2 ── takes partial checksums
//	h1 ───── p1 ─┘        └ vm3 ── takes super-frames of TCP
func TestGuestTunnels(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 1)
	l.sw.ctl("add-port vm0")
	var guest *tuntest.Guest
	l.ns.Do(func() { guest = tuntest.Boot(t, "vm0", tuntest.TSO) })
	type output struct {
		name string
		mac  port.MAC
		recv func(time.Duration) ([]byte, port.Offload, error)
	}
	outputs := []output{{"p1", l.hosts[0].mac, l.hosts[0].Recv}}
	hello := func(send func([]byte, port.Offload) error, name string, mac port.MAC) {
		t.Helper()
		if err := send(packettest.Eth(tuntest.MACA, mac, 0x88b5, nil), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, name+" is learnt", func() bool { return l.sw.entry(mac, 1).Port == name })
	}
	for i, takes := range []int{tuntest.None, tuntest.Csum, tuntest.TSO} {
		o := output{name: fmt.Sprintf("vm%d", i+1), mac: tuntest.MACB + port.MAC(i+1)}
		l.sw.ctl("add-port %s", o.name)
		var g *tuntest.Guest
		l.ns.Do(func() { g = tuntest.Boot(t, o.name, takes) })
		testenv.Eventually(t, o.name+" is up", func() bool { return l.sw.port(o.name).State == api.StateUp })
		o.recv = g.Recv
		outputs = append(outputs, o)
		hello(g.Send, o.name, o.mac)
	}
	hello(l.hosts[0].Send, "p1", l.hosts[0].mac)
	testenv.Eventually(t, "vm0 is up", func() bool { return l.sw.port("vm0").State == api.StateUp })

	payload := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	tcp := func(v6 bool) []byte {
		s := append([]byte{4, 1, 4, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0, 9, 0, 0, 0, 0}, payload...)
		p := packettest.IPv4("10.9.0.1", "10.9.0.2", unix.IPPROTO_TCP, s)
		addresses, at := p[12:20], 20
		if v6 {
			p = packettest.IPv6("fd09::1", "fd09::2", unix.IPPROTO_TCP, s)
			addresses, at = p[8:40], 40
		}
		// The sender leaves the bare sum of the pseudo header.
		binary.BigEndian.PutUint16(p[at+16:], vnet.Sum(binary.BigEndian.AppendUint16(bytes.Clone(addresses), uint16(len(s)+unix.IPPROTO_TCP))))
		return p
	}
	inEther := func(p []byte) []byte { return packettest.Bare(1<<41, 2<<40, 0x0800, p) }
	type tunnel struct {
		name      string
		etherType uint16
		packet    []byte // behind the EtherType
		front     int    // bytes in it before the packet with TCP
		v6        bool   // which is IPv6
	}
	var tunnels []tunnel
	for _, c := range []struct {
		name  string
		proto byte
		front []byte
		inner []byte
		v6    bool
	}{
		{"GRE", unix.IPPROTO_GRE, []byte{0, 0, 8, 0}, tcp(false), false},
		{"GRE with a key", unix.IPPROTO_GRE, []byte{0x20, 0, 0x86, 0xdd, 0, 0, 0, 7}, tcp(true), true},
		{"GRE of Ethernet", unix.IPPROTO_GRE, append([]byte{0, 0, 0x65, 0x58}, inEther(nil)...), tcp(false), false},
		{"IP in IP", unix.IPPROTO_IPIP, nil, tcp(false), false},
		{"IPv6 in IP", unix.IPPROTO_IPV6, nil, tcp(true), true},
		{"VXLAN", unix.IPPROTO_UDP, packettest.UDP(1000, 4789, append([]byte{8, 0, 0, 0, 0, 0, 42, 0}, inEther(tcp(false))...))[:30], tcp(false), false},
	} {
		body := slices.Concat(c.front, c.inner)
		tunnels = append(tunnels,
			tunnel{c.name + " in IPv4", 0x0800, packettest.IPv4("10.0.0.1", "10.0.0.2", c.proto, body), 20 + len(c.front), c.v6},
			tunnel{c.name + " in IPv6", 0x86dd, packettest.IPv6("fd00::1", "fd00::2", c.proto, body), 40 + len(c.front), c.v6})
	}
	session := func(proto byte, packet []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{0x11, 0, 0, 7}, uint16(2+len(packet))), append([]byte{0, proto}, packet...)...)
	}
	tunnels = append(tunnels,
		tunnel{"PPPoE", 0x8864, session(0x21, tcp(false)), 8, false},
		tunnel{"PPPoE, IPv6", 0x8864, session(0x57, tcp(true)), 8, true},
		tunnel{"GRE in PPPoE", 0x8864, session(0x21, tunnels[0].packet), 8 + tunnels[0].front, false},
		tunnel{"MPLS", 0x8847, append([]byte{0, 0, 0x11, 64}, tcp(false)...), 4, false},
		tunnel{"VXLAN in MPLS", 0x8847, append([]byte{0, 0, 0x11, 64}, tunnels[10].packet...), 4 + tunnels[10].front, false})

	for _, c := range tunnels {
		kind, start, udpData := port.GSOTCPv4, 14+c.front+20, 14+20+8
		if c.etherType == 0x86dd {
			udpData += 20
		}
		if c.v6 {
			kind, start = port.GSOTCPv6, start+20
		}
		o := port.Offload{Flags: port.NeedsCsum, GSOType: kind, GSOSize: 1300, HdrLen: uint16(start + 20), CsumStart: uint16(start), CsumOffset: 16}
		for _, to := range outputs {
			if err := guest.Send(packettest.Bare(to.mac, tuntest.MACA, c.etherType, c.packet), o); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			var got []byte
			for deadline := time.Now().Add(bulkTime); len(got) < len(payload); {
				b, is, err := to.recv(time.Until(deadline))
				if err != nil {
					t.Fatalf("%s to %s: %d of %d bytes arrive: %v", c.name, to.name, len(got), len(payload), err)
				}
				if port.MACFrom(b[6:]) != tuntest.MACA || len(b) <= start+20 {
					continue
				}
				// As datagrams that have the tunnel's UDP header in common, or one by one.
				data, size := b[udpData:], len(b)
				if is.GSOType == port.GSOUDPL4 {
					size = int(is.GSOSize)
				}
				for segment := range slices.Chunk(data, size) {
					got = append(got, segment[start+20-udpData:]...)
				}
			}
			if !bytes.Equal(got, payload) {
				t.Errorf("%s to %s: %d bytes arrive, other ones", c.name, to.name, len(got))
			}
		}
	}
	for _, o := range append(outputs, output{name: "vm0"}) {
		for _, why := range []port.Drop{port.DropBadOffload, port.DropUnsupported, port.DropQueueFull} {
			if n := l.sw.dropped(o.name, why); n != 0 {
				t.Errorf("%d frames of %s dropped as %v", n, o.name, why)
			}
		}
	}
}

// TestTaggedOffloads: what a guest leaves to be cut reaches every kind of output, whatever its tags are
// and however the ports see them: outer, foreign, or a customer's below a service tag.
//
//	guest ── vm0 ┐        ┌ vm1 ── takes nothing
//	             ├ switch ┼ vm2 ── takes partial checksums
//	h1 ───── p1 ─┘        └ vm3 ── takes super-frames of TCP
func TestTaggedOffloads(t *testing.T) {
	t.Parallel()
	for _, plane := range []string{"auto", "off"} {
		if plane == "auto" && !daemontest.FastPath() {
			continue
		}
		t.Run(plane, func(t *testing.T) {
			t.Parallel()
			testTaggedOffloads(t, plane)
		})
	}
}

func testTaggedOffloads(t *testing.T, plane string) {
	l := newLAN(t, 1, "--fastpath", plane)
	l.sw.ctl("add-port vm0")
	var guest *tuntest.Guest
	l.ns.Do(func() { guest = tuntest.Boot(t, "vm0", tuntest.TSO) })
	type output struct {
		name string
		send func([]byte, port.Offload) error
		recv func(time.Duration) ([]byte, port.Offload, error)
	}
	outputs := []output{{"p1", l.hosts[0].Send, l.hosts[0].Recv}}
	for i, takes := range []int{tuntest.None, tuntest.Csum, tuntest.TSO} {
		name := fmt.Sprintf("vm%d", i+1)
		l.sw.ctl("add-port %s", name)
		var g *tuntest.Guest
		l.ns.Do(func() { g = tuntest.Boot(t, name, takes) })
		outputs = append(outputs, output{name, g.Send, g.Recv})
		testenv.Eventually(t, name+" is up", func() bool { return l.sw.port(name).State == api.StateUp })
	}
	payload := make([]byte, 16000)
	for i := range payload {
		payload[i] = byte(i * 7 >> 3)
	}
	type tags []port.Tag
	const provider = "--trunk 10,500 --native 1 --trunk-tpid 0x88a8"
	in := ""
	for n, c := range []struct {
		in, out    string
		sent, come tags
		vid        uint16
	}{
		{"--trunk 10 --native 1", "--trunk 10 --native 1", nil, nil, 1},
		{"--trunk 10 --native 1", "--trunk 10 --native 1", tags{customer(10)}, tags{customer(10)}, 10},
		{"--trunk 10 --native 1", "--trunk 10 --native 1", tags{customer(10), customer(20)}, tags{customer(10), customer(20)}, 10},
		{provider, provider, tags{customer(7)}, tags{customer(7)}, 1},
		{provider, provider, tags{service(10)}, tags{service(10)}, 10},
		{provider, provider, tags{service(10), customer(20)}, tags{service(10), customer(20)}, 10},
		{"--qinq 500", provider, nil, tags{service(500)}, 500},
		{"--qinq 500", provider, tags{customer(10)}, tags{service(500), customer(10)}, 500},
		{"--qinq 500", provider, tags{service(600), customer(10)}, tags{service(500), service(600), customer(10)}, 500},
		{"--access 10", "--trunk 10 --trunk-tpid 0x8100", nil, tags{customer(10)}, 10},
		{"--trunk 10 --trunk-tpid 0x8100", "--access 10", tags{customer(10)}, nil, 10},
	} {
		if in != c.in+c.out {
			in = c.in + c.out
			l.sw.ctl("set-port vm0 %s", c.in)
			for _, o := range outputs {
				l.sw.ctl("set-port %s %s", o.name, c.out)
			}
		}
		for _, known := range []bool{false, true} {
			for i, to := range outputs {
				dst := tuntest.MACB + port.MAC(n<<8+i)
				if known {
					hello, _ := frame{dst: tuntest.MACA, src: dst, tags: c.come}.wire()
					if err := to.send(hello, port.Offload{}); err != nil {
						t.Fatal(err)
					}
					testenv.Eventually(t, "the station is learnt", func() bool { return l.sw.entry(dst, c.vid).Port == to.name })
				}
				for _, what := range cutByOthers {
					b, o := what.make(payload, dst)
					for _, tag := range slices.Backward(c.sent) {
						b, o = tuntest.Tagged(b, tag), vnet.Tag(o, tag.Len())
					}
					if len(c.come) > 2 {
						o.GSOSize -= 8 // else the pieces would be longer than the outputs take, as other frames
					}
					if err := guest.Send(b, o); err != nil {
						t.Fatalf("%s: %v", what.name, err)
					}
					how := fmt.Sprintf("%s with tags %#x from %s to %s of %s, known: %v", what.name, c.sent, c.in, c.out, to.name, known)
					var got []byte
					for deadline := time.Now().Add(bulkTime); len(got) < len(payload); {
						b, is, err := to.recv(time.Until(deadline))
						if err != nil {
							t.Fatalf("%s: %d of %d bytes arrive: %v", how, len(got), len(payload), err)
						}
						if port.MACFrom(b) != dst {
							continue
						}
						if is := tagsOf(b); !slices.Equal(is, c.come) {
							t.Errorf("%s: arrives with tags %#x", how, is)
						}
						got = append(got, payloadOf(b, is)...)
					}
					if !bytes.Equal(got, payload) {
						t.Errorf("%s: %d bytes arrive, other ones", how, len(got))
					}
				}
			}
		}
	}
	var sw api.Switch
	l.sw.decode(&sw, "show")
	if fast := sw.FastPath.Frames != 0; fast != (plane == "auto") {
		t.Errorf("of the fast path: %+v", sw.FastPath)
	}
	for _, o := range append(outputs, output{name: "vm0"}) {
		for _, why := range []port.Drop{port.DropBadOffload, port.DropUnsupported, port.DropOversize, port.DropQueueFull} {
			if n := l.sw.dropped(o.name, why); n != 0 {
				t.Errorf("%d frames of %s dropped as %v", n, o.name, why)
			}
		}
	}
}

// superFrame makes a frame for others to cut, with a payload.
type superFrame struct {
	name string
	make func(payload []byte, dst port.MAC) ([]byte, port.Offload)
}

// cutByOthers are super-frames of all kinds.
var cutByOthers = func() (all []superFrame) {
	transport := func(proto byte, v6 bool, payload []byte) (packet []byte, start int) {
		var s []byte
		at := 6
		if proto == unix.IPPROTO_TCP {
			s, at = []byte{4, 1, 4, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0, 9, 0, 0, 0, 0}, 16
		} else {
			s = binary.BigEndian.AppendUint16([]byte{4, 1, 4, 2}, uint16(8+len(payload)))
			s = append(s, 0, 0)
		}
		s = append(s, payload...)
		packet, start = packettest.IPv4("10.9.0.1", "10.9.0.2", proto, s), 20
		addresses := packet[12:20]
		if v6 {
			packet, start = packettest.IPv6("fd09::1", "fd09::2", proto, s), 40
			addresses = packet[8:40]
		}
		binary.BigEndian.PutUint16(packet[start+at:], vnet.Sum(binary.BigEndian.AppendUint16(bytes.Clone(addresses), uint16(len(s)+int(proto)))))
		return packet, start
	}
	ether := map[bool]uint16{false: 0x0800, true: 0x86dd}
	for _, v6 := range []bool{false, true} {
		for _, c := range []struct {
			name  string
			proto byte
			kind  uint8
			size  uint16
		}{{"TSO", unix.IPPROTO_TCP, port.GSOTCPv4, 1460}, {"USO", unix.IPPROTO_UDP, port.GSOUDPL4, 1472}, {"UFO", unix.IPPROTO_UDP, port.GSOUDP, 1480}} {
			name, kind, size := c.name, c.kind, c.size
			if v6 {
				name += " over IPv6"
				size -= 20
				if kind == port.GSOUDP {
					size = 1448 // what is left beside the fragment header, in whole eights
				}
				if kind == port.GSOTCPv4 {
					kind = port.GSOTCPv6
				}
			}
			offset, header := uint16(6), 8
			if c.proto == unix.IPPROTO_TCP {
				offset, header = 16, 20
			}
			all = append(all, superFrame{name, func(payload []byte, dst port.MAC) ([]byte, port.Offload) {
				p, at := transport(c.proto, v6, payload)
				at += 14
				return packettest.Bare(dst, tuntest.MACA, ether[v6], p), port.Offload{
					Flags: port.NeedsCsum, GSOType: kind, GSOSize: size, HdrLen: uint16(at + header), CsumStart: uint16(at), CsumOffset: offset}
			}})
		}
		all = append(all, superFrame{fmt.Sprintf("TSO in VXLAN, IPv6: %t", v6), func(payload []byte, dst port.MAC) ([]byte, port.Offload) {
			inner, _ := transport(unix.IPPROTO_TCP, false, payload)
			inner = append([]byte{8, 0, 0, 0, 0, 0, 42, 0}, packettest.Bare(1<<41, 2<<40, 0x0800, inner)...)
			udp := packettest.UDP(1000, 4789, inner)
			p, at := packettest.IPv4("10.0.0.1", "10.0.0.2", unix.IPPROTO_UDP, udp), 20
			if v6 {
				p, at = packettest.IPv6("fd00::1", "fd00::2", unix.IPPROTO_UDP, udp), 40
			}
			at += 14 + 8 + 8 + 14 + 20
			return packettest.Bare(dst, tuntest.MACA, ether[v6], p), port.Offload{
				Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1390, HdrLen: uint16(at + 20), CsumStart: uint16(at), CsumOffset: 16}
		}})
	}
	return all
}()

// payloadOf returns what a frame of cutByOthers, or a part of it, carries.
func payloadOf(b []byte, o port.Offload) []byte {
	ip := 12 + 4*len(tagsOf(b)) + 2
	proto, at := b[ip+9], ip+20
	fragment := binary.BigEndian.Uint16(b[ip+6:])&0x1fff != 0
	if b[ip]>>4 == 6 {
		proto, at, fragment = b[ip+6], ip+40, false
		if proto == unix.IPPROTO_FRAGMENT {
			proto, fragment = b[at], binary.BigEndian.Uint16(b[at+2:])&^7 != 0
			at += 8
		}
	}
	switch {
	case fragment:
		return b[at:]
	case proto == unix.IPPROTO_TCP:
		return b[at+20:]
	case binary.BigEndian.Uint16(b[at+2:]) == 4789:
		// As datagrams that have the tunnel's UDP header in common, or one by one.
		size, data := len(b), []byte(nil)
		if o.GSOType == port.GSOUDPL4 {
			size = int(o.GSOSize)
		}
		for datagram := range slices.Chunk(b[at+8:], size) {
			data = append(data, datagram[8+14+20+20:]...)
		}
		return data
	}
	return b[at+8:]
}
