package afpacket

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/shape"
)

// shaping is what is known of a queueing discipline that the Port has put on its device, in which
// frames of the switch wait as well as those that the kernel forwards itself.
type shaping struct {
	on   atomic.Bool
	told atomic.Uint64 // how often it refused a frame with an error

	mu      sync.Mutex
	seen    uint32        // its count of dropped frames, as last read
	dropped uint64        // frames since Open
	lost    atomic.Uint64 // the last result of Shaped

	// While the discipline comes or goes, what is sent through it would be lost: senders wait for graft,
	// except with frames of the switch, which must be on time.
	grafting atomic.Bool
	graft    sync.RWMutex
}

// hold has senders wait until the returned function is called. What they send is under way no more.
func (p *Port) hold() (release func()) {
	s := &p.shaping
	s.graft.Lock()
	p.mu.Lock() // when it has the lock, nobody sends
	s.grafting.Store(true)
	p.mu.Unlock()
	return func() {
		s.grafting.Store(false)
		s.graft.Unlock()
	}
}

// await waits while hold has senders wait. The caller holds mu for reading.
func (p *Port) await() {
	p.mu.RUnlock()
	p.shaping.graft.RLock()
	defer p.shaping.graft.RUnlock()
	p.mu.RLock()
}

// Shape implements port.Shaping. Like Lost, it acts on the calling thread's network namespace.
func (p *Port) Shape(bits uint64) (how string, err error) {
	s := &p.shaping
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if err == nil {
			return
		}
		if r, failed := shape.Read(p.ifindex); failed == nil {
			s.on.Store(r.On)
		}
	}()
	var r shape.State
	switch r, err = shape.Read(p.ifindex); {
	case err != nil:
		return "", err
	case bits == 0 && !r.On:
		s.on.Store(false)
		return "", nil
	case bits == 0:
		return "", p.unshape()
	}
	if err := shape.Check(bits); err != nil {
		if r.On {
			return "", errors.Join(err, p.unshape())
		}
		return "", err
	}
	switch {
	case !r.On:
		defer p.hold()()
		s.seen = 0
	case !s.on.Load():
		s.seen = r.Dropped
	}
	if r, err = shape.Set(p.ifindex, bits); err != nil {
		return "", err
	}
	p.prioritize(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, r.Priority()) })
	s.on.Store(true)
	return r.How(), nil
}

// prioritize gives frames of the switch their priority, unless they pass the discipline by.
func (p *Port) prioritize(set func(fd int) error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.control >= 0 && !p.closed {
		_ = set(p.control) // without it they wait as others do
	}
}

// inheritShape goes on with the discipline that a former Port has put on the device.
func (p *Port) inheritShape() {
	if r, err := shape.Read(p.ifindex); err == nil && r.On {
		p.shaping.seen = r.Dropped
		p.shaping.on.Store(true)
	}
}

// unshape takes the discipline off once nothing waits in it. The caller holds shaping.mu.
func (p *Port) unshape() error {
	s := &p.shaping
	if err := shape.Lift(p.ifindex); err != nil {
		return err
	}
	defer p.hold()()
	// What was sent since is gone as well, unless the device is down.
	if r, err := shape.Read(p.ifindex); err == nil {
		s.count(r)
	}
	p.prioritize(setControl)
	err := shape.Remove(p.ifindex)
	s.on.Store(err != nil)
	return err
}

// Shapes implements port.Shaping.
func (p *Port) Shapes() bool {
	if !p.shaping.on.Load() {
		return false
	}
	r, err := shape.Read(p.ifindex)
	return err == nil && r.On || errors.Is(err, link.ErrNotFound)
}

// Shaped implements port.Shaping. While Shape works, which may take a while, the last value stands.
func (p *Port) Shaped() uint64 {
	s := &p.shaping
	if !s.mu.TryLock() {
		return s.lost.Load()
	}
	defer s.mu.Unlock()
	if s.on.Load() {
		if r, err := shape.Read(p.ifindex); err == nil && r.On {
			s.count(r)
		}
	}
	if s.dropped == 0 {
		return 0
	}
	// As in Lost: a sender may not have counted an error yet.
	p.mu.Lock()
	told := s.told.Load()
	p.mu.Unlock()
	if s.dropped > told {
		s.lost.Store(max(s.lost.Load(), s.dropped-told))
	}
	return s.lost.Load()
}

// count adds what the discipline has dropped since the last call. The caller holds mu.
func (s *shaping) count(r shape.State) {
	s.dropped += uint64(r.Dropped - s.seen)
	s.seen = r.Dropped
}
