package flap

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/proto/flap"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

const mac = port.MAC(0x525400000001)

var key = keyOf(mac)

func keyOf(mac port.MAC) fdb.Key { return fdb.MakeKey(1, uint64(mac)) }

// rig is a guard over ports vm0, vm1 and vm2, whose numbers are 0, 1 and 2.
type rig struct {
	t     *testing.T
	host  *featuretest.Host
	ports []*featuretest.Port
	*guard
}

func newRig(t *testing.T, holdDown time.Duration) *rig {
	t.Helper()
	r := &rig{t: t, host: featuretest.New(t)}
	for i := range 3 {
		r.ports = append(r.ports, r.host.Add(t, port.Spec{Name: fmt.Sprint("vm", i)}, true))
	}
	i, err := Feature.New(r.host, Settings{HoldDown: setting.OrNone(holdDown)})
	if err != nil {
		t.Fatal(err)
	}
	r.guard = i.(*guard)
	t.Cleanup(func() { r.host.Do(r.Stop) })
	return r
}

// move learns a station at a port. If the switch knows it at another, the guard hears of it.
func (r *rig) move(mac port.MAC, to uint16) fdb.Outcome {
	outcome, from := r.host.Switch().FDB().Learn(keyOf(mac), to)
	if outcome == fdb.Moved {
		r.Moved(vswitch.MACMoved{MAC: mac, VLAN: 1, From: from, To: to})
	}
	return outcome
}

// flaps moves a station from one port to another and back, often enough.
func (r *rig) flaps(mac port.MAC, home, other uint16) {
	r.move(mac, home)
	for i := range flap.Moves {
		r.move(mac, []uint16{other, home}[i%2])
	}
}

func (r *rig) entry(mac port.MAC) fdb.Entry {
	e, _ := r.host.Switch().FDB().Get(keyOf(mac))
	return e
}

func (r *rig) wantEntry(mac port.MAC, kind fdb.Kind, number uint16) {
	r.t.Helper()
	if e := r.entry(mac); e.Kind != kind || e.Port != number {
		r.t.Errorf("%s: %+v, want %v at %d", mac, e, kind, number)
	}
}

func (r *rig) described() (s api.Switch) {
	r.host.Do(func() { r.Describe(&s) })
	return s
}

func TestFlappingStationIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Minute)
		r.flaps(mac, 0, 1)
		log := r.host.Logged()
		for _, want := range []string{"station flaps", "from=vm0 to=vm1 moves=5", "held_at=vm0 hold_down=1m0s", "--trunk all --native 1"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
		if n := strings.Count(log, "mac=52:54:00:00:00:01"); n != 3 {
			t.Errorf("%d lines:\n%s", n, log)
		}
		var told []string
		for _, e := range r.host.Events() {
			told = append(told, fmt.Sprint(e.Type, " ", e.MAC, " from ", e.From, " to ", e.Port))
		}
		want := []string{
			"fdb.moved 52:54:00:00:00:01 from vm0 to vm1", "fdb.moved 52:54:00:00:00:01 from vm1 to vm0",
			"fdb.flapping 52:54:00:00:00:01 from vm0 to vm1",
		}
		if !slices.Equal(told, want) {
			t.Errorf("it tells %q, want %q", told, want)
		}
		if s := r.described(); s.FDB.Moves != 5 || s.FDB.Flaps != 1 || s.FDB.Held != 1 || s.HoldDownS != 60 {
			t.Errorf("%+v", s)
		}
		r.wantEntry(mac, fdb.Sticky, 0)
		if got := r.move(mac, 1); got != fdb.Pinned {
			t.Errorf("a move while it is held: %v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.move(mac, 1); got != fdb.Moved || r.described().FDB.Held != 0 {
			t.Errorf("a move after it was held: %v, %+v", got, r.described())
		}
	})
}

func TestFlappingStationIsOnlyNamedWithoutHoldDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		r.flaps(mac, 0, 1)
		r.flaps(mac, 0, 1)
		r.flaps(mac, 0, 1)
		if e := r.entry(mac); e.Kind != fdb.Dynamic {
			t.Errorf("%+v", e)
		}
		if log := r.host.Logged(); strings.Count(log, "station flaps") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// Another hold-down time keeps the counters and what is known; the end of the feature releases
// what is held.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		r.move(mac, 0)
		r.move(mac, 1)
		r.host.Do(func() { _ = r.Set(Settings{HoldDown: setting.OrNone(time.Hour)}) })
		for i := range flap.Moves - 1 {
			r.move(mac, uint16(i%2))
		}
		r.wantEntry(mac, fdb.Sticky, 0)
		if s := r.described(); s.FDB.Moves != flap.Moves || s.HoldDownS != 3600 {
			t.Errorf("%+v", s)
		}
		r.host.Do(r.Stop)
		r.wantEntry(mac, fdb.Dynamic, 0)
	})
}

