package fastpath

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/hoststack/hoststacktest"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// process is what one process of a switch has of the kernel.
type process struct {
	*rig
	links []io.Closer
}

// host is a namespace with TAPs vm0 and vm1, in which processes of one switch, which
// has the name of the namespace, follow one another.
type host struct {
	t    *testing.T
	ns   *testenv.Netns
	taps []int // their numbers
	log  *slog.Logger
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, ns: testenv.NewNetns(t), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for n := range 2 {
		name := "vm" + strconv.Itoa(n)
		h.ns.Run("ip", "tuntap", "add", "dev", name, "mode", "tap")
		h.taps = append(h.taps, (&rig{t: t, ns: h.ns}).ifindex(name))
	}
	t.Cleanup(func() {
		h.ns.Do(func() {
			if err := Cleanup(h.ns.Name); err != nil {
				t.Error(err)
			}
		})
	})
	return h
}

func (h *host) options() Options {
	return Options{Name: h.ns.Name, Pin: true, Capacity: 1024, Log: h.log}
}

// open is a process that opens a Path and attaches to devices, as port number 0, 1 and
// so on. It ends with the test, unless it does before.
func (h *host) open(taps ...int) *process {
	h.t.Helper()
	p := &process{rig: &rig{t: h.t, ns: h.ns}}
	h.ns.Do(func() {
		var err error
		if p.path, err = Open(h.options()); err != nil {
			h.t.Fatal(err)
		}
		for n, ifindex := range taps {
			l, err := p.path.Attach(ifindex)
			if err != nil {
				h.t.Fatal(err)
			}
			p.links = append(p.links, l)
			p.ports = append(p.ports, vswitch.FastPort{
				Number: uint16(n), Device: device{ifindex, true}, From: true, To: true, PVID: 1, Native: 1, VLANs: vlans(1),
			})
		}
	})
	h.t.Cleanup(p.end)
	p.table = fdb.New(fdb.Config{Capacity: 1024, Aging: -1, Observer: p.path})
	p.path.Bind(p.table)
	p.publish(p.ports)
	return p
}

// end is what a process does that stops.
func (p *process) end() {
	p.path.Stop()
	for _, l := range p.links {
		if err := l.Close(); err != nil {
			p.t.Error(err)
		}
	}
	p.links = nil
	if p.path.failed.Load() {
		p.t.Error("the kernel refused something; see the log")
	}
}

// at tells behind which port of a process a station is, -1 for none.
func (p *process) at(mac uint64) int {
	if e, ok := p.table.Get(fdb.MakeKey(1, mac)); ok {
		return int(e.Port)
	}
	return -1
}

// pinned lists what the switch has in the file system, with the version's folder as v.
func (h *host) pinned() (names []string) {
	h.t.Helper()
	var dir string
	h.ns.Do(func() {
		var err error
		if dir, err = pinDir(h.ns.Name); err != nil {
			h.t.Fatal(err)
		}
	})
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, strings.Replace(name, version(), "v", 1))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// tables are the names of all tables, and of the program that each process needs.
var tables = func() (names []string) {
	spec, err := loadBpf()
	if err != nil {
		panic(err)
	}
	for name := range spec.Maps {
		names = append(names, "v/"+name)
	}
	return append(names, "v/"+programPrefix+"vswitch")
}()

// wantPinned checks that the tables are pinned, the program that each process needs, and the links of these devices.
func (h *host) wantPinned(taps ...int) {
	h.t.Helper()
	want := slices.Clone(tables)
	for _, ifindex := range taps {
		want = append(want, "v/link-"+strconv.Itoa(ifindex))
	}
	slices.Sort(want)
	got := slices.DeleteFunc(h.pinned(), func(name string) bool {
		return strings.HasPrefix(name, "v/"+programPrefix) && name != "v/"+programPrefix+"vswitch"
	})
	if !slices.Equal(got, want) {
		h.t.Errorf("pinned are %v, want %v", got, want)
	}
}

