package vswitch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/port"
)

// looked is a port whose queue is polled.
type looked struct {
	eager   atomic.Bool
	stays   atomic.Bool // eager however long no frames came
	inUse   atomic.Bool // by a worker's goroutine
	polls   atomic.Int64
	waits   atomic.Int64
	arrived chan []byte
	wake    chan struct{}

	mu     sync.Mutex
	frames [][]byte
	failed error
}

func newLooked() *looked {
	return &looked{arrived: make(chan []byte, 1<<16), wake: make(chan struct{}, 1)}
}

func (l *looked) Queues() []port.Queue { return []port.Queue{l} }

func (l *looked) Caps() port.Caps { return port.CapsAll }

func (l *looked) Close() error { l.fail(port.ErrClosed); return nil }

func (l *looked) Pause() { l.fail(port.ErrPaused) }

func (l *looked) Resume() { l.fail(nil) }

func (l *looked) fail(err error) {
	l.mu.Lock()
	l.failed = err
	l.mu.Unlock()
	l.rouse()
}

func (l *looked) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *looked) put(b []byte) {
	l.mu.Lock()
	l.frames = append(l.frames, b)
	l.mu.Unlock()
	l.rouse()
}

func (l *looked) Recv([]port.Frame) (int, error) { panic("a queue that is polled was waited for") }

func (l *looked) Poll(frames []port.Frame) (int, error) {
	l.polls.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return 0, l.failed
	}
	n := min(len(l.frames), 3)
	for i, b := range l.frames[:n] {
		frames[i].SetWire(b)
	}
	l.frames = l.frames[n:]
	if n > 0 && l.inUse.Swap(true) {
		panic("two use a queue at once")
	}
	return n, nil
}

func (l *looked) Release() { l.inUse.Store(false) }

func (l *looked) Eager(idle time.Duration) bool {
	return l.eager.Load() && (l.stays.Load() || idle < 100*time.Microsecond)
}

func (l *looked) Wait() {
	l.waits.Add(1)
	for {
		l.mu.Lock()
		more := len(l.frames) > 0 || l.failed != nil
		l.mu.Unlock()
		if more {
			return
		}
		<-l.wake
	}
}

func (l *looked) Send(out []port.Out) {
	for i := range out {
		l.arrived <- slices.Clone(out[i].Frame.Data)
		out[i].Drop = port.DropNone
	}
}

// next returns the number of the next frame that arrives.
func (l *looked) next(t *testing.T) uint32 {
	t.Helper()
	select {
	case b := <-l.arrived:
		return binary.BigEndian.Uint32(b[14:])
	case <-time.After(time.Minute):
		t.Fatal("no frame came")
		return 0
	}
}

// lookedSwitch is a switch with more polled ports than there are processors. Station i is behind
// port i.
type lookedSwitch struct {
	*Switch
	ports []*Port
	lines []*looked
}

func newLookedSwitch(t *testing.T) *lookedSwitch {
	t.Helper()
	s := &lookedSwitch{Switch: New(Config{})}
	t.Cleanup(func() { s.Close() })
	for i := range 2*runtime.GOMAXPROCS(0) + 2 {
		p, line := addLooked(t, s.Switch, fmt.Sprintf("p%d", i))
		p.SetForwarding(true)
		s.ports, s.lines = append(s.ports, p), append(s.lines, line)
	}
	return s
}

// addLooked adds a port whose queue is polled.
func addLooked(t *testing.T, s *Switch, name string) (*Port, *looked) {
	t.Helper()
	p, err := s.AddPort(name)
	if err != nil {
		t.Fatal(err)
	}
	line := newLooked()
	line.eager.Store(true)
	if err := p.Attach(line); err != nil {
		t.Fatal(err)
	}
	return p, line
}

func numbered(to, from int, n uint32) []byte {
	mac := func(i int) []byte { return (port.MAC(0x0200_0000_0001) + port.MAC(i)).HardwareAddr() }
	b := append(mac(to), mac(from)...)
	b = binary.BigEndian.AppendUint16(b, 0x88b5)
	b = binary.BigEndian.AppendUint32(b, n)
	return append(b, make([]byte, 42)...)
}

// meet lets the switch know where all stations are.
func (s *lookedSwitch) meet(t *testing.T) {
	t.Helper()
	for i, from := range s.lines {
		from.put(numbered(len(s.lines), i, 0)) // to nobody, so to all
		for j, line := range s.lines {
			if j != i {
				line.next(t)
			}
		}
	}
}

// round sends frames from each port to the one after the next, and expects them in order.
func (s *lookedSwitch) round(t *testing.T, among []int, frames uint32) {
	t.Helper()
	for n := range frames {
		for i, at := range among {
			s.lines[at].put(numbered(among[(i+1)%len(among)], at, n))
		}
		if n%16 == 15 {
			time.Sleep(50 * time.Microsecond) // some queues run empty
		}
	}
	for _, at := range among {
		for n := range frames {
			if got := s.lines[at].next(t); got != n {
				t.Fatalf("port %d got frame %d where %d was due", at, got, n)
			}
		}
	}
}

