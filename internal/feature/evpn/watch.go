package evpn

import (
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// watch follows the FDB. Workers report changes, which it passes on in batches from a goroutine
// of its own; if there are too many, or a port is flushed, it passes the whole table on.
type watch struct {
	table  *fdb.Table
	keys   chan fdb.Key
	missed atomic.Bool   // some were not reported
	wake   chan struct{} // holds a token once missed is set
	quit   chan struct{}
	stop   func()
}

const (
	watchBacklog = 4096
	watchBatch   = 512 // keys passed on at once, so that a turn is short
)

// newWatch passes changed keys to changed; whole is set on the last batch of the whole table.
func newWatch(s *vswitch.Switch, changed func(keys []fdb.Key, whole bool) bool) *watch {
	w := &watch{table: s.FDB(), keys: make(chan fdb.Key, watchBacklog), wake: make(chan struct{}, 1), quit: make(chan struct{})}
	w.stop = s.Observe(w)
	go w.run(changed)
	return w
}

func (w *watch) close() {
	w.stop()
	close(w.quit)
}

// Changed implements fdb.Observer. It is called by workers.
func (w *watch) Changed(k fdb.Key) {
	select {
	case w.keys <- k:
	default:
		w.all()
	}
}

// Flushed implements fdb.Observer.
func (w *watch) Flushed(uint16) { w.all() }

// all has the whole table passed on.
func (w *watch) all() {
	w.missed.Store(true)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) run(changed func([]fdb.Key, bool) bool) {
	// From time to time the table is passed on whole: entries of other hosts must not age.
	every := time.NewTicker(w.every())
	defer every.Stop()
	var batch []fdb.Key
	for {
		batch = batch[:0]
		select {
		case <-w.quit:
			return
		case <-every.C:
			w.missed.Store(true)
			every.Reset(w.every())
		case <-w.wake:
		case k := <-w.keys:
			batch = append(batch, k)
			for more := true; more && len(batch) < watchBatch; {
				select {
				case k := <-w.keys:
					batch = append(batch, k)
				default:
					more = false
				}
			}
		}
		if len(batch) > 0 && !changed(batch, false) {
			return
		}
		if w.missed.Swap(false) && !w.passAll(changed) {
			return
		}
	}
}

// every returns how often the whole table is passed on.
func (w *watch) every() time.Duration {
	const least, most = time.Second, time.Minute
	if aging := w.table.Aging(); aging > 0 {
		return min(max(aging/4, least), most)
	}
	return most
}

func (w *watch) passAll(changed func([]fdb.Key, bool) bool) bool {
	var batch []fdb.Key
	for e := range w.table.All() {
		if batch = append(batch, e.Key); len(batch) == watchBatch {
			if !changed(batch, false) {
				return false
			}
			batch = batch[:0]
		}
	}
	return changed(batch, true)
}

// changed takes note of changes of the FDB. It is called by the watch, and reports whether it
// may go on.
func (f *fabric) changed(keys []fdb.Key, whole bool) bool {
	alive := false
	return f.host.Do(func() {
		if alive = !f.closed; !alive {
			return
		}
		for _, k := range keys {
			f.station(k)
		}
		if whole {
			f.reconcile()
		}
	}) && alive
}

// station tells the table where the FDB has a station.
func (f *fabric) station(k fdb.Key) {
	vni, ok := f.vnis[k.VLAN()]
	if !ok {
		return
	}
	mac := port.MAC(k.MAC())
	e, known := f.host.Switch().FDB().Get(k)
	switch {
	case !known || e.Port == fdb.NoPort:
		f.table.Gone(vni, mac)
	case e.Port == f.uplink.Number():
		// Entries of other hosts are entered here, and not learned; a user's own counts.
		if e.Kind == fdb.Static {
			f.table.Gone(vni, mac)
		}
	default:
		f.table.Local(time.Now(), vni, mac, e.Port, e.Kind == fdb.Static || e.Kind == fdb.Sticky)
	}
}

// reconcile compares the stations of the table with the FDB: those here that it no longer has
// are gone, and those of other hosts are entered again before they age. What the tunnel had no room for, it may take now.
func (f *fabric) reconcile() {
	table := f.host.Switch().FDB()
	var gone []evpn.Place
	var heard []fdb.Key
	untold := f.full
	f.full = false
	for p := range f.table.Places() {
		if p.At.VTEP.IsValid() {
			if untold && f.tunnel.SetRemote(uint32(p.VNI), p.MAC, p.At.VTEP) != nil {
				f.full, untold = true, false
			}
			if e, ok := table.Get(f.key(p.VNI, p.MAC)); ok && !f.isRemote(e) {
				heard = append(heard, f.key(p.VNI, p.MAC)) // here meanwhile, and not passed on yet
			} else {
				f.enter(p.VNI, p.MAC, p.At)
			}
			continue
		}
		if e, ok := table.Get(f.key(p.VNI, p.MAC)); !ok || e.Port == f.uplink.Number() {
			gone = append(gone, p)
		}
	}
	for vni, vteps := range f.short {
		f.Flood(vni, vteps)
	}
	for _, p := range gone {
		f.table.Gone(p.VNI, p.MAC)
	}
	for _, k := range heard {
		f.station(k)
	}
}
