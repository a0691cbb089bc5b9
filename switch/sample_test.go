package vswitch_test

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Of a million frames, one in so many is drawn, within three times the deviation that is due if
// each is drawn by itself.
func TestSampleRate(t *testing.T) {
	t.Parallel()
	const frames, oneIn = 1_000_000, 100
	r := newRig(t, vswitch.Config{}, 1, memory.Options{Depth: 512})
	defer r.Close()
	var drawn, of uint64 // the port has one worker
	r.ports[0].Sample(&vswitch.Sampler{OneIn: oneIn, See: func(s vswitch.Sample) {
		drawn++
		of += uint64(s.Of)
	}})
	packets := make([]memory.Packet, 97)
	for i := range packets {
		packets[i].Wire = frame(station(0), 0, 0, 60) // dropped: that is soonest done
	}
	for sent := 0; sent < frames; {
		n := r.lines[0].Put(0, packets[:min(len(packets), frames-sent)]...)
		if sent += n; n == 0 {
			time.Sleep(10 * time.Microsecond)
		}
	}
	testenv.Eventually(t, "all frames are through", func() bool { return r.ports[0].Stats().RX.Frames == frames })
	r.ports[0].Sample(nil)
	if err := r.ports[0].Detach(); err != nil { // the worker has ended
		t.Fatal(err)
	}
	const want, deviation = float64(frames) / oneIn, 3 * 99.5 // sqrt(n p (1-p))
	if math.Abs(float64(drawn)-want) > deviation {
		t.Errorf("%d frames are drawn, want %.0f", drawn, want)
	}
	if of > frames || of < frames-2*oneIn {
		t.Errorf("they are of %d frames, want the %d that were sent", of, frames)
	}
}

// A sample says what becomes of the frame.
func TestSampleOutcome(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 3, memory.Options{Depth: 64})
	defer r.Close()
	none := port.CapsNone
	p, err := r.AddPort("plain")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Attach(memory.New(memory.Options{Depth: 64, Caps: &none})); err != nil {
		t.Fatal(err)
	}
	r.ports = append(r.ports, p)
	var trunk port.VLANSet
	trunk.Add(10)
	for n, v := range []port.VLAN{{Access: 10}, {Trunk: trunk}, {Access: 20}, {Access: 10}} {
		if err := r.ports[n].Configure(vswitch.PortConfig{VLAN: v}); err != nil {
			t.Fatal(err)
		}
	}
	r.FDB().Learn(fdb.MakeKey(10, uint64(station(0))), 0)
	r.FDB().Learn(fdb.MakeKey(10, uint64(station(1))), 1)
	r.FDB().Learn(fdb.MakeKey(10, uint64(station(3))), 3)
	var mu sync.Mutex
	var all []string
	r.ports[0].Sample(&vswitch.Sampler{OneIn: 1, See: func(s vswitch.Sample) {
		mu.Lock()
		defer mu.Unlock()
		to := "none"
		if s.To != nil {
			to = s.To.Name()
		}
		all = append(all, fmt.Sprintf("%s vlan %d, %d bytes of %d, to %s %x, several %t, %v", s.Port.Name(), s.VLAN, s.Len(), s.Of, to, uint32(s.ToTag), s.Several, s.Out.Drop))
	}})
	super, offload := tuntest.TCP4(4000)
	copy(super, station(3).HardwareAddr())
	copy(super[6:], station(0).HardwareAddr())
	send := func(packets ...memory.Packet) {
		before := r.ports[0].Stats().RX.Frames
		r.lines[0].Put(0, packets...)
		testenv.Eventually(t, "it is through", func() bool { return r.ports[0].Stats().RX.Frames == before+uint64(len(packets)) })
	}
	send(memory.Packet{Wire: frame(station(1), station(0), 0, 60)})
	send(memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 60)}) // p1 alone is in the VLAN and forwards
	p.SetForwarding(true)
	send(memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 60)}, memory.Packet{Wire: frame(station(0), station(0), 0, 60)})
	send(memory.Packet{Wire: super, Offload: offload}) // is cut for p3
	send(memory.Packet{Wire: frame(station(1), 0, 0, 60)})
	r.ports[0].Sample(nil)
	send(memory.Packet{Wire: frame(station(1), station(0), 0, 60)})
	want := []string{
		"p0 vlan 10, 60 bytes of 1, to p1 8100000a, several false, none",
		"p0 vlan 10, 60 bytes of 1, to p1 8100000a, several false, none",
		"p0 vlan 10, 60 bytes of 1, to none 0, several true, none",
		"p0 vlan 10, 60 bytes of 1, to none 0, several false, same_port",
		fmt.Sprintf("p0 vlan 10, %d bytes of 1, to plain 0, several false, none", len(super)),
		"p0 vlan 10, 60 bytes of 1, to none 0, several false, bad_source",
	}
	mu.Lock()
	defer mu.Unlock()
	if len(all) != len(want) {
		t.Fatalf("%d samples: %q", len(all), all)
	}
	for i := range want {
		if all[i] != want[i] {
			t.Errorf("sample %d is\n%s, want\n%s", i, all[i], want[i])
		}
	}
}

