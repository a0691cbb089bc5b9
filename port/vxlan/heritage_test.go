package vxlan

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// tunnelOf is a directory of the network 7 with one peer, and no sockets.
func tunnelOf(t testing.TB) *directory {
	t.Helper()
	d := new(directory)
	d.init(netip.MustParseAddr("192.0.2.1"), port.VXLAN, 4789)
	if err := d.configure([]port.VNI{{VNI: 7}}, []netip.Addr{netip.MustParseAddr("192.0.2.2")}, true); err != nil {
		t.Fatal(err)
	}
	return d
}

// knows is what a directory knows: its stations, who gets floods, and the other members.
func knows(d *directory) string {
	n := d.networks.Load().byVNI[7]
	var all, flood []string
	for r := range d.Remotes() {
		all = append(all, fmt.Sprint(r.Station, "@", r.VTEP))
	}
	slices.Sort(all)
	for _, v := range *n.flood.Load() {
		flood = append(flood, v.addr.String())
	}
	slices.Sort(flood)
	members := 0
	for i := range d.byNumber {
		if v := d.byNumber[i].Load(); v != nil && n.has(v) {
			members++
		}
	}
	return fmt.Sprintf("%s floods %s members %d", strings.Join(all, " "), strings.Join(flood, " "), members)
}

const (
	anew      = " floods 192.0.2.2 members 1"
	inherited = "02:00:00:00:00:02@192.0.2.2 02:00:00:00:00:03@192.0.2.3 floods 192.0.2.2 192.0.2.4 members 3"
)

// What a control plane and frames have told is there in the next process, also while nothing is
// learned, until its time is over or the control plane says it again.
func TestHeritage(t *testing.T) {
	former := tunnelOf(t)
	v := former.find(netip.MustParseAddr("192.0.2.2"))
	former.stations.Learn(former.networks.Load().all.key(0x0200_0000_0002), v.number)
	three, four := netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.4")
	if err := former.SetRemote(7, 0x0200_0000_0003, three); err != nil {
		t.Fatal(err)
	}
	if err := former.SetFlood(7, []netip.Addr{four}); err != nil {
		t.Fatal(err)
	}
	if is := knows(former); is != inherited {
		t.Fatalf("the former process knows %s", is)
	}
	data, err := former.give()
	if err != nil {
		t.Fatal(err)
	}
	older, err := os.ReadFile("testdata/heritage.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"as given": data, "of the first version, with what none knows": older} {
		d := tunnelOf(t)
		d.inherit(data)
		d.SetLearning(false)
		if is := knows(d); is != inherited {
			t.Errorf("%s: the next process knows %s", name, is)
		}
		for range grace - 1 {
			d.fade()
		}
		if is := knows(d); is != inherited {
			t.Errorf("%s: at last it knows %s", name, is)
		}
		d.fade()
		if is := knows(d); is != anew {
			t.Errorf("%s: afterwards it knows %s", name, is)
		}

		d = tunnelOf(t)
		d.inherit(data)
		d.SetLearning(false)
		if err := d.SetRemote(7, 0x0200_0000_0003, three); err != nil {
			t.Fatal(err)
		}
		flood := func(vteps ...netip.Addr) {
			t.Helper()
			if err := d.SetFlood(7, vteps); err != nil {
				t.Fatal(err)
			}
		}
		flood(three) // the first neighbor that is heard; the other may be heard later
		if is, want := knows(d), "02:00:00:00:00:02@192.0.2.2 02:00:00:00:00:03@192.0.2.3 floods 192.0.2.2 192.0.2.3 192.0.2.4 members 3"; is != want {
			t.Errorf("%s: once it is told of one host, it knows %s", name, is)
		}
		again, err := d.give()
		if err != nil {
			t.Fatal(err)
		}
		next := tunnelOf(t)
		next.inherit(again)
		if is, want := knows(next), knows(d); is != want {
			t.Errorf("%s: the process after the next knows %s, want %s", name, is, want)
		}
		flood(four, three)
		flood(three) // the other is gone
		if is, want := knows(d), "02:00:00:00:00:02@192.0.2.2 02:00:00:00:00:03@192.0.2.3 floods 192.0.2.2 192.0.2.3 members 3"; is != want {
			t.Errorf("%s: once a host has gone, it knows %s", name, is)
		}
		flood(four, three)
		for range grace {
			d.fade()
		}
		if is, want := knows(d), "02:00:00:00:00:03@192.0.2.3 floods 192.0.2.2 192.0.2.3 192.0.2.4 members 3"; is != want {
			t.Errorf("%s: said again, it knows %s", name, is)
		}
		d.DeleteRemote(7, 0x0200_0000_0003)
		flood()
		if is := knows(d); is != anew {
			t.Errorf("%s: taken back, it knows %s", name, is)
		}
	}
}

