package drops

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

const (
	// snapLen is how many bytes of a dropped frame are kept: the headers.
	snapLen = 128

	// Of each port and reason, one sample is taken each sampleEvery, and after a quiet time
	// sampleBurst at once.
	sampleEvery = 100 * time.Millisecond
	sampleBurst = 10
)

// sample is one dropped frame.
type sample struct {
	time   time.Time
	port   *vswitch.Port
	sent   bool // lost on output
	why    port.Drop
	vlan   uint16
	length int    // on the wire
	missed uint64 // dropped before it by the port for this reason, without a sample
	size   int    // of data
	data   [snapLen]byte
}

// fill sets s to what is seen.
func (s *sample) fill(v *vswitch.Sight, now time.Time, missed uint64) {
	s.time, s.port, s.sent, s.why, s.vlan, s.length, s.missed = now, v.Port, v.Sent, v.Out.Drop, v.VLAN, v.Len(), missed
	s.size = v.CopyTo(s.data[:])
}

// has reports whether a sample is selected.
func (w *selection) has(s *sample) bool {
	if !w.reasons[s.why] || len(w.ports) > 0 && !slices.Contains(w.ports, s.port.Name()) {
		return false
	}
	f := port.Frame{Data: s.data[:s.size]}
	if s.length > s.size {
		f.Tail = rest(s.length - s.size)
	}
	return w.filter == nil || w.filter.Match(&f, 0)
}

// rest is the part of a frame that a sample lacks.
type rest int

func (r rest) Len() int               { return int(r) }
func (r rest) CopyTo(_ [][]byte) bool { return false }

// sampler decides of which dropped frames a sample is taken. Workers call take, several at a
// time.
type sampler struct {
	ports [vswitch.MaxPorts]atomic.Pointer[[port.NumDrops]budget] // by number
}

// budget is that of one port and reason.
type budget struct {
	until  atomic.Int64  // the time up to which samples have used it, in ns
	missed atomic.Uint64 // frames without a sample since the last
}

// take reports whether to take a sample of a frame, and if so how many frames before it were
// missed.
func (s *sampler) take(number uint16, why port.Drop, now time.Time) (missed uint64, ok bool) {
	budgets := s.ports[number].Load()
	if budgets == nil {
		s.ports[number].CompareAndSwap(nil, new([port.NumDrops]budget))
		if budgets = s.ports[number].Load(); budgets == nil {
			return 0, false // forgotten at once
		}
	}
	b := &budgets[why]
	for {
		until, ns := b.until.Load(), now.UnixNano()
		from := ns - int64(sampleBurst*sampleEvery)
		if until-ns < int64(time.Second) { // else somebody set the clock back
			from = max(from, until)
		}
		if from > ns-int64(sampleEvery) {
			b.missed.Add(1)
			return 0, false
		}
		if b.until.CompareAndSwap(until, from+int64(sampleEvery)) {
			return b.missed.Swap(0), true
		}
	}
}

// miss counts frames without a sample.
func (s *sampler) miss(number uint16, why port.Drop, n uint64) {
	if b := s.ports[number].Load(); b != nil && n != 0 {
		b[why].missed.Add(n)
	}
}

// forget starts anew for a port that takes the number.
func (s *sampler) forget(number uint16) { s.ports[number].Store(nil) }

const (
	// keep is how many frames of each port and reason are kept.
	keep = 4

	// maxKept is of how many ports and reasons frames are kept: 1,000 ports with eight
	// reasons each, in less than 8 MiB.
	maxKept = 8192
)

// recent are the last dropped frames of each port and reason.
type recent struct {
	sampler

	mu   sync.Mutex
	kept map[key]*kept
}

type key struct {
	port *vswitch.Port
	why  port.Drop
}

// kept is a ring of samples.
type kept struct {
	samples [keep]sample
	n       int // samples so far
}

func newRecent() *recent { return &recent{kept: make(map[key]*kept)} }

// see keeps a dropped frame. It is called by several workers at a time.
func (r *recent) see(v vswitch.Sight) {
	now := time.Now()
	missed, ok := r.take(v.Port.Number(), v.Out.Drop, now)
	if !ok {
		r.miss(v.Port.Number(), v.Out.Drop, uint64(v.Missed))
		return
	}
	missed += uint64(v.Missed)
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kept[key{v.Port, v.Out.Drop}]
	if k == nil {
		if len(r.kept) >= maxKept {
			return
		}
		k = new(kept)
		r.kept[key{v.Port, v.Out.Drop}] = k
	}
	k.samples[k.n%keep].fill(&v, now, missed)
	k.n++
}

// all returns the samples, oldest first.
func (r *recent) all() (all []sample) {
	r.mu.Lock()
	for _, k := range r.kept {
		all = append(all, k.samples[:min(k.n, keep)]...)
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b sample) int { return a.time.Compare(b.time) })
	return all
}

// forget drops the samples of a port that is removed.
func (r *recent) forget(p *vswitch.Port) {
	r.sampler.forget(p.Number())
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range port.NumDrops {
		delete(r.kept, key{p, d})
	}
}

// maxWaiting is how many samples wait for a follower, which gets them ten times a second: those
// of 100 ports and reasons at full rate.
const maxWaiting = 1024

// follower is a client that follows.
type follower struct {
	sampler
	want *selection

	mu      sync.Mutex
	waiting []sample
	spare   []sample
}

func newFollower(want *selection) *follower { return &follower{want: want} }

// see hands a dropped frame to the follower. It is called by several workers at a time.
func (f *follower) see(v vswitch.Sight) {
	// The filter comes before the sample: frames that are not wanted hide none that are.
	if !f.want.reasons[v.Out.Drop] || f.want.filter != nil && !f.want.filter.Match(v.Out.Frame, v.Out.Tag) {
		return
	}
	number, now := v.Port.Number(), time.Now()
	missed, ok := f.take(number, v.Out.Drop, now)
	if !ok {
		f.miss(number, v.Out.Drop, uint64(v.Missed))
		return
	}
	missed += uint64(v.Missed)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) == maxWaiting {
		f.miss(number, v.Out.Drop, missed+1)
		return
	}
	f.waiting = append(f.waiting, sample{})
	f.waiting[len(f.waiting)-1].fill(&v, now, missed)
}

// samples takes the waiting samples. They are valid until the next call.
func (f *follower) samples() []sample {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting, f.spare = f.spare[:0], f.waiting
	return f.spare
}
