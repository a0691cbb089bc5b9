package vswitch_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// sights collects what a watch shows.
type sights struct {
	mu  sync.Mutex
	all []sight
}

type sight struct {
	port string
	sent bool
	vlan uint16
	why  port.Drop
	wire []byte
}

func (s *sights) see(v vswitch.Sight) {
	b := make([]byte, v.Len())
	b = b[:v.CopyTo(b)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, sight{v.Port.Name(), v.Sent, v.VLAN, v.Out.Drop, b})
}

func (s *sights) take() []sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

// TestWatchSeesAll: whatever frames come and however ports are set, a watch of all ports
// shows as many frames, bytes and drops as the ports count, and what leaves as it leaves;
// a watch of drops shows the drops alone.
func TestWatchSeesAll(t *testing.T) {
	const ports = 3
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			r := newRig(t, vswitch.Config{}, ports, memory.Options{Depth: 4})
			defer r.Close()
			none := port.CapsNone
			r.lines = append(r.lines, memory.New(memory.Options{Caps: &none, Depth: 64}))
			p, err := r.AddPort("plain")
			if err != nil {
				t.Fatal(err)
			}
			r.ports = append(r.ports, p)
			if err := p.Attach(r.lines[ports]); err != nil {
				t.Fatal(err)
			}
			p.SetForwarding(rapid.Bool().Draw(t, "plain forwards"))
			var ten port.VLANSet
			ten.Add(10)
			for _, p := range r.ports {
				c := vswitch.PortConfig{
					Isolated: rapid.Bool().Draw(t, "isolated"),
					Locked:   rapid.IntRange(0, 9).Draw(t, "locked") == 0,
					VLAN: rapid.SampledFrom([]port.VLAN{{}, {}, {Access: 1}, {Access: 10},
						{Trunk: ten, Native: 1}}).Draw(t, "vlan"),
				}
				if rapid.IntRange(0, 3).Draw(t, "shaped") == 0 {
					c.Shape = port.Rate{PerSecond: 2}
				}
				if err := p.Configure(c); err != nil {
					t.Fatal(err)
				}
			}
			var all, drops, one sights
			stop := []func(){
				r.Watch(&vswitch.Watch{In: true, Out: true, See: all.see}),
				r.Watch(&vswitch.Watch{Drops: true, See: drops.see}),
				r.Watch(&vswitch.Watch{Ports: []string{"p1", "none"}, In: true, See: one.see}),
			}
			left := make([][][]byte, len(r.lines))
			for range rapid.IntRange(1, 30).Draw(t, "frames") {
				in := rapid.IntRange(0, ports).Draw(t, "in")
				packet := memory.Packet{Wire: frame(station(rapid.IntRange(0, 5).Draw(t, "dst")), station(in), 1, 60)}
				switch rapid.IntRange(0, 6).Draw(t, "form") {
				case 0:
					packet.Wire = packet.Wire[:10]
				case 1:
					packet.Wire = slices.Concat(packet.Wire[:12], []byte{0x81, 0, 0, 10}, packet.Wire[12:])
				case 2:
					packet.Wire, packet.Offload = tuntest.TCP4(4000)
					copy(packet.Wire, port.Broadcast.HardwareAddr())
				case 3:
					copy(packet.Wire, port.Broadcast.HardwareAddr())
				}
				r.lines[in].Put(0, packet)
				synctest.Wait()
				for i := range r.lines {
					if rapid.Bool().Draw(t, "drained") {
						left[i] = append(left[i], r.taken(i)...)
					}
				}
			}
			time.Sleep(time.Minute) // shaped ports have sent all
			synctest.Wait()
			for i := range r.lines {
				left[i] = append(left[i], r.taken(i)...)
			}
			for _, stop := range stop {
				stop()
			}
			r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 1, 60)})
			synctest.Wait()

			var lost, inOne []sight
			seen := map[string]*vswitch.PortStats{}
			sent := map[string][][]byte{}
			for _, p := range r.ports {
				seen[p.Name()] = new(vswitch.PortStats)
			}
			for _, s := range all.take() {
				c := &seen[s.port].RX
				if s.sent {
					c = &seen[s.port].TX
				}
				if s.why != port.DropNone {
					c.Dropped[s.why]++
					lost = append(lost, s)
				}
				if !s.sent || s.why == port.DropNone {
					c.Frames++
					c.Bytes += uint64(len(s.wire))
				}
				if s.sent && s.why == port.DropNone {
					sent[s.port] = append(sent[s.port], s.wire)
				}
				if s.port == "p1" && !s.sent {
					inOne = append(inOne, s)
				}
			}
			for i, p := range r.ports {
				st := p.Stats()
				if i == 0 { // the frame after stop
					st.RX.Frames--
					st.RX.Bytes -= 60
				}
				st.RX.Copies = 0
				// The frame after stop may have been sent or dropped by others, too.
				got := seen[p.Name()]
				if st.RX.Frames != got.RX.Frames || st.RX.Bytes != got.RX.Bytes {
					t.Fatalf("%s received\n%s, seen are\n%s", p.Name(), text(st.RX, st.TX), text(got.RX, got.TX))
				}
				if st.TX.Drops() < got.TX.Drops() || st.TX.Drops() > got.TX.Drops()+1 || st.RX.Drops() < got.RX.Drops() || st.RX.Drops() > got.RX.Drops()+1 {
					t.Fatalf("%s dropped\n%s, seen are\n%s", p.Name(), text(st.RX, st.TX), text(got.RX, got.TX))
				}
				if !slices.EqualFunc(sent[p.Name()], left[i], bytes.Equal) {
					t.Fatalf("%s sent %x, seen are %x", p.Name(), left[i], sent[p.Name()])
				}
			}
			same := func(a, b sight) bool {
				return a.port == b.port && a.sent == b.sent && a.vlan == b.vlan && a.why == b.why && bytes.Equal(a.wire, b.wire)
			}
			if got := drops.take(); !slices.EqualFunc(got, lost, same) {
				t.Fatalf("dropped are %v, of which the watch of drops shows %v", lost, got)
			}
			if got := one.take(); !slices.EqualFunc(got, inOne, same) {
				t.Fatalf("p1 received %v, of which its watch shows %v", inOne, got)
			}
		})
	})
}

