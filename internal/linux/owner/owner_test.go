package owner_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

func TestParse(t *testing.T) {
	for alias, want := range map[string]owner.Mark{
		"vswitch one":                       {Switch: "one"},
		"vswitch one adopted":               {Switch: "one", Adopted: true},
		"vswitch one adopted: rack 7: left": {Switch: "one", Adopted: true, Before: "rack 7: left"},
		"vswitch ":                          {},
	} {
		m, ok := owner.Parse(alias)
		if !ok || m != want || m.String() != alias {
			t.Errorf("%q is %+v, %t, again %q", alias, m, ok, m)
		}
	}
	for _, alias := range []string{
		"", "vswitch", "vswitch  ", "uplink", "vswitch one two", "vswitch one adopted by me", "my vswitch one", "vswitch  adopted",
	} {
		if m, ok := owner.Parse(alias); ok {
			t.Errorf("%q is %+v", alias, m)
		}
	}
	long := owner.Mark{Switch: "one", Adopted: true, Before: strings.Repeat("x", 255)}
	if m, ok := owner.Parse(long.String()); !ok || m.Before != "" {
		t.Errorf("a long alias: %+v, %t", m, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("vswitch one adopted: x")
	f.Fuzz(func(t *testing.T, alias string) {
		m, ok := owner.Parse(alias)
		if ok && len(alias) <= 255 && m.String() != alias {
			t.Errorf("%q is %+v, again %q", alias, m, m)
		}
	})
}

func TestMakes(t *testing.T) {
	is := link.Link{Index: 7, Name: "vm0", MAC: [6]byte{2, 0, 0, 0, 0, 7}}
	var this port.Trace
	owner.Note(&this, is)
	this.Ifindex, this.Created = 0, true // it is a former process that noted it
	other, taken := this, this
	other.MAC, taken.Created = "02:00:00:00:00:08", false
	old := port.Trace{Created: true, Ifname: "vm0"}
	for _, c := range []struct {
		alias string
		noted port.Trace
		want  bool
	}{
		{"vswitch me", port.Trace{}, true},
		{"vswitch me", old, true},
		{"vswitch me adopted", this, false},
		{"vswitch you", this, false},
		{"vswitch ", old, true},           // an earlier version made it
		{"vswitch ", port.Trace{}, false}, // and it may be another switch's
		{"", old, false},
		{"somebody else's", old, false},
		{"", this, true},
		{"somebody else's", this, true},
		{"", other, false}, // made anew with this index
		{"", taken, false},
		{"", port.Trace{Created: true, Ifindex: 7}, true}, // this process opened it
	} {
		is.Alias = c.alias
		if got := owner.Makes(is, "me", c.noted); got != c.want {
			t.Errorf("%q, noted %+v: %t", c.alias, c.noted, got)
		}
	}
}

// An administrator's alias comes back, whoever remembers it, unless it was changed since.
func TestAdopt(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	rack := "uplink to rack 7"
	long := strings.Repeat("x", 250)
	for _, c := range []struct{ name, alias, marked string }{
		{"eth0", "", "vswitch me adopted"},
		{"eth0", rack, "vswitch me adopted: " + rack},
		{"eth0", long, "vswitch me adopted"},
		{"vm0", "", "vswitch me adopted"},
	} {
		ns.Do(func() {
			get := func() link.Link {
				t.Helper()
				l, err := link.ByName(c.name)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			if err := get().SetAlias(c.alias); err != nil {
				t.Fatal(err)
			}
			before, err := owner.Adopt(get(), "me", "", func(string) {})
			if l := get(); err != nil || before != c.alias || l.Alias != c.marked {
				t.Errorf("%q of %s: before %q, alias %q, %v", c.alias, c.name, before, l.Alias, err)
			}
			if err := owner.Check(get(), "you"); err == nil || !strings.Contains(err.Error(), "vswitch --name me del-port "+c.name) {
				t.Errorf("another switch: %v", err)
			}
			if err := owner.Check(get(), "me"); err != nil {
				t.Errorf("the same switch: %v", err)
			}
			if err := owner.Release(get(), "you", ""); err != nil || get().Alias != c.marked {
				t.Errorf("another switch releases: %q, %v", get().Alias, err)
			}
			if before, err := owner.Adopt(get(), "me", before, func(string) {}); err != nil || before != c.alias {
				t.Errorf("again: before %q, %v", before, err)
			}
			if c.alias != long { // a later process may have no record
				if before, err := owner.Adopt(get(), "me", "", func(string) {}); err != nil || before != c.alias || get().Alias != c.marked {
					t.Errorf("again: before %q, alias %q, %v", before, get().Alias, err)
				}
				before = ""
			}
			if err := owner.Release(get(), "me", before); err != nil || get().Alias != c.alias {
				t.Errorf("released: %q, %v", get().Alias, err)
			}
			if err := get().SetAlias("new"); err != nil {
				t.Fatal(err)
			}
			if err := owner.Release(get(), "me", before); err != nil || get().Alias != "new" {
				t.Errorf("an alias of others: %q, %v", get().Alias, err)
			}
		})
	}
}

// Of switches that adopt an interface at the same moment, all of which saw it free, one has it.
func TestAdoptAtOnce(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	for range 50 {
		var l link.Link
		ns.Do(func() {
			ns.Run("ip", "link", "set", "vm0", "alias", "rack 7")
			var err error
			if l, err = link.ByName("vm0"); err != nil {
				t.Fatal(err)
			}
		})
		var wg sync.WaitGroup
		var adopted atomic.Int32
		for i := range 4 {
			wg.Go(func() {
				ns.Do(func() {
					before, err := owner.Adopt(l, fmt.Sprint("sw", i), "", func(string) {})
					switch {
					case err == nil && before == "rack 7":
						adopted.Add(1)
					case err == nil || !strings.Contains(err.Error(), "vm0 belongs to switch sw"):
						t.Errorf("%q, %v", before, err)
					}
				})
			})
		}
		wg.Wait()
		if n := adopted.Load(); n != 1 {
			t.Fatalf("%d switches have the interface", n)
		}
	}
}
