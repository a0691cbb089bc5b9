package vswitch_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

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
		{Kind: vswitch.CopyOut, Number: 1, Data: wire[:512], Length: len(wire), Tag: port.MakeTag(port.TPIDCustomer, 10), Missed: 7, Time: time.Unix(1, 0)},
		{Number: 0, Data: wire, Length: len(wire), Drop: port.DropPoliced},
		{Number: 2, Data: wire, Length: len(wire)}, // no port
	}
	tagged := bytes.Join([][]byte{wire[:12], {0x81, 0, 0, 10}, wire[12:]}, nil)
	shown := []sight{
		{"p0", false, 10, port.DropNone, wire},
		{"p1", true, 10, port.DropNone, tagged[:516]},
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
