package l2test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// wantBalance checks that all that came in went out or was dropped for a reason: rx +
// copies = tx + drops, over all ports. Nothing may be on its way.
func (d *daemon) wantBalance() {
	d.t.Helper()
	var in, out uint64
	balanced := func() bool {
		in, out = 0, 0
		var ports []api.Port
		d.decode(&ports, "stats")
		for _, p := range ports {
			in += p.RX.Frames + p.RX.Copies
			out += p.TX.Frames
			for _, dropped := range []map[string]uint64{p.RX.Dropped, p.TX.Dropped} {
				for _, n := range dropped {
					out += n
				}
			}
		}
		return in == out
	}
	for range 100 { // the last frames may be counted at one side yet
		if balanced() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Errorf("in: %d frames and copies; out and dropped: %d", in, out)
}

// TestFastHandover takes frames from one path to the other and back by all settings
// that do so: a station that is known to neither, or to one, a port that needs more than
// forwarding. No frame is lost, and none comes twice. c, the observer, gets one copy of each
// frame that is mirrored, and no other.
//
//	a ── vm0 ┐
//	b ── vm1 ┼ switch
//	c ── vm2 ┘
func TestFastHandover(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c := p.add(2)
	p.greet(c)
	p.sw.ctl("set-port vm2 --access 30") // it hears neither floods nor mirrored frames of others
	before := p.sw.port("vm0").RX.Frames
	streams := []*stream{startStream(t, p.a, p.b, c), startStream(t, p.b, p.a)}
	streams[0].more(300)
	// What of a's frames c hears: those that are sent from the moment at which a mirror is
	// there, up to the last one that the switch has dealt with when it goes.
	var mirrored []span
	for _, command := range []string{
		"fdb del " + p.b.mac.String(),
		"fdb del " + p.a.mac.String(),
		"fdb flush",
		"fdb flush --port vm1",
		"mirror add m0 --from vm0 --direction in --to vm2",
		"mirror del m0",
		"mirror add m0 --from vm0,vm1 --direction both --to vm2", // each frame passes both
		"mirror del m0",
		"mirror add m0 --from vm0,vm1 --to vm2 --snaplen 60", // a copy that the daemon makes
		"mirror del m0",
		"mirror add m0 --from vm1 --direction out --to vm2",
		"mirror del m0",
		"set-port vm0 --rate-in 10gbit",
		"set-port vm0 --rate-in off",
		"set-port vm1 --rate-out 10gbit",
		"set-port vm1 --rate-out 20gbit",
		"set-port vm1 --rate-out off",
		"set-port vm0 --learning off",
		"set-port vm0 --learning on",
		"set-port vm0 --isolated",
		"set-port vm0 --isolated=false",
		"set-port vm0 --trunk 10 --native 1",
		"set-port vm1 --trunk 10 --native 1",
		"set-port vm0 --access 1",
		"add-port vm3",
		"del-port vm3",
		"fdb add " + p.b.mac.String() + " vm1",
		"fdb flush",
	} {
		if command == "mirror del m0" {
			to := streams[0].more(100)
			testenv.Eventually(t, "a's frames are dealt with", func() bool { return p.sw.port("vm0").RX.Frames-before > uint64(to) })
			mirrored[len(mirrored)-1].to = to
		}
		p.sw.ctl("%s", command)
		if strings.HasPrefix(command, "mirror add") {
			mirrored = append(mirrored, span{from: streams[0].sent.Load() + 1}) // one may be on its way
		}
		before := p.fast()
		testenv.Eventually(t, "frames take the fast path after "+command, func() bool { return p.fast() > before+100 })
	}
	for _, s := range streams {
		s.wantOnce(s.at[0])
	}
	copies := make(map[uint32]int)
	for _, n := range streams[0].at[1].heard {
		if copies[n]++; copies[n] > 1 {
			t.Errorf("frame %d comes to the observer %d times", n, copies[n])
		}
	}
	for _, s := range mirrored {
		for n := s.from; n < s.to; n++ {
			if copies[n] == 0 {
				t.Errorf("the observer does not hear frame %d, while frames %d to %d are mirrored", n, s.from, s.to)
				break
			}
		}
	}
	p.sw.wantBalance()
}

// TestFastFlood has a broadcast, and a group, be flooded by the kernel, by the daemon where a
// setting asks for it, and by the kernel without a daemon. Each frame comes to all, once.
//
//	a ── vm0 ┐
//	b ── vm1 ┼ switch
//	c ── vm2 ┘
func TestFastFlood(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c := p.add(2)
	p.greet(c)
	all, group := *p.b, *p.a
	all.mac, group.mac = port.Broadcast, 0x0100_5e01_0203
	streams := []*stream{startStream(t, p.a, &all), startStream(t, c, &group)}
	more := func() {
		t.Helper()
		for _, s := range streams {
			s.more(200)
		}
	}
	more()
	for _, c := range []struct {
		command string
		slow    bool // the daemon floods
	}{
		{"set-port vm0 --storm-broadcast 1mpps", false}, // the group goes on
		{"set-port vm2 --storm-multicast 1mpps", true},
		{"set-port vm0 --storm-broadcast off", false},
		{"set-port vm2 --storm-multicast off", false},
		{"set-port vm1 --rate-out 1mpps", true},
		{"set-port vm1 --rate-out off", false},
		{"set --snooping", false}, // the broadcast goes on
		{"set --snooping=off", false},
		{"set-port vm0 --rate-in 1gbit --burst 1s", false},
		{"set-port vm0 --rate-in off", false},
		{"set-port vm2 --learning off", false},
		{"set-port vm2 --learning on", false},
		{"fdb flush", false},
		{"add-port vm3", false}, // to which nobody listens
	} {
		p.sw.ctl("%s", c.command)
		before := p.fast()
		if !c.slow {
			testenv.Eventually(t, "the kernel floods after "+c.command, func() bool { return p.fast() > before+100 })
			continue
		}
		more()
		if n := p.fast() - before; n != 0 {
			t.Errorf("the kernel floods %d frames after %s", n, c.command)
		}
	}
	p.sw.Kill()
	more()
	p.sw.Restart(t)
	more()
	before := p.fast()
	testenv.Eventually(t, "the kernel floods for the next daemon", func() bool { return p.fast() > before+100 })
	for _, s := range streams { // all listeners hear both
		s.once.Do(func() { close(s.quit) })
	}
	for _, s := range streams {
		s.wantOnce(s.at[0])
	}
	p.sw.wantBalance()
}

// TestFastFloodBusy has a guest flood in bursts: the kernel does it, then the daemon in its place, as
// many frames come, and then the kernel again, since the daemon is killed. All hear each frame
// once. Of what the daemon was to flood, they miss what it took with it.
//
//	a ── vm0 ┐
//	b ── vm1 ┼ switch
//	   …     │
//	  ── vm7 ┘
func TestFastFloodBusy(t *testing.T) {
	t.Parallel()
	const burst = 800 // which a TAP holds
	p := newPair(t)
	at := []*vm{p.b}
	for n := 2; n <= 7; n++ {
		g := p.add(n)
		p.greet(g)
		at = append(at, g)
	}
	s := newStream(t, p.a, port.Broadcast, at...)
	flood := func() (heard func() bool) {
		want := make([]uint32, len(s.at))
		for i, l := range s.at {
			want[i] = l.count.Load() + burst
		}
		for range burst {
			s.sendOne()
		}
		return func() bool {
			for i, l := range s.at {
				if l.count.Load() != want[i] {
					return false
				}
			}
			return true
		}
	}
	before := p.fast()
	testenv.Eventually(t, "the daemon floods", func() bool {
		for range 2 { // the first of which is many frames
			testenv.Eventually(t, "all hear all", flood())
		}
		floods := p.fast() - before
		before += floods
		return floods < 2*burst
	})
	p.sw.Kill()
	testenv.Eventually(t, "the kernel floods", func() bool {
		heard := flood()
		for range 100 {
			if heard() {
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
		return false
	})
	p.sw.Restart(t)
	testenv.Eventually(t, "all hear all after a restart", flood())
	s.stop()
	for _, l := range s.at {
		slices.Sort(l.heard)
		if once := slices.Compact(slices.Clone(l.heard)); len(once) != len(l.heard) {
			t.Errorf("%s hears %d frames twice", l.port, len(l.heard)-len(once))
		}
	}
}

// span is a number of frames of a stream that follow each other.
type span struct{ from, to uint32 }

// TestFastMove has station b go to and fro between two ports, as a virtual machine does
// that migrates. Each frame to it goes to one of them; once the switch has it at a
// port, all go there.
//
//	a ── vm0 ┐
//	b ── vm1 ┼ switch
//	b ── vm2 ┘
func TestFastMove(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c := p.add(2)
	c.mac = p.b.mac
	s := startStream(t, p.a, p.b, c)
	s.more(100)
	type stay struct {
		at       int // the listener
		from, to uint32
	}
	var stays []stay
	for n := range 10 {
		at, g := (n+1)%2, []*vm{p.b, c}[(n+1)%2]
		p.greet(g)
		before := p.fast()
		from := s.more(1) // the frame that is being sent may go where b was
		to := s.more(100)
		stays = append(stays, stay{at, from, to - 1})
		if p.fast() == before {
			t.Errorf("no frame to b at %s takes the fast path", g.port)
		}
	}
	s.wantOnce(s.at...)
	for _, st := range stays {
		elsewhere := s.at[1-st.at]
		if i := slices.IndexFunc(elsewhere.heard, func(n uint32) bool { return n > st.from && n < st.to }); i >= 0 {
			t.Errorf("frame %d comes to %s, while b was at %s from %d to %d",
				elsewhere.heard[i], elsewhere.port, s.at[st.at].port, st.from, st.to)
		}
	}
	p.sw.wantBalance()
}

// TestFastVLANMove moves b's port to another VLAN and back while it is sent to: when
// the command has returned nothing comes to it any more, and c hears what is flooded
// instead. What is lost at that moment is counted as addressed to a port that left.
//
//	a ── vm0 access 10             ┐
//	b ── vm1 access 10, 20, 10 …   ┼ switch
//	c ── vm2 access 10             ┘
func TestFastVLANMove(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c := p.add(2)
	for _, g := range []*vm{p.a, p.b, c} {
		p.sw.ctl("set-port %s --access 10", g.port)
	}
	greet := func() {
		t.Helper()
		wire, _ := frame{dst: p.b.mac, src: p.b.mac}.wire()
		if err := p.b.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "b is known", func() bool { return p.sw.entry(p.b.mac, 10).Port == "vm1" })
	}
	greet()
	s := startStream(t, p.a, p.b, c)
	s.more(100)
	var away []span
	for range 5 {
		before := p.fast()
		testenv.Eventually(t, "frames take the fast path", func() bool { return p.fast() > before+50 })
		p.sw.ctl("set-port vm1 --access 20")
		one := span{from: s.sent.Load() + 1} // one may be on its way
		one.to = s.more(100) - 1
		away = append(away, one)
		p.sw.ctl("set-port vm1 --access 10")
		greet()
	}
	s.stop()
	b, flooded := s.at[0], s.at[1]
	inside := func(one span) func(uint32) bool {
		return func(n uint32) bool { return n >= one.from && n < one.to }
	}
	for _, one := range away {
		if i := slices.IndexFunc(b.heard, inside(one)); i >= 0 {
			t.Errorf("frame %d comes to b, which was in another VLAN from %d to %d", b.heard[i], one.from, one.to)
		}
		if !slices.ContainsFunc(flooded.heard, inside(one)) {
			t.Errorf("no frame of %d to %d is flooded", one.from, one.to)
		}
	}
	seen := make(map[uint32]bool)
	for _, l := range s.at {
		before := len(seen)
		alone := make(map[uint32]bool)
		for _, n := range l.heard {
			seen[n], alone[n] = true, true
		}
		if len(alone) != len(l.heard) {
			t.Errorf("%s hears %d frames twice", l.port, len(l.heard)-len(alone))
		}
		if len(seen) == before {
			t.Errorf("%s hears nothing that others do not", l.port)
		}
	}
	lost := int(s.sent.Load()) - len(seen)
	dropped := p.sw.dropped("vm0", port.DropVLANFiltered) + p.sw.dropped("vm0", port.DropNoDestination)
	if lost != dropped {
		t.Errorf("%d frames are lost, of which %d are counted as of a port that left", lost, dropped)
	}
	p.sw.wantBalance()
}

// TestFastAging: stations that only the kernel hears do not age, though the ageing time
// is as short as it can be to a second; one that falls silent does, and what is sent to
// it is flooded.
//
//	a ── vm0 ┐
//	b ── vm1 ┼ switch
//	c ── vm2 ┘
func TestFastAging(t *testing.T) {
	t.Parallel()
	const aging = 3
	p := newPair(t)
	// What is set while the switch runs is what counts. With the default, the kernel is
	// asked so seldom that these would age.
	p.sw.ctl("set --aging %ds", aging)
	c := p.add(2)
	// c listens to what is flooded of a's frames to b.
	toB, toA := startStream(t, p.a, p.b, c), startStream(t, p.b, p.a)
	before := p.fast()
	testenv.Eventually(t, "the kernel forwards everything", func() bool { return p.fast() > before+100 })
	// Nobody asks for the FDB meanwhile, which would have it ask the kernel.
	time.Sleep(4 * aging * time.Second)
	for _, g := range []*vm{p.a, p.b} {
		if e := p.sw.entry(g.mac, 1); e.Port != g.port || e.AgeS >= aging {
			t.Errorf("%s, which speaks, is known as %+v", g.port, e)
		}
	}
	silent := time.Now()
	toA.stop()
	quietly := toB.sent.Load()
	testenv.Eventually(t, "b is forgotten", func() bool { return p.sw.entry(p.b.mac, 1).Port == "" })
	// The table counts whole seconds; the kernel's unit is a little more than one.
	if d := time.Since(silent); d < (aging-1)*time.Second || d > (aging+4)*time.Second {
		t.Errorf("b is forgotten after %v of silence, want %d s", d, aging)
	}
	toB.more(100)
	toB.wantOnce(toB.at[0])
	flooded := toB.at[1].heard
	// On a busy machine b itself may have been silent for so long that it was forgotten:
	// the table and the kernel each count in whole seconds.
	spoke := toA.pause < time.Second/2
	if len(flooded) < 100 || spoke && flooded[0] < quietly {
		t.Errorf("%d frames are flooded, the first is number %v; b fell silent at number %d", len(flooded), flooded[:min(1, len(flooded))], quietly)
	}
	p.sw.wantBalance()
}
