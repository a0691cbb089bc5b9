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
		d, wire = r.run(toAll, skb{Ifindex: uint32(r.ports[0].Device.Ifindex())})
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
	testenv.Eventually(t, "the kernel floods", func() bool { return r.send(0, toAll) == tcxRedirect })
}

// The switch is not asked about few outputs, nor about few frames.
func TestBusyFloodsNotAsked(t *testing.T) {
	t.Parallel()
	few := newBusyRig(t, busyExits+1)
	few.ports[1].Deaf, few.ports[1].To = true, false
	few.publish(few.ports)
	few.floods(10_000)

	slow := newBusyRig(t, busyExits+1)
	for range 5 {
		slow.floods(1024/busyExits - 1) // not all of those that are many
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	if few.asked.Load() != 0 || slow.asked.Load() != 0 {
		t.Errorf("the switch is asked %d times about few outputs, and %d times about few frames", few.asked.Load(), slow.asked.Load())
	}
}

// A Path that is suspended leaves no port's floods to sockets that nobody reads.
func TestBusyFloodsSuspended(t *testing.T) {
	t.Parallel()
	r := newBusyRig(t, busyExits+1)
	r.takes.Store(true)
	testenv.Eventually(t, "the switch floods", func() bool {
		r.storm()
		return r.send(0, toAll) == tcxPass
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
