package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// add1 adds an FDB entry as the API does.
func (r *rig) add1(mac port.MAC) error {
	_, err := r.addFDB(api.AddFDB{MAC: mac, Port: "vm0"})
	return err
}

// stalled starts a command on a disk that does not answer, and returns what lets the
// disk go on, and how the command ends.
func (r *rig) stalled(command func() error) (goOn func(), ended <-chan error) {
	stall := make(chan struct{})
	r.disk.hold(stall)
	done := make(chan error, 1)
	go func() { done <- command() }()
	synctest.Wait()
	return func() { r.disk.hold(nil); close(stall); synctest.Wait() }, done
}

// inTurn changes what the manager's goroutines use, too.
func (r *rig) inTurn(f func()) {
	_ = r.do(func() error { f(); return nil })
}

func TestStalledDiskHoldsUpTheCommandAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, withTree, vm("vm0"), vm("vm1"))
		w.taken("vm0")
		goOn, ended := w.stalled(func() error { return w.add1(0x525400000001) })
		for range 5 {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if n := len(w.taken("vm0")); n != 1 {
				t.Errorf("%d hellos in 2 s of a stalled disk, want 1", n)
			}
			if got := w.port("vm0").Name; got != "vm0" {
				t.Errorf("a question is answered with %q", got)
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("the command did not wait for the disk: %v", err)
		default:
		}
		goOn()
		if err := <-ended; err != nil || len(fdbOf(w.disk.state())) != 1 {
			t.Errorf("after the disk went on: %v, on disk %+v", err, fdbOf(w.disk.state()))
		}
	})
}

// The disk answers too late: what it then wrote is not what holds.
func TestCommandGivesUpOnTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := startWith(t, h, store.State{}, withNotes)
		r.mustAdd("vm0")
		h.slow = func(string, string) { time.Sleep(time.Second / 2) } // others have turns while it is taken back
		for name, command := range map[string]func() error{
			"add-port": func() error {
				return r.manager.change(func() error { _, err := r.addPort(sent[addPort](t, wanted(spec("vm1")))); return err })
			},
			"set-port": func() error {
				mtu := 9000
				return r.manager.change(func() error { _, err := r.setPort("vm0", sent[setting.Patch](t, api.Settings{"mtu": mtu})); return err })
			},
			"del-port":  func() error { return r.manager.change(func() error { return r.delPort("vm0", false) }) },
			"fdb add":   func() error { return r.add1(0x525400000001) },
			"a feature": func() error { return r.note("late") },
		} {
			goOn, ended := r.stalled(command)
			time.Sleep(saveWait)
			wantCode(t, <-ended, api.CodeFailed, "has not answered")
			time.Sleep(time.Second)
			goOn()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if len(r.disk.state().Ports) != 1 || mtuOf(r.kept()) != 0 || len(r.disk.state().Sections) != 0 {
				t.Errorf("%s: on disk %+v", name, r.disk.state())
			}
			if n := len(r.sw.Ports()); n != 1 || len(r.listFDB()) != 0 || mtuOf(r.spec("vm0")) != 0 || r.noteKept() != "" {
				t.Errorf("%s: %d ports, FDB %v, %+v", name, n, r.listFDB(), r.port("vm0").Spec)
			}
		}
	})
}

// What others have written while a command is half done waits for its end, and is written then.
func TestNothingHalfDoneIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		for _, keeps := range []bool{false, true} {
			writes, ended := r.disk.writes(), errors.New("taken back")
			err := r.manager.change(func() error {
				p := r.ports["vm0"]
				was := p.spec
				to, err := r.merged(p, sent[setting.Patch](t, api.Settings{"mtu": 9000}))
				if err != nil {
					return err
				}
				p.spec = to
				r.off(func() {
					r.inTurn(r.saveNow)
					time.Sleep(time.Minute)
					synctest.Wait()
				})
				if n := r.disk.writes(); n != writes {
					t.Errorf("%d writes meanwhile, the port has an MTU of %d", n-writes, mtuOf(r.kept()))
				}
				if keeps {
					return r.save()
				}
				p.spec = was
				return ended
			})
			if keeps != (err == nil) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := r.disk.writes(); n != writes+1 || (mtuOf(r.kept()) == 9000) != keeps {
				t.Errorf("kept %v: after it %d writes, the port has an MTU of %d", keeps, n-writes, mtuOf(r.kept()))
			}
		}
	})
}

