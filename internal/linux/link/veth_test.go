package link

import (
	"net"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestMakeVeth(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	here.Do(func() {
		ns, err := FindNetns(there.Name)
		if err != nil {
			t.Fatal(err)
		}
		v := Veth{Name: "c0", MTU: 1400, Peer: "eth0", PeerMAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Netns: ns}
		if err := MakeVeth(v); err != nil {
			t.Fatal(err)
		}
		near, err := ByName("c0")
		if err != nil {
			t.Fatal(err)
		}
		var far Link
		if err := ns.Do(func() error { far, err = ByName("eth0"); return err }); err != nil {
			t.Fatal(err)
		}
		for _, l := range []Link{near, far} {
			if l.Kind != "veth" || l.Up || l.MTU != 1400 {
				t.Errorf("%+v", l)
			}
		}
		if near.Peer != far.Index || far.Peer != near.Index {
			t.Errorf("%d and %d, %d and %d are not one pair", near.Index, near.Peer, far.Index, far.Peer)
		}
		if mac := there.Run("cat", "/sys/class/net/eth0/address"); mac != "02:00:00:00:00:09" {
			t.Errorf("its address is %s", mac)
		}
		for what, v := range map[string]Veth{
			"or eth0 in network namespace": {Name: "c1", Peer: "eth0", Netns: ns},
			"c0 is there already":          {Name: "c0", Peer: "eth1", Netns: ns},
			"the MTU 7 is not possible":    {Name: "c1", Peer: "eth1", MTU: 7},
			"is no network namespace":      {Name: "c1", Peer: "eth1", Netns: &Netns{path: "/proc/version"}},
			"nowhere is gone":              {Name: "c1", Peer: "eth1", Netns: &Netns{path: "/nowhere"}},
		} {
			if err := MakeVeth(v); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := ByName("c1"); err == nil {
			t.Error("half a pair is left")
		}
	})
}