// Known traffic goes on without a process, and the next one learns of it, whatever
// numbers its ports have.
func TestTakeOver(t *testing.T) {
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	first.learn(1, macA, 0)
	first.learn(1, macB, 1)
	first.end()
	h.wantPinned(h.taps...)

	second := h.open(h.taps[1], h.taps[0])
	if d := second.send(1, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("before Start a known flow gets %d", d)
	}
	if at := second.at(uint64(macA)); at != -1 {
		t.Errorf("A is learned behind port %d before Start", at)
	}
	second.start()
	if a, b := second.at(uint64(macA)), second.at(uint64(macB)); a != 1 || b != 0 {
		t.Errorf("A is behind port %d, B behind port %d; want 1, 0", a, b)
	}
	if d := second.send(1, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("a known flow gets %d", d)
	}
	second.end()

	// A port that is not there any more is forgotten with its stations.
	third := h.open(h.taps[0])
	third.start()
	h.wantPinned(h.taps[0])
	if a, b := third.at(uint64(macA)), third.at(uint64(macB)); a != 0 || b != -1 {
		t.Errorf("A is behind port %d, B behind port %d; want 0, -1", a, b)
	}
	if d := third.send(0, frame(macB, macA, frameLen)); d != tcxPass {
		t.Errorf("a frame to a station that went with its port gets %d", d)
	}
}

// A program that somebody detached is put back, and is the one that the next process takes over.
func TestDetached(t *testing.T) {
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	check := func(what string, want ...string) {
		t.Helper()
		for i, ifindex := range h.taps {
			if got := hoststacktest.Names(t, ifindex); len(got) != 1 || got[0] != want[i] {
				t.Errorf("%s tap %d has %v, want %s", what, i, got, want[i])
			}
		}
		h.wantPinned(h.taps...)
	}
	renew := func(p *process) {
		t.Helper()
		for _, l := range p.links {
			if err := l.(hoststack.Program).Renew(); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.ns.Do(func() {
		renew(first)
		check("untouched,", "vswitch", "vswitch")
		hoststacktest.Detach(t, h.taps[0])
		renew(first)
		check("renewed,", "vswitch", "vswitch")
		// It is what the port has by then.
		if err := first.path.SetShared(first.links[0], true); err != nil {
			t.Fatal(err)
		}
		hoststacktest.Detach(t, h.taps[0])
		renew(first)
		check("renewed,", "vswitch_shared", "vswitch")
		first.end()
		second := h.open(h.taps...)
		second.start()
		check("taken over,", "vswitch", "vswitch")
		hoststacktest.Detach(t, h.taps[1])
		renew(second)
		check("renewed,", "vswitch", "vswitch")
	})
}

// What somebody removed of the pins is made anew, is what the next process takes over, and is told of
// once.
func TestPinsRemoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		remove func(h *host, dir, own string) error
		told   int
	}{
		"the folder":     {func(_ *host, dir, _ string) error { return os.RemoveAll(dir) }, 1},
		"its contents":   {func(_ *host, _, own string) error { return os.RemoveAll(own) }, 1},
		"the pin of one": {func(h *host, _, own string) error { return os.Remove(filepath.Join(own, linkName(h.taps[0], ""))) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			var told bytes.Buffer
			h.log = slog.New(slog.NewTextHandler(&told, nil))
			var dir string
			h.ns.Do(func() {
				var err error
				if dir, err = pinDir(h.ns.Name); err != nil {
					t.Fatal(err)
				}
			})
			first := h.open(h.taps[0])
			first.start()
			first.learn(1, macA, 0)
			if err := c.remove(h, dir, filepath.Join(dir, version())); err != nil {
				t.Fatal(err)
			}
			h.ns.Do(func() {
				for range 2 {
					for _, l := range first.links {
						if err := l.(hoststack.Program).Renew(); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
			h.wantPinned(h.taps[0])
			if got := strings.Count(told.String(), "\n"); got != c.told {
				t.Errorf("it is told of in %d lines, want %d: %s", got, c.told, &told)
			}
			if !first.path.Pinned() {
				t.Error("nothing is pinned, it says")
			}
			// A switch of the same name is kept away, and nothing of this is removed.
			h.ns.Do(func() {
				if err := Cleanup(h.ns.Name); !errors.Is(err, ErrInUse) {
					t.Errorf("cleaning up gets %v, want ErrInUse", err)
				}
			})
			first.end()
			second := h.open(h.taps[0])
			second.start()
			if at := second.at(uint64(macA)); at != 0 {
				t.Errorf("A is behind port %d, want 0", at)
			}
		})
	}
}

// A device that comes while the pins are gone has its program, and its pin.
func TestPinsRemovedBeforeAttach(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := h.open()
	first.start()
	h.ns.Do(func() {
		dir, err := pinDir(h.ns.Name)
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		l, err := first.path.Attach(h.taps[0])
		if err != nil {
			t.Fatal(err)
		}
		first.links = append(first.links, l)
	})
	h.wantPinned(h.taps[0])
}

// The programs of an earlier process are used as they are, as long as they are of the tables that are there.
func TestTakeOverPrograms(t *testing.T) {
	h := newHost(t)
	// run runs a process that forwards, and returns the number of its program and that program.
	run := func() (ebpf.ProgramID, *ebpf.Program) {
		t.Helper()
		p := h.open(h.taps...)
		p.start()
		if p.at(uint64(macA)) < 0 {
			p.learn(1, macA, 0)
			p.learn(1, macB, 1)
		}
		if d := p.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
			t.Errorf("a known flow gets %d", d)
		}
		kept, err := program(t, p.path, "vswitch").Clone()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { kept.Close() })
		p.end()
		h.wantPinned(h.taps...)
		return programID(t, kept), kept
	}
	var dir string
	h.ns.Do(func() {
		var err error
		if dir, err = pinDir(h.ns.Name); err != nil {
			t.Fatal(err)
		}
	})
	own := filepath.Join(dir, version())
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(own, name)); err != nil {
			t.Fatal(err)
		}
	}
	first, program := run()
	if second, _ := run(); second != first {
		t.Errorf("the next process runs program %d, not %d", second, first)
	}
	remove(programPrefix + "vswitch")
	third, _ := run()
	if third == first {
		t.Error("a program is used whose pin is gone")
	}
	if fourth, _ := run(); fourth != third {
		t.Errorf("after that, the next process runs program %d, not %d", fourth, third)
	}
	remove("epochs")
	if fifth, _ := run(); fifth == third {
		t.Error("the tables are new, and the programs are not")
	}
	remove(programPrefix + "vswitch")
	if err := program.Pin(filepath.Join(own, programPrefix+"vswitch")); err != nil {
		t.Fatal(err)
	}
	if sixth, _ := run(); sixth == first {
		t.Error("a program of other tables is used")
	}
}