// Commands that meet on a stalled disk do not undo each other's work.
func TestChangesComeOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		goOn, first := r.stalled(func() error { return r.add1(0x525400000001) })
		second := make(chan error, 1)
		go func() { second <- r.add1(0x525400000002) }()
		third := make(chan error, 1)
		go func() { time.Sleep(2 * time.Second); third <- r.add1(0x525400000003) }()
		time.Sleep(time.Second)
		// What is saved meanwhile, without a command, has the first change and no other.
		r.change("vm0", func(l *link.Link) { l.Name = "blue0" })
		time.Sleep(changeWait)
		wantCode(t, <-second, api.CodeBusy, "try again")
		goOn()
		if err := errors.Join(<-first, <-third); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(fdbOf(r.disk.state())) != 2 || r.disk.state().Ports[0].Trace.Ifname != "blue0" {
			t.Errorf("on disk %+v", r.disk.state())
		}
	})
}

// A write that nobody waits for is tried again until the disk takes it.
func TestStateIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		r.logged()
		r.disk.fail(errors.New("disk full"))
		r.change("vm0", func(l *link.Link) { l.Name = "blue0" })
		time.Sleep(10 * saveRetry)
		synctest.Wait()
		if log := r.logged(); strings.Count(log, "disk full") != 1 {
			t.Errorf("log:\n%s", log)
		}
		r.disk.fail(nil)
		time.Sleep(saveRetry)
		synctest.Wait()
		if got := r.disk.state().Ports[0].Trace.Ifname; got != "blue0" || !strings.Contains(r.logged(), "kept again") {
			t.Errorf("on disk the interface is %q", got)
		}
		writes := r.disk.writes()
		time.Sleep(time.Hour)
		r.port("vm0")
		if r.disk.writes() != writes {
			t.Errorf("%d more writes of a state that is kept", r.disk.writes()-writes)
		}
	})
}

// manyPorts starts a manager with n ports, none of which has a trace yet. Their devices come one
// after another.
func manyPorts(t *testing.T, n int, every time.Duration) *rig {
	host, st := newFakeHost(), store.State{}
	host.makes, host.events = false, make(chan link.Event, 2*n)
	come := func() {
		for i := range n {
			time.Sleep(every)
			host.put(link.Link{Name: fmt.Sprintf("vm%d", i), Up: true, Carrier: true})
		}
	}
	for i := range n {
		st.Ports = append(st.Ports, store.Port{Spec: saved(spec(fmt.Sprintf("vm%d", i)))})
	}
	if every == 0 {
		come()
	} else {
		go come()
	}
	return start(t, host, st)
}

// traced returns how many ports of a state have the trace of an open device.
func traced(st store.State) (n int) {
	for _, p := range st.Ports {
		if p.Trace.Ifname == p.Spec.Name {
			n++
		}
	}
	return n
}

// A start writes the state once a second at most, however many ports it opens, and in the end all of
// it.
func TestStartWritesSeldom(t *testing.T) {
	for _, n := range []int{1, 20, 300} {
		for _, every := range []time.Duration{0, 10 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r := manyPorts(t, n, every)
				time.Sleep(time.Duration(n)*every + eventGap + saveGap)
				synctest.Wait()
				if most := 2 + int(time.Since(began)/time.Second); r.disk.writes() > most || traced(r.disk.state()) != n {
					t.Errorf("%d ports, one each %v: %d writes, want %d at most; %d traces", n, every, r.disk.writes(), most, traced(r.disk.state()))
				}
				writes := r.disk.writes()
				time.Sleep(10 * time.Minute)
				if r.port("vm0"); r.disk.writes() != writes {
					t.Errorf("%d ports: %d more writes", n, r.disk.writes()-writes)
				}
			})
		}
	}
}

