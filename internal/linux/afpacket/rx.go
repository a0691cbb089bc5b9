package afpacket

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// lookEvery is how often Recv checks whether a device that is down was deleted.
const lookEvery = 250 * time.Millisecond

func (r *receiver) open(c Config) error {
	var err error
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	// Without a protocol the socket receives nothing; otherwise frames of all
	// interfaces would come between here and bind.
	fd, err := socket(unix.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	r.fd = fd
	for _, option := range []int{unix.PACKET_VNET_HDR, unix.PACKET_AUXDATA, unix.PACKET_IGNORE_OUTGOING} {
		if err := set(fd, option, 1); err != nil {
			return err
		}
	}
	if r.marked = c.Marked; r.marked {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1); err != nil {
			return err
		}
	}
	bufferSize(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	if c.Promiscuous {
		// A membership ends with its socket, unlike the flag that `ip link` sets.
		m := unix.PacketMreq{Ifindex: int32(c.Ifindex), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return err
		}
	}
	return r.bind(c.Ifindex, c.Punted)
}

// join puts the socket into a fanout group, a new one if group is -1, and returns the
// group. The group's sockets share the device's frames by receiving queue.
func (r *receiver) join(group int) (int, error) {
	if group >= 0 {
		return group, set(r.fd, unix.PACKET_FANOUT, group|unix.PACKET_FANOUT_QM<<16)
	}
	if err := set(r.fd, unix.PACKET_FANOUT, (unix.PACKET_FANOUT_QM|unix.PACKET_FANOUT_FLAG_UNIQUEID)<<16); err != nil {
		return -1, err
	}
	group, err := unix.GetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	return group & 0xffff, err
}

// close closes the socket. It wakes a waiting Recv and waits for it: the descriptor must
// not be reused while Recv uses it.
func (r *receiver) close() error {
	if r.wake >= 0 {
		r.rouse()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.fd >= 0 {
		errs = append(errs, closeSocket(r.fd))
		r.fd = -1
	}
	if r.wake >= 0 {
		errs = append(errs, unix.Close(r.wake))
		r.wake = -1
	}
	return errors.Join(errs...)
}

// rouse ends a wait.
func (r *receiver) rouse() { _, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// batch is the memory of one recvmmsg. Headers and vectors always point to their slots,
// so a call needs no setup.
type batch struct {
	headers [port.BatchSize]mmsg.Header
	vectors [port.BatchSize]unix.Iovec
	control [port.BatchSize]control
	slab    []byte

	// For careful reading.
	look  glance
	split vnet.Segmenter
}

// slotLen is the most that is read into a slot.
const slotLen = vnet.HeaderLen + port.MaxFrame + 4 // the mark

// glance is a message of which only the virtio-net header is read.
type glance struct {
	header [1]mmsg.Header
	vector unix.Iovec
	bytes  [vnet.HeaderLen]byte
}

// peek returns the length of the next message, which stays where it is.
func (g *glance) peek(fd int) (int, unix.Errno) {
	g.vector.Base = &g.bytes[0]
	g.vector.SetLen(len(g.bytes))
	g.header[0].Iov = &g.vector
	g.header[0].SetIovlen(1)
	_, errno := mmsg.Peek(fd, g.header[:])
	return int(g.header[0].N), errno
}

// control is room for one control message with a struct tpacket_auxdata, and before it for one
// with a mark, where the socket gives marks.
type control struct {
	mark markMessage
	unix.Cmsghdr
	aux unix.TpacketAuxdata
}

var batches = rxbuf.Pool[batch]{Batches: true, New: func() *batch {
	b := &batch{slab: rxbuf.Slab()}
	for i := range b.headers {
		b.vectors[i].Base = &b.slab[i*rxbuf.Stride]
		b.vectors[i].SetLen(slotLen)
		h := &b.headers[i].Msghdr
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
	}
	return b
}}

// Recv implements port.Queue. It waits in the kernel, on a thread of its own, which a
// frame wakes directly. The netpoller would wake a thread that then has to find and wake
// the worker.
func (q *queue) Recv(frames []port.Frame) (int, error) {
	r := &q.rx
	r.mu.Lock()
	defer r.mu.Unlock()
	timeout := forever
	for r.fd >= 0 {
		if q.paused.Load() {
			return 0, port.ErrPaused
		}
		n, errno := r.read(frames[:min(len(frames), port.BatchSize)], q.ifindex)
		switch errno {
		case 0:
			return n, nil
		case unix.EINVAL:
			// The kernel dropped a frame whose offload the header cannot express. The
			// next ones are read carefully.
			r.careful = careful
			frames[0].SetStripped(nil, 0)
			frames[0].Drop = port.DropUnsupported
			return 1, nil
		case unix.EAGAIN:
			woken, err := r.wait(timeout)
			if err != nil {
				return 0, fmt.Errorf("receive: %w", err)
			}
			if woken && !q.paused.Load() {
				return 0, port.ErrClosed
			}
			if timeout == forever {
				continue
			}
		case unix.EINTR:
			continue
		case unix.ENETDOWN:
		default:
			return 0, fmt.Errorf("receive: %w", errno)
		}
		// The link went down. It may come up again, and the socket with it. Or the
		// device is being deleted, which the kernel does not report to a socket that
		// is already down: Recv has to look.
		gone, up := q.look()
		if gone {
			return 0, port.ErrGone
		}
		timeout = forever
		if !up {
			timeout = lookEvery
		}
	}
	return 0, port.ErrClosed
}

// forever is a wait without a timeout.
const forever time.Duration = -1

// wait returns when the socket is ready or the timeout has passed; woken reports whether
// rouse was called.
func (r *receiver) wait(timeout time.Duration) (woken bool, err error) {
	r.poll[0] = unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN}
	r.poll[1] = unix.PollFd{Fd: int32(r.wake), Events: unix.POLLIN}
	ms := -1
	if timeout != forever {
		ms = int(timeout / time.Millisecond)
	}
	if _, err := unix.Poll(r.poll[:], ms); err != nil && err != unix.EINTR {
		return false, err
	}
	return r.poll[1].Revents != 0, nil
}

// look reports whether the device was deleted or moved to another namespace, and
// whether it is up.
func (q *queue) look() (gone, up bool) {
	return !bound(q.rx.fd, q.ifindex), flags(q.rx.fd, q.ifindex)&unix.IFF_UP != 0
}

// bound reports whether a socket is still at the device that it was bound to. When the
// device goes, the kernel clears the number in the socket before another device can get it.
func bound(fd, ifindex int) bool {
	sa, err := unix.Getsockname(fd)
	ll, ok := sa.(*unix.SockaddrLinklayer)
	return err != nil || !ok || ll.Ifindex == ifindex
}

// Bound implements port.Bound.
func (p *Port) Bound() bool {
	p.mu.RLock() // Close must not close the socket meanwhile
	defer p.mu.RUnlock()
	return !p.closed && bound(p.queues[0].rx.fd, p.ifindex)
}

// read receives the frames that the socket has, by readBatch or carefully.
func (r *receiver) read(frames []port.Frame, ifindex int) (int, unix.Errno) {
	if r.careful > 0 {
		return r.readCarefully(frames, ifindex)
	}
	return r.readBatch(frames)
}

// readBatch receives the frames that the socket has. It keeps the rented memory only if
// frames came.
func (r *receiver) readBatch(frames []port.Frame) (int, unix.Errno) {
	b := batches.Rent()
	for i := range frames {
		b.rearm(i, r.marked)
	}
	n, errno := mmsg.Recv(r.fd, b.headers[:len(frames)])
	if errno != 0 {
		batches.Return(b)
		return 0, errno
	}
	for i := range n {
		b.decode(i, &frames[i])
		r.marks[i] = b.control[i].mark.value
		if frames[i].Drop == port.DropUnsupported {
			r.careful = careful
		}
	}
	r.batch = b
	return n, 0
}

// rearm prepares message i for the next receive.
func (b *batch) rearm(i int, marked bool) {
	h, c := &b.headers[i].Msghdr, &b.control[i]
	h.Control = (*byte)(unsafe.Pointer(&c.Cmsghdr))
	h.SetControllen(int(unsafe.Sizeof(*c) - unsafe.Sizeof(c.mark)))
	h.Flags = 0
	if marked {
		c.mark.value = 0
		h.Control = (*byte)(unsafe.Pointer(c))
		h.SetControllen(int(unsafe.Sizeof(*c)))
	}
}

// decode sets f to the frame of message i.
func (b *batch) decode(i int, f *port.Frame) {
	h := &b.headers[i]
	o, ok := b.parse(b.slab[i*rxbuf.Stride:][:h.N], i, f)
	if h.Flags&unix.MSG_TRUNC != 0 || f.Len() > port.MaxFrame {
		f.Drop = port.DropOversize
		if o.IsGSO() {
			f.Drop = port.DropUnsupported // BIG TCP: longer than a normal super-frame
		}
	}
	if f.Drop != port.DropNone {
		return
	}
	if ok {
		o, ok = vnet.Settle(f.Data, o)
	}
	if !ok {
		f.Drop = port.DropBadOffload
		return
	}
	f.Offload = o
}

// parse sets f to the frame of message i, whose bytes are wire, except for its offload,
// which it returns; ok is false if the offload contradicts the frame.
func (b *batch) parse(wire []byte, i int, f *port.Frame) (o port.Offload, ok bool) {
	if len(wire) < vnet.HeaderLen {
		f.SetStripped(nil, 0)
		return o, false
	}
	f.SetStripped(wire[vnet.HeaderLen:], b.control[i].tag(&b.headers[i].Msghdr))
	// The header describes the frame without the tag, as Offload does.
	o, ok = vnet.Decode(wire), true
	if isMarked(f) {
		o, ok = unmark(f, o)
	}
	return o, ok
}

// tag returns the outer tag that the kernel removed from the frame. A tag with VID 0 is
// a tag too, so the status bit decides.
func (c *control) tag(h *unix.Msghdr) port.Tag {
	end := unsafe.Offsetof(c.aux) + unsafe.Sizeof(c.aux)
	if h.Control != (*byte)(unsafe.Pointer(c)) {
		end -= unsafe.Sizeof(c.mark)
	}
	if int(h.Controllen) < int(end) ||
		c.Level != unix.SOL_PACKET || c.Type != unix.PACKET_AUXDATA ||
		c.aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0
	}
	tpid := port.TPIDCustomer
	if c.aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = c.aux.Vlan_tpid
	}
	return port.MakeTag(tpid, c.aux.Vlan_tci)
}

// Release implements port.Queue.
func (q *queue) Release() {
	if b := q.rx.batch; b != nil {
		q.rx.batch = nil
		batches.Return(b)
	}
}
