package vxlan

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// tunnel is a port on UDP sockets: some that send, each with a source port of its own, and
// one for each queue that receives.
type tunnel struct {
	directory
	queues []*queue
	quit   chan struct{} // closed by Close
	tasks  sync.WaitGroup

	// Send holds gate to read, so that Close closes no socket that is in use.
	gate   sync.RWMutex
	closed atomic.Bool
	paused atomic.Bool
	tx     []int

	news    chan struct{}
	refusal refusal
}

var _ interface {
	port.Tunnel
	port.Giver
	port.Overrun
	port.Noticer
} = (*tunnel)(nil)

// open makes a tunnel without networks. It receives by what another process gave, unless from is nil.
func open(local netip.Addr, udpPort uint16, queues int, from *port.Parcel) (*tunnel, error) {
	files, err := receivers(local, udpPort, queues, from)
	if err != nil {
		return nil, err
	}
	t := &tunnel{quit: make(chan struct{}), news: make(chan struct{}, 1)}
	t.directory.init(local, udpPort)
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
func (t *tunnel) Queues() (all []port.Queue) {
	for _, q := range t.queues {
		all = append(all, q)
	}
	return all
}

// Caps implements port.Port: the core finishes frames, and the kind has the kernel divide
// the datagrams that they make.
func (t *tunnel) Caps() port.Caps { return port.CapsNone }

// Close implements port.Port.
func (t *tunnel) Close() error {
	if !t.closed.Swap(true) {
		close(t.quit)
		t.closeSockets()
	}
	t.tasks.Wait()
	return nil
}

func (t *tunnel) closeSockets() {
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
func (t *tunnel) Pause() {
	t.paused.Store(true)
	for _, q := range t.queues {
		q.wake()
	}
}

// Resume implements port.Pausable.
func (t *tunnel) Resume() { t.paused.Store(false) }

// Overruns implements port.Overrun.
func (t *tunnel) Overruns() (n uint64) {
	for _, q := range t.queues {
		n += q.overruns()
	}
	return n
}