// A daemon that is killed at any moment of its start leaves every port to the next one, also what a
// command has added meanwhile, and the traces of the ports that were open by then.
func TestKillDuringStart(t *testing.T) {
	const n, every = 300, 10 * time.Millisecond
	for _, after := range []time.Duration{0, every, saveGap / 2, saveGap + every, 2*saveGap + saveGap/2, n * every} {
		synctest.Test(t, func(t *testing.T) {
			r := manyPorts(t, n, every)
			time.Sleep(after)
			synctest.Wait()
			opened := 0
			for _, p := range asked(t, r.manager, func() ([]api.Port, error) { return r.describeAll(), nil }) {
				if p.State != api.StateWaiting {
					opened++
				}
			}
			var left store.State // of a process that is killed now
			kill := func() { r.inTurn(func() { left = r.disk.state() }) }
			kill()
			if len(left.Ports) != n {
				t.Errorf("after %v: %d ports on disk", after, len(left.Ports))
			}
			r.host.put(link.Link{Name: "new", Up: true, Carrier: true})
			r.mustAdd("new")
			if kill(); len(left.Ports) != n+1 || traced(left) < opened {
				t.Errorf("after %v: a command leaves %d ports, %d of %d traces", after, len(left.Ports), traced(left), opened)
			}
			time.Sleep(saveGap)
			r.stop()

			r = start(t, r.host, left)
			time.Sleep(n*every + saveGap)
			synctest.Wait()
			if traced(r.disk.state()) != n+1 {
				t.Errorf("after %v: the next process has %d ports", after, traced(r.disk.state()))
			}
		})
	}
}

// A change that comes while a command waits for the disk is written, too.
func TestChangeBesideACommandIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Name = "blue0" }) // so the next one waits
		goOn, ended := r.stalled(func() error { return r.add1(0x525400000001) })
		r.change("blue0", func(l *link.Link) { l.Name = "blue1" })
		goOn()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		time.Sleep(saveGap)
		synctest.Wait()
		if got := r.disk.state().Ports[0].Trace.Ifname; got != "blue1" || len(fdbOf(r.disk.state())) != 1 {
			t.Errorf("on disk the interface is %q, FDB %v", got, fdbOf(r.disk.state()))
		}
	})
}

// What is written last, at a stop, is the newest state; a disk that does not answer
// ends the wait.
func TestStopWritesWhatWaits(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, newFakeHost(), store.State{})
			r.mustAdd("vm0")
			stall := make(chan struct{})
			r.disk.hold(stall)
			r.change("vm0", func(l *link.Link) { l.Name = "blue0" })
			r.change("blue0", func(l *link.Link) { l.Name = "blue1" })
			go func() { time.Sleep(takes); close(stall) }()
			began := time.Now()
			r.stop()
			if took := time.Since(began); took != min(takes, lastSaveWait) {
				t.Errorf("stopped after %v on a disk that takes %v", took, takes)
			}
			time.Sleep(takes)
			synctest.Wait()
			if got := r.disk.state().Ports[0].Trace.Ifname; got != "blue1" {
				t.Errorf("on disk the interface is %q", got)
			}
		})
	}
}