func programID(t *testing.T, program *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

// A process loads what it uses, and the next one uses that; one that has ended loads nothing.
func TestProgramsInUse(t *testing.T) {
	h := newHost(t)
	run := func(use func(*Path)) *Path {
		p := h.open(h.taps...)
		p.start()
		use(p.path)
		p.end()
		return p.path
	}
	var first, second ebpf.ProgramID
	run(func(*Path) {})
	h.wantPinned(h.taps...)
	run(func(p *Path) {
		h.ns.Do(func() { p.Explain(0, frame(macB, macA, frameLen)) })
		first = programID(t, program(t, p, "explain"))
	})
	if !slices.Contains(h.pinned(), "v/"+programPrefix+"explain") {
		t.Error("a program is not pinned that was used")
	}
	ended := run(func(p *Path) { second = programID(t, program(t, p, "explain")) })
	if second != first {
		t.Errorf("the next process uses program %d, not %d", second, first)
	}
	if _, err := ended.programs.get("vswitch_shared"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a process that has ended loads a program: %v", err)
	}
}

// A port whose device has no program is taken over with its stations, too.
func TestTakeOverWithoutProgram(t *testing.T) {
	h := newHost(t)
	open := func() *process {
		p := h.open(h.taps[0])
		p.ports = append(p.ports, vswitch.FastPort{
			Number: 1, Device: device{h.taps[1], false}, To: true, PVID: 1, Native: 1, VLANs: vlans(1),
		})
		p.publish(p.ports)
		p.start()
		return p
	}
	first := open()
	first.learn(1, macA, 0)
	first.learn(1, macB, 1)
	first.end()
	second := open()
	h.wantPinned(h.taps[0])
	if a, b := second.at(uint64(macA)), second.at(uint64(macB)); a != 0 || b != 1 {
		t.Errorf("A is behind port %d, B behind port %d; want 0, 1", a, b)
	}
	if d := second.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("a known flow gets %d", d)
	}
}

