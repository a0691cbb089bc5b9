package fastpath

import (
	"bytes"
	"cmp"
	"encoding/binary"
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

// snoop has the switch snoop a VLAN, and take all its groups.
func (r *rig) snoop(vlan uint16) { r.flood.Groups = &vswitch.Groups{VLANs: *vlans(vlan)} }

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
		"snooped":            {dst: ipGroup, change: func(r *rig) { r.snoop(1) }},
		"snooped, IPv6":      {dst: 0x3333_0000_0001, change: func(r *rig) { r.snoop(1) }},
		"snooped, not IP":    {dst: group, to: all, change: func(r *rig) { r.snoop(1) }},
		"snooped, broadcast": {to: all, change: func(r *rig) { r.snoop(1) }},
		"snooped elsewhere":  {dst: ipGroup, to: all, change: func(r *rig) { r.snoop(2) }},

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
		"alone": {drop: port.DropNoDestination, change: func(r *rig) {
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

// joined are groups of VLAN 1 and their members, for TestGroups, and what becomes of the rest.
func (r *rig) joined(all map[port.MAC][]uint16, rest []uint16, flood bool) {
	r.flood.Groups = &vswitch.Groups{
		VLANs: *vlans(1),
		Each: func(f func(vlan uint16, mac uint64, ports []uint16)) {
			for mac, ports := range all {
				f(1, uint64(mac), ports)
				f(9, uint64(mac), ports) // a VLAN that is not snooped
			}
		},
		Rest: func(uint16, bool) ([]uint16, bool) { return rest, flood },
	}
}

// TestGroups has a frame from A, known behind port 0, go to a group that ports 0 and 2 joined in
// VLAN 1, which is snooped.
func TestGroups(t *testing.T) {
	t.Parallel()
	const ipv4, ipv6, local = port.MAC(0x0100_5e01_0203), port.MAC(0x3333_0007_0203), port.MAC(0x0100_5e00_00fb)
	ip4 := func(protocol byte) func([]byte) {
		return func(b []byte) { b[12], b[13], b[23] = 0x08, 0x00, protocol }
	}
	ip6 := func(next, typ byte, group uint16) func([]byte) {
		return func(b []byte) {
			b[12], b[13], b[20], b[54] = 0x86, 0xdd, next, typ
			binary.BigEndian.PutUint16(b[38:], group)
		}
	}
	tag := func(tpid uint16) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint16(b[12:], tpid) } }
	members := map[port.MAC][]uint16{ipv4: {0, 2}, ipv6: {0, 2}}
	rest := func(ports []uint16, flood bool) func(*rig) {
		return func(r *rig) { r.joined(members, ports, flood) }
	}
	const udp, none = 17, 0
	for name, c := range map[string]struct {
		dst    port.MAC // 0: ipv4
		wire   func([]byte)
		change func(r *rig)
		to     string // the ports to which it is sent; "": handed up
		drop   port.Drop
	}{
		"IPv4":            {wire: ip4(udp), to: "2"},
		"IPv6":            {dst: ipv6, wire: ip6(udp, none, 0xff05), to: "2"},
		"no IP":           {to: "2"},
		"IGMP":            {wire: ip4(2)},
		"PIM":             {wire: ip4(103)},
		"like IGMP, IPv6": {dst: ipv6, wire: ip4(2)},
		"MLD query":       {dst: ipv6, wire: ip6(58, 130, 0xff05)},
		"MLD done":        {dst: ipv6, wire: ip6(58, 132, 0xff05)},
		"MLDv2 report":    {dst: ipv6, wire: ip6(58, 143, 0xff02)},
		"router":          {dst: ipv6, wire: ip6(58, 151, 0xff02)},
		"no router":       {dst: ipv6, wire: ip6(58, 154, 0xff05), to: "2"},
		"echo":            {dst: ipv6, wire: ip6(58, 128, 0xff05), to: "2"},
		"echo of a link":  {dst: ipv6, wire: ip6(58, 128, 0xff02), to: "123"},
		"options":         {dst: ipv6, wire: ip6(0, none, 0xff05)},
		"more options":    {dst: ipv6, wire: ip6(60, none, 0xff05)},
		"PIM, IPv6":       {dst: ipv6, wire: ip6(103, none, 0xff05)},
		"of a link":       {dst: ipv6, wire: ip6(udp, none, 0xff02), to: "123"},
		"like of a link":  {wire: ip6(udp, none, 0xff02), to: "123"},
		"tagged inside":   {wire: tag(port.TPIDService), to: "123"},

		"all to all":               {change: rest(nil, true), to: "2"},
		"unknown to all":           {dst: ipv4 + 1, change: rest(nil, true), to: "123"},
		"unknown to all, IPv6":     {dst: ipv6 + 1, change: rest(nil, true), to: "123"},
		"unknown to routers":       {dst: ipv4 + 1, change: rest([]uint16{1, 3}, false), to: "13"},
		"unknown to routers, IPv6": {dst: ipv6 + 1, change: rest([]uint16{3}, false), to: "3"},
		"unknown, no routers":      {dst: ipv4 + 1, change: rest(nil, false), drop: port.DropNoDestination},
		"unknown, the router":      {dst: ipv4 + 1, change: rest([]uint16{0}, false), drop: port.DropNoDestination},
		"local":                    {dst: local, change: rest([]uint16{1}, false)},
		"local, to all":            {dst: local, change: rest([]uint16{1}, true), to: "123"},
		"local, IPv6":              {dst: 0x3333_0000_00fb, change: rest([]uint16{1}, false)},
		"solicited":                {dst: 0x3333_ff00_0001, change: rest([]uint16{1}, false)},
		"service":                  {dst: 0x3333_0001_0004, change: rest([]uint16{1}, false)},
		"no service":               {dst: 0x3333_0002_0004, change: rest([]uint16{1}, false), to: "1"},

		"alone":            {change: func(r *rig) { r.joined(map[port.MAC][]uint16{ipv4: {0}}, nil, true) }, drop: port.DropNoDestination},
		"nobody's":         {change: func(r *rig) { r.joined(map[port.MAC][]uint16{ipv4: {77}}, nil, true) }, drop: port.DropNoDestination},
		"alone, watched":   {change: func(r *rig) { r.joined(map[port.MAC][]uint16{ipv4: {0}}, nil, true); r.ports[0].Drops = true }},
		"the switch's too": {change: func(r *rig) { r.flood.Slow = []uint16{7}; r.joined(map[port.MAC][]uint16{ipv4: {2, 7}}, nil, true) }},
		"another's is the switch's": {to: "2", change: func(r *rig) {
			r.flood.Slow, r.flood.VLANs = []uint16{7}, port.VLANSet{}
		}},
		"for all, of which one is the switch's": {dst: ipv4 + 1, change: func(r *rig) {
			r.flood.VLANs = port.VLANSet{}
			r.joined(members, nil, true)
		}},
		"not flooded there": {to: "2", change: func(r *rig) { r.ports[2].NoFlood = vswitch.Multicast }},
		"isolated":          {drop: port.DropNoDestination, change: func(r *rig) { r.ports[0].Isolated, r.ports[2].Isolated = true, true }},
		"deaf":              {drop: port.DropNoDestination, change: func(r *rig) { r.ports[2].Deaf, r.ports[2].To = true, false }},
		"in another VLAN": {drop: port.DropNoDestination, change: func(r *rig) {
			r.ports[2].PVID, r.ports[2].Native, r.ports[2].VLANs = 2, 2, vlans(2)
		}},
		"more join":       {to: "123", change: func(r *rig) { r.joined(map[port.MAC][]uint16{ipv4: {1, 2, 3}}, nil, true) }},
		"all leave":       {to: "123", change: func(r *rig) { r.joined(nil, nil, true) }},
		"snooping is off": {to: "123", change: func(r *rig) { r.flood.Groups = nil }},
		"nothing known":   {change: func(r *rig) { r.snoop(1) }},
		"port removed": {drop: port.DropNoDestination, change: func(r *rig) {
			r.publish(slices.Concat(r.ports[:2], r.ports[3:]))
			r.path.Release(2)
			r.ports = slices.Concat(r.ports[:2], r.ports[3:])
		}},
		"policed":      {drop: port.DropPoliced, change: func(r *rig) { r.police(0, kilobyte, time.Second, time.Hour) }},
		"punted class": {change: func(r *rig) { r.ports[0].Punt = vswitch.Multicast }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, guests := crowded(t)
			r.joined(members, []uint16{1}, false)
			r.publish(r.ports)
			if c.change != nil {
				c.change(r)
				r.publish(r.ports)
			}
			wire := frame(cmp.Or(c.dst, ipv4), macA, frameLen)
			if c.wire != nil {
				c.wire(wire)
			}
			want, last := uint32(tcxPass), -1
			switch {
			case c.to != "":
				want, last = tcxRedirect, int(c.to[len(c.to)-1]-'0')
			case c.drop != port.DropNone:
				want = tcxDrop
			}
			if d := r.send(0, wire); d != want {
				t.Errorf("the decision is %d, want %d", d, want)
			}
			for n, fd := range guests {
				heard := 0
				if strings.Contains(c.to, strconv.Itoa(n)) && n != last { // a run by hand does not redirect
					heard = 1
				}
				if got := len(read(t, fd)); got != heard {
					t.Errorf("guest %d hears %d frames, want %d", n, got, heard)
				}
				if sent := r.path.Counters(uint16(n)).TX.Frames; sent > 0 != strings.Contains(c.to, strconv.Itoa(n)) {
					t.Errorf("port %d counts %d frames sent", n, sent)
				}
			}
			in := r.path.Counters(0).RX
			if n := in.Dropped[c.drop]; c.drop != port.DropNone && n != 1 || in.Copies != uint64(max(len(c.to)-1, 0)) {
				t.Errorf("port 0 counts %+v", in)
			}
		})
	}
}

