package vswitch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/port"
)

// A super-frame counts as what it becomes on the wire: segments that each repeat the headers.
func TestWireSize(t *testing.T) {
	const start = 34
	csum := func(kind uint8, size uint16) port.Offload {
		return port.Offload{Flags: port.NeedsCsum, GSOType: kind, GSOSize: size, CsumStart: start}
	}
	for name, c := range map[string]struct {
		n      int // bytes of the frame, of which data are here
		data   int
		offset byte // TCP's data offset
		o      port.Offload
		frames uint64
		header uint64 // what each segment repeats
	}{
		"no super-frame":         {n: 1000, o: port.Offload{GSOSize: 100}, frames: 1},
		"of no size":             {n: 1000, o: csum(port.GSOTCPv4, 0), frames: 1},
		"TCP":                    {n: 54 + 3000, offset: 5, o: csum(port.GSOTCPv4, 1000), frames: 3, header: 54},
		"TCP with some left":     {n: 54 + 3001, offset: 5, o: csum(port.GSOTCPv6, 1000), frames: 4, header: 54},
		"TCP with ECN":           {n: 54 + 3000, offset: 5, o: csum(port.GSOTCPv4|port.GSOECN, 1500), frames: 2, header: 54},
		"TCP with options":       {n: 66 + 3000, offset: 8, o: csum(port.GSOTCPv4, 1000), frames: 3, header: 66},
		"TCP, data at the end":   {n: 54 + 3000, data: start + 13, offset: 5, o: csum(port.GSOTCPv4, 1000), frames: 3, header: 54},
		"TCP without its header": {n: 54 + 3000, data: start + 12, offset: 8, o: csum(port.GSOTCPv4, 1000), frames: 3, header: 54},
		"UDP":                    {n: 42 + 3000, offset: 15, o: csum(port.GSOUDPL4, 1000), frames: 3, header: 42},
		"SCTP":                   {n: 46 + 3000, offset: 15, o: csum(port.GSOSCTP, 1000), frames: 3, header: 46},
		"fragments":              {n: 34 + 3000, offset: 15, o: csum(port.GSOUDP, 1000), frames: 3, header: 34},
		"no checksum":            {n: 54 + 3000, offset: 15, o: port.Offload{GSOType: port.GSOTCPv4, GSOSize: 1000}, frames: 3, header: 54},
		"headers alone":          {n: 54, offset: 5, o: csum(port.GSOTCPv4, 10), frames: 1},
		"a byte more":            {n: 55, offset: 5, o: csum(port.GSOTCPv4, 10), frames: 1, header: 54},
	} {
		wire := bytes.Repeat([]byte{2}, c.n)
		if c.n > start+12 {
			wire[start+12] = c.offset<<4 | 3
		}
		f := &port.Frame{Data: wire, Offload: c.o}
		if c.data > 0 {
			f.Data = wire[:c.data]
			f.Tail = absent(c.n - c.data)
		}
		if frames, n := wireSize(f); frames != c.frames || n != uint64(c.n)+(c.frames-1)*c.header {
			t.Errorf("%s: %d frames of %d bytes, want %d of %d", name, frames, n, c.frames, uint64(c.n)+(c.frames-1)*c.header)
		}
		if got, want := cost(f, port.Rate{PerSecond: 500, Bits: true}), int64(8*(uint64(c.n)+(c.frames-1)*c.header))*2e6; got != want {
			t.Errorf("%s: takes %d ns of a rate of bits, want %d", name, got, want)
		}
		if got, want := cost(f, port.Rate{PerSecond: 500}), int64(c.frames)*2e6; got != want {
			t.Errorf("%s: takes %d ns of a rate of frames, want %d", name, got, want)
		}
	}
}

