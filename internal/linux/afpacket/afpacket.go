// Package afpacket attaches the switch to the kernel end of an interface. It receives
// the interface's frames and transmits frames on it, with virtio-net headers, through
// AF_PACKET sockets (packet(7), net/packet/af_packet.c). Open acts on the calling
// thread's network namespace; a Port is a port.Port.
package afpacket

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// Config configures a Port.
type Config struct {
	Ifindex int

	// Direct: the device accepts or refuses each frame immediately, as a TAP does
	// with its ring. Frames then bypass the queueing discipline, so that the sender
	// sees and counts a full ring as an error. Super-frames go through the
	// discipline, and so do all frames if somebody puts one on the device. A device
	// that drains at line speed needs its queues.
	Direct bool

	// Promiscuous: the device accepts frames for all addresses.
	Promiscuous bool

	// Punted: a program at the device's ingress decides which frames to punt, and
	// marks them (see Mark). Otherwise all frames come here.
	Punted bool

	// From is what another process gave of its Port at the interface, whose receiving sockets
	// this Port goes on with; nil: it makes its own.
	From *port.Parcel

	// Marked: frames have marks in both directions; the Port's queues are MarkedQueues.
	Marked bool

	// Queues is the number of queues of the Port; 0 means 1. Frames are spread over
	// them by the device queue that received them, so a flow keeps its order.
	Queues int
}

// Port is one attachment to an interface.
type Port struct {
	ifindex int
	direct  bool
	caps    port.Caps
	queues  []*queue

	// control sends the switch's own frames, with a priority that a device's queueing
	// discipline puts before data. A direct device has none: frames that bypass the
	// discipline overtake all that wait there.
	control int

	// Many workers send. They hold the lock for reading meanwhile, so that Close
	// does not close a descriptor that they use. Nobody waits long, since sending
	// never waits.
	mu     sync.RWMutex
	closed bool

	overruns atomic.Uint64
	losses   losses
	shaping  shaping

	paused atomic.Bool

	queued   atomic.Bool // a direct device has a queueing discipline: nothing bypasses it
	unfollow func()      // stops updating queued
}

// queue is one queue of a Port, with sockets of its own.
type queue struct {
	*Port
	rx receiver

	// plain sends whole frames, gso frames that the kernel may have to segment.
	// They are one socket unless Config.Direct is set: the kernel segments nothing
	// that bypasses the queueing discipline, and a guest without TSO would get no
	// TCP. While the device is queued, all frames use gso.
	plain, gso int
}

// socketBuffer is how much one socket may hold in each direction, in bytes as the
// kernel accounts them: some 50 super-frames of 64 KiB, or 3,000 small frames.
// It is a limit and costs nothing while frames are read as fast as they come.
const socketBuffer = 4 << 20

// Priorities of linux/pkt_sched.h. The first needs CAP_NET_ADMIN.
const (
	prioControl     = 7
	prioInteractive = 6
)

// Open attaches to the interface. Frames arrive from then on.
func Open(c Config) (*Port, error) {
	p := &Port{ifindex: c.Ifindex, direct: c.Direct, caps: caps(), control: -1, unfollow: func() {}}
	if c.From != nil {
		if err := c.From.Check(parcelFormat, max(c.Queues, 1)); err != nil {
			return nil, err
		}
	}
	group := -1
	for i := range max(c.Queues, 1) {
		q := &queue{Port: p, rx: receiver{fd: -1, wake: -1, careful: careful}, plain: -1, gso: -1}
		p.queues = append(p.queues, q)
		err := q.open(c, i)
		if err == nil && c.Queues > 1 && c.From == nil {
			group, err = q.rx.join(group)
		}
		if err != nil {
			p.closeSockets()
			return nil, explain(err)
		}
	}
	var err error
	if c.Direct {
		p.followQueue()
	} else if p.control, err = sender(c.Ifindex, false); err == nil {
		err = setControl(p.control)
	}
	if err != nil {
		p.closeSockets()
		return nil, explain(err)
	}
	if c.From != nil {
		p.inheritShape()
	}
	if p.losses.before, err = link.TxDropped(c.Ifindex); err != nil {
		p.unfollow()
		p.closeSockets()
		return nil, explain(err)
	}
	return p, nil
}

func (q *queue) open(c Config, index int) (err error) {
	if q.gso, err = sender(c.Ifindex, false); err != nil {
		return err
	}
	q.plain = q.gso
	if c.Direct {
		if q.plain, err = sender(c.Ifindex, true); err != nil {
			return err
		}
	}
	if c.From != nil {
		return q.rx.take(c, c.From.Files[index])
	}
	return q.rx.open(c)
}

// caps returns the offloads that the kernel accepts on an AF_PACKET socket. It segments
// and checksums in software if the device cannot. Linux 6.2 added UDP segmentation.
var caps = sync.OnceValue(func() port.Caps {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) == nil {
		if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); n == 2 && (major > 6 || major == 6 && minor >= 2) {
			return port.CapsAll
		}
	}
	return port.CapsAll &^ port.CapUSO
})

