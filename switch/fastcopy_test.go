package vswitch_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A watch sees the copies of a fast path as it sees other frames. The fast path is told of which
// ports it is to copy, and how much.
func TestFastCopies(t *testing.T) {
	fast := &told{}
	sw := vswitch.New(vswitch.Config{FastPath: fast})
	defer sw.Close()
	var trunk port.VLANSet
	trunk.Add(10)
	trunk.Add(20)
	for n, vlan := range []port.VLAN{{Access: 10}, {Trunk: trunk}} {
		p, err := sw.AddPort([]string{"p0", "p1"}[n])
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Configure(vswitch.PortConfig{VLAN: vlan}); err != nil {
			t.Fatal(err)
		}
		if err := p.Attach(device{Port: memory.New(memory.Options{})}); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
	}
	wire := frame(station(1), station(0), 1, 600)
	copies := []vswitch.FastCopy{
		{Number: 0, Data: wire, Length: len(wire)},
		{Kind: vswitch.CopyOut, Number: 1, Data: wire[:599], Length: len(wire), Tag: port.MakeTag(port.TPIDCustomer, 10), Missed: 7, Time: time.Unix(1, 0)},
		{Number: 0, Data: wire, Length: len(wire), Drop: port.DropPoliced},
		{Number: 2, Data: wire, Length: len(wire)}, // no port
	}
	tagged := bytes.Join([][]byte{wire[:12], {0x81, 0, 0, 10}, wire[12:]}, nil)
	shown := []sight{
		{"p0", false, 10, port.DropNone, wire},
		{"p1", true, 10, port.DropNone, tagged[:603]},
		{"p0", false, 10, port.DropPoliced, wire},
	}
	for _, c := range []struct {
		watch vswitch.Watch
		sees  []int // of shown
		in    bool  // whether what comes by p0 is copied
		out   bool  // whether what leaves by p1 is copied
		snap  int   // of p0
	}{
		{watch: vswitch.Watch{In: true, Out: true}, sees: []int{0, 1, 2}, in: true, out: true},
		{watch: vswitch.Watch{In: true, SnapLen: 600}, sees: []int{0, 2}, in: true, snap: 600},
		{watch: vswitch.Watch{Out: true, SnapLen: 64}, sees: []int{1}, out: true, snap: port.MinHead},
		{watch: vswitch.Watch{Drops: true}, sees: []int{2}},
		{watch: vswitch.Watch{Ports: []string{"p1"}, In: true, Out: true}, sees: []int{1}, out: true},
	} {
		var seen sights
		c.watch.See = func(v vswitch.Sight) {
			seen.see(v)
			if v.Port.Name() == "p1" && (v.Missed != 7 || v.Time != time.Unix(1, 0) || v.Len() != len(tagged)) {
				t.Errorf("a copy is shown as %+v, %d bytes long", v, v.Len())
			}
		}
		stop := sw.Watch(&c.watch)
		p0, p1 := fast.ports[0], fast.ports[1]
		if p0.SeeIn != c.in || p1.SeeOut != c.out || p0.SnapLen != c.snap || !p0.From || !p1.To {
			t.Errorf("%+v: the fast path is told %+v, %+v", c.watch, p0, p1)
		}
		for i := range copies {
			fast.show(&copies[i])
		}
		stop()
		var want []sight
		for _, i := range c.sees {
			want = append(want, shown[i])
		}
		got := seen.take()
		if len(got) != len(want) {
			t.Errorf("%+v: it sees %+v", c.watch, got)
			continue
		}
		for i := range got {
			if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
				t.Errorf("%+v: it sees %+v, want %+v", c.watch, got[i], want[i])
			}
		}
		if fast.show(&copies[0]); len(seen.take()) != 0 {
			t.Error("a watch that ended is shown a copy")
		}
	}
}

