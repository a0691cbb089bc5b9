package daemon

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
)

// someDevices are devices that the switch made, and one of another kind that has its mark.
var someDevices = []link.Link{
	{Name: "vm0", Kind: "tap"}, {Name: "held0", Kind: "tap", Carrier: true}, {Name: "left0", Kind: "tap"}, {Name: "up0", Kind: "vxlan"},
	{Name: "c0", Kind: "veth", Carrier: true}, {Name: "half0", Kind: "veth"}, {Name: "odd0", Kind: "dummy"},
}

// Of the devices that a killed daemon made, those of ports stay, and those that a machine or a container uses. None
// goes while another daemon of the name runs, nor where the ports are not known.
func TestOrphans(t *testing.T) {
	for _, c := range []struct {
		name  string
		dir   string
		other error
		want  []string
	}{
		{"killed", "/state", nil, []string{"c0", "held0", "odd0", "vm0"}},
		{"another daemon", "/state", errors.New("another switch"), names(someDevices)},
		{"no state", "", nil, names(someDevices)},
	} {
		synctest.Test(t, func(t *testing.T) {
			host := withDevices(c.other)
			r := startWith(t, host, store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}}}, func(o *Options) { o.StateDir = c.dir })
			<-r.restored
			if left := host.left(); !slices.Equal(left, c.want) {
				t.Errorf("%s: left are %v, want %v", c.name, left, c.want)
			}
		})
	}
}

// Of a switch that does not run, all goes that it made, but for what a machine holds; of one that runs nothing.
func TestRemoveDevices(t *testing.T) {
	for _, c := range []struct {
		other error
		want  []string
	}{
		{nil, []string{"held0", "odd0"}},
		{errors.New("another switch"), names(someDevices)},
	} {
		host := withDevices(c.other)
		if err := RemoveDevices(host, "sw0", slog.New(slog.DiscardHandler)); !errors.Is(err, c.other) {
			t.Errorf("%v, want %v", err, c.other)
		}
		if left := host.left(); !slices.Equal(left, c.want) {
			t.Errorf("left are %v, want %v", left, c.want)
		}
	}
}

func withDevices(other error) *fakeHost {
	host := newFakeHost()
	host.other = other
	for i, l := range someDevices {
		l.Index, l.Alias = 100+i, "vswitch sw0"
		host.links[l.Index] = l
	}
	return host
}

func (h *fakeHost) left() []string {
	made, _ := h.Made("sw0")
	return names(made)
}

func names(links []link.Link) (all []string) {
	for _, l := range links {
		all = append(all, l.Name)
	}
	slices.Sort(all)
	return all
}
