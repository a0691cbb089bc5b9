package daemon

import (
	"errors"
	"runtime"
	"sync"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// turns lets one goroutine at a time use the manager's state: the loop of manager.run, or one
// that has taken a turn. The loop gives turns between its own duties. Whoever has a turn must
// be quick, because hellos, queries and probes wait. Waiting for the disk, the kernel or
// another process happens in off, without the turn.
type turns struct {
	next  chan struct{} // from the loop: gives the turn
	back  chan struct{} // to the loop: gives the turn back
	ended chan struct{} // closed when no more turns are given
}

func newTurns() turns {
	return turns{next: make(chan struct{}), back: make(chan struct{}), ended: make(chan struct{})}
}

// take waits for a turn. It returns false if the loop has ended.
func (t *turns) take() bool {
	select {
	case <-t.next:
		return true
	case <-t.ended:
		return false
	}
}

func (t *turns) give() { t.back <- struct{}{} }

// do runs f in a turn and returns its error. f runs on a goroutine of its own: off
// ends that goroutine if the loop ends meanwhile.
func (m *manager) do(f func() error) error {
	err := fail(api.CodeStopping, "switch %s is stopping; start it again with `vswitch run`", m.name)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if m.take() {
			result := f()
			m.give()
			err = result
		}
	}()
	<-done
	return err
}

// off runs f without the turn, which the caller has from do: f may wait and must not use the
// manager's state. Other turns come between, so the caller must recheck what they can change.
// What runs on the loop itself has no turn to give, and must not wait.
func (m *manager) off(f func()) {
	m.give()
	f()
	if !m.take() {
		runtime.Goexit() // the rest of do's function must not run
	}
}

// claim gives the caller the sole right to work on a port's device until release: such work
// runs without the turn.
func (m *manager) claim(p *managed) {
	for p.claimed != nil {
		c := p.claimed
		m.off(func() { <-c })
	}
	p.claimed = make(chan struct{})
}

func (p *managed) release() {
	close(p.claimed)
	p.claimed = nil
}

// attend runs work on a claimed port in a turn of its own.
func (m *manager) attend(p *managed, work func()) {
	p.claimed = make(chan struct{})
	go func() {
		_ = m.do(func() error {
			defer p.release()
			work()
			return nil
		})
	}()
}

// oneAtATime calls a kind's methods one at a time, as port.Kind promises. Kinds do
// not wait for each other.
type oneAtATime struct {
	port.Kind
	mu sync.Mutex
}

// as returns another interface of a kind. Its methods change nothing, so they need no lock.
func as[T any](k port.Kind) (t T, ok bool) {
	if one, is := k.(*oneAtATime); is {
		k = one.Kind
	}
	t, ok = k.(T)
	return t, ok
}

// Needs implements port.Sized, also for kinds that do not implement it.
func (k *oneAtATime) Needs(spec port.Spec, queues int) port.Needs {
	if s, ok := k.Kind.(port.Sized); ok {
		return s.Needs(spec, queues)
	}
	return port.Needs{}
}

func (k *oneAtATime) Open(spec port.Spec, trace *port.Trace) (port.Port, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Kind.Open(spec, trace)
}

// Take implements port.Heir.
func (k *oneAtATime) Take(spec port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	heir, ok := k.Kind.(port.Heir)
	if !ok {
		return nil, errors.New("its kind takes no port over")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return heir.Take(spec, trace, from)
}

func (k *oneAtATime) Set(p port.Port, from, to port.Spec) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Kind.Set(p, from, to)
}

func (k *oneAtATime) Delete(spec port.Spec, trace port.Trace) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Kind.Delete(spec, trace)
}
