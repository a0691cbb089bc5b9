package daemon

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/link"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// wirePort is a device on a wire: it records what it is sent.
type wirePort struct {
	*fakePort
	sent [][]byte
}

func (p *wirePort) Queues() []port.Queue { return []port.Queue{p} }

func (p *wirePort) Send(out []port.Out) {
	for i := range out {
		var head [port.MaxHeader]byte
		n := out[i].PutHeader(head[:])
		p.sent = append(p.sent, append(head[:n:n], out[i].Frame.Data[12:]...))
	}
}

// wired starts a switch with loop detection and the ports vm0, vm1, which are up.
func wired(t *testing.T) (*rig, map[string]*wirePort) {
	h := newFakeHost()
	wires := make(map[string]*wirePort)
	h.wrap = func(p *fakePort) port.Port {
		w := &wirePort{fakePort: p}
		wires[h.links[p.index].Name] = w
		return w
	}
	r := startWith(t, h, savedState{}, func(o *Options) { o.LoopDetect, o.Recovery = true, time.Minute })
	for _, name := range []string{"vm0", "vm1"} {
		h.put(link.Link{Name: name, MTU: 1500, Up: true, Carrier: true})
		r.mustAdd(name)
		r.wantState(name, api.StateUp)
	}
	return r, wires
}

func (r *rig) come(name string, frame []byte) {
	r.onControl(vswitch.ControlFrame{Port: r.sw.Port(name), Queue: vswitch.QueueLoop, VLAN: 1, Data: frame})
}

func TestLoopShutsOnePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wires := wired(t)
		time.Sleep(time.Second)
		synctest.Wait()
		var probes [2][]byte
		for i, name := range []string{"vm0", "vm1"} {
			if n := len(wires[name].sent); n != 1 {
				t.Fatalf("%d probes by %s in a second", n, name)
			}
			probes[i] = wires[name].sent[0]
		}
		if dst := port.MACFrom(probes[0]); !dst.IsGroup() || dst != groupOf(r.mac) || port.MACFrom(probes[0][6:]) != r.mac {
			t.Errorf("probe % x", probes[0][:14])
		}
		// Both come back; one port is enough to cut the loop.
		r.come("vm1", probes[0])
		r.come("vm0", probes[1])
		r.wantState("vm1", api.StateDown)
		r.wantState("vm0", api.StateUp)
		if got := r.port("vm1").Reason; got != "err-disabled: loop: what the switch sent by port vm0 came back" {
			t.Errorf("reason %q", got)
		}
		time.Sleep(time.Minute)
		r.wantState("vm1", api.StateUp)
		// A loop behind one port.
		r.come("vm0", probes[0])
		r.wantState("vm0", api.StateDown)
	})
}

// Where mirrored frames leave, the switch says nothing itself.
func TestNoProbesByMirrorTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wires := wired(t)
		if err := r.addMirror(api.Mirror{Name: "m0", From: []string{"vm0"}, To: "vm1"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if a, b := len(wires["vm0"].sent), len(wires["vm1"].sent); a != 10 || b != 0 {
			t.Errorf("%d and %d probes", a, b)
		}
	})
}

func TestForeignProbesDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wires := wired(t)
		time.Sleep(time.Second)
		synctest.Wait()
		good := wires["vm0"].sent[0]
		other := append([]byte{}, good...)
		other[probeID] ^= 1
		for _, frame := range [][]byte{other, good[:probePort+1], good[:port.HeaderLen]} {
			r.come("vm1", frame)
			r.wantState("vm1", api.StateUp)
		}
	})
}

func TestProbeGoesWhereThePortTakesIt(t *testing.T) {
	for _, c := range []struct {
		policy port.Policy
		want   uint16
	}{
		{port.Policy{}, 0},
		{port.Policy{Access: 10}, 0},
		{port.Policy{QinQ: 10}, 0},
		{port.Policy{Trunk: "20-29,10"}, 10},
		{port.Policy{Trunk: "10,20", Native: 10}, 0},
		{port.Policy{Trunk: "10,20", Native: 10, Accept: "tagged"}, 20},
	} {
		if got := probeVLAN(&c.policy); got != c.want {
			t.Errorf("%+v: VLAN %d, want %d", c.policy, got, c.want)
		}
	}
}

func TestNoProbesUnlessAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, 0)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := r.sw.Injected(); n != 0 || strings.Contains(r.logged(), "loop") {
			t.Errorf("%d frames of its own", n)
		}
		if n := r.sw.FDB().Len(); n != 0 {
			t.Errorf("%d FDB entries", n)
		}
	})
}