// A bucket stays while its rate does. What is within its burst passes whole, up to the nanosecond.
func TestBucket(t *testing.T) {
	rate := port.Rate{PerSecond: 1000} // 1 ms for a frame
	b := (*bucket)(nil).limit(rate, 10*time.Millisecond)
	if b.limit(rate, 10*time.Millisecond) != b {
		t.Error("the same rate is another bucket")
	}
	if b.limit(rate, 11*time.Millisecond) == b || b.limit(port.Rate{PerSecond: 1000, Bits: true}, 10*time.Millisecond) == b {
		t.Error("another rate is the same bucket")
	}
	if b.limit(port.Rate{}, 10*time.Millisecond) != nil {
		t.Error("no rate is a bucket")
	}
	f := &port.Frame{Data: make([]byte, 60)}
	const start = int64(time.Hour)
	for n := range 12 {
		if got := b.allow(f, start); got != (n < 10) {
			t.Errorf("frame %d at once: %v", n, got)
		}
	}
	if b.allow(f, start) || !b.allow(f, start+1) || b.allow(f, start+2) || !b.allow(f, start+1e6+1) {
		t.Error("time passes by other than nanoseconds")
	}
	for _, c := range []struct {
		rate port.Rate
		want time.Duration
	}{{port.Rate{PerSecond: 46}, time.Second}, {port.Rate{PerSecond: 8 * 68 << 10, Bits: true}, time.Second}, {port.Rate{PerSecond: 92}, time.Second / 2}} {
		if got := superCost(c.rate); got != int64(c.want) {
			t.Errorf("the longest super-frame takes %v of %v, want %v", time.Duration(got), c.rate, c.want)
		}
	}
}

// TestBucketKeepsItsRate: who sends more than the rate gets it, whatever the burst and however late and
// unevenly frames come; and no more than the burst beyond it, and what was late.
func TestBucketKeepsItsRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const length = 10 * time.Second
		rate := port.Rate{PerSecond: rapid.Uint64Range(100, 5000).Draw(t, "rate"), Bits: rapid.Bool().Draw(t, "bits")}
		if rate.Bits {
			rate.PerSecond *= 8 * 200
		}
		burst := time.Duration(rapid.Int64Range(int64(port.MinBurst), int64(policeBurst)).Draw(t, "burst"))
		gap := rapid.Int64Range(int64(time.Millisecond), int64(policeLate)*9/10).Draw(t, "longest gap") // between batches
		more := rapid.Float64Range(1.05, 4).Draw(t, "times the rate")
		random := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed")))
		frames := []*port.Frame{{Data: make([]byte, 60)}, {Data: make([]byte, 1514)}}
		frames = frames[:rapid.IntRange(1, 2).Draw(t, "sizes")]

		b := (*bucket)(nil).limit(rate, burst)
		const start = int64(time.Hour)
		var passed, offered, longest float64 // ns of the rate
		for at := int64(0); at < int64(length); at += 1 + random.Int64N(gap) {
			for offered < float64(at)*more {
				f := frames[random.IntN(len(frames))]
				takes := float64(cost(f, rate))
				offered, longest = offered+takes, max(longest, takes)
				if b.allow(f, start+at) {
					passed += takes
				}
			}
		}
		if want := float64(length); passed < 0.98*want-longest || passed > want+float64(burst)+float64(b.late)+2*longest {
			t.Errorf("%v with a burst of %v: %.2f%% of the rate passes", rate, burst, 100*passed/want)
		}
	})
}

// A port that was over its rate and then silent has its burst, and no more.
func TestBucketAfterSilence(t *testing.T) {
	b := (*bucket)(nil).limit(port.Rate{PerSecond: 1000}, 2*time.Millisecond)
	f := &port.Frame{Data: make([]byte, 60)}
	now := int64(time.Hour)
	send := func(want int) {
		t.Helper()
		passed := 0
		for range 200 {
			if b.allow(f, now) {
				passed++
			}
		}
		if passed != want {
			t.Errorf("%d pass, want %d", passed, want)
		}
	}
	send(2)
	now += int64(10 * time.Millisecond)
	send(10) // they may have waited
	now += int64(time.Second)
	send(2)
	now += int64(time.Second)
	if !b.allow(f, now) { // within the rate
		t.Error("a frame within the rate is refused")
	}
	now += int64(10 * time.Millisecond)
	send(2)
}

