package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBalance: under load on all ports, with ports that fall behind, that go down
// and come back, every frame that came in is delivered or has one reason.
func TestBalance(t *testing.T) {
	const ports, each = 6, 30_000
	r := newRig(t, vswitch.Config{}, ports, memory.Options{Depth: 128, Queues: 2})
	defer r.Close()
	var senders, others sync.WaitGroup
	for i := range ports {
		senders.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			var few [16]memory.Packet
			for sent := 0; sent < each; {
				for j := range few {
					few[j].Wire = randomFrame(rng, i, ports)
				}
				n := r.lines[i].Put(rng.IntN(2), few[:min(len(few), each-sent)]...)
				if sent += n; n == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	stop := make(chan struct{})
	taken := make([]uint64, ports)
	for i := range ports - 1 { // the last one takes nothing: its queue is full
		others.Go(func() {
			for {
				n := 0
				for q := range 2 {
					n += r.lines[i].Drain(q, 1<<20, func(memory.Packet) {})
				}
				taken[i] += uint64(n)
				if n == 0 {
					select {
					case <-stop:
						return
					default:
						runtime.Gosched()
					}
				}
			}
		})
	}
	flap := make(chan struct{})
	others.Go(func() {
		defer close(flap)
		for range 200 {
			r.ports[1].SetForwarding(false)
			runtime.Gosched()
			r.ports[1].SetForwarding(true)
			runtime.Gosched()
		}
	})
	senders.Wait()
	<-flap
	rx := func() (n uint64) {
		for _, p := range r.ports {
			n += p.Stats().RX.Frames
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); rx() != ports*each; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d frames were counted", rx(), ports*each)
		}
		runtime.Gosched()
	}
	close(stop)
	others.Wait()

	var in, copies, out, lost uint64
	seen := map[port.Drop]bool{}
	for i, p := range r.ports {
		st := p.Stats()
		if st.RX.Frames != each {
			t.Errorf("port %d: %d frames in, %d were sent", i, st.RX.Frames, each)
		}
		if i < ports-1 {
			for q := range 2 {
				taken[i] += uint64(r.lines[i].Drain(q, 1<<20, func(memory.Packet) {}))
			}
			if st.TX.Frames != taken[i] {
				t.Errorf("port %d: %d frames out, %d arrived", i, st.TX.Frames, taken[i])
			}
		}
		in += st.RX.Frames
		copies += st.RX.Copies
		out += st.TX.Frames
		lost += st.RX.Drops() + st.TX.Drops()
		for why := range port.NumDrops {
			seen[why] = seen[why] || st.RX.Dropped[why]+st.TX.Dropped[why] != 0
		}
	}
	if in+copies != out+lost {
		t.Errorf("%d frames and %d copies in, %d out and %d dropped: %d unexplained", in, copies, out, lost, int64(in+copies-out-lost))
	}
	for _, why := range []port.Drop{port.DropRunt, port.DropBadSource, port.DropReserved, port.DropQueueFull} {
		if !seen[why] {
			t.Errorf("the load raised no %v: the test does not try it", why)
		}
	}
}

// randomFrame is mostly a good frame between stations, sometimes a bad one.
func randomFrame(rng *rand.Rand, from, ports int) []byte {
	src, dst := station(from*10+rng.IntN(3)), station(rng.IntN(ports)*10+rng.IntN(3))
	switch rng.IntN(40) {
	case 0:
		return make([]byte, rng.IntN(14))
	case 1:
		src |= 1 << 40
	case 2:
		dst = 0x0180_c200_0000
	case 3:
		dst = port.Broadcast
	}
	return frame(dst, src, 0, 60)
}

// TestFlowOrder: frames of one flow stay in order, also while its destination
// turns from unknown to known.
func TestFlowOrder(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 3, memory.Options{Depth: 4096})
	defer r.Close()
	const frames = 3000
	for n := range uint32(frames) {
		if n == frames/2 {
			r.lines[1].Put(0, memory.Packet{Wire: frame(station(0), station(1), 0, 60)})
		}
		r.lines[0].Put(0, memory.Packet{Wire: frame(station(1), station(0), n, 60)})
	}
	var buf [2048]byte
	for want := uint32(0); want < frames; want++ {
		p, err := r.lines[1].Take(0, buf[:0])
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint32(p.Wire[14:]); got != want {
			t.Fatalf("frame %d arrived where %d was due", got, want)
		}
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []vswitch.Event
		r := newRig(t, vswitch.Config{OnEvent: func(e vswitch.Event) { events = append(events, e) }}, 3, memory.Options{})
		defer r.Close()
		r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(9), 0, 60)})
		synctest.Wait()
		r.lines[2].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(9), 0, 60)})
		synctest.Wait()
		want := vswitch.MACMoved{MAC: station(9), VLAN: 1, From: r.ports[0].Number(), To: r.ports[2].Number()}
		if len(events) != 1 || events[0] != want {
			t.Fatalf("events %v, want %v", events, want)
		}

		// A device that ends by itself is reported once, one that is detached not.
		events = nil
		if err := r.ports[0].Detach(); err != nil {
			t.Fatal(err)
		}
		gone := &ending{memory.New(memory.Options{Queues: 2})}
		if err := r.ports[0].Attach(gone); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(events) != 1 {
			t.Fatalf("events %v, want one", events)
		}
		if l, ok := events[0].(vswitch.PortLost); !ok || l.Port != r.ports[0] || !errors.Is(l.Err, port.ErrGone) {
			t.Fatalf("event %v", events[0])
		}
	})
}

