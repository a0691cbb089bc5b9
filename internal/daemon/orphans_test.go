package daemon

import (
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
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

// stuckDevices are devices that cannot be removed.
type stuckDevices struct {
	*fakeHost
	err error
}

func (h stuckDevices) Remove(link.Link) error { return h.err }

// It is an error if a device cannot be removed, unless it is gone.
func TestRemoveStuckDevices(t *testing.T) {
	stuck := errors.New("the device is stuck")
	for _, c := range []struct{ err, want error }{{stuck, stuck}, {link.ErrNotFound, nil}} {
		var log testenv.Log
		err := RemoveDevices(stuckDevices{withDevices(nil), c.err}, "sw0", slog.New(slog.NewTextHandler(&log, nil)))
		if !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
		if n := strings.Count(log.String(), "a device is not removed"); (n > 0) != (c.want != nil) || strings.Contains(log.String(), "a device is removed") {
			t.Errorf("%v: the log is\n%s", c.err, log.String())
		}
		if n := strings.Count(log.String(), "a device stays"); n != 2 {
			t.Errorf("%v: %d devices stay for others", c.err, n)
		}
	}
}

// intending are ports that stand on devices that are there, and change them.
type intending struct{ *fakeHost }

func (k intending) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	t := *trace
	var l link.Link
	var err error
	k.locked(func() { l, err = k.byName(s.Name) })
	if err == nil && t.Before == nil {
		t.Ifname, t.Before = s.Name, &port.DeviceSettings{MTU: l.MTU}
		t.Intend()
	}
	k.wait("change", s.Name)
	p, err := k.fakeHost.Open(s, &t)
	if err == nil {
		*trace = t
	}
	return p, err
}

// tracedPort knows by itself what its deletion must undo.
type tracedPort struct {
	*fakePort
	trace port.Trace
}

func (p tracedPort) Trace() port.Trace { return p.trace }

// A daemon that is killed between a change of the host and the write of the state that tells of it leaves the next one
// what to put back, or to take back: the device of a port that is no more, what the device of a waiting port was before,
// and settings that are not in the state.
func TestKilledAmid(t *testing.T) {
	eth1 := []store.Port{{Spec: saved(spec("eth1"))}}
	for _, c := range []struct {
		amid   string
		state  []store.Port // before
		change func(r *rig) error
		want   []string // what the next start does
		before int      // the former MTU that the next start knows of a port that is there
		member string   // of the port, which the port tells once it is open
	}{
		{"change", nil, func(r *rig) error { _, err := r.addPort(sent[addPort](r.t, wanted(spec("eth1")))); return err },
			[]string{"eth1 created=false"}, 0, ""},
		{"Delete", eth1, func(r *rig) error { return r.delPort("eth1", true) },
			[]string{"eth1 created=false"}, 0, ""},
		{"change", eth1, nil, nil, 1500, ""},
		{"Set", eth1, func(r *rig) error {
			_, err := r.setPort("eth1", sent[setting.Patch](r.t, api.Settings{"mtu": 1400}))
			return err
		},
			[]string{"mtu 1400 to 0"}, 1500, "m0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.makes = false
			dir := t.TempDir()
			run := func(saved store.State) *rig {
				return startWith(t, h, saved, func(o *Options) { o.StateDir, o.Kinds = dir, port.Kinds{intending{h}} })
			}
			if c.change != nil {
				h.put(link.Link{Name: "eth1", MTU: 1500})
			}
			r := run(store.State{Ports: c.state})
			time.Sleep(2 * saveGap)
			stall := make(chan struct{})
			h.locked(func() {
				h.slow = func(call, _ string) {
					if call == c.amid {
						<-stall
					}
				}
			})
			ended := make(chan error, 1)
			if c.change == nil {
				h.put(link.Link{Name: "eth1", MTU: 1500})
				ended <- nil
			} else {
				go func() { ended <- r.manager.change(func() error { return c.change(r) }) }()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			left, journal := r.disk.state(), copyOf(t, dir) // of a process that is killed now
			close(stall)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			time.Sleep(2 * saveGap)
			synctest.Wait()
			if all := r.journal.Entries(); len(all) != 0 {
				t.Errorf("%s: when all is done, the journal has %+v", c.amid, all)
			}
			r.stop()

			dir = journal
			h.locked(func() {
				h.deleted, h.sets, h.opened = nil, nil, nil
				if c.member != "" {
					h.wrap = func(p *fakePort) port.Port {
						return &tracedPort{p, port.Trace{Before: &port.DeviceSettings{MTU: 1500}, Members: &[]port.Trace{{Ifname: c.member}}}}
					}
				}
				for i, l := range h.links {
					l.MTU = 1400
					h.links[i] = l
				}
			})
			r = run(left)
			time.Sleep(2 * saveGap)
			synctest.Wait()
			if got := slices.Concat(h.deleted, h.sets); !slices.Equal(got, c.want) {
				t.Errorf("%s: the next start does %q, want %q; log:\n%v", c.amid, got, c.want, r.lines)
			}
			st := r.disk.state()
			if before := 0; len(st.Ports) > 0 && st.Ports[0].Trace.Before != nil {
				if before = st.Ports[0].Trace.Before.MTU; before != c.before {
					t.Errorf("%s: the next start knows MTU %d, want %d", c.amid, before, c.before)
				}
			} else if c.before != 0 {
				t.Errorf("%s: the next start leaves %+v", c.amid, st.Ports)
			}
			if c.member != "" && (st.Ports[0].Trace.Members == nil || (*st.Ports[0].Trace.Members)[0].Ifname != c.member) {
				t.Errorf("%s: the next start knows no member %s", c.amid, c.member)
			}
			if all := r.journal.Entries(); len(all) != 0 {
				t.Errorf("%s: after the next start, the journal has %+v", c.amid, all)
			}
		})
	}
}

