package daemon

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/proto/flap"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

func twoPorts(t *testing.T, holdDown time.Duration) *rig {
	r := start(t, newFakeHost(), savedState{})
	_ = r.do(func() error { r.moves.holdDown.Store(int64(holdDown)); return nil })
	r.mustAdd("vm0")
	r.mustAdd("vm1")
	r.logged()
	return r
}

// move learns a station at port to, of which the switch knows it at the other, and
// reports what the switch would.
func (r *rig) move(mac port.MAC, to uint16) fdb.Outcome {
	outcome, from := r.sw.FDB().Learn(fdb.MakeKey(1, uint64(mac)), to)
	if outcome == fdb.Moved {
		r.onEvent(vswitch.MACMoved{MAC: mac, VLAN: 1, From: from, To: to})
	}
	return outcome
}

func TestMACMovesAreLoggedWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, 0)
		moveAll := func() {
			for i := range port.MAC(100) {
				r.move(0x525400000001+i, 0)
				r.move(0x525400000001+i, 1)
			}
		}
		r.move(0x525400000001, 0)
		r.move(0x525400000001, 1)
		if got, want := r.logged(), "level=INFO msg=\"MAC moved\" mac=52:54:00:00:00:01 vlan=1 from=vm0 to=vm1\n"; got != want {
			t.Errorf("logged %q, want %q", got, want)
		}
		moveAll()
		if got := strings.Count(r.logged(), "\n"); got != moveBurst-1 {
			t.Errorf("%d lines in the rest of the window, want %d", got, moveBurst-1)
		}
		time.Sleep(moveWindow)
		moveAll()
		if log := r.logged(); strings.Count(log, "MAC moved") != moveBurst || strings.Count(log, "left_out=") != 1 {
			t.Errorf("in the next window:\n%s", log)
		}
	})
}

func (r *rig) fdbInfo() api.FDBInfo {
	s, err := ask(r.manager, func() (api.Switch, error) { return r.describeSwitch(), nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return s.FDB
}

func TestFlappingStationIsHeld(t *testing.T) {
	const mac = port.MAC(0x525400000001)
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, time.Minute)
		r.move(mac, 0) // learned
		for i := range flap.Moves {
			if got := r.move(mac, uint16(1-i%2)); got != fdb.Moved {
				t.Fatalf("move %d: %v", i, got)
			}
		}
		if log := r.logged(); strings.Count(log, "mac=52:54:00:00:00:01") != 3 ||
			!strings.Contains(log, "station flaps") || !strings.Contains(log, "from=vm0 to=vm1 moves=5") || !strings.Contains(log, "held_at=vm0 hold_down=1m0s") ||
			!strings.Contains(log, "--trunk all --native 1") {
			t.Errorf("log:\n%s", log)
		}
		if got := (api.FDBInfo{Moves: 5, Flaps: 1, Held: 1}); r.fdbInfo().Moves != got.Moves || r.fdbInfo().Flaps != got.Flaps || r.fdbInfo().Held != got.Held {
			t.Errorf("%+v", r.fdbInfo())
		}
		e, ok := r.sw.FDB().Get(fdb.MakeKey(1, uint64(mac)))
		if !ok || e.Port != 0 || e.Kind != fdb.Sticky {
			t.Fatalf("held: %+v", e)
		}
		if got := r.move(mac, 1); got != fdb.Pinned {
			t.Errorf("a move while it is held: %v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.move(mac, 1); got != fdb.Moved || r.fdbInfo().Held != 0 {
			t.Errorf("a move after it was held: %v, %+v", got, r.fdbInfo())
		}
	})
}

func TestFlappingStationIsOnlyNamedWithoutHoldDown(t *testing.T) {
	const mac = port.MAC(0x525400000001)
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, 0)
		for i := range 3 * flap.Moves {
			r.move(mac, uint16(i%2))
		}
		if e, _ := r.sw.FDB().Get(fdb.MakeKey(1, uint64(mac))); e.Kind != fdb.Dynamic {
			t.Errorf("%+v", e)
		}
		if log := r.logged(); strings.Count(log, "station flaps") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// What a user or the table's age did meanwhile is not undone when the time is over.
func TestHeldEntryThatIsAnotherStays(t *testing.T) {
	const mac = port.MAC(0x525400000001)
	k := fdb.MakeKey(1, uint64(mac))
	for name, c := range map[string]struct {
		meanwhile func(r *rig) error
		want      fdb.Entry
	}{
		"nothing": {func(*rig) error { return nil }, fdb.Entry{Kind: fdb.Dynamic, Port: 0}},
		"static": {func(r *rig) error {
			_, err := r.addFDB(api.AddFDB{MAC: mac, Port: "vm1"})
			return err
		}, fdb.Entry{Kind: fdb.Static, Port: 1}},
		"sticky": {func(r *rig) error {
			_, err := r.addFDB(api.AddFDB{MAC: mac, Port: "vm1", Sticky: true})
			return err
		}, fdb.Entry{Kind: fdb.Sticky, Port: 1}},
		"gone": {func(r *rig) error {
			_ = r.sw.FDB().Delete(k)
			return nil
		}, fdb.Entry{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := twoPorts(t, time.Minute)
			for i := range flap.Moves + 1 {
				r.move(mac, uint16(i%2))
			}
			if held := r.fdbInfo().Held; held != 1 {
				t.Errorf("%s: %d are held", name, held)
			}
			if err := r.do(func() error { return c.meanwhile(r) }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if e, _ := r.sw.FDB().Get(k); e.Kind != c.want.Kind || e.Port != c.want.Port {
				t.Errorf("%s: %+v, want %+v", name, e, c.want)
			}
			if held := r.fdbInfo().Held; held != 0 {
				t.Errorf("%s: %d are held when the time is over", name, held)
			}
		})
	}
}

// A station is held where it was first, however the intruder times its frames.
func TestStationIsHeldAtHome(t *testing.T) {
	const mac = port.MAC(0x525400000001)
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, time.Minute)
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
		if e, _ := r.sw.FDB().Get(fdb.MakeKey(1, uint64(mac))); e.Kind != fdb.Sticky || e.Port != 0 {
			t.Errorf("held as %+v", e)
		}
	})
}