// ending is a port whose queues end at once.
type ending struct{ *memory.Port }

func (p *ending) Queues() []port.Queue {
	var all []port.Queue
	for _, q := range p.Port.Queues() {
		all = append(all, endedQueue{q})
	}
	return all
}

type endedQueue struct{ port.Queue }

func (endedQueue) Recv([]port.Frame) (int, error) {
	return 0, fmt.Errorf("unplugged: %w", port.ErrGone)
}

// TestDeviceLosses: what a device lost by itself is in the counters of its port, in
// each direction, and stays there when another device comes.
func TestDeviceLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		attach := func(d port.Port) {
			t.Helper()
			if err := errors.Join(r.ports[1].Detach(), r.ports[1].Attach(d)); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []port.Port{lossy{memory.New(memory.Options{}), 2, 3}, lossy{memory.New(memory.Options{}), 1, 1}, memory.New(memory.Options{})} {
			attach(d)
			for i := range uint32(5) {
				r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(1), i, 60)})
			}
			synctest.Wait()
		}
		var want vswitch.PortStats
		want.RX.Frames, want.RX.Dropped[port.DropRxOverrun] = 2+1, 2+1
		want.TX.Frames, want.TX.Dropped[port.DropQueueFull] = 15-3-1, 3+1
		want.TX.Bytes = 11 * 60
		if st := r.ports[1].Stats(); st != want {
			t.Errorf("counted %+v", st)
		}
		// More than a port's workers have counted by now is not believed.
		attach(lossy{memory.New(memory.Options{}), 0, 100})
		if st := r.ports[1].Stats(); st.TX.Frames != 0 || st.TX.Dropped[port.DropQueueFull] != 15 {
			t.Errorf("of 15 frames %d left and %d are lost", st.TX.Frames, st.TX.Dropped[port.DropQueueFull])
		}
	})
}

// sendToLosing sends frames to a port whose device loses some, and returns both.
func sendToLosing(t *testing.T, frames int) (*vswitch.Port, *losing) {
	t.Helper()
	r := newRig(t, vswitch.Config{}, 2, memory.Options{})
	t.Cleanup(func() { _ = r.Close() })
	p, d := r.ports[1], &losing{Port: memory.New(memory.Options{})}
	if err := errors.Join(p.Detach(), p.Attach(d)); err != nil {
		t.Fatal(err)
	}
	for range frames {
		r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(1), 1, 60)})
	}
	synctest.Wait()
	return p, d
}

