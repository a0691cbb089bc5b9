package daemon

import (
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
)

// An entry that cannot lead to its port is refused, or out of force while the port does
// not carry its VLAN: frames to its station are flooded, not lost.
func TestEntriesThatLeadNowhere(t *testing.T) {
	const mac = port.MAC(0x525400000009)
	saved := withFDB(store.State{
		Ports: []store.Port{{Spec: saved(port.Spec{Name: "vm0", Kind: "tap", Policy: port.Policy{VLAN: port.VLAN{Access: 10}}})}},
	}, savedEntry{MAC: mac + 1, VLAN: 20, Port: "vm0"})
	for _, sticky := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			vm1, vm2 := vm("vm1"), vm("vm2")
			vm1.Access, vm2.Access = 20, 20
			w := wire(t, saved, withSnooping(justSnoop), vm1, vm2)
			add := func(mac port.MAC, vlan uint16) error {
				_, err := w.addFDB(api.AddFDB{MAC: mac, VLAN: vlan, Port: "vm0", Sticky: sticky})
				return err
			}
			reaches := func(to port.MAC, want bool) {
				t.Helper()
				w.send("vm1", ethernet(to, 0x525400000001))
				if n := len(w.taken("vm2")); (n == 1) != want {
					t.Errorf("%d frames to %v reach vm2", n, to)
				}
			}
			wantCode(t, add(mac, 20), api.CodeInvalid, "port vm0 does not carry VLAN 20; it carries 10")
			wantCode(t, add(mac, 0), api.CodeInvalid, "does not carry VLAN 1")
			for _, vlan := range []uint16{0, 10, 20} {
				wantCode(t, add(w.mac, vlan), api.CodeInvalid, "the switch's own address")
			}
			if e, _ := w.sw.FDB().Get(fdb.MakeKey(1, uint64(w.mac))); e.Kind != fdb.Local {
				t.Errorf("the switch's own address is %+v", e)
			}
			reaches(mac, true)
			reaches(mac+1, true) // of a former run

			// With the VLAN the entry goes and comes.
			set := func(vid uint16) {
				t.Helper()
				if err := w.set("vm0", api.Settings{"access": vid}); err != nil {
					t.Fatal(err)
				}
			}
			set(20)
			reaches(mac+1, false)
			if err := add(mac, 20); err != nil {
				t.Fatal(err)
			}
			reaches(mac, false)
			set(10)
			reaches(mac, true)
			set(20)
			reaches(mac, false)
			if n := len(fdbOf(w.disk.state())); n != 2 {
				t.Errorf("%d entries are kept, want 2", n)
			}
		})
	}
}
