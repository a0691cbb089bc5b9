package l2test

import (
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// burst sends n frames as fast as it goes, and returns how many came to another host
// and how long that took. The port's counter for why must account for the rest.
func (l *lan) burst(from, to *host, f frame, n int, at string, why port.Drop) (passed int, took time.Duration) {
	l.t.Helper()
	counted := l.counted(from)
	all, before := counted()+uint64(n), l.sw.dropped(at, why)
	start := time.Now()
	for range n {
		wire, _ := f.wire()
		if err := from.Send(wire, port.Offload{}); err != nil {
			l.t.Fatal(err)
		}
	}
	testenv.Eventually(l.t, "all frames are counted", func() bool { return counted() >= all })
	took = time.Since(start)
	passed = to.countFrames(l.t)
	if lost := l.sw.dropped(at, why) - before; passed+lost != n {
		l.t.Errorf("of %d frames %d pass and %d are counted as %s", n, passed, lost, why)
	}
	return passed, took
}

// What a port that was silent may send at once: with a rate of 100 a second, a policed
// one may send a super-frame's worth.
const stormBurst, policeBurst = time.Second, 700 * time.Millisecond

// wantRate checks a number of frames against a rate: what was allowed in that time,
// and what a port that was silent may send at once. The bounds are generous, for the
// clock that counts is not the switch's.
func wantRate(t *testing.T, what string, passed, perSecond int, took, atOnce time.Duration) {
	t.Helper()
	most := int(float64(perSecond)*(took+atOnce).Seconds()) + 2
	if least := max(1, perSecond/40); passed < least || passed > most {
		t.Errorf("%s: %d frames pass in %v, want %d to %d", what, passed, took, least, most)
	}
}

// TestStorm limits each class of flooded frames by itself.
//
//	h1 ── p1 (--storm-…) ┐
//	h2 ── p2             ┴ switch
func TestStorm(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.want(h2, h2.toAll(), h1)
	broadcast, multicast, unknown, known := h1.toAll(), frame{dst: 0x0100_5e01_0203, src: h1.mac}, frame{dst: station(0), src: h1.mac}, h1.to(h2)
	const n, limit = 300, 100
	classes := []struct {
		flag  string
		frame frame
		why   port.Drop
	}{
		{"--storm-broadcast", broadcast, port.DropStormBroadcast},
		{"--storm-multicast", multicast, port.DropStormMulticast},
		{"--storm-unicast", unknown, port.DropStormUnicast},
	}
	for i, c := range classes {
		l.sw.ctl("set-port p1 %s %dpps", c.flag, limit)
		passed, took := l.burst(h1, h2, c.frame, n, "p1", c.why)
		wantRate(t, c.flag, passed, limit, took, stormBurst)
		// Known unicast is no storm, nor is another class.
		other := classes[(i+1)%len(classes)]
		for _, f := range []frame{known, other.frame} {
			if passed, _ := l.burst(h1, h2, f, n, "p1", other.why); passed != n {
				t.Errorf("with %s, %d of %d frames %v pass", c.flag, passed, n, f)
			}
		}
		l.sw.ctl("set-port p1 %s off", c.flag)
		if passed, _ := l.burst(h1, h2, c.frame, n, "p1", c.why); passed != n {
			t.Errorf("without %s, %d of %d frames pass", c.flag, passed, n)
		}
	}

	// In bits: 100 frames of 1000 bytes a second.
	l.sw.ctl("set-port p1 --storm-broadcast 800kbit")
	broadcast.size = 1000
	passed, took := l.burst(h1, h2, broadcast, n, "p1", port.DropStormBroadcast)
	wantRate(t, "800kbit", passed, 100, took, stormBurst)
	l.sw.refuse("rate", "set-port p1 --storm-broadcast 100bananas")
}

// TestRateIn polices all that comes in.
//
//	h1 ── p1 (--rate-in) ┐
//	h2 ── p2             ┴ switch
func TestRateIn(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.want(h2, h2.toAll(), h1)
	f := h1.to(h2)
	f.size = 1000
	const n = 300
	for _, rate := range []string{"100pps", "800kbit"} {
		l.sw.ctl("set-port p1 --rate-in %s", rate)
		passed, took := l.burst(h1, h2, f, n, "p1", port.DropPoliced)
		wantRate(t, rate, passed, 100, took, policeBurst)
		if passed, _ := l.burst(h2, h1, h2.to(h1), n, "p2", port.DropPoliced); passed != n {
			t.Errorf("%s at p1: %d of %d frames pass the other way", rate, passed, n)
		}
	}
	l.sw.ctl("set-port p1 --rate-in off")
	if passed, _ := l.burst(h1, h2, f, n, "p1", port.DropPoliced); passed != n {
		t.Errorf("without a rate %d of %d frames pass", passed, n)
	}
}

// TestRateOut shapes what leaves: it is late, and lost only where the queue is full.
//
//	h1 ── p1              ┐
//	h2 ── p2 (--rate-out) ┴ switch
func TestRateOut(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.want(h2, h2.toAll(), h1)
	const perSecond, n, depth = 800, 1500, 160
	l.sw.ctl("set-port p2 --rate-out %dpps", perSecond)
	before := l.sw.port("p2").TX.Frames
	start := time.Now()
	for range n {
		wire, _ := h1.to(h2).wire()
		if err := h1.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	sent := time.Since(start)
	gone := func() int { return int(l.sw.port("p2").TX.Frames - before) }
	lost := func() int { return l.sw.dropped("p2", port.DropShaped) }
	testenv.Eventually(t, "all frames are sent or lost", func() bool { return gone()+lost() >= n })
	took := time.Since(start)
	passed := h2.countFrames(t)
	if passed != gone() || passed+lost() != n {
		t.Errorf("of %d frames %d come, %d were sent and %d are counted as shaped", n, passed, gone(), lost())
	}
	wantRate(t, "rate-out", passed, perSecond, took, 60*time.Millisecond)
	// While they were sent some left, and then the queue was full.
	if most := depth + int(float64(perSecond)*(sent+time.Second).Seconds()); passed < depth || passed > most {
		t.Errorf("%d frames pass, want %d to %d", passed, depth, most)
	}
	l.sw.ctl("set-port p2 --rate-out off")
	if passed, _ := l.burst(h1, h2, h1.to(h2), 300, "p2", port.DropShaped); passed != 300 {
		t.Errorf("without a rate %d of 300 frames pass", passed)
	}
}

// TestStormShutdown shuts a port down at the first storm, for a while.
//
//	h1 ── p1 (--storm-broadcast 20pps --storm-action shutdown) ┐
//	h2 ── p2                                                   ┴ switch
func TestStormShutdown(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2, "--recovery", "2s")
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("set-port p1 --storm-broadcast 20pps --storm-action shutdown")
	wire, _ := h1.toAll().wire()
	for range 30 { // those of a second pass
		if err := h1.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "p1 is shut down", func() bool { return l.sw.port("p1").State == api.StateDown })
	if p := l.sw.port("p1"); !strings.Contains(p.Reason, "storm") {
		t.Errorf("p1 is down because %q", p.Reason)
	}
	testenv.Eventually(t, "p1 has recovered", func() bool { return l.sw.port("p1").State == api.StateUp })
	l.want(h2, h2.toAll(), h1)
}
