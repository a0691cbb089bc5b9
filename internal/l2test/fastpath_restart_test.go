package l2test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
)

// vm is a guest on a TAP, with a station behind it.
type vm struct {
	port string
	mac  port.MAC
	*tuntest.Guest
}

// stream is one guest sending 64-byte frames to another at a steady pace, and what of
// them that one has heard. Their numbers tell loss, doubles and order.
type stream struct {
	t        testing.TB
	from, to *vm
	sent     atomic.Uint32
	heard    []uint32 // read these after stop
	others   int      // frames that are not the stream's
	quit     chan struct{}
	once     sync.Once
	sending  sync.WaitGroup
	hearing  sync.WaitGroup
}

const streamEtherType = 0x88b6 // local experimental 2 (802 clause 9.2.4)

func startStream(t testing.TB, from, to *vm) *stream {
	s := &stream{t: t, from: from, to: to, quit: make(chan struct{})}
	t.Cleanup(s.stop)
	s.sending.Go(func() {
		tick := time.NewTicker(250 * time.Microsecond)
		defer tick.Stop()
		for {
			if err := from.Send(s.frame(s.sent.Load()), port.Offload{}); err != nil {
				t.Errorf("%s sends: %v", from.port, err)
				return
			}
			s.sent.Add(1)
			select {
			case <-tick.C:
			case <-s.quit:
				return
			}
		}
	})
	s.hearing.Go(func() {
		for {
			wire, _, err := to.Recv(200 * time.Millisecond)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				select {
				case <-s.quit:
					return
				default:
				}
			case err != nil:
				t.Errorf("%s hears: %v", to.port, err)
				return
			case binary.BigEndian.Uint16(wire[12:]) == streamEtherType && port.MACFrom(wire) == to.mac:
				s.heard = append(s.heard, binary.BigEndian.Uint32(wire[14:]))
			default:
				s.others++
			}
		}
	})
	return s
}

func (s *stream) frame(number uint32) []byte {
	b := frame{dst: s.to.mac, src: s.from.mac, etherType: streamEtherType}.head()
	b = binary.BigEndian.AppendUint32(b, number)
	return append(b, make([]byte, 60-len(b))...) // the FCS makes it 64
}

// stop returns when all that was sent was heard, or nothing comes any more.
func (s *stream) stop() {
	s.once.Do(func() { close(s.quit) })
	s.sending.Wait()
	s.hearing.Wait()
}

// more waits until some more frames were sent.
func (s *stream) more(frames uint32) {
	s.t.Helper()
	until := s.sent.Load() + frames
	testenv.Eventually(s.t, "some more is sent", func() bool { return s.sent.Load() >= until })
}

// wantAll stops the stream and checks that each frame came, once and in order.
func (s *stream) wantAll() {
	s.t.Helper()
	s.stop()
	sent := s.sent.Load()
	seen := make([]int, sent)
	for _, n := range s.heard {
		seen[n]++
	}
	lost, doubled := 0, 0
	for _, times := range seen {
		switch {
		case times == 0:
			lost++
		case times > 1:
			doubled++
		}
	}
	if lost+doubled > 0 || !slices.IsSorted(s.heard) {
		s.t.Errorf("of %d frames %s to %s, %d are lost and %d come twice; the first lost is %d; in order: %v",
			sent, s.from.port, s.to.port, lost, doubled, slices.Index(seen, 0), slices.IsSorted(s.heard))
	}
}

// pair is a switch that forwards in the kernel, with guests a and b.
//
//	a ── vm0 ┐
//	b ── vm1 ┴ switch
type pair struct {
	t    testing.TB
	ns   *testenv.Netns
	sw   *daemon
	a, b *vm
}

// newPair starts them, and has the switch know both.
func newPair(t testing.TB, flags ...string) *pair {
	t.Helper()
	p := &pair{t: t, ns: quietNetns(t)}
	p.sw = startDaemon(t, p.ns, append([]string{"--fastpath", "require"}, flags...)...)
	p.a, p.b = p.add(0), p.add(1)
	for _, g := range []*vm{p.a, p.b} {
		p.greet(g)
	}
	return p
}

