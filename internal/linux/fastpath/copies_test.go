package fastpath

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// read takes all frames that are at a guest's device: what the program sends is there when
// the run ends.
func read(t testing.TB, fd int) (all [][]byte) {
	t.Helper()
	for {
		b := make([]byte, 4096)
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil || n < vnet.HeaderLen {
			t.Fatalf("%d bytes, %v", n, err)
		}
		all = append(all, b[vnet.HeaderLen:n])
	}
}

// observed is a rig whose port 2 is where the copies of mirror 0 and 1 leave.
func observed(t testing.TB) (r *rig, observer int) {
	r = newRig(t, 3)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	observer = r.plug(t, "vm2")
	r.ports[2].From, r.ports[2].To, r.ports[2].MirrorTo = false, false, 0b11
	return r, observer
}

// TestMirror has a frame from A come by port 0, for B behind port 1. A frame that is copied
// is copied before anything else happens to it, or as it leaves.
func TestMirror(t *testing.T) {
	t.Parallel()
	wire := frame(macB, macA, frameLen)
	tagged := append(append(bytes.Clone(wire[:12]), 0x81, 0x00, 0x00, 0x01), wire[12:]...)
	for name, c := range map[string]struct {
		change func(r *rig)
		want   uint32
		copies [][]byte
	}{
		"of others":     {want: tcxRedirect, change: func(r *rig) { r.ports[0].MirrorOut, r.ports[1].MirrorIn = 1, 1 }},
		"what comes in": {want: tcxRedirect, copies: [][]byte{wire}, change: func(r *rig) { r.ports[0].MirrorIn = 1 }},
		"what goes out": {want: tcxRedirect, copies: [][]byte{wire}, change: func(r *rig) { r.ports[1].MirrorOut = 1 }},
		"both, once":    {want: tcxRedirect, copies: [][]byte{wire}, change: func(r *rig) { r.ports[0].MirrorIn, r.ports[1].MirrorOut = 1, 1 }},
		"two mirrors":   {want: tcxRedirect, copies: [][]byte{wire, wire}, change: func(r *rig) { r.ports[0].MirrorIn, r.ports[1].MirrorOut = 1, 2 }},
		"two mirrors of what comes in": {want: tcxRedirect, copies: [][]byte{wire, wire}, change: func(r *rig) {
			r.ports[0].MirrorIn = 3
		}},
		"with the tag it leaves with": {want: tcxRedirect, copies: [][]byte{wire, tagged}, change: func(r *rig) {
			r.ports[0].MirrorIn, r.ports[1].MirrorOut = 1, 2
			r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDCustomer
			r.publish(r.ports)
			r.path.Settle()
		}},
		"what is beyond the rate": {want: tcxDrop, copies: [][]byte{wire}, change: func(r *rig) {
			r.ports[0].MirrorIn, r.ports[1].MirrorOut = 1, 2
			r.police(0, kilobyte, time.Second, time.Hour)
		}},
		"what goes back": {want: tcxDrop, copies: [][]byte{wire}, change: func(r *rig) {
			r.ports[0].MirrorIn, r.ports[0].MirrorOut = 1, 2
			r.learn(1, macB, 0)
		}},
		"what is kept apart": {want: tcxDrop, copies: [][]byte{wire}, change: func(r *rig) {
			r.ports[0].MirrorIn, r.ports[1].MirrorOut = 1, 2
			r.ports[0].Isolated, r.ports[1].Isolated = true, true
		}},

		// What the program cannot do it leaves to the switch, whole.
		"drops are watched": {want: tcxPass, change: func(r *rig) {
			r.ports[0].MirrorIn, r.ports[0].Drops = 1, true
			r.learn(1, macB, 0)
		}},
		"nowhere to": {want: tcxPass, change: func(r *rig) { r.ports[0].MirrorIn, r.ports[2].MirrorTo = 1, 2 }},
		"nowhere to, what goes out": {want: tcxPass, change: func(r *rig) {
			r.ports[1].MirrorOut, r.ports[2].MirrorTo = 1, 2
		}},
		"nowhere to, what goes back": {want: tcxPass, change: func(r *rig) {
			r.ports[0].MirrorIn, r.ports[2].MirrorTo = 1, 2
			r.learn(1, macB, 0)
		}},
		"too long for the observer": {want: tcxPass, change: func(r *rig) {
			r.ports[0].MirrorIn = 1
			r.ns.Run("ip", "link", "set", "vm2", "mtu", "68")
			wire := frame(macB, macA, 83)
			if d := r.send(0, wire); d != tcxRedirect {
				r.t.Errorf("before, a longer frame gets %d", d)
			}
			r.publish(r.ports)
			if d := r.send(0, wire); d != tcxPass {
				r.t.Errorf("a longer frame gets %d", d)
			}
			r.ports[0].MirrorIn, r.ports[1].MirrorOut = 0, 1
			r.publish(r.ports)
			if d := r.send(0, wire); d != tcxPass {
				r.t.Errorf("a longer frame gets %d as it leaves", d)
			}
			r.ports[1].To = false
		}},
		"the observer's device is another": {want: tcxPass, change: func(r *rig) {
			r.ports[0].MirrorIn = 1
			r.publish(r.ports)
			r.ns.Run("ip", "link", "del", "vm2")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, observer := observed(t)
			c.change(r)
			r.publish(r.ports)
			before := [3]vswitch.PortStats{r.path.Counters(0), r.path.Counters(1), r.path.Counters(2)}
			decision, out := r.run(wire, skb{Ifindex: uint32(r.ports[0].Device.Ifindex())})
			if decision != c.want {
				t.Errorf("the decision is %d, want %d", decision, c.want)
			}
			if c.want == tcxPass && !bytes.Equal(out, marked(wire)) {
				t.Errorf("handed up is\n% x, want\n% x", out, marked(wire))
			}
			var got [][]byte
			if name != "the observer's device is another" {
				got = read(t, observer)
			}
			if !slices.EqualFunc(got, c.copies, bytes.Equal) {
				t.Errorf("copies are\n% x, want\n% x", got, c.copies)
			}
			length := uint64(0)
			for _, one := range c.copies {
				length += uint64(len(one))
			}
			n := uint64(len(c.copies))
			if in := r.path.Counters(0).RX.Copies - before[0].RX.Copies; in != n {
				t.Errorf("port 0 counts %d copies, want %d", in, n)
			}
			tx := r.path.Counters(2).TX
			if tx.Frames-before[2].TX.Frames != n || tx.Bytes-before[2].TX.Bytes != length {
				t.Errorf("the observer's port counts %+v, want %d frames, %d bytes", tx, n, length)
			}
		})
	}
}

// A mirror that copies to another port, or of another port, does so at once, also what the
// kernel remembers.
func TestMirrorChanges(t *testing.T) {
	t.Parallel()
	r, observer := observed(t)
	r.onCPU(0)
	other := r.plug(t, "vm1")
	want := func(atVM1, atVM2 int) {
		t.Helper()
		if d := r.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
			t.Errorf("the decision is %d", d)
		}
		if n, m := len(read(t, other)), len(read(t, observer)); n != atVM1 || m != atVM2 {
			t.Errorf("%d copies come to vm1, %d to vm2, want %d and %d", n, m, atVM1, atVM2)
		}
	}
	r.publish(r.ports)
	want(0, 0)
	r.ports[0].MirrorIn = 1
	r.publish(r.ports)
	want(0, 1)
	want(0, 1)
	r.ports[1].MirrorTo, r.ports[2].MirrorTo = 1, 2
	r.publish(r.ports)
	want(1, 0)
	r.ports[0].MirrorIn = 2
	r.publish(r.ports)
	want(0, 1)
	r.ports[0].MirrorIn = 0
	r.publish(r.ports)
	want(0, 0)
}
