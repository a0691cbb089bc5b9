package fastpath

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
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

// crowded is a rig of four ports with guests on them, in VLAN 1, in which the kernel floods.
func crowded(t testing.TB) (r *rig, guests []int) {
	r = newRig(t, 4)
	r.learn(1, macA, 0)
	for _, name := range []string{"vm0", "vm1", "vm2", "vm3"} {
		guests = append(guests, r.plug(t, name))
	}
	r.flood.VLANs = *vlans(1, 5)
	return r, guests
}

// TestFlood has a frame from A, known behind port 0, go to all, or to a group.
func TestFlood(t *testing.T) {
	t.Parallel()
	const group, ipGroup = port.MAC(0x0100_0ccc_cccc), port.MAC(0x0100_5e00_0001)
	const all = "123"
	shut := func(n int) func(r *rig) { return func(r *rig) { r.ports[n].To = false } }
	for name, c := range map[string]struct {
		change func(r *rig)
		dst    port.MAC // 0: broadcast
		length int      // 0: frameLen
		to     string   // the ports to which it is flooded; "": handed up
		drop   port.Drop
	}{
		"broadcast":       {to: all},
		"group":           {to: all, dst: group},
		"group of IP":     {to: all, dst: ipGroup},
		"reserved":        {dst: 0x0180_c200_000f},
		"not reserved":    {dst: 0x0180_c200_0010, to: all},
		"unknown unicast": {dst: macB},
		"trapped":         {dst: group, change: func(r *rig) { r.flood.Traps = []port.MAC{1, 2, 3, 4, 5, 6, 7, group} }},
		"others trapped":  {dst: group, to: all, change: func(r *rig) { r.flood.Traps = []port.MAC{group + 1} }},
		"trapped before": {dst: group, to: all, change: func(r *rig) {
			r.flood.Traps = []port.MAC{group}
			r.publish(r.ports)
			r.flood.Traps = nil
		}},
		"snooped":            {dst: ipGroup, change: func(r *rig) { r.flood.Snooped = *vlans(1) }},
		"snooped, IPv6":      {dst: 0x3333_0000_0001, change: func(r *rig) { r.flood.Snooped = *vlans(1) }},
		"snooped, not IP":    {dst: group, to: all, change: func(r *rig) { r.flood.Snooped = *vlans(1) }},
		"snooped, broadcast": {to: all, change: func(r *rig) { r.flood.Snooped = *vlans(1) }},
		"snooped elsewhere":  {dst: ipGroup, to: all, change: func(r *rig) { r.flood.Snooped = *vlans(2) }},

		"source unknown":               {change: func(r *rig) { r.forget(macA) }},
		"source unknown, not learning": {to: all, change: func(r *rig) { r.forget(macA); r.unlearned(false) }},
		"source elsewhere":             {change: func(r *rig) { r.learn(1, macA, 2) }},
		"input needs the switch":       {change: func(r *rig) { r.ports[0].From = false }},
		"output needs the switch":      {change: shut(2)},
		"an output is deaf":            {to: "13", change: func(r *rig) { r.ports[2].Deaf, r.ports[2].To = true, false }},
		"not in this VLAN":             {change: func(r *rig) { r.flood.VLANs = port.VLANSet{} }},
		"a port in another VLAN": {to: "12", change: func(r *rig) {
			r.ports[3].PVID, r.ports[3].Native, r.ports[3].VLANs = 2, 2, vlans(2)
		}},
		"alone": {change: func(r *rig) {
			for n := range r.ports[1:] {
				r.ports[n+1].PVID, r.ports[n+1].Native, r.ports[n+1].VLANs = 2, 2, vlans(2)
			}
		}},
		"isolated":                 {to: "2", change: func(r *rig) { r.ports[0].Isolated, r.ports[1].Isolated, r.ports[3].Isolated = true, true, true }},
		"others isolated":          {to: all, change: func(r *rig) { r.ports[1].Isolated, r.ports[3].Isolated = true, true }},
		"not flooded":              {to: "23", change: func(r *rig) { r.ports[1].NoFlood = vswitch.Broadcast }},
		"groups not flooded":       {to: all, change: func(r *rig) { r.ports[1].NoFlood = vswitch.Multicast }},
		"group not flooded":        {to: "23", dst: group, change: func(r *rig) { r.ports[1].NoFlood = vswitch.Multicast }},
		"punted":                   {change: func(r *rig) { r.ports[0].Punt = vswitch.Broadcast }},
		"group punted":             {dst: group, change: func(r *rig) { r.ports[0].Punt = vswitch.Multicast }},
		"another class is punted":  {to: all, change: func(r *rig) { r.ports[0].Punt = vswitch.Multicast | vswitch.UnknownUnicast }},
		"within the rate":          {to: all, change: func(r *rig) { r.police(0, kilobyte, time.Second, 0) }},
		"beyond the rate":          {drop: port.DropPoliced, change: func(r *rig) { r.police(0, kilobyte, time.Second, time.Hour) }},
		"beyond the rate, watched": {change: func(r *rig) { r.ports[0].Drops = true; r.police(0, kilobyte, time.Second, time.Hour) }},
		"too long for one":         {length: 1000, change: func(r *rig) { r.ns.Run("ip", "link", "set", "vm3", "mtu", "500") }},
		"port removed": {to: "12", change: func(r *rig) {
			r.publish(r.ports[:3])
			r.path.Release(3)
			r.ports = r.ports[:3]
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, guests := crowded(t)
			r.publish(r.ports)
			if c.change != nil {
				c.change(r)
			}
			r.publish(r.ports)
			wire := frame(cmp.Or(c.dst, port.Broadcast), macA, cmp.Or(c.length, frameLen))
			want, counts := uint32(tcxPass), make([]vswitch.PortStats, len(guests))
			if c.to != "" || c.drop != port.DropNone {
				want = tcxRedirect // to the last port, which a run by hand does not do
				counts[0].Fast, counts[0].RX.Frames, counts[0].RX.Bytes = 1, 1, uint64(len(wire))
				counts[0].RX.Copies = uint64(max(len(c.to)-1, 0))
			}
			if c.drop != port.DropNone {
				want = tcxDrop
				counts[0].RX.Dropped[c.drop] = 1
			}
			decision, out := r.run(wire, skb{Ifindex: uint32(r.ports[0].Device.Ifindex())})
			if decision != want {
				t.Errorf("the decision is %d, want %d", decision, want)
			}
			if want == tcxPass && !bytes.Equal(out, marked(wire)) {
				t.Errorf("handed up is\n% x, want\n% x", out, marked(wire))
			}
			for n, fd := range guests {
				var heard [][]byte
				if strings.Contains(c.to, strconv.Itoa(n)) {
					if !strings.HasSuffix(c.to, strconv.Itoa(n)) {
						heard = [][]byte{wire}
					}
					counts[n].TX.Frames, counts[n].TX.Bytes = 1, uint64(len(wire))
				}
				if got := read(t, fd); !slices.EqualFunc(got, heard, bytes.Equal) {
					t.Errorf("guest %d hears\n% x, want\n% x", n, got, heard)
				}
				if got := r.path.Counters(uint16(n)); got != counts[n] {
					t.Errorf("port %d counts\n%+v, want\n%+v", n, got, counts[n])
				}
			}
		})
	}
}