// TestLossesWithoutPeer: what a device loses while nobody holds its other end is counted as
// that, and what it lost before and after as what a full queue loses.
func TestLossesWithoutPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := sendToLosing(t, 20)
		want := func(full, nobody uint64) {
			t.Helper()
			st := p.Stats().TX
			if st.Dropped[port.DropQueueFull] != full || st.Dropped[port.DropNoCarrier] != nobody || st.Frames != 20-full-nobody {
				t.Errorf("%d sent, %d queue_full, %d no_carrier; want %d and %d", st.Frames, st.Dropped[port.DropQueueFull], st.Dropped[port.DropNoCarrier], full, nobody)
			}
		}
		d.lost = 1 // nobody asked for it before
		p.SetPlugged(false)
		d.lost = 4
		p.SetPlugged(false)
		want(1, 3)
		d.lost = 6
		p.SetPlugged(true)
		want(1, 5)
		d.lost = 8
		want(3, 5)
		p.SetPlugged(false)
		d.lost = 9
		if err := errors.Join(p.Detach(), p.Attach(memory.New(memory.Options{}))); err != nil {
			t.Fatal(err)
		}
		p.SetPlugged(true)
		want(3, 6)
	})
}

// TestLossesWithoutRoute: what a device loses for want of a route is counted as that, also when it
// is detached.
func TestLossesWithoutRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := sendToLosing(t, 20)
		want := func(full, unrouted uint64) {
			t.Helper()
			st := p.Stats().TX
			if st.Dropped[port.DropQueueFull] != full || st.Dropped[port.DropNoRoute] != unrouted || st.Frames != 20-full-unrouted {
				t.Errorf("%d sent, %d queue_full, %d no_route; want %d and %d", st.Frames, st.Dropped[port.DropQueueFull], st.Dropped[port.DropNoRoute], full, unrouted)
			}
		}
		d.lost, d.unrouted = 5, 3
		want(2, 3)
		if err := errors.Join(p.Detach(), p.Attach(&losing{Port: memory.New(memory.Options{}), lost: 4, unrouted: 4})); err != nil {
			t.Fatal(err)
		}
		want(2, 7)
	})
}

// TestShapedBelow: what a device's own queue drops was not sent, and its bytes are like those of what
// was sent since the last look. The counters never go back.
func TestShapedBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 1, memory.Options{})
		defer r.Close()
		d := &shaping{Port: memory.New(memory.Options{})}
		p, err := r.AddPort("shaped")
		if err := errors.Join(err, p.Attach(d)); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		send := func(n, size int) {
			for range n {
				r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(1), 0, size)})
				synctest.Wait()
			}
		}
		want := func(frames, bytes, shaped uint64) {
			t.Helper()
			if st := p.Stats().TX; st.Frames != frames || st.Bytes != bytes || st.Dropped[port.DropShaped] != shaped {
				t.Errorf("%d frames, %d bytes and %d shaped, want %d, %d and %d", st.Frames, st.Bytes, st.Dropped[port.DropShaped], frames, bytes, shaped)
			}
		}
		send(10, 1000)
		want(10, 10_000, 0)
		send(10, 1000)
		d.dropped = 4
		want(16, 16_000, 4)
		send(100, 100)
		d.dropped = 94
		want(26, 17_000, 94)
		want(26, 17_000, 94)
		if err := errors.Join(p.Detach(), p.Attach(&shaping{Port: memory.New(memory.Options{}), dropped: 2})); err != nil {
			t.Fatal(err)
		}
		send(10, 100)
		want(34, 17_800, 96)
	})
}

// shaping is a port whose device keeps a rate.
type shaping struct {
	*memory.Port
	dropped uint64
}

func (*shaping) Shape(uint64) (how string, err error) { return "", nil }
func (*shaping) Shapes() bool                         { return true }
func (s *shaping) Shaped() uint64                     { return s.dropped }

// losing is a port whose device loses frames.
type losing struct {
	*memory.Port
	lost, unrouted uint64
}

func (p *losing) Unrouted() uint64 { return p.unrouted }

func (p *losing) Lost(uint64) uint64 { return p.lost }

// lossy is a port whose device lost frames.
type lossy struct {
	*memory.Port
	overruns, lost uint64
}

