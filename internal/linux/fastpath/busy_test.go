package fastpath

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

var toAll = frame(port.Broadcast, macA, frameLen)

// busyRig is a rig in which port 0 floods, and the switch is asked to do so in its place.
type busyRig struct {
	*rig
	takes atomic.Bool // it does
	asked atomic.Int64
}

func newBusyRig(t *testing.T, ports int) *busyRig {
	r := &busyRig{rig: newRig(t, ports)}
	r.path.TakeFloods(func(number uint16) bool {
		if number != 0 {
			t.Errorf("the switch is asked about port %d", number)
		}
		r.asked.Add(1)
		return r.takes.Load()
	})
	r.flood.VLANs = *vlans(1)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.publish(r.ports)
	r.onCPU(0)
	return r
}

// floods has port 0 flood so many frames as fast as it can.
func (r *busyRig) floods(frames uint32) {
	r.execute(&ebpf.RunOptions{Data: toAll, Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex())}, Repeat: frames})
}

// once has port 0 flood a frame. Explain is not compared: a term may end between the two.
func (r *busyRig) once() (decision uint32, wire []byte) {
	o := ebpf.RunOptions{Data: toAll, DataOut: make([]byte, len(toAll)+64), Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex())}}
	decision = r.execute(&o)
	return decision, o.DataOut
}

// storm floods until the switch is asked.
func (r *busyRig) storm() {
	r.t.Helper()
	testenv.Eventually(r.t, "the switch is asked", func() bool {
		before := r.asked.Load()
		r.floods(2000)
		time.Sleep(time.Millisecond) // for the goroutine that hears it
		return r.asked.Load() > before
	})
}

// While a port floods much, the switch does it, if it takes that, and nobody else's floods. Once the
// port floods less, the kernel does it again.
func TestBusyFloods(t *testing.T) {
	t.Parallel()
	r := newBusyRig(t, busyExits+1)
	r.storm()
	if d := r.send(0, toAll); d != tcxRedirect {
		t.Errorf("the switch does not take the port's floods, and the decision is %d", d)
	}
	r.takes.Store(true)
	var wire []byte
	testenv.Eventually(t, "the switch floods", func() bool {
		r.storm()
		var d uint32
		d, wire = r.once()
		return d == tcxPass
	})
	if want := slices.Concat(toAll[:12], []byte{0x88, 0xa8, 0x0f, 0xff}, toAll[12:]); !slices.Equal(wire[:len(want)], want) {
		t.Errorf("the switch gets % x, want % x", wire, want)
	}
	if d := r.send(1, frame(port.Broadcast, macB, frameLen)); d != tcxRedirect {
		t.Errorf("the decision about another port's flood is %d", d)
	}
	if d := r.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("the decision about a frame for one station is %d", d)
	}
	r.takes.Store(false)
	testenv.Eventually(t, "the kernel floods", func() bool {
		d, _ := r.once()
		return d == tcxRedirect
	})
}

// The switch is not asked about few outputs, about frames that take a processor little of its time, nor
// about those that come one by one.
func TestBusyFloodsNotAsked(t *testing.T) {
	t.Parallel()
	few := newBusyRig(t, busyExits+1)
	few.ports[1].Deaf, few.ports[1].To = true, false
	few.publish(few.ports)
	few.floods(10_000)

	seldom := newBusyRig(t, busyExits+1)
	for range 100 {
		seldom.floods(16)
		time.Sleep(5 * time.Millisecond)
	}

	single := newBusyRig(t, 32)
	for range 1000 { // they take a fifth of the time, at most
		start := time.Now()
		single.floods(1)
		for next := start.Add(5 * time.Since(start)); time.Now().Before(next); {
		}
	}
	time.Sleep(10 * time.Millisecond)
	for what, r := range map[string]*busyRig{"few outputs": few, "frames that come seldom": seldom, "single frames": single} {
		if n := r.asked.Load(); n != 0 {
			t.Errorf("the switch is asked %d times about %s", n, what)
		}
	}
}

// A Path that is suspended leaves no port's floods to sockets that nobody reads.
func TestBusyFloodsSuspended(t *testing.T) {
	t.Parallel()
	r := newBusyRig(t, busyExits+1)
	r.takes.Store(true)
	testenv.Eventually(t, "the switch floods", func() bool {
		r.storm()
		d, _ := r.once()
		return d == tcxPass
	})
	r.path.Suspend()
	if d := r.send(0, toAll); d != tcxRedirect {
		t.Errorf("the decision of a suspended Path is %d", d)
	}
	r.floods(4000)
	if d := r.send(0, toAll); d != tcxRedirect {
		t.Errorf("a suspended Path takes a port's floods: %d", d)
	}
	r.ns.Do(r.path.Continue)
}