// What changed while a process restarted counts: a port in another VLAN knows none of
// its stations.
func TestTakeOverOtherSettings(t *testing.T) {
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	first.learn(1, macA, 0)
	first.learn(1, macB, 1)
	first.end()

	second := h.open(h.taps...)
	second.ports[1].PVID, second.ports[1].Native, second.ports[1].VLANs = 2, 2, vlans(2)
	second.publish(second.ports)
	second.start()
	if a, b := second.at(uint64(macA)), second.at(uint64(macB)); a != 0 || b != -1 {
		t.Errorf("A is behind port %d, B behind port %d; want 0, -1", a, b)
	}
	if d := second.send(0, frame(macB, macA, frameLen)); d != tcxPass {
		t.Errorf("a frame into a VLAN that its destination left gets %d", d)
	}
}

// Tables of another version are of no use; its programs are replaced at the devices.
func TestTakeOverOtherVersion(t *testing.T) {
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	first.learn(1, macA, 0)
	first.end()
	own := first.path.pins.own
	other := filepath.Join(filepath.Dir(own), "0123456789abcdef")
	if err := os.Rename(own, other); err != nil {
		t.Fatal(err)
	}

	second := h.open(h.taps...)
	second.start()
	h.wantPinned(h.taps...)
	if at := second.at(uint64(macA)); at != -1 {
		t.Errorf("A is behind port %d, by another version's tables", at)
	}
	second.learn(1, macA, 0)
	second.learn(1, macB, 1)
	if d := second.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("a known flow gets %d", d)
	}
}

// Where a table is missing the others are of no use.
func TestTakeOverInPart(t *testing.T) {
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	first.learn(1, macA, 0)
	first.end()
	if err := os.Remove(filepath.Join(first.path.pins.own, "stations")); err != nil {
		t.Fatal(err)
	}
	second := h.open(h.taps...)
	second.start()
	h.wantPinned(h.taps...)
	if at := second.at(uint64(macA)); at != -1 {
		t.Errorf("A is behind port %d", at)
	}
}

// Two processes never share the tables, and each namespace has its own.
func TestInUse(t *testing.T) {
	h := newHost(t)
	h.open(h.taps...).start()
	h.ns.Do(func() {
		if _, err := Open(h.options()); !errors.Is(err, ErrInUse) {
			t.Errorf("a second process: %v", err)
		}
		if err := Cleanup(h.ns.Name); !errors.Is(err, ErrInUse) {
			t.Errorf("cleaning up under a process: %v", err)
		}
	})
	h.wantPinned(h.taps...)
	elsewhere := newHost(t)
	elsewhere.ns.Do(func() {
		p, err := Open(h.options())
		if err != nil {
			t.Fatal(err)
		}
		p.close()
		if err := Cleanup(h.ns.Name); err != nil {
			t.Error(err)
		}
	})
	h.wantPinned(h.taps...)
}

// Cleanup leaves nothing, and that there is nothing is no error. A device that was
// taken off, or is gone, leaves nothing either.
func TestNothingStays(t *testing.T) {
	h := newHost(t)
	p := h.open(h.taps...)
	p.start()
	if err := p.path.Detach(h.taps[0]); err != nil {
		t.Error(err)
	}
	h.wantPinned(h.taps[1])
	if err := p.path.Detach(h.taps[0]); err != nil {
		t.Errorf("detaching again: %v", err)
	}
	h.ns.Run("ip", "link", "del", "vm1")
	if err := p.links[1].Close(); err != nil {
		t.Error(err)
	}
	h.wantPinned()
	p.links = nil
	p.end()
	h.wantPinned()
	h.ns.Do(func() {
		for range 2 {
			if err := Cleanup(h.ns.Name); err != nil {
				t.Error(err)
			}
		}
	})
	if got := h.pinned(); len(got) != 0 {
		t.Errorf("pinned are %v", got)
	}
}

// A device that is the switch's no more has no program as soon as the next process begins.
func TestLeftOver(t *testing.T) {
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	first.end()
	h.open(h.taps[0]).start()
	for n, ifindex := range h.taps {
		h.ns.Do(func() {
			has, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
			if want := 1 - n; err != nil || len(has.Programs) != want {
				t.Errorf("vm%d has %d programs, want %d (%v)", n, len(has.Programs), want, err)
			}
		})
	}
	h.wantPinned(h.taps[0])
}