// A station whose port lost its link has its home where it comes up next, and is not held
// at a port that is down.
func TestHomeGoesWithTheLink(t *testing.T) {
	const mac, other = port.MAC(0x525400000001), port.MAC(0x525400000002)
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, time.Minute)
		r.mustAdd("vm2")
		for _, name := range []string{"vm0", "vm1", "vm2"} {
			r.change(name, func(l *link.Link) { l.Carrier = true })
		}
		r.move(mac, 0)
		r.move(mac, 1) // it went
		r.change("vm0", func(l *link.Link) { l.Carrier = false })
		for i := range flap.Moves {
			r.move(mac, uint16(2-i%2))
		}
		if e, _ := r.sw.FDB().Get(fdb.MakeKey(1, uint64(mac))); e.Kind != fdb.Sticky || e.Port != 1 {
			t.Errorf("held as %+v", e)
		}
		// Here the news of the link comes after the moves.
		_ = r.do(func() error { r.ports["vm2"].state = api.StateDown; return nil })
		r.move(other, 2)
		for i := range flap.Moves {
			r.move(other, uint16(i%2))
		}
		if e, _ := r.sw.FDB().Get(fdb.MakeKey(1, uint64(other))); e.Kind != fdb.Dynamic {
			t.Errorf("held at a port that is down: %+v", e)
		}
		_ = r.do(func() error { r.ports["vm2"].state = api.StateUp; return nil })
	})
}

// A guest that has addresses of its own held keeps nobody else's from being held.
func TestHoldingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, time.Minute)
		r.mustAdd("vm2")
		hold := func(mac port.MAC, home uint16) {
			_ = r.do(func() error { r.hold(fdb.MakeKey(1, uint64(mac)), home, time.Now()); return nil })
		}
		hold(1<<40>>1, 2)
		for i := range port.MAC(2 * maxHeld) {
			hold(0x525400000000+i, uint16(i%8/7))
		}
		hold(1<<40>>1+1, 2)
		if n := r.fdbInfo().Held; n != maxHeld {
			t.Errorf("%d are held", n)
		}
		kinds := map[uint16]map[fdb.Kind]int{0: {}, 1: {}, 2: {}}
		for e := range r.sw.FDB().All() {
			kinds[e.Port][e.Kind]++
		}
		if n := kinds[2][fdb.Sticky]; n != 2 {
			t.Errorf("%d of 2 stations of vm2 are held", n)
		}
		if n := kinds[1][fdb.Sticky]; n != 2*maxHeld/8 {
			t.Errorf("%d of %d stations of vm1 are held", n, 2*maxHeld/8)
		}
		if n := kinds[0][fdb.Sticky] + kinds[1][fdb.Sticky] + kinds[2][fdb.Sticky]; n != maxHeld {
			t.Errorf("%d sticky entries", n)
		}
	})
}

// What holds an entry otherwise is stronger: a station that a user put somewhere is not
// held, and none is by a port without a device.
func TestWhatIsNotHeld(t *testing.T) {
	k := fdb.MakeKey(1, 0x525400000001)
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, time.Minute)
		hold := func(home uint16) {
			_ = r.do(func() error { r.hold(k, home, time.Now()); return nil })
		}
		entry := func() fdb.Entry { e, _ := r.sw.FDB().Get(k); return e }
		if _, err := ask(r.manager, func() (api.FDBEntry, error) {
			return r.addFDB(api.AddFDB{MAC: 0x525400000001, Port: "vm1"})
		}); err != nil {
			t.Fatal(err)
		}
		hold(0)
		if e := entry(); e.Kind != fdb.Static || e.Port != 1 || r.fdbInfo().Held != 0 {
			t.Errorf("a static station is held: %+v", e)
		}
		if err := r.do(func() error { return r.delFDB(0x525400000001, 1) }); err != nil {
			t.Fatal(err)
		}
		r.host.makes = false
		r.host.remove("vm0")
		r.wantState("vm0", api.StateWaiting)
		hold(0)
		hold(7)
		if e := entry(); e.Kind == fdb.Sticky || r.fdbInfo().Held != 0 {
			t.Errorf("it is held where no device is: %+v", e)
		}
		hold(1)
		if e := entry(); e.Kind != fdb.Sticky || e.Port != 1 || r.fdbInfo().Held != 1 {
			t.Errorf("it is not held where one is: %+v", e)
		}
	})
}

// Where tags pass without a look at them, a station that flaps may be in several VLANs.
func TestAdviceOnFlapping(t *testing.T) {
	const mac = port.MAC(0x525400000001)
	for _, access := range []string{"", "vm0", "vm1"} {
		synctest.Test(t, func(t *testing.T) {
			r := twoPorts(t, 0)
			if access != "" {
				if err := r.set(access, api.Settings{"access": 1}); err != nil {
					t.Fatal(err)
				}
			}
			r.logged()
			for i := range flap.Moves + 1 {
				r.move(mac, uint16(i%2))
			}
			log := r.logged()
			if !strings.Contains(log, "two machines with the address") || strings.Contains(log, "several VLANs") != (access == "") {
				t.Errorf("with an access port %q:\n%s", access, log)
			}
		})
	}
}