// The kernel has no room for the groups of many, and then leaves all that it does not have to
// the switch, until others leave.
func TestManyGroups(t *testing.T) {
	t.Parallel()
	r, _ := crowded(t)
	room := int(r.path.bpf.Groups.MaxEntries())
	all := make(map[port.MAC][]uint16)
	for n := range room + 10 {
		all[0x0100_5e01_0000+port.MAC(n)] = []uint16{1}
	}
	r.joined(all, nil, true)
	r.publish(r.ports)
	decisions := make(map[uint32]int)
	for mac := range all {
		decisions[r.send(0, frame(mac, macA, frameLen))]++
	}
	if decisions[tcxRedirect] != room || decisions[tcxPass] != 10 {
		t.Errorf("decisions are %v, want that %d groups are forwarded", decisions, room)
	}
	unknown := frame(0x0100_5e7f_0000, macA, frameLen)
	if d := r.send(0, unknown); d != tcxPass {
		t.Errorf("a group that nobody joined gets %d", d)
	}
	clear(all)
	r.joined(all, nil, true)
	r.publish(r.ports)
	if d := r.send(0, unknown); d != tcxRedirect {
		t.Errorf("a group that nobody joined gets %d when there is room", d)
	}
	if n := entries(t, r.path.bpf.Groups); n != 0 {
		t.Errorf("the kernel has %d groups of none", n)
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
