package daemon

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
)

// Of the devices that a killed daemon made, those of ports stay, and those that a machine holds. None goes
// while another daemon of the name runs, nor where the ports are not known.
func TestOrphans(t *testing.T) {
	for _, c := range []struct {
		name  string
		dir   string
		other error
		want  []string
	}{
		{"killed", "/state", nil, []string{"vm0", "held0", "c0"}},
		{"another daemon", "/state", errors.New("another switch"), []string{"vm0", "held0", "c0", "left0", "up0"}},
		{"no state", "", nil, []string{"vm0", "held0", "c0", "left0", "up0"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			host := newFakeHost()
			host.other = c.other
			for i, l := range []link.Link{{Name: "vm0", Kind: "tap"}, {Name: "held0", Kind: "tap", Carrier: true}, {Name: "c0", Kind: "veth"}, {Name: "left0", Kind: "tap"}, {Name: "up0", Kind: "vxlan"}} {
				l.Index, l.Alias = 100+i, "vswitch sw0"
				host.links[l.Index] = l
			}
			r := startWith(t, host, store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}}}, func(o *Options) { o.StateDir = c.dir })
			<-r.restored
			left := make(map[string]bool)
			made, _ := host.Made("sw0")
			for _, l := range made {
				left[l.Name] = true
			}
			for _, name := range c.want {
				if !left[name] {
					t.Errorf("%s: %s is gone", c.name, name)
				}
				delete(left, name)
			}
			if len(left) > 0 {
				t.Errorf("%s: left are %v", c.name, left)
			}
		})
	}
}
