package vxlan

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// sockets is a port on UDP sockets: some that send, each with a source port of its own, and
// one for each queue that receives.
type sockets struct {
	tunnel
	queues []*queue
	why    string // no device of the kernel carries the frames

	// Send holds gate to read, so that Close closes no socket that is in use.
	gate   sync.RWMutex
	paused atomic.Bool
	tx     []int
}

var _ interface {
	openTunnel
	port.Lasting
	port.Substitute
} = (*sockets)(nil)

// openSockets makes a tunnel without networks. It receives by what another process gave, unless
// from is nil.
func openSockets(local netip.Addr, e port.Encapsulation, udpPort uint16, queues int, from *port.Parcel) (*sockets, error) {
	files, err := receivers(local, udpPort, queues, from)
	if err != nil {
		return nil, err
	}
	t := new(sockets)
	t.init(local, e, udpPort)
	t.replies.wake = func() { t.queues[0].wake() }
	for _, f := range files {
		t.queues = append(t.queues, newQueue(t, f))
	}
	for range txSockets {
		fd, err := openSender(local)
		if err != nil {
			t.closeSockets()
			return nil, err
		}
		t.tx = append(t.tx, fd)
	}
	t.measureDevice()
	t.tasks.Go(func() { t.watch(t.quit) })
	return t, nil
}

// Queues implements port.Port.
func (t *sockets) Queues() (all []port.Queue) {
	for _, q := range t.queues {
		all = append(all, q)
	}
	return all
}

// Caps implements port.Port.
func (t *sockets) Caps() port.Caps { return sockCaps }

// Close implements port.Port.
func (t *sockets) Close() error {
	if !t.closed.Swap(true) {
		close(t.quit)
		t.closeSockets()
	}
	t.tasks.Wait()
	return nil
}

func (t *sockets) closeSockets() {
	for _, q := range t.queues {
		q.close()
	}
	t.gate.Lock()
	defer t.gate.Unlock()
	for _, fd := range t.tx {
		unix.Close(fd)
	}
	t.tx = nil
}

// Pause implements port.Pausable. What hosts send meanwhile waits in the sockets.
func (t *sockets) Pause() {
	t.paused.Store(true)
	for _, q := range t.queues {
		q.wake()
	}
}

// Resume implements port.Pausable.
func (t *sockets) Resume() { t.paused.Store(false) }

// Overruns implements port.Overrun.
func (t *sockets) Overruns() (n uint64) {
	for _, q := range t.queues {
		n += q.overruns()
	}
	return n
}

// Substitutes implements port.Substitute.
func (t *sockets) Substitutes() string { return "sockets carry its frames: " + t.why }