func (p lossy) Overruns() uint64   { return p.overruns }
func (p lossy) Lost(uint64) uint64 { return p.lost }

func TestPorts(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 3, memory.Options{})
	if _, err := r.AddPort("p1"); !errors.Is(err, vswitch.ErrExists) {
		t.Errorf("a second p1: %v", err)
	}
	if err := r.ports[1].Attach(memory.New(memory.Options{})); err == nil {
		t.Error("a second device is taken")
	}
	if d := r.ports[1].Device(); d != port.Port(r.lines[1]) {
		t.Errorf("the device is %v", d)
	}
	if err := r.ports[1].Detach(); err != nil || r.ports[1].Device() != nil {
		t.Errorf("after Detach (%v) there is a device", err)
	}
	if err := r.RemovePort("p1"); err != nil {
		t.Fatal(err)
	}
	if err := r.RemovePort("p1"); err == nil {
		t.Error("a port is removed twice")
	}
	if r.Port("p1") != nil {
		t.Error("p1 is still there")
	}
	if err := r.ports[1].Attach(memory.New(memory.Options{})); err == nil {
		t.Error("a removed port takes a device")
	}
	p, err := r.AddPort("again")
	if err != nil || p.Number() != 1 {
		t.Errorf("the free number goes to %v, %v", p, err)
	}
	var names []string
	for _, p := range r.Ports() {
		names = append(names, p.Name())
	}
	if want := []string{"p0", "again", "p2"}; !slices.Equal(names, want) {
		t.Errorf("ports %v, want %v", names, want)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.AddPort("late"); !errors.Is(err, vswitch.ErrClosed) {
		t.Errorf("a port of a closed switch: %v", err)
	}
	if err := p.Attach(memory.New(memory.Options{})); !errors.Is(err, vswitch.ErrClosed) {
		t.Errorf("a device of a closed switch: %v", err)
	}
}

// TestRemoveForgets: a port that takes the number of a removed one inherits
// neither its stations nor its counters.
func TestRemoveForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		r.lines[1].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(1), 0, 60)})
		synctest.Wait()
		if err := r.FDB().Add(fdb.MakeKey(1, uint64(station(5))), 1, fdb.Static); err != nil {
			t.Fatal(err)
		}
		if r.FDB().Len() != 2 {
			t.Fatalf("%d entries", r.FDB().Len())
		}
		if err := r.RemovePort("p1"); err != nil {
			t.Fatal(err)
		}
		for e := range r.FDB().All() {
			t.Errorf("left behind: %+v", e)
		}
		p, err := r.AddPort("new")
		if err != nil {
			t.Fatal(err)
		}
		if st := p.Stats(); st != (vswitch.PortStats{}) {
			t.Errorf("a new port counts %+v", st)
		}
	})
}