func (s *lookedSwitch) all() (all []int) {
	for i := range s.lines {
		all = append(all, i)
	}
	return all
}

// Frames of queues that are polled in groups come once and in order, whether queues are eager all
// the time, never, or now and then.
func TestPolledQueues(t *testing.T) {
	for name, eager := range map[string]func(i, round int) bool{
		"always":    func(int, int) bool { return true },
		"never":     func(int, int) bool { return false },
		"sometimes": func(i, round int) bool { return (i+round)%3 > 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLookedSwitch(t)
			s.meet(t)
			for round := range 6 {
				for i, l := range s.lines {
					l.eager.Store(eager(i, round))
				}
				s.round(t, s.all(), 200)
			}
			for _, l := range s.lines {
				l.eager.Store(false)
				l.put(numbered(0, 0, 0)) // to itself: it goes nowhere
			}
			p := &s.polling
			for limit := time.Now().Add(time.Minute); p.number.Load() != 0; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("%d groups are left when nobody polls a queue", p.number.Load())
				}
			}
			if n := p.shared.Load(); n != 0 {
				t.Errorf("%d workers share groups of which none is left", n)
			}
		})
	}
}

// At rest nothing is polled.
func TestPollingEnds(t *testing.T) {
	t.Parallel()
	s := newLookedSwitch(t)
	s.meet(t)
	asleep := func() (waits int64) {
		for _, l := range s.lines {
			waits += l.waits.Load()
		}
		return waits
	}
	for limit := time.Now().Add(time.Minute); s.polling.number.Load() != 0 || asleep() < int64(len(s.lines)); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("queues without frames are still polled")
		}
	}
}

// A port that is detached, whose queue fails, or which is held leaves its group, whoever leads
// it, and the others go on.
func TestPolledPortsLeave(t *testing.T) {
	t.Parallel()
	s := newLookedSwitch(t)
	s.meet(t)
	among := s.all()
	for len(among) > 2 {
		s.round(t, among, 50)
		at := among[len(among)/2]
		if len(among)%2 == 0 {
			at = among[0]
		}
		if err := s.ports[at].Detach(); err != nil {
			t.Fatal(err)
		}
		among = slices.DeleteFunc(among, func(i int) bool { return i == at })
	}
	if !s.Hold(time.Minute) {
		t.Fatal("polled ports are not held")
	}
	if n := s.polling.number.Load(); n != 0 {
		t.Errorf("%d groups are left in a switch that is held", n)
	}
	s.Resume()
	s.round(t, among, 50)
}

// A queue's error is the port's.
func TestPolledQueueFails(t *testing.T) {
	t.Parallel()
	lost := make(chan PortLost, 1)
	s := New(Config{OnEvent: func(e Event) {
		if l, ok := e.(PortLost); ok {
			lost <- l
		}
	}})
	t.Cleanup(func() { s.Close() })
	broken := errors.New("broken")
	_, line := addLooked(t, s, "p")
	line.fail(broken)
	if got := <-lost; !errors.Is(got.Err, broken) {
		t.Errorf("the port is lost by %v", got.Err)
	}
}

// A worker that once gave its group to another one leads that when all before it have left.
func TestPollingIsHandedOn(t *testing.T) {
	limit := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(limit)
	s := New(Config{})
	defer s.Close()
	var lines []*looked
	for i := range 4 { // the last one is where frames go
		p, line := addLooked(t, s, fmt.Sprintf("p%d", i))
		p.SetForwarding(true)
		line.stays.Store(true)
		line.eager.Store(false)
		lines = append(lines, line)
	}
	n := uint32(0)
	send := func(from int) {
		t.Helper()
		n++
		lines[from].put(numbered(9, from, n)) // to nobody, so to all
		if got := lines[3].next(t); got != n {
			t.Fatalf("frame %d came where %d was due", got, n)
		}
	}
	polled := func(workers int32) {
		t.Helper()
		for end := time.Now().Add(time.Minute); s.polling.number.Load()+s.polling.shared.Load() != workers; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%d groups, and %d workers beside their leaders, want %d", s.polling.number.Load(), s.polling.shared.Load(), workers)
			}
		}
	}
	for _, leave := range [][]int{{1, 0, 2}, {0, 2, 1}, {2, 0, 1}, {2, 1, 0}} { // which of them leads is chance
		runtime.GOMAXPROCS(limit)
		for i := range 3 {
			if i == 2 {
				runtime.GOMAXPROCS(1) // when the third joins, the groups of the first two merge
			}
			lines[i].eager.Store(true)
			send(i)
			polled(int32(i) + 1)
		}
		for end := time.Now().Add(time.Minute); s.polling.number.Load() != 1; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("two groups are left for one processor")
			}
		}
		for left, i := range leave {
			lines[i].eager.Store(false)
			polled(int32(2 - left))
			for _, other := range leave[left+1:] {
				send(other)
			}
		}
	}
}

