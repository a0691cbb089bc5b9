package vswitch

import (
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// learn records that the sender of f is behind f's ingress port (802.1Q-2018 clause 8.7),
// and refuses senders that the port does not admit. A sender already known there costs a
// lookup and no write.
func (w *worker) learn(f *port.Frame, from *member) port.Drop {
	if from.flags&learnFlags != 0 {
		return w.learnGuarded(f, from)
	}
	w.note(f, from)
	return port.DropNone
}

// note learns the sender of f, without any rule of the port.
func (w *worker) note(f *port.Frame, from *member) fdb.Outcome {
	k := key(f, f.Src)
	if k == w.last.src {
		return fdb.Known
	}
	outcome, before := w.sw.fdb.Learn(k, from.number)
	if outcome == fdb.Known {
		w.last.src = k
		return outcome
	}
	w.last = lastKeys{} // the destination may be the station just learned
	switch {
	case outcome == fdb.Moved:
		w.sw.events.moved(MACMoved{MAC: f.Src, VLAN: f.VLAN, From: before, To: from.number}, from.port)
	case outcome == fdb.Pinned && before == fdb.NoPort:
		w.sw.events.own(OwnAddress{Port: from.number, VLAN: f.VLAN})
	}
	return outcome
}

// learnGuarded is learn for ports that restrict learning.
func (w *worker) learnGuarded(f *port.Frame, from *member) port.Drop {
	if from.flags&flagBlocked != 0 {
		if from.flags&flagLearning != 0 && from.flags&(flagLocked|flagNoLearn) == 0 {
			w.note(f, from)
		}
		return port.DropBlocked
	}
	if from.flags&flagLocked != 0 {
		if at, known := w.sw.fdb.Lookup(key(f, f.Src)); !known || at != from.number {
			return port.DropLocked
		}
	}
	if from.flags&flagNoLearn != 0 {
		return port.DropNone
	}
	if w.note(f, from) != fdb.Limited {
		return port.DropNone
	}
	switch {
	case from.flags&flagShutdown != 0:
		w.sw.events.guard(LimitHit{Port: from.number, MAC: f.Src, VLAN: f.VLAN})
		return port.DropLearnLimit
	case from.flags&flagProtect != 0:
		return port.DropLearnLimit
	}
	return port.DropNone
}