// What a control plane has told that has ended stays until frames tell otherwise, another one says it again, or its time
// is over.
func TestAbandoned(t *testing.T) {
	two, three, four := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.4")
	const moves, stays port.MAC = 0x0200_0000_0003, 0x0200_0000_0004
	tell := func(d *directory) {
		t.Helper()
		d.SetLearning(false)
		for _, mac := range []port.MAC{moves, stays} {
			if err := d.SetRemote(7, mac, three); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.SetFlood(7, []netip.Addr{three, four}); err != nil {
			t.Fatal(err)
		}
	}
	end := func(d *directory) {
		for range grace {
			d.fade()
		}
	}
	const told = "02:00:00:00:00:03@192.0.2.3 02:00:00:00:00:04@192.0.2.3 floods 192.0.2.2 192.0.2.3 192.0.2.4 members 3"
	d := tunnelOf(t)
	for range 3 {
		tell(d)
		d.SetLearning(true)
		d.SetLearning(true)
		if is := knows(d); is != told {
			t.Fatalf("it knows %s", is)
		}
	}
	d.stations.Learn(d.networks.Load().all.key(moves), d.find(two).number)
	if is, want := knows(d), "02:00:00:00:00:03@192.0.2.2 02:00:00:00:00:04@192.0.2.3 floods 192.0.2.2 192.0.2.3 192.0.2.4 members 3"; is != want {
		t.Errorf("after a move it knows %s", is)
	}
	end(d)
	if is, want := knows(d), "02:00:00:00:00:03@192.0.2.2 floods 192.0.2.2 members 1"; is != want || len(*d.byAddr.Load()) != 1 {
		t.Errorf("afterwards it knows %s, with %d hosts", is, len(*d.byAddr.Load()))
	}

	d = tunnelOf(t)
	tell(d)
	d.SetLearning(true)
	d.SetLearning(false) // the next control plane
	if err := d.SetRemote(7, stays, four); err != nil {
		t.Fatal(err)
	}
	if is, want := knows(d), "02:00:00:00:00:03@192.0.2.3 02:00:00:00:00:04@192.0.2.4 floods 192.0.2.2 192.0.2.3 192.0.2.4 members 3"; is != want {
		t.Errorf("what is said again in part is %s", is)
	}
	end(d)
	if is, want := knows(d), "02:00:00:00:00:04@192.0.2.4 floods 192.0.2.2 members 2"; is != want {
		t.Errorf("at last the next control plane counts alone: %s", is)
	}
	d.DeleteRemote(7, stays)
	if is := knows(d); is != anew || len(d.users) != 1 || len(*d.byAddr.Load()) != 1 {
		t.Errorf("taken back, it knows %s, with %d hosts", is, len(*d.byAddr.Load()))
	}
}

// FuzzInherit: whatever another process gives, what follows from it ends, and then nothing is left.
func FuzzInherit(f *testing.F) {
	b, err := os.ReadFile("testdata/heritage.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"Hosts": ["192.0.2.1", "224.0.0.1", "::1"], "Networks": [{"VNI": 7, "Members": [0, 1, 2, 3, -1], "Flood": [0, 9], "Stations": [{"MAC": "02:00:00:00:00:03", "Host": 7}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := tunnelOf(t)
		d.inherit(b)
		d.SetLearning(false)
		for range grace {
			d.fade()
		}
		if is := knows(d); is != anew || len(d.users) != 1 || len(*d.byAddr.Load()) != 1 {
			t.Errorf("it knows %s, with %d hosts", is, len(*d.byAddr.Load()))
		}
	})
}
