package daemon

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/port"
)

// keepingService is a service manager that notes what it is to keep, and to forget.
type keepingService struct {
	noService
	t     *testing.T
	mu    sync.Mutex
	calls []string
}

func (k *keepingService) note(call string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, call)
}

func (k *keepingService) Store(name string, fd int) {
	var is kept
	files, err := handover.Unpack(fd, &is)
	if err != nil || is.Format != keptFormat || is.Kind != "fake" || len(files) != 1 {
		k.t.Errorf("%s: kept is %+v with %d files, %v", name, is, len(files), err)
	}
	handover.Close(files)
	k.note("store " + name + " " + string(is.Data))
}

func (k *keepingService) Remove(name string) { k.note("remove " + name) }

// heard returns the calls since it was last asked, in the order of their words.
func (k *keepingService) heard() []string {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	calls := k.calls
	k.calls = nil
	slices.Sort(calls)
	return calls
}

// lastingPort is a fakePort that another process can go on with, if there is anything to give.
type lastingPort struct {
	*fakePort
	t     *testing.T
	data  string
	given map[int]uint64 // the files that it gave, and their inodes
}

func (p lastingPort) Pause()  {}
func (p lastingPort) Resume() {}
func (p lastingPort) Give(paused bool) (*port.Parcel, error) {
	switch {
	case paused:
		p.t.Error("a port that goes on is asked for what one that is paused has")
	case p.data == "":
		return nil, nil
	case p.data == "fails":
		return nil, errors.New("it cannot be told")
	}
	fd := memfd(p.t)
	p.given[fd] = inode(fd)
	return &port.Parcel{Format: 7, Data: []byte(p.data), Files: []int{fd}}, nil
}

