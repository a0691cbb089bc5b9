package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// A sticky entry ages, and is there again when its port comes up; to forget what
// was learned does not concern it.
func TestStickyEntry(t *testing.T) {
	const mac = port.MAC(0x525400000001)
	k := fdb.MakeKey(5, uint64(mac))
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.put(link.Link{Name: "vm0", MTU: 1500, Up: true, Carrier: true})
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.mustAdd("vm1")
		trunk := "1-100"
		if err := r.set("vm0", api.Settings{"trunk": trunk}); err != nil {
			t.Fatal(err)
		}
		want := func(when string, kind fdb.Kind) {
			t.Helper()
			synctest.Wait()
			if e, _ := r.sw.FDB().Get(k); e.Kind != kind || kind != 0 && e.Port != r.sw.Port("vm0").Number() {
				t.Errorf("%s: %+v, want %v", when, e, kind)
			}
		}
		e, err := r.addFDB(api.AddFDB{MAC: mac, VLAN: 5, Port: "vm0", Sticky: true})
		if err != nil || e.Type != "sticky" {
			t.Fatalf("%+v, %v", e, err)
		}
		want("added", fdb.Sticky)
		if got, _ := r.sw.FDB().Learn(k, r.sw.Port("vm1").Number()); got != fdb.Pinned {
			t.Errorf("a frame by another port: %v", got)
		}
		for _, step := range []struct {
			trunk string
			kind  fdb.Kind
		}{{"10", 0}, {"5,10", fdb.Sticky}} {
			if err := r.set("vm0", api.Settings{"trunk": step.trunk}); err != nil {
				t.Fatal(err)
			}
			want("trunk of "+step.trunk, step.kind)
		}
		r.change("vm0", func(l *link.Link) { l.Carrier = false })
		want("without carrier", fdb.Sticky)
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		if n := r.flushFDB(api.FlushFDB{}); n != 0 {
			t.Errorf("flushed %d", n)
		}
		want("flushed", fdb.Sticky)
		time.Sleep(301 * time.Second)
		want("aged", 0)
		r.change("vm0", func(l *link.Link) { l.Up = false })
		r.change("vm0", func(l *link.Link) { l.Up = true })
		want("port up again", fdb.Sticky)
		h.remove("vm0")
		r.wantState("vm0", api.StateWaiting)
		want("port gone", 0)
		h.put(link.Link{Name: "vm0", MTU: 1500, Up: true, Carrier: true})
		time.Sleep(time.Minute)
		want("port back", fdb.Sticky)

		saved := r.disk.state()
		if len(fdbOf(saved)) != 1 || !fdbOf(saved)[0].Sticky {
			t.Errorf("on disk: %+v", fdbOf(saved))
		}
		time.Sleep(301 * time.Second)
		want("aged again", 0)
		if err := r.delFDB(mac, 5); err != nil || len(fdbOf(r.disk.state())) != 0 {
			t.Errorf("removing an entry that has aged: %v, on disk %+v", err, fdbOf(r.disk.state()))
		}
		r.stop()
		r = start(t, newFakeHost(), saved)
		want("after a restart", fdb.Sticky)
	})
}
