package vswitch_test

import (
	"testing"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// TestNoAllocs: the path of a frame leaves nothing to the garbage collector, be
// it known unicast, flooded, dropped, or from a station that moves.
func TestNoAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates; this runs without it")
	}
	r := newRig(t, vswitch.Config{}, 3, memory.Options{Depth: 16})
	defer r.Close()
	buf := make([]byte, 64<<10)
	round := func(in int, out []int, wire ...[]byte) func() {
		packets := make([]memory.Packet, len(wire))
		for i := range wire {
			packets[i].Wire = wire[i]
		}
		return func() {
			r.lines[in].Put(0, packets...)
			for _, o := range out {
				if _, err := r.lines[o].Take(0, buf[:0]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	hello := round(1, []int{0, 2}, frame(port.Broadcast, station(1), 0, 1514))
	for range 100 { // makes all buffers, learns station 1
		hello()
	}
	move, back := round(0, []int{1, 2}, frame(port.Broadcast, station(8), 0, 60)), round(1, []int{0, 2}, frame(port.Broadcast, station(8), 0, 60))
	none := port.CapsNone
	p, err := r.AddPort("plain")
	if err != nil {
		t.Fatal(err)
	}
	plain := memory.New(memory.Options{Depth: 16, Caps: &none})
	if err := p.Attach(plain); err != nil {
		t.Fatal(err)
	}
	p.SetForwarding(true)
	super, offload := tuntest.TCP4(4000)
	cut := func() {
		r.lines[0].Put(0, memory.Packet{Wire: super, Offload: offload})
		for _, line := range []*memory.Port{r.lines[1], r.lines[2], plain, plain, plain} {
			if _, err := line.Take(0, buf[:0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	// More bytes are made a round than a block has.
	long, _ := tuntest.TCP4(60_000)
	checksummed := func() {
		for range 5 {
			r.lines[0].Put(0, memory.Packet{Wire: long, Offload: port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 16}})
			for _, line := range []*memory.Port{r.lines[1], r.lines[2], plain} {
				if _, err := line.Take(0, buf[:0]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, f := range map[string]func(){
		"checksummed": checksummed,
		"unicast":     round(0, []int{1}, frame(station(1), station(0), 0, 60)),
		"broadcast":   round(0, []int{1, 2}, frame(port.Broadcast, station(0), 0, 60)),
		// The good frame behind the dropped ones tells when they are through.
		"dropped": round(0, []int{1}, make([]byte, 5), frame(0x0180_c200_0000, station(0), 0, 60),
			frame(station(1), 0, 0, 60), frame(station(1), station(0), 0, 60)),
		"cut":  cut,
		"move": func() { move(); back() },
	} {
		for range 20 {
			f()
		}
		if n := testing.AllocsPerRun(500, f); n != 0 {
			t.Errorf("%s: %v allocations a round", name, n)
		}
		for _, p := range r.ports {
			p.Sample(&vswitch.Sampler{OneIn: 2, See: func(vswitch.Sample) {}})
		}
		f()
		if n := testing.AllocsPerRun(500, f); n != 0 {
			t.Errorf("%s, with samples: %v allocations a round", name, n)
		}
		for _, p := range r.ports {
			p.Sample(nil)
		}
	}
	if err := r.SetMirrors([]vswitch.Mirror{{Name: "m0", Ports: []string{"p0"}, In: true, To: "p2"}}); err != nil {
		t.Fatal(err)
	}
	mirrored := round(0, []int{1, 2}, frame(station(1), station(0), 0, 60))
	for range 20 {
		mirrored()
	}
	if n := testing.AllocsPerRun(500, mirrored); n != 0 {
		t.Errorf("mirrored: %v allocations a round", n)
	}
}