// Samples of the fast path are shown as those of workers.
func TestFastSamples(t *testing.T) {
	fast := &told{}
	sw := vswitch.New(vswitch.Config{FastPath: fast})
	defer sw.Close()
	var ports []*vswitch.Port
	var trunk port.VLANSet
	trunk.Add(10)
	for n, vlan := range []port.VLAN{{Access: 10}, {Trunk: trunk}} {
		p, err := sw.AddPort(fmt.Sprintf("p%d", n))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Configure(vswitch.PortConfig{VLAN: vlan}); err != nil {
			t.Fatal(err)
		}
		if err := p.Attach(device{Port: memory.New(memory.Options{})}); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		ports = append(ports, p)
	}
	var got []vswitch.Sample
	ports[0].Sample(&vswitch.Sampler{OneIn: 7, See: func(s vswitch.Sample) { got = append(got, s) }})
	var drops []vswitch.Sight
	stop := sw.Watch(&vswitch.Watch{Drops: true, Some: true, See: func(s vswitch.Sight) { drops = append(drops, s) }})
	if p := fast.ports[0]; p.OneIn != 7 || !p.SeeDrops || !p.From || p.Drops || fast.ports[1].OneIn != 0 {
		t.Errorf("the fast path is told %+v", fast.ports)
	}
	wire := frame(station(1), station(0), 1, 300)
	one := vswitch.FastCopy{Kind: vswitch.CopySample, Data: wire[:256], Length: len(wire), Of: 5, Missed: 3, To: 1}
	fast.show(&one)
	one.To, one.Several = fdb.NoPort, true
	fast.show(&one)
	one.Several, one.Drop = false, port.DropIsolated
	fast.show(&one)
	if len(got) != 3 || len(drops) != 0 {
		t.Fatalf("it shows %+v, %+v", got, drops)
	}
	if s := got[0]; s.To != ports[1] || s.ToTag != port.MakeTag(port.TPIDCustomer, 10) || s.Several || s.VLAN != 10 || s.Of != 5 || s.Missed != 3 || s.Len() != 300 {
		t.Errorf("a sample is %+v", s)
	}
	if s := got[1]; s.To != nil || !s.Several {
		t.Errorf("one that goes to several is %+v", s)
	}
	if s := got[2]; s.To != nil || s.Several || s.Out.Drop != port.DropIsolated {
		t.Errorf("one that is dropped is %+v", s)
	}
	one = vswitch.FastCopy{Kind: vswitch.CopyDrop, Data: wire[:256], Length: len(wire), Of: 5, Drop: port.DropPoliced, To: fdb.NoPort}
	fast.show(&one)
	one.Kind = vswitch.CopyIn // a capture shows it as well
	fast.show(&one)
	if len(got) != 3 || len(drops) != 1 || drops[0].Missed != 5 || drops[0].Out.Drop != port.DropPoliced {
		t.Errorf("drops are %+v", drops)
	}
	stop()
	ports[0].Sample(nil)
	one.Kind = vswitch.CopySample
	fast.show(&one)
	if p := fast.ports[0]; p.OneIn != 0 || p.SeeDrops || len(got) != 3 {
		t.Errorf("afterwards the fast path is told %+v", p)
	}
}