// What a user or the table's age did meanwhile is not undone when the time is over.
func TestHeldEntryThatIsAnotherStays(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(*fdb.Table)
		want      fdb.Entry
	}{
		"nothing": {func(*fdb.Table) {}, fdb.Entry{Kind: fdb.Dynamic, Port: 0}},
		"static":  {func(table *fdb.Table) { _ = table.Add(key, 1, fdb.Static) }, fdb.Entry{Kind: fdb.Static, Port: 1}},
		"gone":    {func(table *fdb.Table) { table.Delete(key) }, fdb.Entry{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, time.Minute)
			r.flaps(mac, 0, 1)
			if held := r.described().FDB.Held; held != 1 {
				t.Errorf("%s: %d are held", name, held)
			}
			c.meanwhile(r.host.Switch().FDB())
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			r.wantEntry(mac, c.want.Kind, c.want.Port)
			if held := r.described().FDB.Held; held != 0 {
				t.Errorf("%s: %d are held when the time is over", name, held)
			}
		})
	}
}

// A station is held where it was first, however the intruder times its frames.
func TestStationIsHeldAtHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Minute)
		r.move(mac, 0) // the station
		time.Sleep(time.Minute)
		r.move(mac, 1) // the intruder, whose last claim begins a window
		r.move(mac, 0)
		time.Sleep(flap.Window - 50*time.Millisecond)
		r.move(mac, 1)
		time.Sleep(50 * time.Millisecond)
		for i := range flap.Moves {
			r.move(mac, uint16(i%2))
		}
		r.wantEntry(mac, fdb.Sticky, 0)
	})
}

// A station whose port lost its link has its home where it comes up next, and is not held at a
// port that passes nothing.
func TestHomeGoesWithTheLink(t *testing.T) {
	const other = mac + 1
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Minute)
		r.move(mac, 0)
		r.move(mac, 1) // it went
		r.host.Do(func() { r.Linked(r.ports[0], false) })
		for i := range flap.Moves {
			r.move(mac, uint16(2-i%2))
		}
		r.wantEntry(mac, fdb.Sticky, 1)
		// Here the news of the link comes after the moves.
		r.ports[2].Blocked = true
		r.move(other, 2)
		for i := range flap.Moves {
			r.move(other, uint16(i%2))
		}
		if e := r.entry(other); e.Kind != fdb.Dynamic {
			t.Errorf("held at a port that is down: %+v", e)
		}
	})
}

// A guest that has addresses of its own held keeps nobody else's from being held.
func TestHoldingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Minute)
		hold := func(mac port.MAC, home uint16) {
			r.host.Do(func() { r.hold(keyOf(mac), home, time.Now()) })
		}
		hold(1<<40>>1, 2)
		for i := range port.MAC(2 * maxHeld) {
			hold(0x525400000000+i, uint16(i%8/7))
		}
		hold(1<<40>>1+1, 2)
		if n := r.described().FDB.Held; n != maxHeld {
			t.Errorf("%d are held", n)
		}
		sticky := make(map[uint16]int)
		for e := range r.host.Switch().FDB().All() {
			if e.Kind == fdb.Sticky {
				sticky[e.Port]++
			}
		}
		if sticky[2] != 2 || sticky[1] != 2*maxHeld/8 || sticky[0]+sticky[1]+sticky[2] != maxHeld {
			t.Errorf("held by port: %v", sticky)
		}
	})
}

// What holds an entry otherwise is stronger: a station that a user put somewhere is not held,
// and none is at a port that is not there.
func TestWhatIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Minute)
		hold := func(home uint16) { r.host.Do(func() { r.hold(key, home, time.Now()) }) }
		table := r.host.Switch().FDB()
		if err := table.Add(key, 1, fdb.Static); err != nil {
			t.Fatal(err)
		}
		hold(0)
		r.wantEntry(mac, fdb.Static, 1)
		table.Delete(key)
		r.ports[0].Blocked = true
		hold(0)
		hold(7)
		if e := r.entry(mac); e.Kind == fdb.Sticky {
			t.Errorf("it is held where nothing passes: %+v", e)
		}
		hold(1)
		r.wantEntry(mac, fdb.Sticky, 1)
	})
}

// Where tags pass without a look at them, a station that flaps may be in several VLANs.
func TestAdviceOnFlapping(t *testing.T) {
	for access := -1; access < 2; access++ {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 0)
			if access >= 0 {
				r.ports[access].Spec().Access = 1
			}
			r.flaps(mac, 0, 1)
			log := r.host.Logged()
			if !strings.Contains(log, "two machines with the address") || strings.Contains(log, "several VLANs") != (access < 0) {
				t.Errorf("with access port %d:\n%s", access, log)
			}
		})
	}
}