// followQueue looks for a queueing discipline now, and whenever it may have changed. If the
// kernel does not report that, frames bypass a discipline.
func (p *Port) followQueue() {
	if stop, err := link.FollowQueue(p.ifindex, p.queued.Store); err == nil {
		p.unfollow = stop
	}
}

// isQueued reports whether frames must not bypass the device's queueing discipline.
func (p *Port) isQueued() bool { return p.queued.Load() || p.shaping.on.Load() }

// Queues implements port.Port.
func (p *Port) Queues() []port.Queue {
	all := make([]port.Queue, len(p.queues))
	for i, q := range p.queues {
		all[i] = q
	}
	return all
}

// Caps returns the abilities of every Port.
func Caps() port.Caps { return caps() }

// Caps implements port.Port.
func (p *Port) Caps() port.Caps { return p.caps }

// Ifindex implements port.Device.
func (p *Port) Ifindex() int { return p.ifindex }

// Overruns implements port.Overrun.
func (p *Port) Overruns() uint64 {
	p.mu.RLock()
	if !p.closed {
		p.countOverruns()
	}
	p.mu.RUnlock()
	return p.overruns.Load()
}

// countOverruns adds the frames that the sockets lost since the last call: the kernel
// resets its counter at each read.
func (p *Port) countOverruns() {
	for _, q := range p.queues {
		if s, err := unix.GetsockoptTpacketStats(q.rx.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			p.overruns.Add(uint64(s.Drops))
		}
	}
}

// Close implements port.Port.
func (p *Port) Close() error {
	p.unfollow()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.countOverruns()
	p.closed = true
	return p.closeSockets()
}

// Leave implements port.Leaver: closing a packet socket takes a grace period, which delays the
// next process; see exit.go.
func (p *Port) Leave() error {
	p.unfollow()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	for _, q := range p.queues {
		q.rx.rouse()
	}
	return nil
}

// Pause implements port.Pausable. What comes meanwhile waits in the sockets.
func (p *Port) Pause() {
	p.paused.Store(true)
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, q := range p.queues {
		if !p.closed {
			q.rx.rouse()
		}
	}
}

// Resume implements port.Pausable.
func (p *Port) Resume() {
	p.mu.Lock() // a Close after this rouses its Recv again
	defer p.mu.Unlock()
	p.paused.Store(false)
	var count [8]byte
	for _, q := range p.queues {
		if !p.closed {
			_, _ = unix.Read(q.rx.wake, count[:])
		}
	}
}

// closeSockets closes all sockets at once: each waits for a grace period, and these
// periods overlap.
func (p *Port) closeSockets() error {
	var closing sync.WaitGroup
	errs := make([]error, len(p.queues))
	for i, q := range p.queues {
		closing.Go(func() { errs[i] = q.rx.close() })
		closing.Go(func() { _ = closeSocket(q.gso) })
		if q.plain != q.gso {
			closing.Go(func() { _ = closeSocket(q.plain) })
		}
	}
	if p.control >= 0 {
		closing.Go(func() { _ = closeSocket(p.control) })
	}
	closing.Wait()
	return errors.Join(errs...)
}

// sender makes a socket that only transmits: it has no protocol, so it receives no
// frames. It is a blocking socket, used with MSG_DONTWAIT, to keep it out of the
// netpoller, which would wake for each frame that leaves the device.
func sender(ifindex int, direct bool) (int, error) {
	fd, err := socket(0)
	if err != nil {
		return -1, err
	}
	err = set(fd, unix.PACKET_VNET_HDR, 1)
	if err == nil && direct {
		err = set(fd, unix.PACKET_QDISC_BYPASS, 1)
	}
	if err == nil {
		bufferSize(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex})
	}
	if err != nil {
		closeSocket(fd)
		return -1, err
	}
	return fd, nil
}

// setControl gives what a socket sends priority over data.
func setControl(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, prioControl) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, prioInteractive)
}

func set(fd, option, value int) error {
	return unix.SetsockoptInt(fd, unix.SOL_PACKET, option, value)
}

// bufferSize sets a socket's limit, beyond the system's if CAP_NET_ADMIN allows it.
func bufferSize(fd, force, plain int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer)
	}
}

func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return errors.New("attach to the interface: needs CAP_NET_RAW; run vswitch as root or give it that capability")
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("attach to the interface: %w", port.ErrGone)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return errors.New("attach to the interface: this kernel has no packet sockets; load them with `modprobe af_packet`")
	}
	return fmt.Errorf("attach to the interface: %w", err)
}

// receiver is the receiving socket and the batch that it fills.
type receiver struct {
	mu   sync.Mutex // held by Recv, and by callers that must exclude a waiting Recv
	fd   int        // -1 when closed
	wake int        // an eventfd that ends a wait

	// Used by the one worker that receives.
	batch   *batch
	careful int        // how many more frames to read carefully
	pending unix.Errno // the socket's error after the last frame read carefully
	poll    [2]unix.PollFd

	marked bool
	marks  [port.BatchSize]uint32
}
