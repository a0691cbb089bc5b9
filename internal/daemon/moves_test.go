package daemon

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/flap"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

func twoPorts(t *testing.T, holdDown time.Duration) *rig {
	r := start(t, newFakeHost(), savedState{})
	_ = r.do(func() error { r.moves.holdDown = holdDown; return nil })
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
			!strings.Contains(log, "station flaps") || !strings.Contains(log, "from=vm0 to=vm1 moves=5") || !strings.Contains(log, "held_at=vm0 hold_down=1m0s") {
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
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, time.Minute)
		for i := range flap.Moves + 1 {
			r.move(mac, uint16(i%2))
		}
		if _, err := ask(r.manager, func() (api.FDBEntry, error) {
			return r.addFDB(api.AddFDB{MAC: mac, Port: "vm1"})
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if e, _ := r.sw.FDB().Get(k); e.Kind != fdb.Static || e.Port != 1 {
			t.Errorf("%+v", e)
		}
	})
}