// add adds a port and boots its guest.
func (p *pair) add(n int) *vm {
	p.t.Helper()
	g := &vm{port: "vm" + strconv.Itoa(n), mac: station(n)}
	p.sw.ctl("add-port %s", g.port)
	p.ns.Do(func() { g.Guest = tuntest.Boot(p.t, g.port, tuntest.TSO) })
	p.sw.AwaitState(p.t, g.port, api.StateUp)
	return g
}

// greet has a guest speak, to nobody, until it is known.
func (p *pair) greet(g *vm) {
	p.t.Helper()
	wire, _ := frame{dst: g.mac, src: g.mac}.wire()
	if err := g.Send(wire, port.Offload{}); err != nil {
		p.t.Fatal(err)
	}
	testenv.Eventually(p.t, g.port+" is known", func() bool { return p.sw.entry(g.mac, 1).Port == g.port })
}

// wantFast checks what the switch says of its fast path.
func (p *pair) wantFast(on bool) {
	p.t.Helper()
	var sw api.Switch
	p.sw.decode(&sw, "show")
	if f := sw.FastPath; f.On != on || f.Pinned != on || on == (f.Reason != "") {
		p.t.Errorf("the fast path is %+v, want it on: %v", f, on)
	}
}

// fast is how many frames the kernel dealt with.
func (p *pair) fast() uint64 {
	p.t.Helper()
	sw, err := p.sw.Client.Switch(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return sw.FastPath.Frames
}

// pins lists what the switch has in the BPF file system.
func (p *pair) pins() (all []string) {
	p.t.Helper()
	dirs, err := filepath.Glob("/sys/fs/bpf/vswitch/" + p.sw.Name + "@*")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			all = append(all, path)
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return all
}

// links are those of pins that hold a program at a device.
func (p *pair) links() int {
	p.t.Helper()
	return len(slices.DeleteFunc(p.pins(), func(path string) bool {
		isLink, err := filepath.Match("link-*", filepath.Base(path))
		return err != nil || !isLink
	}))
}

// TestFastRestart kills the daemon under traffic in both directions, and stops it: no
// frame is lost, whether it is away or comes, and the next one knows the stations. The
// host, whose addresses are on the very devices, hears and answers nothing meanwhile.
func TestFastRestart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	host := netip.MustParseAddr("192.0.2.1")
	p.ns.Run("ip", "addr", "add", host.String()+"/24", "dev", "vm0")
	var udp *net.UDPConn
	p.ns.Do(func() {
		var err error
		if udp, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 4999}); err != nil {
			t.Fatal(err)
		}
	})
	defer udp.Close()

	streams := []*stream{startStream(t, p.a, p.b), startStream(t, p.b, p.a)}
	more := func() {
		t.Helper()
		for _, s := range streams {
			s.more(300)
		}
	}
	more()
	for name, end := range map[string]func(){"kill": p.sw.Kill, "stop": func() { p.sw.Stop(t) }} {
		for range 2 {
			if p.fast() == 0 {
				t.Error("no frame takes the fast path")
			}
			end()
			more()
			for _, wire := range [][]byte{tuntest.Broadcast(4999), tuntest.ARPRequest(host)} {
				if err := p.a.Send(wire, port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
			p.sw.Restart(t)
			more()
			p.wantFast(true)
			for _, g := range []*vm{p.a, p.b} {
				p.sw.wantEntry(g.mac, 1, g.port)
				if s := p.sw.port(g.port).State; s != api.StateUp {
					t.Errorf("%s is %s after %s", g.port, s, name)
				}
			}
		}
	}
	for _, s := range streams {
		s.wantAll()
		if s.others != 0 {
			t.Errorf("%s hears %d frames of the host", s.to.port, s.others)
		}
	}
	if err := udp.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		t.Fatal(err)
	}
	if n, err := udp.Read(make([]byte, 64)); err == nil {
		t.Errorf("the host hears a guest's broadcast of %d bytes", n)
	}
}
