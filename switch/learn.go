package vswitch

import (
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// learn notes that the sender of f is behind the port it came by (802.1Q-2018
// clause 8.7). A sender that is known there costs a lookup and no write.
func (w *worker) learn(f *port.Frame) {
	if outcome, from := w.sw.fdb.Learn(key(f, f.Src), w.in); outcome == fdb.Moved {
		w.sw.events.moved(MACMoved{MAC: f.Src, VLAN: f.VLAN, From: from, To: w.in})
	}
}