// What a switch left in a namespace that is gone is found by the next one of the name in
// another, and by Cleanup there; what is in force elsewhere stays.
func TestNamespaceGone(t *testing.T) {
	for what, clean := range map[string]func(h *host){
		"Cleanup": func(h *host) {
			h.ns.Do(func() {
				if err := Cleanup(h.ns.Name); err != nil {
					t.Error(err)
				}
			})
		},
		"the next start": func(h *host) {
			p := h.open(h.taps...)
			p.start()
			p.end()
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHost(t)
			folders := func() int {
				dirs, _ := filepath.Glob(filepath.Join(pinRoot, h.ns.Name+"@*"))
				return len(dirs)
			}
			// Like a process that is killed, they leave all they have.
			leave := func(ns *testenv.Netns) {
				ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
				there := &host{t: t, ns: ns}
				there.taps = []int{(&rig{t: t, ns: ns}).ifindex("vm0")}
				ns.Do(func() {
					o := there.options()
					o.Name = h.ns.Name
					p, err := Open(o)
					if err != nil {
						t.Fatal(err)
					}
					l, err := p.Attach(there.taps[0])
					if err != nil {
						t.Fatal(err)
					}
					l.Close()
					p.close()
				})
			}
			gone, alive := testenv.NewNetns(t), testenv.NewNetns(t)
			leave(gone)
			leave(alive)
			t.Cleanup(func() {
				alive.Do(func() {
					if err := Cleanup(h.ns.Name); err != nil {
						t.Error(err)
					}
				})
			})
			gone.Run("ip", "link", "del", "vm0") // as all are when their namespace goes
			before := folders()
			if before != 2 {
				t.Fatalf("%d folders are left by two switches", before)
			}
			clean(h)
			own := 0
			if what != "Cleanup" {
				own = 1
			}
			if n := folders(); n != 1+own {
				t.Errorf("%d folders are there, want that of the namespace that lives and %d of this one", n, own)
			}
			if n := programsAt(t, alive, 2); n != 1 {
				t.Errorf("%d programs are at the device of the namespace that lives", n)
			}
		})
	}
}

// A device that comes from a namespace that is gone does not keep its program.
func TestNamespaceGoneDeviceComesBack(t *testing.T) {
	h, there := newHost(t), testenv.NewNetns(t)
	there.Run("ip", "tuntap", "add", "dev", "nic0", "mode", "tap")
	ifindex := (&rig{t: t, ns: there}).ifindex("nic0")
	there.Do(func() {
		o := h.options()
		p, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := p.Attach(ifindex)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		p.close()
	})
	there.Run("ip", "link", "set", "nic0", "netns", h.ns.Path())
	ifindex = (&rig{t: t, ns: h.ns}).ifindex("nic0")
	if n := programsAt(t, h.ns, ifindex); n != 1 {
		t.Fatalf("%d programs came with the device", n)
	}
	h.ns.Do(func() {
		if err := Cleanup(h.ns.Name); err != nil {
			t.Error(err)
		}
	})
	if n := programsAt(t, h.ns, ifindex); n != 0 {
		t.Errorf("%d programs stay at a device of this namespace", n)
	}
}

// A device that has the number of a port's which went while no process ran is not taken
// for it: no frame to the station that was there goes to it, whether it is a port's or
// not, and it gets a program of its own, if any. The one that went keeps none.
func TestNumberUsedAgain(t *testing.T) {
	for name, goes := range map[string]func(h *host, elsewhere *testenv.Netns){
		"deleted": func(h *host, _ *testenv.Netns) { h.ns.Run("ip", "link", "del", "vm1") },
		"moved":   func(h *host, to *testenv.Netns) { h.ns.Run("ip", "link", "set", "vm1", "netns", to.Name) },
	} {
		for _, ports := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", name, ports), func(t *testing.T) {
				h, elsewhere := newHost(t), testenv.NewNetns(t)
				first := h.open(h.taps...)
				first.start()
				first.learn(1, macA, 0)
				first.learn(1, macB, 1)
				first.end()
				goes(h, elsewhere)
				h.ns.Run("ip", "link", "add", "other", "index", strconv.Itoa(h.taps[1]), "type", "veth", "peer", "name", "vm2", "index", "100")

				second := h.open(h.taps[:ports]...)
				for _, start := range []func(){second.start, func() {}} {
					if d := second.send(0, frame(macB, macA, frameLen)); d != tcxPass {
						t.Errorf("a frame to the station that went gets %d", d)
					}
					start()
				}
				if a, b := second.at(uint64(macA)), second.at(uint64(macB)); a != 0 || b != -1 {
					t.Errorf("A is behind port %d, B behind port %d; want 0, -1", a, b)
				}
				h.wantPinned(h.taps[:ports]...)
				if n := programsAt(t, h.ns, h.taps[1]); n != ports-1 {
					t.Errorf("the other device has %d programs, want %d", n, ports-1)
				}
				if name == "moved" {
					if n := programsAt(t, elsewhere, h.taps[1]); n != 0 {
						t.Errorf("the device that was moved has %d programs", n)
					}
				}
			})
		}
	}
}

