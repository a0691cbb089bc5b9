package daemon

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
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

// foreseen are ports that stand on devices that are there.
type foreseen struct{ *fakeHost }

func (foreseen) Foresee(s port.Spec) port.Trace {
	return port.Trace{Ifname: s.Name, Before: &port.DeviceSettings{MTU: 1234}}
}

// A daemon that is killed while it opens a new port's device, or gives that of a removed port back, leaves the state what
// the next one gives back: the device of a port that is no more and has the switch's mark.
func TestUnfinished(t *testing.T) {
	for _, amid := range []string{"Open", "Delete"} {
		for _, marked := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				l := link.Link{Name: "eth1", MTU: 1500}
				if marked {
					l.Alias = "vswitch sw0 adopted"
				}
				h.put(l)
				run := func(saved store.State) *rig {
					return startWith(t, h, saved, func(o *Options) { o.StateDir, o.Kinds = t.TempDir(), port.Kinds{foreseen{h}} })
				}
				r := run(store.State{})
				r.mustAdd("vm0")
				if amid == "Delete" {
					r.mustAdd("eth1")
				}
				stall := make(chan struct{})
				h.slow = func(call, name string) {
					if call == amid && name == "eth1" {
						<-stall
					}
				}
				ended := make(chan error, 1)
				go func() {
					ended <- r.manager.change(func() (err error) {
						if amid == "Delete" {
							return r.delPort("eth1", true)
						}
						_, err = r.addPort(sent[addPort](t, wanted(spec("eth1"))))
						return err
					})
				}()
				time.Sleep(time.Minute)
				synctest.Wait()
				left := r.disk.state() // of a process that is killed now
				if len(left.Ports) != 1 || len(left.Unfinished) != 1 || left.Unfinished[0].Trace.Before == nil {
					t.Errorf("amid %s, on disk %+v", amid, left)
				}
				close(stall)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				time.Sleep(2 * saveGap)
				if st := r.disk.state(); len(st.Unfinished) != 0 {
					t.Errorf("after %s, on disk %+v", amid, st)
				}
				r.stop()
				h.deleted = nil
				r = run(left)
				time.Sleep(2 * saveGap)
				synctest.Wait()
				if st := r.disk.state(); len(st.Ports) != 1 || len(st.Unfinished) != 0 || slices.Contains(h.deleted, "eth1 created=false") != marked {
					t.Errorf("amid %s, marked %v: given back are %q, on disk %+v", amid, marked, h.deleted, st)
				}
			})
		}
	}
}

// A daemon that is killed while it opens the device of a port that has waited for it leaves the state what the device was
// before, for the next one. What a device without the switch's mark was does not count: it was not changed.
func TestForeseen(t *testing.T) {
	for _, marked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.makes = false
			run := func(saved store.State) *rig {
				return startWith(t, h, saved, func(o *Options) { o.StateDir, o.Kinds = t.TempDir(), port.Kinds{foreseen{h}} })
			}
			r := run(store.State{Ports: []store.Port{{Spec: saved(spec("eth1"))}}})
			stall := make(chan struct{})
			h.slow = func(call, _ string) {
				if call == "Open" {
					<-stall
				}
			}
			l := h.put(link.Link{Name: "eth1", MTU: 1500})
			time.Sleep(time.Minute)
			synctest.Wait()
			left := r.disk.state() // of a process that is killed now
			if len(left.Ports) != 1 || len(left.Unfinished) != 1 || left.Unfinished[0].Trace.Before == nil {
				t.Errorf("amid the opening, on disk %+v", left)
			}
			close(stall)
			time.Sleep(2 * saveGap)
			synctest.Wait()
			if st := r.disk.state(); len(st.Unfinished) != 0 || len(st.Ports) != 1 || st.Ports[0].Trace.Before == nil {
				t.Errorf("after the opening, on disk %+v", st)
			}
			r.stop()

			l.MTU = 1400
			if marked {
				l.Alias = "vswitch sw0 adopted"
			}
			h.locked(func() { h.links[l.Index] = l })
			r = run(left)
			time.Sleep(2 * saveGap)
			synctest.Wait()
			want := 1400
			if marked {
				want = 1234
			}
			if st := r.disk.state(); len(st.Unfinished) != 0 || len(st.Ports) != 1 || st.Ports[0].Trace.Before == nil || st.Ports[0].Trace.Before.MTU != want {
				t.Errorf("marked %v: after the next start, on disk %+v, log:\n%v", marked, st, r.lines)
			}
		})
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
