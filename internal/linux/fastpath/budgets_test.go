package fastpath

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/port"
)

// What the program charges for a frame is its time at the rate, in bytes or frames as they
// are on the wire: a super-frame counts as its segments, with their headers.
func TestCost(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	for _, c := range []struct {
		rate          port.Rate
		length        int
		gso           uint32
		frames, bytes float64
	}{
		{port.Rate{PerSecond: 1, Bits: true}, 60, 0, 1, 60},
		{port.Rate{PerSecond: 1, Bits: true}, 3_000, 1, 2_946, 3_000 + 2_945*54},
		{kilobyte, 1514, 0, 1, 1514},
		{kilobyte, 3_054, 300, 10, 3_054 + 9*54},
		{kilobyte, 3_055, 300, 11, 3_055 + 10*54},
		{port.Rate{PerSecond: 10_000_000_000, Bits: true}, 3_000, 1448, 3, 3_000 + 2*54},
		{port.Rate{PerSecond: math.MaxUint32 * 999, Bits: true}, 3_000, 0, 1, 3_000},
		{port.Rate{PerSecond: math.MaxUint32 * 999}, 60, 0, 1, 60},
		{port.Rate{PerSecond: 1}, 60, 0, 1, 60},
		{port.Rate{PerSecond: 1000}, 3_055, 300, 11, 3_055 + 10*54},
	} {
		units := c.frames
		if c.rate.Bits {
			units = 8 * c.bytes
		}
		want := units * 1e9 / float64(c.rate.PerSecond)
		r.ns.Run("ip", "link", "set", "vm1", "mtu", "65000")
		// Far ahead of the clock, which then makes no difference.
		r.police(0, c.rate, 2*time.Hour, time.Hour)
		budget := r.path.Budget(0, r.ports[0].Police.Turn)
		before := budget.Load()
		wire := frame(macB, macA, c.length)
		if d, _ := r.run(wire, skb{Ifindex: uint32(r.ports[0].Device.Ifindex()), GSOSize: c.gso}); d != tcxRedirect {
			t.Errorf("%v, %d bytes: the decision is %d", c.rate, c.length, d)
		}
		if got := float64(budget.Load() - before); math.Abs(got-want) > 1+want/1e6 {
			t.Errorf("%v, %d bytes in pieces of %d cost %.0f ns, want %.0f", c.rate, c.length, c.gso, got, want)
		}
	}
}

// Whatever the rate, its word has what a byte or frame costs within a millionth, and no
// frame overflows it.
func TestRateWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := port.Rate{PerSecond: rapid.Uint64Range(1, math.MaxUint64).Draw(t, "rate") >> rapid.IntRange(0, 63).Draw(t, "shift"), Bits: rapid.Bool().Draw(t, "bits")}
		if r.PerSecond == 0 {
			r.PerSecond = 1
		}
		word := rateWord(r)
		cost, shift := word&(1<<rateShift-1), word>>rateShift&0x3f
		want := 1e9 / float64(r.PerSecond)
		if r.Bits {
			want *= 8
		}
		if got := math.Ldexp(float64(cost), -int(shift)); math.Abs(got-want) > want/1e6 {
			t.Errorf("%v costs %g ns, want %g", r, got, want)
		}
		if cost > math.MaxUint64>>22 {
			t.Errorf("%v costs %d << %d: a super-frame of 2^22 bytes overflows", r, cost, shift)
		}
		if word>>63 == 1 != r.Bits {
			t.Errorf("%v: the word is %#x", r, word)
		}
	})
}

// Frames that begin within the burst pass, others do not, as in the switch: it charges the
// same budget.
func TestBurst(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	const passes = 7
	const each = 8 * frameLen * time.Second                   // so long that the time of the test makes no difference
	for _, ahead := range []time.Duration{0, 2 * time.Hour} { // what the switch admitted
		r.police(0, port.Rate{PerSecond: 1, Bits: true}, ahead+passes*each-each/2, ahead)
		for n := range passes + 2 {
			want := uint32(tcxRedirect)
			if n >= passes {
				want = tcxDrop
			}
			if d := r.send(0, frame(macB, macA, frameLen)); d != want {
				t.Errorf("%v ahead, frame %d: the decision is %d, want %d", ahead, n, d, want)
			}
		}
	}
}

// A port that is over its rate makes up for lost time, as in the switch, and not for silence.
func TestLate(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	rate := port.Rate{PerSecond: 1000, Bits: true} // a full-size frame takes 12 s
	r.police(0, rate, time.Hour, 0)
	budget := r.path.Budget(0, r.ports[0].Police.Turn)
	const takes = int64(8 * frameLen * time.Millisecond)
	// send sends a frame after so much unused time, and reports whether it made up for that.
	send := func(unused time.Duration) bool {
		t.Helper()
		until := r.path.Now() - int64(unused)
		budget.Store(until)
		if d := r.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
			t.Fatalf("the decision is %d", d)
		}
		return budget.Load() == until+takes
	}
	refuse := func() {
		t.Helper()
		budget.Store(r.path.Now() + int64(2*time.Hour))
		if d := r.send(0, frame(macB, macA, frameLen)); d != tcxDrop {
			t.Fatalf("the decision is %d", d)
		}
	}
	if send(2 * time.Second) {
		t.Error("a port within its rate makes up for silence")
	}
	refuse()
	if !send(time.Second) || !send(2*time.Second) {
		t.Error("a port over its rate does not make up for lost time")
	}
	if send(40*time.Second) || send(2*time.Second) {
		t.Error("a port that was over its rate makes up for silence")
	}
}

// Frames of all CPUs at the same time are charged, each once.
func TestBudgetOfAllCPUs(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	const each = 2000
	r.police(0, kilobyte, 1000*time.Hour, time.Hour)
	budget := r.path.Budget(0, r.ports[0].Police.Turn)
	before := budget.Load()
	var going sync.WaitGroup
	for range 4 {
		going.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for range each {
				r.send(0, frame(macB, macA, frameLen))
			}
		})
	}
	for range each { // as a worker does
		budget.Add(int64(frameLen * time.Millisecond))
	}
	going.Wait()
	if got := time.Duration(budget.Load() - before); got != 5*each*frameLen*time.Millisecond {
		t.Errorf("%d frames use %v, want %v", 5*each, got, 5*each*frameLen*time.Millisecond)
	}
}

// A new rate does not begin with what the former one used, nor is it charged by it.
func TestNewRate(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.police(0, port.Rate{PerSecond: 1}, time.Second, time.Hour)
	if d := r.send(0, frame(macB, macA, frameLen)); d != tcxDrop {
		t.Errorf("beyond the rate the decision is %d", d)
	}
	r.police(0, port.Rate{PerSecond: 1000}, time.Second, 0)
	r.path.Budget(0, r.ports[0].Police.Turn^1).Add(int64(time.Hour)) // of a frame on its way
	if d := r.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("within the new rate the decision is %d", d)
	}
	r.ports[0].Police.Rate = port.Rate{}
	r.publish(r.ports)
	for range 2000 {
		if d := r.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
			t.Fatalf("without a rate the decision is %d", d)
		}
	}
}

// The clock of the budgets is the kernel's.
func TestNow(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	before := monotonic()
	now := time.Duration(r.path.Now())
	if after := monotonic(); now < before-time.Millisecond || now > after+time.Millisecond {
		t.Errorf("now is %v, the kernel's clock shows %v to %v", now, before, after)
	}
}