// Mirrors that a fast path does not serve copy the frames that it shows, as they copy others: in
// the form that the target takes, and counted.
func TestFastMirrorCopies(t *testing.T) {
	fast := &told{}
	sw := vswitch.New(vswitch.Config{FastPath: fast})
	defer sw.Close()
	none := port.CapsNone
	var ports []*vswitch.Port
	lines := []*memory.Port{memory.New(memory.Options{}), memory.New(memory.Options{}), memory.New(memory.Options{Depth: 64, Caps: &none})}
	for n, line := range lines {
		p, err := sw.AddPort(fmt.Sprintf("p%d", n))
		if err != nil {
			t.Fatal(err)
		}
		var dev port.Port = device{Port: line}
		if n == 2 {
			dev = line
		}
		if err := p.Attach(dev); err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			if err := p.Configure(trunk(1, 1, 7)); err != nil {
				t.Fatal(err)
			}
		}
		p.SetForwarding(true)
		ports = append(ports, p)
	}
	wire := frame(station(1), station(0), 1, 600)
	super, offload := tuntest.TCP4(4000)
	datagram, fragments := tuntest.UFO(4000)
	taken := func() (all [][]byte) {
		for lines[2].Drain(0, 100, func(p memory.Packet) { all = append(all, bytes.Clone(p.Wire)) }) != 0 {
		}
		return all
	}
	whole := vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire, Length: len(wire), To: 1}
	for name, c := range map[string]struct {
		change func(*vswitch.Mirror)
		copy   vswitch.FastCopy
		want   [][]byte
		pieces int // made of a super-frame
		lost   uint64
		twice  bool // by two mirrors
	}{
		"filter":                               {change: func(m *vswitch.Mirror) { m.Filter = func(f *port.Frame, _ port.Tag) bool { return f.DataLen() == 600 } }, copy: whole, want: [][]byte{wire}},
		"filter of others":                     {change: func(m *vswitch.Mirror) { m.Filter = func(*port.Frame, port.Tag) bool { return false } }, copy: whole},
		"truncated":                            {change: func(m *vswitch.Mirror) { m.SnapLen = 100 }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire[:512], Length: len(wire)}, want: [][]byte{wire[:100]}},
		"truncated super-frame":                {change: func(m *vswitch.Mirror) { m.SnapLen = 100 }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: super, Length: len(super), Offload: offload}, want: [][]byte{super[:100]}},
		"not truncated":                        {change: func(m *vswitch.Mirror) { m.SnapLen = 1000 }, copy: whole, want: [][]byte{wire}},
		"with its tag":                         {copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire, Length: len(wire), Tag: port.MakeTag(port.TPIDCustomer, 10)}, want: [][]byte{slices.Concat(wire[:12], []byte{0x81, 0, 0, 10}, wire[12:])}},
		"sent":                                 {change: func(m *vswitch.Mirror) { m.In, m.Out = false, true }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorOut, Data: wire, Length: len(wire), To: 1}, want: [][]byte{wire}},
		"sent, and received by another source": {change: func(m *vswitch.Mirror) { m.Ports, m.SnapLen, m.Out = []string{"p0", "p1"}, 1000, true }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorOut, Data: wire, Length: len(wire), To: 1}},
		"sent, with a tag in front of its own": {change: func(m *vswitch.Mirror) { m.In, m.Out, m.SnapLen = false, true, 100 }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorOut, Data: slices.Concat(wire[:12], []byte{0x88, 0xa8, 0, 5}, wire[12:]), Length: len(wire) + 4, To: 1, Push: true, Tag: port.MakeTag(port.TPIDCustomer, 1)}, want: [][]byte{slices.Concat(wire[:12], []byte{0x81, 0, 0, 1, 0x88, 0xa8, 0, 5}, wire[12:100])}},
		"of a mirror before":                   {change: func(m *vswitch.Mirror) { m.SnapLen = 100 }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire[:64], Length: len(wire)}},
		"of a VLAN":                            {change: func(m *vswitch.Mirror) { m.Ports = nil; m.VLANs.Add(1) }, copy: whole, want: [][]byte{wire}},
		"of another VLAN":                      {change: func(m *vswitch.Mirror) { m.Ports = nil; m.VLANs.Add(2) }, copy: whole},
		"into a VLAN":                          {change: func(m *vswitch.Mirror) { m.To, m.ToVLAN = "", 7 }, copy: whole, want: [][]byte{slices.Concat(wire[:12], []byte{0x81, 0, 0, 7}, wire[12:])}},
		"sent, not received":                   {change: func(m *vswitch.Mirror) { m.In, m.Out = false, true }, copy: whole},
		"super-frame":                          {copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: super, Length: len(super), Offload: offload}, pieces: 3},
		"datagram to be fragmented":            {copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: datagram, Length: len(datagram), Offload: fragments}, pieces: 3},
		"some are missed":                      {copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire, Length: len(wire), Missed: 5}, want: [][]byte{wire}, lost: 5},
		"some are missed by two":               {copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire, Length: len(wire), Missed: 5}, want: [][]byte{wire, wire}, lost: 10, twice: true},
		"sent, received by nobody":             {change: func(m *vswitch.Mirror) { m.In, m.Out, m.SnapLen = false, true, 100 }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorOut, Data: wire, Length: len(wire), To: 9}},
		"of a mirror of whole frames before":   {change: func(m *vswitch.Mirror) { m.SnapLen = 1000 }, copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire[:512], Length: len(wire)}},
		"no super-frame":                       {copy: vswitch.FastCopy{Kind: vswitch.CopyMirrorIn, Data: wire, Length: len(wire), Offload: offload}, lost: 1},
	} {
		m := vswitch.Mirror{Name: "m0", Ports: []string{"p0"}, In: true, To: "p2"}
		if c.change != nil {
			c.change(&m)
		}
		mirrors := []vswitch.Mirror{m}
		if m.Name = "m1"; c.twice {
			mirrors = append(mirrors, m)
		}
		if err := sw.SetMirrors(mirrors); err != nil {
			t.Fatal(err)
		}
		received := ports[0]
		if c.copy.Kind == vswitch.CopyMirrorOut && int(c.copy.To) < len(ports) {
			received = ports[c.copy.To]
		}
		before, at := received.Stats().RX.Copies, ports[2].Stats().TX
		fast.show(&c.copy)
		got := taken()
		if c.pieces > 0 {
			if len(got) != c.pieces || !bytes.Equal(got[0][:14], super[:14]) {
				t.Errorf("%s: %d frames are made", name, len(got))
			}
			for i, b := range got {
				if more := b[20]&0x20 != 0; more != (c.copy.Offload.GSOType == port.GSOUDP && i < len(got)-1) {
					t.Errorf("%s: more fragments follow frame %d: %v", name, i, more)
				}
			}
			c.want = got
		}
		if !slices.EqualFunc(got, c.want, bytes.Equal) {
			t.Errorf("%s: copies are\n% x, want\n% x", name, got, c.want)
		}
		now := ports[2].Stats().TX
		if copies := received.Stats().RX.Copies - before; copies != uint64(len(c.want))+c.lost || now.Frames-at.Frames != uint64(len(c.want)) || now.Drops()-at.Drops() != c.lost {
			t.Errorf("%s: %d copies are counted, and %+v at the target", name, copies, now)
		}
	}
}