// Workers join and leave groups, groups merge and give members away: each worker that polls is in
// one group at any time, there are no more groups than the host has processors, and the counts are right.
func TestPollGroups(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * runtime.NumCPU()))
	rapid.Check(t, func(t *rapid.T) {
		sw := New(Config{})
		defer sw.Close()
		p := &sw.polling
		in := map[*worker]bool{}
		leads := map[*pollGroup]*worker{}
		patient := false // now or before
		group := func() *pollGroup {
			return rapid.SampledFrom(p.groups).Draw(t, "group")
		}
		leave := func(g *pollGroup, gone ...*worker) {
			g.members = slices.DeleteFunc(g.members, func(w *worker) bool { return slices.Contains(gone, w) })
			p.update(g, len(gone))
			for _, w := range gone {
				delete(in, w)
				if leads[g] == w {
					delete(leads, g)
				}
			}
			if len(g.members) > 0 && leads[g] == nil {
				leads[g] = g.members[0]
			}
		}
		steps := map[string]func(*rapid.T){
			"join": func(*rapid.T) {
				w := &worker{sw: sw, polled: polled{role: make(chan *pollGroup, 1)}}
				in[w] = true
				if g := p.join(w); g != nil {
					leads[g] = w
				}
			},
			"leave": func(t *rapid.T) {
				if len(p.groups) == 0 {
					return
				}
				g := group()
				leave(g, rapid.SampledFrom(g.members).Draw(t, "member"))
			},
			"all leave": func(t *rapid.T) {
				if len(p.groups) == 0 {
					return
				}
				g := group()
				leave(g, slices.Clone(g.members)...)
			},
			"merge": func(t *rapid.T) {
				if len(p.groups) == 0 {
					return
				}
				g := group()
				crowded := p.crowded(leads[g], 0)
				if p.merge(g, leads[g]) {
					delete(leads, g)
				} else if crowded {
					t.Fatal("there are still too many groups")
				}
			},
			"share": func(t *rapid.T) {
				if len(p.groups) == 0 {
					return
				}
				helper := group()
				p.offer(helper)
				for _, g := range p.groups {
					if g.helper.Load() != nil && rapid.Bool().Draw(t, "now") {
						for _, m := range g.members {
							m.polled.busy = rapid.Bool().Draw(t, "busy")
						}
						before := g.size
						takes := slices.Contains(p.groups, g.helper.Load()) || !p.crowded(leads[g], 1) // the helper may have ended
						p.share(g, leads[g])
						if gives := slices.ContainsFunc(g.members, func(m *worker) bool { return m != leads[g] && m.polled.busy }); takes && gives && g.size == before {
							t.Fatal("a group with work keeps all of it beside one that has none")
						}
						for _, o := range p.groups { // of which one may have begun
							if leads[o] == nil {
								leads[o] = o.members[0]
								if now := <-leads[o].polled.role; now != o {
									t.Fatal("a worker does not know that it is to lead")
								}
							}
						}
					}
				}
			},
			"patience": func(*rapid.T) { sw.patient.Store(!sw.patient.Load()); patient = true },
			"": func(t *rapid.T) {
				seen, shared := map[*worker]bool{}, 0
				for _, g := range p.groups {
					all := slices.Concat(g.members, g.coming)
					if g.size != len(all) || len(g.members) == 0 {
						t.Fatalf("a group of %d has %d members and %d to come", g.size, len(g.members), len(g.coming))
					}
					if g.arrived.Load() != (len(g.coming) > 0) {
						t.Fatal("a leader does not know who is to come")
					}
					for _, w := range g.coming[len(g.coming):cap(g.coming)] {
						if w != nil {
							t.Fatal("a group keeps a worker to come that it has met")
						}
					}
					if !slices.Contains(g.members, leads[g]) {
						t.Fatal("a group is led by a stranger")
					}
					for _, w := range all {
						if seen[w] || !in[w] {
							t.Fatal("a worker in two groups, or in one that it left")
						}
						seen[w] = true
					}
					shared += g.size - 1
				}
				if !patient && len(p.groups) > runtime.NumCPU() {
					t.Fatalf("%d groups on %d processors", len(p.groups), runtime.NumCPU())
				}
				if len(seen) != len(in) {
					t.Fatalf("%d of %d workers are polled", len(seen), len(in))
				}
				if int(p.number.Load()) != len(p.groups) || int(p.shared.Load()) != shared {
					t.Fatalf("%d groups and %d that share, not %d and %d", p.number.Load(), p.shared.Load(), len(p.groups), shared)
				}
			},
		}
		t.Repeat(steps)
	})
}