// Of events for the guards and of the switch's own address, those that find no room are dropped;
// nobody waits.
func TestEventsFindNoRoom(t *testing.T) {
	var e events
	e.init(nil)
	for i := range eventBacklog + 10 {
		e.guard(LimitHit{Port: uint16(i)})
		e.own(OwnAddress{Port: uint16(i)})
	}
	if len(e.guards) != eventBacklog || (<-e.guards).(LimitHit).Port != 0 || (<-e.owns).Port != 0 || len(e.owns) != 0 {
		t.Errorf("%d guards' events wait, and %d others", len(e.guards), len(e.owns))
	}
	for i := range moveBacklog + 10 {
		e.moved(MACMoved{To: uint16(i)}, &Port{})
	}
	p := &Port{}
	e.moved(MACMoved{}, p)
	if len(e.moves) != moveBacklog || p.moves.Load() != 0 {
		t.Errorf("%d moves wait, and %d that found no room are counted", len(e.moves), p.moves.Load())
	}
	stop := make(chan struct{})
	e.lost(PortLost{}, stop)
	close(stop) // ends it, or goleak tells
}

// What batches make of frames lies where it is until they end, in blocks of the same size.
func TestStores(t *testing.T) {
	var bytesOf byteStore
	for range 2 {
		seen := map[*byte]bool{}
		for i := range 9 {
			b := bytesOf.take(byteBlock/4 + i%2)
			for k := range b {
				if seen[&b[k]] {
					t.Fatalf("take %d has bytes that were taken", i)
				}
				if k%1000 == 0 || k == len(b)-1 {
					seen[&b[k]] = true
				}
			}
			if len(b) != byteBlock/4+i%2 || cap(b) != len(b) {
				t.Errorf("take %d has %d bytes", i, len(b))
			}
		}
		if len(bytesOf.blocks) != 3 {
			t.Errorf("%d blocks", len(bytesOf.blocks))
		}
		bytesOf.reset()
	}
	if n := len(bytesOf.take(byteBlock)); n != byteBlock || len(bytesOf.blocks) != 3 || bytesOf.at != 0 {
		t.Errorf("a whole block has %d bytes", n)
	}
	var frames frameStore
	for range 2 {
		seen := map[*port.Frame]bool{}
		for i := range 2*port.BatchSize + 1 {
			f := frames.copyOf(&port.Frame{VLAN: uint16(i)})
			if seen[f] || f.VLAN != uint16(i) {
				t.Fatalf("frame %d lies where another does", i)
			}
			seen[f] = true
		}
		if len(frames.blocks) != 3 {
			t.Errorf("%d blocks", len(frames.blocks))
		}
		frames.reset()
	}
}

// A switch has so many ports, and no more; a number that is free is used again.
func TestMaxPorts(t *testing.T) {
	sw := New(Config{})
	defer sw.Close()
	for i := range MaxPorts - 1 {
		sw.byName[fmt.Sprint("p", i)] = &Port{sw: sw, number: uint16(i), tx: make([]txCounters, txShards)}
	}
	if p, err := sw.AddPort("last"); err != nil || p.Number() != MaxPorts-1 {
		t.Fatalf("the last one: %v, %v", p, err)
	}
	if _, err := sw.AddPort("more"); err == nil || !strings.Contains(err.Error(), "4096 ports") {
		t.Errorf("one more: %v", err)
	}
	for _, name := range []string{"last", "p77"} {
		was := sw.byName[name].Number()
		if err := sw.RemovePort(name); err != nil {
			t.Fatal(err)
		}
		if p, err := sw.AddPort("more" + name); err != nil || p.Number() != was {
			t.Errorf("after one is gone: %v, %v", p, err)
		}
	}
}

// budgets is a fast path that has the budgets of one port.
type budgets struct {
	FastPath // nothing else is called
	until    [2]atomic.Int64
}

func (f *budgets) Budget(_ uint16, turn uint8) *atomic.Int64 { return &f.until[turn] }