// journalOf returns the directory of a state whose journal has entries.
func journalOf(t *testing.T, entries ...store.Port) string {
	dir := t.TempDir()
	j := store.OpenJournal(dir)
	for _, e := range entries {
		j.Note(e)
	}
	return dir
}

// What a former daemon had begun with ports that are not in the state is undone and forgotten, but not where another daemon of
// the name runs. What cannot be undone is told. A daemon that finds nothing claims nothing.
func TestJournalOfPortsThatAreNoMore(t *testing.T) {
	gone := store.Port{Spec: saved(spec("gone"))}
	odd := store.Port{Spec: store.Spec{Name: "odd", Kind: "odd"}}
	stuck := errors.New("the device is stuck")
	const notBack = `msg="the device of a port that is no more is not put back" port=`
	for _, c := range []struct {
		name          string
		begun         []store.Port
		other, delErr error
		deleted       []string
		left          int
		told          string
	}{
		{"nothing", nil, nil, nil, nil, 0, ""},
		{"a port", []store.Port{gone}, nil, nil, []string{"gone created=false"}, 0, ""},
		{"a stuck port", []store.Port{gone}, nil, stuck, []string{"gone created=false"}, 0, notBack + `gone error="the device is stuck"`},
		{"another kind", []store.Port{odd}, nil, nil, nil, 0, notBack + `odd error="this vswitch does not have the kind \"odd\""`},
		{"another daemon", []store.Port{gone, odd}, errors.New("another switch"), nil, nil, 2, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.other, h.delErr = c.other, c.delErr
			r := startWith(t, h, store.State{}, func(o *Options) { o.StateDir = journalOf(t, c.begun...) })
			if !slices.Equal(h.deleted, c.deleted) || len(r.journal.Entries()) != c.left {
				t.Errorf("%s: deleted are %q, the journal has %+v", c.name, h.deleted, r.journal.Entries())
			}
			if log := r.lines.String(); strings.Contains(log, notBack) != (c.told != "") || !strings.Contains(log, c.told) {
				t.Errorf("%s: the log is\n%s", c.name, log)
			}
			if (h.claims > 0) != (c.begun != nil) {
				t.Errorf("%s: the name is claimed %d times", c.name, h.claims)
			}
		})
	}
}

// A port that cannot be opened enters nothing in the journal, and leaves what a former daemon had begun with it.
func TestJournalOfAPortThatWaits(t *testing.T) {
	was := store.Port{Spec: saved(spec("vm0")), Trace: port.Trace{Ifname: "vm0", Before: &port.DeviceSettings{MTU: 1300}, IfMarked: true}}
	was.Spec.Settings = setting.Patch{"mtu": []byte("1400")}
	for _, begun := range [][]store.Port{nil, {was}} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.openErr = errors.New("no such device")
			r := startWith(t, h, store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}}}, func(o *Options) { o.StateDir = journalOf(t, begun...) })
			if got := r.journal.Entries(); !reflect.DeepEqual(got, begun) {
				t.Errorf("the journal has %+v, want %+v", got, begun)
			}
		})
	}
}

// copyOf copies the state directory of a daemon.
func copyOf(t *testing.T, dir string) string {
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
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