func memfd(t *testing.T) int {
	t.Helper()
	fd, err := unix.MemfdCreate("kept", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// inode tells one open file from another that has its descriptor later; 0: none is open.
func inode(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// What a service manager has kept of a port goes to that port, once. It forgets the rest, no file
// stays open, and a port that cannot go on is opened anew.
func TestStoredFilesGoToTheirPorts(t *testing.T) {
	names := []string{"vm0", "vm1", "format", "kind", "empty"}
	var st store.State
	for _, name := range names {
		st.Ports = append(st.Ports, store.Port{Spec: saved(spec(name))})
	}
	for name, fails := range map[string]error{"it goes on": nil, "it cannot": errors.New("it cannot go on")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inodes := map[uint64]bool{} // of all files
				pack := func(is kept) int {
					file := memfd(t)
					defer unix.Close(file)
					fd, err := handover.Pack(is, file)
					if err != nil {
						t.Fatal(err)
					}
					inodes[inode(file)] = true
					return fd
				}
				all := []Stored{
					{"port-vm0", pack(kept{keptFormat, "fake", 7, []byte("vm0")})},
					{"port-vm0", pack(kept{keptFormat, "fake", 7, []byte("again")})},
					{"port-format", pack(kept{keptFormat + 1, "fake", 7, nil})},
					{"port-kind", pack(kept{keptFormat, "tap", 7, nil})},
					{"port-empty", memfd(t)},
					{"port-gone", pack(kept{keptFormat, "fake", 7, nil})},
					{"vm1", pack(kept{keptFormat, "fake", 7, nil})},
				}
				for _, s := range all {
					inodes[inode(s.FD)] = true
				}
				h := &takingHost{fakeHost: newFakeHost(), took: make(map[string]port.Parcel), open: make(map[string]int), err: fails}
				k := &keepingService{t: t}
				r := startWith(t, h.fakeHost, st, func(o *Options) { o.Kinds, o.Service, o.Stored = port.Kinds{h}, k, all })
				r.begin(Options{})
				if p := h.took["vm0"]; !slices.Equal(h.taken(), []string{"vm0"}) || p.Format != 7 || string(p.Data) != "vm0" || h.open["vm0"] != 1 {
					t.Errorf("taken are %v, vm0 of %+v with %d files", h.taken(), p, h.open["vm0"])
				}
				for _, s := range all {
					if inodes[inode(s.FD)] {
						t.Errorf("the file of %s is still open", s.Name)
					}
				}
				if err := r.do(func() error {
					if !r.ports["vm0"].trace.Created {
						t.Error("it is not known that the switch made the device of vm0")
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				for _, fd := range h.took["vm0"].Files {
					if inodes[inode(fd)] {
						t.Error("a file of the port is still open")
					}
				}
				for _, name := range names {
					r.wantState(name, api.StateNoCarrier) // it is open
				}
				want := []string{"remove port-empty", "remove port-format", "remove port-gone", "remove port-kind", "remove port-vm0", "remove vm1"}
				if got := k.heard(); !slices.Equal(got, want) {
					t.Errorf("the service manager hears %q, want %q", got, want)
				}
			})
		})
	}
}

// The service manager keeps what a port gives once it is open, and forgets it with the port.
func TestPortsAreKept(t *testing.T) {
	for data, want := range map[string][]string{
		"":      nil,
		"fails": {"remove port-vm0"},
		"x":     {"store port-vm0 x"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &takingHost{fakeHost: newFakeHost(), took: make(map[string]port.Parcel), open: make(map[string]int)}
			given := make(map[int]uint64)
			h.wrap = func(p *fakePort) port.Port { return &lastingPort{p, t, data, given} }
			k := &keepingService{t: t}
			r := startWith(t, h.fakeHost, store.State{}, func(o *Options) { o.Kinds, o.Service = port.Kinds{h}, k })
			r.begin(Options{})
			r.mustAdd("vm0")
			if got := k.heard(); !slices.Equal(got, want) {
				t.Errorf("%q: the service manager hears %q, want %q", data, got, want)
			}
			for fd, is := range given {
				if inode(fd) == is {
					t.Errorf("%q: a file that the port gave is still open", data)
				}
			}
			if err := r.call("DELETE", "/v1/ports/vm0", nil, nil); err != nil {
				t.Fatal(err)
			}
			if got := k.heard(); !slices.Contains(got, "remove port-vm0") || strings.Contains(strings.Join(got, " "), "store") {
				t.Errorf("%q: of a port that is deleted it hears %q", data, got)
			}
		})
	}
}

// Nobody asks a port what a next process needs where no service manager keeps it, nor before the former process has ended, which the
// service manager hears.
func TestPortsAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &takingHost{fakeHost: newFakeHost(), took: make(map[string]port.Parcel), open: make(map[string]int)}
		given := make(map[int]uint64)
		h.wrap = func(p *fakePort) port.Port { return &lastingPort{p, t, "x", given} }
		r := startWith(t, h.fakeHost, store.State{}, func(o *Options) { o.Kinds = port.Kinds{h} })
		r.begin(Options{})
		r.mustAdd("vm0")
		if len(given) > 0 {
			t.Error("a port is asked though there is no service manager")
		}
		k := &keepingService{t: t}
		if err := r.do(func() error {
			r.service, r.former = k, new(former)
			r.keep(r.ports["vm0"])
			r.unkeep(r.ports["vm0"])
			r.former = nil
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := k.heard(); len(got) > 0 || len(given) > 0 {
			t.Errorf("while the former process runs, the service manager hears %q", got)
		}
	})
}

// changingPort is a lastingPort that says when what it gives has changed.
type changingPort struct {
	lastingPort
	now     atomic.Pointer[string]
	changed chan struct{}
}

func (p *changingPort) Last() (*port.Parcel, error) {
	last := p.lastingPort
	last.data = *p.now.Load()
	return last.Give(false)
}

func (p *changingPort) LastChanged() <-chan struct{} { return p.changed }

// What is kept of a port is what it last had.
func TestWhatIsKeptChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &takingHost{fakeHost: newFakeHost(), took: make(map[string]port.Parcel), open: make(map[string]int)}
		p := &changingPort{changed: make(chan struct{}, 1)}
		set := func(data string) { p.now.Store(&data) }
		set("first")
		h.wrap = func(f *fakePort) port.Port {
			p.lastingPort = lastingPort{fakePort: f, t: t, given: make(map[int]uint64)}
			return p
		}
		k := &keepingService{t: t}
		r := startWith(t, h.fakeHost, store.State{}, func(o *Options) { o.Kinds, o.Service = port.Kinds{h}, k })
		r.begin(Options{})
		r.mustAdd("vm0")
		if got := k.heard(); !slices.Equal(got, []string{"store port-vm0 first"}) {
			t.Errorf("the service manager hears %q", got)
		}
		for data, want := range map[string]string{"second": "store port-vm0 second", "fails": "remove port-vm0"} {
			set(data)
			p.changed <- struct{}{}
			if got := k.heard(); !slices.Contains(got, want) {
				t.Errorf("%s: the service manager hears %q", data, got)
			}
		}
	})
}