// A stop amid a command leaves a whole state: the one before the command, or after it once that was on its
// way to the disk. What is known by then of devices, and what features have learned, is in it either way.
func TestStopAmidACommand(t *testing.T) {
	var stall chan struct{}
	for _, c := range []struct {
		name    string
		amid    func(r *rig) error // what the command does next, while the stop begins after a second
		changed bool
	}{
		{"before the disk", func(r *rig) error { r.off(func() { time.Sleep(time.Minute) }); return nil }, false},
		{"on the way to the disk", func(r *rig) error { r.disk.hold(stall); return r.save() }, true},
		{"behind the disk", func(r *rig) error { err := r.save(); r.off(func() { time.Sleep(time.Minute) }); return err }, true},
		{"while it is taken back", func(r *rig) error {
			r.disk.fail(errors.New("disk full"))
			err := r.save()
			r.disk.fail(nil)
			r.off(func() { time.Sleep(time.Minute) })
			return err
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stall = make(chan struct{})
				k := &keeper{state: json.RawMessage(`{"a":1,"heard":[1]}`)}
				r := startWith(t, newFakeHost(), store.State{}, func(o *Options) {
					withFeature(o, feature.Feature{Name: "keeper", Learned: []string{"heard"}, New: func(feature.Host, any) (feature.Instance, error) { return k, nil }})
				})
				r.mustAdd("vm0")
				r.mustAdd("vm1")
				r.change("vm0", func(l *link.Link) { l.Name = "blue0" }) // so the next one waits
				r.change("vm1", func(l *link.Link) { l.Name = "blue1" })
				r.inTurn(func() { k.state = json.RawMessage(`{"a":1,"heard":[2]}`) })
				stopped := make(chan struct{})
				go func() { defer close(stopped); time.Sleep(time.Second); r.stop() }()
				go func() { time.Sleep(2 * time.Second); r.disk.hold(nil); close(stall) }()
				err := r.manager.change(func() error {
					p := r.ports["vm0"]
					to, err := r.merged(p, sent[setting.Patch](t, api.Settings{"mtu": 9000}))
					if err != nil {
						return err
					}
					p.spec, k.state = to, json.RawMessage(`{"a":2,"heard":[2]}`)
					return c.amid(r)
				})
				wantCode(t, err, api.CodeStopping, "is stopping")
				<-stopped
				want := `{"a":1,"heard":[2]}`
				if c.changed {
					want = `{"a":2,"heard":[2]}`
				}
				st := r.disk.state()
				if got := string(st.Sections["keeper"]); got != want || (mtuOf(r.kept()) == 9000) != c.changed {
					t.Errorf("on disk the feature keeps %s, want %s; the ports are %+v", got, want, st.Ports)
				}
				if len(st.Ports) != 2 || st.Ports[0].Trace.Ifname != "blue0" || st.Ports[1].Trace.Ifname != "blue1" {
					t.Errorf("on disk the ports are %+v", st.Ports)
				}
			})
		})
	}
}

// A stop waits for the disk half of the time that the service manager gives it.
func TestStopIsInTime(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/systemd/vswitch@.service")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(unit), "\nTimeoutStopSec=")
	text, _, _ = strings.Cut(text, "\n")
	if given, err := time.ParseDuration(text); err != nil || lastSaveWait != given/2 {
		t.Errorf("it waits %v of %q, %v", lastSaveWait, text, err)
	}
}

// A device that takes its time, whatever is done with it, holds up neither protocols
// nor questions nor what is done with others.
func TestSlowDeviceHoldsUpNoOther(t *testing.T) {
	mtu := 9000
	for _, call := range []string{"Open", "Set", "Delete", "ByIndex", "ByName"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				h.put(link.Link{Name: "old", MTU: 1500, Up: true, Carrier: true})
				r := start(t, h, store.State{})
				r.mustAdd("old")
				r.mustAdd("vm0")
				stall := make(chan struct{})
				index := fmt.Sprint(r.host.device("vm0").index)
				h.slow = func(c, name string) {
					if c == call && (name == "vm1" || name == "vm0" || name == index || c == "ByName") {
						<-stall
					}
				}
				ended := make(chan error, 1)
				switch call {
				case "Open":
					go func() { ended <- r.add("vm1") }()
				case "Set":
					go func() { ended <- r.set("vm0", api.Settings{"mtu": mtu}) }()
				case "Delete":
					go func() { ended <- r.do(func() error { return r.delPort("vm0", false) }) }()
				case "ByIndex":
					r.host.put(link.Link{Index: r.host.device("vm0").index, Name: "vm0", Up: true, Carrier: true})
					ended <- nil
				case "ByName":
					// It is asked for by name before it is opened again.
					l := link.Link{Index: r.host.device("old").index, Name: "old"}
					r.host.mu.Lock()
					delete(r.host.links, l.Index)
					r.host.mu.Unlock()
					r.host.events <- link.Event{Link: l, Gone: true}
					time.Sleep(maxBackoff)
					ended <- nil
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				began := time.Now()
				if n := len(asked(t, r.manager, func() ([]api.Port, error) { return r.describeAll(), nil })); n == 0 {
					t.Error("no ports")
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("an answer took %v", took)
				}
				close(stall)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if call == "ByIndex" {
					r.wantState("vm0", api.StateUp)
				}
			})
		})
	}
}