// TestOffloads: a super-frame goes on whole to a port that is able, is cut and
// completed for one that is not, as often as it is flooded; a header that
// contradicts its frame goes nowhere.
func TestOffloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		for _, caps := range []port.Caps{port.CapCsum, port.CapsNone, port.CapsNone} {
			p, err := r.AddPort(fmt.Sprint("p", len(r.ports)))
			if err != nil {
				t.Fatal(err)
			}
			line := memory.New(memory.Options{Caps: &caps})
			if err := p.Attach(line); err != nil {
				t.Fatal(err)
			}
			p.SetForwarding(true)
			r.ports, r.lines = append(r.ports, p), append(r.lines, line)
		}
		super, o := tuntest.TCP4(20_000)
		original := bytes.Clone(super)
		r.lines[0].Put(0, memory.Packet{Wire: super, Offload: o})
		synctest.Wait()
		for p := 1; p < len(r.lines); p++ {
			frames := 0
			var joined tuntest.Joiner
			r.lines[p].Drain(0, 100, func(got memory.Packet) {
				frames++
				if p == 1 && (got.Offload != o || !bytes.Equal(got.Wire, original)) {
					t.Errorf("an able port got %d bytes with %+v", len(got.Wire), got.Offload)
				}
				if partial := got.Offload.Flags&port.NeedsCsum != 0; p > 1 && (got.Offload.IsGSO() || partial != (p == 2)) {
					t.Errorf("port %d got %+v", p, got.Offload)
				}
				if err := joined.Add(got.Wire, got.Offload); err != nil {
					t.Errorf("port %d: %v", p, err)
				}
			})
			want := 1
			if p > 1 {
				want = (20_000 - 54 + int(o.GSOSize) - 1) / int(o.GSOSize)
			}
			if frames != want || !bytes.Equal(joined.Data(), tuntest.TCPData(original)) {
				t.Errorf("port %d got %d frames, want %d, with %d bytes of data", p, frames, want, len(joined.Data()))
			}
		}
		// A partial checksum alone is completed.
		small, o := tuntest.TCP4(1000)
		o.GSOType, o.GSOSize = port.GSONone, 0
		r.lines[0].Put(0, memory.Packet{Wire: small, Offload: o})
		synctest.Wait()
		var joined tuntest.Joiner
		r.lines[3].Drain(0, 100, func(got memory.Packet) {
			if got.Offload != (port.Offload{}) {
				t.Errorf("offload %+v", got.Offload)
			}
			if err := joined.Add(got.Wire, got.Offload); err != nil {
				t.Error(err)
			}
		})
		if !bytes.Equal(joined.Data(), tuntest.TCPData(small)) {
			t.Errorf("%d bytes of data arrived", len(joined.Data()))
		}
		var in, out uint64
		for _, p := range r.ports {
			st := p.Stats()
			in += st.RX.Frames + st.RX.Copies
			out += st.TX.Frames + st.RX.Drops() + st.TX.Drops()
		}
		if in != out {
			t.Errorf("%d in, %d out", in, out)
		}
		o.CsumStart = 999
		r.lines[0].Put(0, memory.Packet{Wire: small, Offload: o})
		synctest.Wait()
		wantDrops(t, r, 0, port.DropBadOffload, 1)
		// Headers other than the offload speaks of reach no port, able or not.
		_, o = tuntest.TCP4(20_000)
		other := slices.Clone(original)
		copy(other[12:], []byte{0x88, 0xb5})
		v6 := o
		v6.GSOType = port.GSOTCPv6
		for _, c := range []struct {
			packet memory.Packet
			why    port.Drop
			n      uint64
		}{
			{memory.Packet{Wire: other, Offload: o}, port.DropUnsupported, 1}, // another protocol, nobody is to blame
			{memory.Packet{Wire: slices.Clone(original), Offload: v6}, port.DropBadOffload, 2},
		} {
			r.lines[0].Put(0, c.packet)
			synctest.Wait()
			wantDrops(t, r, 0, c.why, c.n)
			r.lines[1].Drain(0, 100, func(got memory.Packet) {
				if got.Offload.IsGSO() {
					t.Errorf("%+v reached a port", got.Offload)
				}
			})
		}
		// What only the cutting finds out is the output's to drop.
		o.GSOSize = 8
		r.lines[0].Put(0, memory.Packet{Wire: slices.Clone(original), Offload: o})
		synctest.Wait()
		wantDrops(t, r, 3, port.DropBadOffload, 1)
	})
}

func TestLocalAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		if err := r.FDB().Add(fdb.MakeKey(1, uint64(station(7))), fdb.NoPort, fdb.Local); err != nil {
			t.Fatal(err)
		}
		r.lines[0].Put(0, memory.Packet{Wire: frame(station(7), station(0), 1, 60)})
		synctest.Wait()
		if st := r.ports[0].Stats(); st.RX.Dropped[port.DropLocal] != 1 || len(r.taken(1)) != 0 {
			t.Errorf("to the switch itself: %s", text(st.RX, st.TX))
		}
	})
}

// TestDetachWhileForwarding: devices come and go under load without harm.
func TestDetachWhileForwarding(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 3, memory.Options{})
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 60)})
				r.lines[2].Drain(0, 1000, func(memory.Packet) {})
			}
		}
	})
	for range 300 {
		if err := r.ports[1].Detach(); err != nil {
			t.Fatal(err)
		}
		if err := r.ports[1].Attach(memory.New(memory.Options{})); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	load.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