// A new rate has the budget of the other turn, which is empty; the same rate goes on with its own.
func TestPoliceTurns(t *testing.T) {
	f := new(budgets)
	p := &Port{sw: &Switch{fast: f}}
	rate, other := port.Rate{PerSecond: 1000}, port.Rate{PerSecond: 2000}
	for i, c := range []struct {
		rate port.Rate
		turn uint8
		kept bool // what was used of the budget
	}{{rate, 1, false}, {rate, 1, true}, {other, 0, false}, {port.Rate{}, 0, false}, {port.Rate{}, 0, false}, {rate, 1, false}, {other, 0, false}} {
		for turn := range f.until {
			f.until[turn].Store(99)
		}
		p.setPolice(c.rate, 0)
		if c.rate == (port.Rate{}) {
			if p.police != nil || p.turn != c.turn {
				t.Errorf("change %d: no rate is %+v", i, p.police)
			}
			continue
		}
		if b := p.police; b.turn != c.turn || b.until != &f.until[c.turn] || (b.until.Load() == 99) != c.kept || b.rate != c.rate || b.burst != int64(policeBurst) {
			t.Errorf("change %d: %+v", i, b)
		}
	}
	slow := port.Rate{PerSecond: 46} // a super-frame takes longer than the usual burst
	if p.setPolice(slow, 0); p.police.burst != int64(time.Second) {
		t.Errorf("a slow rate has a burst of %v", time.Duration(p.police.burst))
	}
	p = &Port{sw: &Switch{}}
	if p.setPolice(rate, time.Minute); p.police.until == nil || p.turn != 0 || p.police.burst != int64(time.Minute) {
		t.Errorf("without a fast path: %+v", p.police)
	}
}

// Which frame is drawn is random, up to twice as far away as on average.
func TestSkip(t *testing.T) {
	for oneIn, most := range map[uint32]int{0: 1, 1: 1, 2: 3, 5: 9} {
		seen := map[uint32]bool{}
		for range 2000 {
			n := Skip(oneIn)
			if n < 1 || int(n) > most {
				t.Fatalf("of one in %d frames the %dth is drawn", oneIn, n)
			}
			seen[n] = true
		}
		if len(seen) != most {
			t.Errorf("of one in %d frames %d different ones are drawn", oneIn, len(seen))
		}
	}
}

// fullQueue refuses all frames.
type fullQueue struct {
	port.Queue
	sent int
}

func (q *fullQueue) Send(out []port.Out) {
	q.sent++
	for i := range out {
		out[i].Drop = port.DropQueueFull
	}
}

// A worker does not wait for a full queue while a change of the switch waits for the worker.
func TestChangesEndPatience(t *testing.T) {
	s := New(Config{})
	defer s.Close()
	s.patient.Store(true)
	out := []port.Out{{Drop: port.DropQueueFull}}
	for _, hurry := range []bool{false, true} {
		w, q := worker{sw: s, patience: 2 * patientStep}, new(fullQueue)
		want := 2
		if hurry {
			w.hurry.Add(1)
			want = 0
		}
		w.insist(new(Port), q, out)
		if q.sent != want {
			t.Errorf("hurry %v: frames were sent %d times, not %d", hurry, q.sent, want)
		}
	}
}

// A worker that waits for frames holds no set of ports, of which each change makes another.
func TestIdleWorkers(t *testing.T) {
	s := New(Config{})
	defer s.Close()
	p, err := s.AddPort("p0")
	if err != nil {
		t.Fatal(err)
	}
	w := worker{sw: s, port: p, in: p.number, rx: new(rxCounters)}
	var f port.Frame
	f.SetWire(make([]byte, 60))
	w.switchBatch([]port.Frame{f})
	if w.set != nil || w.last.to != nil {
		t.Errorf("it holds %p and %p", w.set, w.last.to)
	}
}

// The kernel is asked whom it heard about eight times within the ageing time, every 5 s at least
// if that is long, and less often if an answer takes long.
func TestRefreshEvery(t *testing.T) {
	for _, c := range []struct {
		aging, took time.Duration
		ticks       int
	}{
		{300 * time.Second, 0, 5}, {-1, 0, 5}, {40 * time.Second, 0, 5}, {16 * time.Second, 0, 2}, {8 * time.Second, 0, 1}, {10 * time.Second, 0, 1},
		{300 * time.Second, 200 * time.Millisecond, 5}, {300 * time.Second, time.Second, 20}, {8 * time.Second, time.Second, 20},
	} {
		ticks := 0
		for time.Duration(ticks)*time.Second < refreshEvery(c.aging, c.took) {
			ticks++
		}
		if ticks != c.ticks {
			t.Errorf("ageing after %v, an answer in %v: every %d s, want %d", c.aging, c.took, ticks, c.ticks)
		}
	}
}