// While no process runs, no frame goes to a device that has the number of a port's which
// went. What a device sends that was moved goes to none where it is, as soon as the
// program decides anew.
//
//	A ── vm0 ┐
//	B ── vm1 ┴ a process that ended
func TestNumberUsedMeanwhile(t *testing.T) {
	for name, goes := range map[string]func(h *host, elsewhere *testenv.Netns) (at *testenv.Netns){
		"deleted": func(h *host, _ *testenv.Netns) *testenv.Netns {
			h.ns.Run("ip", "link", "del", "vm1")
			return h.ns
		},
		"moved": func(h *host, to *testenv.Netns) *testenv.Netns {
			h.ns.Run("ip", "link", "set", "vm1", "netns", to.Name)
			return h.ns
		},
		"sender moved": func(h *host, to *testenv.Netns) *testenv.Netns {
			h.ns.Run("ip", "link", "set", "vm0", "netns", to.Name)
			to.Run("ip", "link", "set", "vm0", "up")
			return to
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, elsewhere := newHost(t), testenv.NewNetns(t)
			for _, ns := range []*testenv.Netns{h.ns, elsewhere} {
				ns.Run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
			}
			var a, b *tuntest.Guest
			h.ns.Do(func() { a, b = tuntest.Boot(t, "vm0", tuntest.None), tuntest.Boot(t, "vm1", tuntest.None) })
			for _, name := range []string{"vm0", "vm1"} {
				h.ns.Run("ip", "link", "set", name, "up")
			}
			send := func() {
				t.Helper()
				if err := a.Send(frame(macB, macA, frameLen), port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
			first := h.open(h.taps...)
			first.start()
			first.learn(1, macA, 0)
			first.learn(1, macB, 1)
			first.end()
			send()
			if _, _, err := b.Recv(time.Minute); err != nil {
				t.Fatal(err)
			}

			at := goes(h, elsewhere)
			at.Run("ip", "link", "add", "other", "index", strconv.Itoa(h.taps[1]), "type", "veth", "peer", "name", "vm2", "index", "100")
			at.Run("ip", "link", "set", "vm2", "up")
			at.Run("ip", "link", "set", "other", "up")
			sent := func() string { return at.Run("cat", "/sys/class/net/other/statistics/tx_packets") }
			if at == elsewhere {
				testenv.Eventually(t, "the other device sends none", func() bool {
					before := sent()
					send()
					return sent() == before
				})
				return
			}
			send()
			if n := sent(); n != "0" {
				t.Errorf("the other device sends %s frames", n)
			}
		})
	}
}

// programsAt counts the programs at a device's ingress.
func programsAt(t *testing.T, ns *testenv.Netns, ifindex int) (n int) {
	t.Helper()
	ns.Do(func() {
		at, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			t.Fatal(err)
		}
		n = len(at.Programs)
	})
	return n
}

