package mirror

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/setting"
)

func TestItem(t *testing.T) {
	v, err := setting.Merge(item{}, setting.Patch{
		"name": []byte(`"m0"`), "from": []byte(`["vm0","vm1"]`), "from_vlan": []byte(`"10,20"`), "direction": []byte(`"both"`),
		"to_vlan": []byte(`900`), "snaplen": []byte(`64`), "filter": []byte(`"arp"`),
	})
	if err != nil {
		t.Fatal(err)
	}
	i := v.(item)
	if err := i.Check(); err != nil {
		t.Error(err)
	}
	if got, want := i.Words(), `from vm0,vm1, from-vlan 10,20, to-vlan 900, snaplen 64, filter "arp"`; i.ID() != "mirror m0" || got != want {
		t.Errorf("%s: %s, want %s", i.ID(), got, want)
	}
	if a := i.mirror(); a.Direction != "both" || !cmp.Equal(itemOf(a), i) {
		t.Errorf("as a mirror it is %+v", a)
	}
	for text, bad := range map[string]item{
		"spaces":              {Name: "a b", From: []string{"vm0"}, To: "vm1"},
		"1 to 32":             {From: []string{"vm0"}, To: "vm1"},
		"from somewhere":      {Name: "m", To: "vm1"},
		"one target":          {Name: "m", From: []string{"vm0"}},
		"give to or":          {Name: "m", From: []string{"vm0"}, To: "vm1", ToVLAN: 5},
		"not a list of VLANs": {Name: "m", FromVLAN: "5000", To: "vm1"},
		"missing at its end":  {Name: "m", From: []string{"vm0"}, To: "vm1", Filter: "arp and"},
	} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", bad, err, text)
		}
	}
}