// TestWatchVLAN: a sight has the VLAN of its frame, also if a port that does not carry it
// dropped the frame; and of a frame without one it has none.
func TestWatchVLAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		if err := r.ports[0].Configure(vswitch.PortConfig{VLAN: port.VLAN{Access: 10}}); err != nil {
			t.Fatal(err)
		}
		var all sights
		r.Watch(&vswitch.Watch{In: true, See: all.see})
		tagged := slices.Concat(frame(port.Broadcast, station(0), 0, 60)[:12], []byte{0x81, 0, 0, 20}, make([]byte, 50))
		r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 60)}, memory.Packet{Wire: tagged},
			memory.Packet{Wire: frame(port.Broadcast, 0, 0, 60)}, memory.Packet{Wire: make([]byte, 5)})
		synctest.Wait()
		r.ports[1].SetForwarding(false)
		r.lines[1].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(1), 0, 60)})
		synctest.Wait()
		var got []sight
		for _, s := range all.take() {
			s.wire = nil
			got = append(got, s)
		}
		want := []sight{
			{port: "p0", vlan: 10, why: port.DropNoDestination}, {port: "p0", why: port.DropVLANTagged},
			{port: "p0", vlan: 10, why: port.DropBadSource}, {port: "p0", why: port.DropRunt},
			{port: "p1", why: port.DropPortDown},
		}
		if !slices.EqualFunc(got, want, func(a, b sight) bool { return a.port == b.port && a.vlan == b.vlan && a.why == b.why }) {
			t.Errorf("seen are %+v, want %+v", got, want)
		}
	})
}

// losses watches devices that lose frames.
type losses struct {
	devices map[int]uint16
	begun   int
	show    func(*vswitch.FastCopy)
}

func (l *losses) Devices(of map[int]uint16)          { l.devices = of }
func (l *losses) Begin(show func(*vswitch.FastCopy)) { l.begun++; l.show = show }
func (l *losses) End()                               { l.begun-- }

// lossyDevice is a port on a device of the kernel that loses frames.
type lossyDevice struct {
	*memory.Port
	index int
}

func (d lossyDevice) Punted() bool       { return true }
func (d lossyDevice) Ifindex() int       { return d.index }
func (d lossyDevice) Lost(uint64) uint64 { return 0 }

// What devices lose is asked for while somebody watches it, of the watched ports on devices that
// can lose frames, and shown to nobody else.
func TestWatchLosses(t *testing.T) {
	l := &losses{}
	r := newRig(t, vswitch.Config{Losses: l}, 0, memory.Options{})
	defer r.Close()
	for i, dev := range []port.Port{
		lossyDevice{memory.New(memory.Options{}), 7}, lossyDevice{memory.New(memory.Options{}), 8},
		device{Port: memory.New(memory.Options{})}, lossy{Port: memory.New(memory.Options{})},
	} {
		p, err := r.AddPort(fmt.Sprint("p", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Attach(dev); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
	}
	want := func(when string, begun int, devices map[int]uint16) {
		t.Helper()
		if l.begun != begun || !maps.Equal(l.devices, devices) {
			t.Errorf("%s: %d watch devices %v", when, l.begun, l.devices)
		}
	}
	want("at first", 0, nil)
	var all, one, drops, others sights
	stopOthers := r.Watch(&vswitch.Watch{Out: true, Punt: true, See: others.see})
	stopDrops := r.Watch(&vswitch.Watch{Drops: true, See: drops.see})
	want("without such a watch", 0, nil)
	stopOne := r.Watch(&vswitch.Watch{Ports: []string{"p0", "p2", "p3"}, Drops: true, Punt: true, See: one.see})
	want("of some ports", 1, map[int]uint16{7: 0})
	missed := uint32(0)
	stopAll := r.Watch(&vswitch.Watch{Drops: true, Punt: true, See: func(s vswitch.Sight) { all.see(s); missed += s.Missed }})
	want("of all ports", 2, map[int]uint16{7: 0, 8: 1})
	wire := frame(station(1), station(0), 1, 60)
	for number := range uint16(2) {
		l.show(&vswitch.FastCopy{Kind: vswitch.CopyLost, Number: number, Data: wire, Length: len(wire), Drop: port.DropQueueFull, Missed: 2, Of: 3})
	}
	if got := all.take(); len(got) != 2 || missed != 10 || got[1].port != "p1" || !got[1].sent || got[1].vlan != 1 || got[1].why != port.DropQueueFull || !bytes.Equal(got[1].wire, wire) {
		t.Errorf("shown are %+v, without %d others", got, missed)
	}
	if got := one.take(); len(got) != 1 || got[0].port != "p0" {
		t.Errorf("of some ports are shown %+v", got)
	}
	if n := len(drops.take()) + len(others.take()); n != 0 {
		t.Errorf("%d are shown to others", n)
	}
	stopAll()
	want("of some ports again", 1, map[int]uint16{7: 0})
	stopOne()
	want("at last", 0, nil)
	stopDrops()
	stopOthers()
	want("without a watch", 0, nil)
}