// Without the rights Open says so, on one line, and leaves nothing.
func TestWithoutRights(t *testing.T) {
	h := newHost(t)
	h.ns.Do(func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
		less := all
		less[0].Effective &^= 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
		less[1].Effective &^= 1<<(unix.CAP_BPF-32) | 1<<(unix.CAP_PERFMON-32)
		if err := unix.Capset(&header, &less[0]); err != nil {
			t.Fatal(err)
		}
		defer unix.Capset(&header, &all[0])
		for _, pin := range []bool{false, true} {
			o := h.options()
			o.Pin = pin
			_, err := Open(o)
			if err == nil || !errors.Is(err, unix.EPERM) || strings.Contains(err.Error(), "\n") ||
				!strings.Contains(err.Error(), "needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN;") {
				t.Errorf("with Pin %v: %v", pin, err)
			}
		}
	})
	if got := h.pinned(); len(got) != 0 {
		t.Errorf("pinned are %v", got)
	}
}

// With the rights that BPF needs, and none to mount the place for pins, there is a fast
// path that ends with the process.
func TestUnpinned(t *testing.T) {
	testenv.Root(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread ends with its namespaces and rights
		for _, do := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return exec.Command("ip", "tuntap", "add", "dev", "vm0", "mode", "tap").Run() },
			func() error { return unix.Mount("none", bpffs, "tmpfs", 0, "") },
			func() error {
				header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				var has [2]unix.CapUserData
				has[0].Effective = 1 << unix.CAP_NET_ADMIN
				has[1].Effective = 1<<(unix.CAP_BPF-32) | 1<<(unix.CAP_PERFMON-32)
				has[0].Permitted, has[1].Permitted = has[0].Effective, has[1].Effective
				return unix.Capset(&header, &has[0])
			},
		} {
			if err := do(); err != nil {
				t.Error(err)
				return
			}
		}
		var log bytes.Buffer
		p, err := Open(Options{Name: "unpinned", Pin: true, Capacity: 1024, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Error(err)
			return
		}
		defer p.close()
		if p.Pinned() || !strings.Contains(log.String(), "not pinned") || !strings.Contains(log.String(), "CAP_SYS_ADMIN") {
			t.Errorf("pinned: %v; %s", p.Pinned(), log.String())
		}
		l, err := p.Attach(2)
		if err != nil {
			t.Error(err)
			return
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-ended
}

// A station is as old after a restart as it was, and gone where that is too old; one that
// only the workers heard is not taken for silent.
func TestTakeOverAges(t *testing.T) {
	const silent = 100 // s
	h := newHost(t)
	first := h.open(h.taps...)
	first.start()
	first.learn(1, macA, 0)
	first.learn(1, macB, 1)
	ages := func(p *process, mac port.MAC) time.Duration {
		_, at := p.path.known.find(fdb.MakeKey(1, uint64(mac)))
		if at == nil {
			t.Fatalf("%v is not in the kernel", mac)
		}
		return since(monotonic(), stationOf(at.Load()).Heard)
	}
	heardBefore := func(p *process, mac port.MAC) {
		_, at := p.path.known.find(fdb.MakeKey(1, uint64(mac)))
		s := stationOf(at.Load())
		if s.Heard <= silent {
			t.Skip("the machine has just booted")
		}
		s.Heard -= silent
		at.Store(word(s))
	}
	heardBefore(first, macA)
	heardBefore(first, macB)
	first.path.Refresh() // the table has heard both now, in the kernel or not
	if a := ages(first, macA); a > staleAfter {
		t.Errorf("the kernel takes a station for silent for %v that the table has just heard", a)
	}
	heardBefore(first, macA)
	first.end()

	second := h.open(h.taps...)
	second.table.Advance(time.Hour)
	second.start()
	if e, ok := second.table.Get(fdb.MakeKey(1, uint64(macA))); !ok || e.Age < silent*time.Second/2 || e.Age > 2*silent*time.Second {
		t.Errorf("a station that was silent for %d s is %+v %v", silent, e, ok)
	}
	if e, ok := second.table.Get(fdb.MakeKey(1, uint64(macB))); !ok || e.Age > silent*time.Second/2 {
		t.Errorf("a station that was not silent is %+v %v", e, ok)
	}
	second.end()

	third := h.open(h.taps...)
	third.table.SetAging(silent / 2 * time.Second)
	third.start()
	if a, b := third.at(uint64(macA)), third.at(uint64(macB)); a != -1 || b != 1 {
		t.Errorf("A is behind port %d, B behind port %d; want -1, 1", a, b)
	}
	if _, at := third.path.known.find(fdb.MakeKey(1, uint64(macA))); at != nil {
		t.Error("a station that is too old stays in the kernel")
	}
}
