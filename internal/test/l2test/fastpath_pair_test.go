package l2test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// vm is a guest on a TAP, with a station behind it.
type vm struct {
	port string
	mac  port.MAC
	*tuntest.Guest
}

// stream is one guest sending 64-byte frames to a station at a steady pace, and what of
// them others have heard. The frames' numbers tell loss, doubles and order.
type stream struct {
	t     testing.TB
	from  *vm
	dst   port.MAC
	at    []*listener
	sent  atomic.Uint32
	pause time.Duration // the longest between two frames; read it after stop
	quit  chan struct{}
	once  sync.Once
	going sync.WaitGroup
}

// listener is a guest that notes what it hears of a stream. Read it after stop.
type listener struct {
	*vm
	heard  []uint32      // the numbers, in the order in which they came
	count  atomic.Uint32 // of them; read it at any time
	others int           // frames that are not the stream's
}

const streamEtherType = 0x88b6 // local experimental 2 (802 clause 9.2.4)

// startStream has a guest send. The first of those who listen is the one it sends to.
func startStream(t testing.TB, from *vm, at ...*vm) *stream {
	s := newStream(t, from, at[0].mac, at...)
	s.going.Go(s.send)
	return s
}

// newStream has guests listen for what another is to send.
func newStream(t testing.TB, from *vm, dst port.MAC, at ...*vm) *stream {
	s := &stream{t: t, from: from, dst: dst, quit: make(chan struct{})}
	t.Cleanup(s.stop)
	for _, g := range at {
		l := &listener{vm: g}
		s.at = append(s.at, l)
		s.going.Go(func() { s.listen(l) })
	}
	return s
}

func (s *stream) send() {
	tick := time.NewTicker(250 * time.Microsecond)
	defer tick.Stop()
	for last := time.Now(); s.sendOne(); {
		now := time.Now()
		s.pause, last = max(s.pause, now.Sub(last)), now
		select {
		case <-tick.C:
		case <-s.quit:
			return
		}
	}
}

// sendOne sends the next frame, and reports whether it could.
func (s *stream) sendOne() bool {
	b := frame{dst: s.dst, src: s.from.mac, etherType: streamEtherType}.head()
	b = binary.BigEndian.AppendUint32(b, s.sent.Load())
	b = append(b, make([]byte, 60-len(b))...) // the FCS makes it 64
	if err := s.from.Send(b, port.Offload{}); err != nil {
		s.t.Errorf("%s sends: %v", s.from.port, err)
		return false
	}
	s.sent.Add(1)
	return true
}

func (s *stream) listen(l *listener) {
	for {
		wire, _, err := l.Recv(200 * time.Millisecond)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case <-s.quit:
				return
			default:
			}
		case err != nil:
			s.t.Errorf("%s hears: %v", l.port, err)
			return
		case port.MACFrom(wire) == s.dst && binary.BigEndian.Uint16(wire[12:]) == streamEtherType:
			l.heard = append(l.heard, binary.BigEndian.Uint32(wire[14:]))
			l.count.Add(1)
		default:
			l.others++
		}
	}
}

// stop returns when nothing more comes.
func (s *stream) stop() {
	s.once.Do(func() { close(s.quit) })
	s.going.Wait()
}

// more waits until some more frames were sent, and returns how many are on their way at
// the least.
func (s *stream) more(frames uint32) uint32 {
	s.t.Helper()
	until := s.sent.Load() + frames
	testenv.Eventually(s.t, "some more is sent", func() bool { return s.sent.Load() >= until })
	return until
}

// wantOnce stops the stream and checks that each frame came once, counting all of these
// listeners together.
func (s *stream) wantOnce(at ...*listener) {
	s.t.Helper()
	s.stop()
	seen := make([]int, s.sent.Load())
	for _, l := range at {
		for _, n := range l.heard {
			seen[n]++
		}
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
	if lost+doubled > 0 {
		s.t.Errorf("of %d frames that %s sends to %s, %d are lost, the first is number %d, and %d come twice",
			len(seen), s.from.port, s.dst, lost, slices.Index(seen, 0), doubled)
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

// pins lists what the switch has in the BPF file system, which the namespace has one of
// its own of.
func (p *pair) pins() []string {
	p.t.Helper()
	const list = "cd /sys/fs/bpf/vswitch 2>/dev/null && find . -mindepth 1 -path \"./$0@*\" || true"
	return strings.Fields(p.ns.Run("sh", "-c", list, p.sw.Name))
}

// links are those of pins that hold a program at a device.
func (p *pair) links() int {
	p.t.Helper()
	return len(slices.DeleteFunc(p.pins(), func(path string) bool {
		isLink, err := filepath.Match("link-*", filepath.Base(path))
		return err != nil || !isLink
	}))
}
