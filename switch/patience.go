package vswitch

import (
	"cmp"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

// After a pause, all frames that waited come at once, and may be more than a machine's queue
// holds. So for a second after Resume, a worker whose frames a full queue refuses waits a little
// and sends them again, while others go on.
const (
	patientFor = time.Second

	// patience is how long a worker waits in all, however its machines behave.
	patience = 100 * time.Millisecond

	// stuckAfter is how long a worker waits for a machine that takes nothing. Then nobody waits
	// for it any more.
	stuckAfter = 50 * time.Millisecond

	patientStep = time.Millisecond
)

// bePatient lets workers be patient from now on. The caller holds sw.mu.
func (s *Switch) bePatient() {
	for _, p := range s.byName {
		p.stuck.Store(false)
	}
	s.patient.Store(true)
	if s.impatient == nil {
		s.impatient = time.AfterFunc(patientFor, func() { s.patient.Store(false) })
	} else {
		s.impatient.Reset(patientFor)
	}
}

// insist sends again what a port's queue refused since it is full, as long as the worker has
// patience. It ends soon when a change of the switch waits for the batch.
func (w *worker) insist(to *Port, q port.Queue, out []port.Out) {
	idle := time.Duration(0)
	for refused := full(out); len(refused) > 0; {
		if w.patience <= 0 || to.stuck.Load() || w.hurry.Load() > 0 || !w.sw.patient.Load() {
			return
		}
		time.Sleep(patientStep)
		w.patience -= patientStep
		for i := range refused {
			refused[i].Drop = port.DropNone
		}
		q.Send(refused)
		left := full(refused)
		if idle += patientStep; len(left) < len(refused) {
			idle = 0
		} else if idle >= stuckAfter {
			to.stuck.Store(true)
		}
		refused = left
	}
}

// full moves the frames that a full queue refused to the end of out, in their order, and returns
// them.
func full(out []port.Out) []port.Out {
	refused := func(o port.Out) int {
		if o.Drop == port.DropQueueFull {
			return 1
		}
		return 0
	}
	if !slices.ContainsFunc(out, func(o port.Out) bool { return refused(o) > 0 }) {
		return nil
	}
	slices.SortStableFunc(out, func(a, b port.Out) int { return cmp.Compare(refused(a), refused(b)) })
	return out[slices.IndexFunc(out, func(o port.Out) bool { return refused(o) > 0 }):]
}