// Each output of a flooded frame gets it with the tag it wants, whatever the others do.
func TestFloodTags(t *testing.T) {
	t.Parallel()
	r, guests := crowded(t)
	type tags = []byte
	c, s := tags{0x81, 0x00, 0, 5}, tags{0x88, 0xa8, 0, 5}
	ports := []vswitch.FastPort{
		{PVID: 5, Native: 5, VLANs: vlans(5), TPID: port.TPIDCustomer}, // untagged
		{VLANs: vlans(5), TPID: port.TPIDCustomer},
		{VLANs: vlans(5), TPID: port.TPIDService},
		{PVID: 5, Native: 5, VLANs: vlans(5)}, // transparent
	}
	for n := range ports {
		ports[n].Number, ports[n].Device, ports[n].From, ports[n].To = uint16(n), r.ports[n].Device, true, true
		r.learn(5, macB+port.MAC(n), uint16(n))
	}
	r.publish(ports)
	for n := range ports {
		r.learn(5, macC+port.MAC(n), uint16(n))
	}
	for from, sent := range []tags{nil, c, s, nil} {
		bare := frame(port.Broadcast, macC+port.MAC(from), frameLen)
		with := func(tag tags) []byte { return slices.Concat(bare[:12], tag, bare[12:]) }
		// A run by hand would have its tag in the bytes, as no device does.
		if _, err := unix.Write(guests[from], append(make([]byte, vnet.HeaderLen), with(sent)...)); err != nil {
			t.Fatal(err)
		}
		for n, want := range []tags{nil, c, s, nil} {
			got := read(t, guests[n])
			if n == from {
				if len(got) != 0 {
					t.Errorf("a frame of port %d comes back", n)
				}
			} else if len(got) != 1 || !bytes.Equal(got[0], with(want)) {
				t.Errorf("from port %d to port %d comes\n% x, want\n% x", from, n, got, with(want))
			}
		}
	}
}

// Of the VLANs that ports carry the kernel has those in which it may flood, to so many ports
// as it can.
func TestFloodLists(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0)
	lists := func() map[uint32]int {
		all := make(map[uint32]int)
		var vlan uint32
		var is bpfListeners
		for it := r.path.bpf.Floods.Iterate(); it.Next(&vlan, &is); {
			all[vlan] = int(is.Ports)
		}
		return all
	}
	want := func(what string, want map[uint32]int) {
		t.Helper()
		r.publish(r.ports)
		if got := lists(); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	add := func(n int, of *port.VLANSet) {
		r.ports = append(r.ports, vswitch.FastPort{
			Number: uint16(n), Device: device{1<<20 + n, true}, From: true, To: true, TPID: port.TPIDCustomer, VLANs: of,
		})
	}
	r.flood.VLANs = *vlans(1, 2, 3)
	for n := range maxFlood {
		add(n, vlans(1, 2, 9))
	}
	want("as many ports as possible", map[uint32]int{1: maxFlood, 2: maxFlood})
	add(maxFlood, vlans(2, 3))
	want("one more", map[uint32]int{1: maxFlood, 3: 1})
	r.ports[0].Deaf = true
	want("one is deaf", map[uint32]int{1: maxFlood - 1, 2: maxFlood, 3: 1})
	r.flood.VLANs = *vlans(1, 9)
	want("other VLANs", map[uint32]int{1: maxFlood - 1, 9: maxFlood - 1})
	r.ports = r.ports[:2]
	want("ports gone", map[uint32]int{1: 1, 9: 1})
}
