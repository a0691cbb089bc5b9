package vxlan

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// The way out: each frame, or each segment of a super-frame, becomes one entry for each VTEP
// that gets it; entries of one flow, VTEP and length that follow each other become one message,
// which the kernel divides into datagrams (UDP_SEGMENT); and each socket's messages leave by
// one system call, in order.
//
//	run.add    frame → network → VTEP, or all of the flood list
//	run.stage  writes the tunnel's header and the frame's head once, whoever gets it
//	run.put    makes entries of staged frames for a VTEP
//	run.join   appends one to its socket's last message, or begins one
//	run.flush  sends the messages of each socket

const (
	maxEntries = 256

	// maxStaged holds the segments of two super-frames: they are on their way while the next
	// ones are cut, and messages are filled across both.
	maxStaged = 96

	// inlineLen is the longest rest of a frame that is copied behind its head instead of
	// pointed to: for short frames, the copy costs less than another element of the vector.
	inlineLen = 256
	headRoom  = headerLen + port.MaxHeader

	// stageLen is the most that a frame takes in run.bytes.
	stageLen = headRoom + vnet.MaxHead + inlineLen

	// Bounds of one message (UDP_MAX_SEGMENTS in include/linux/udp.h before Linux 6.9; and
	// the longest IP packet, less some headers).
	maxDatagrams = 64
	maxMessage   = 65_000

	none = -1

	// sockCaps are the offloads that Send finishes: cutting a super-frame here spares a copy
	// of it.
	sockCaps = port.CapCsum | port.CapTSO4 | port.CapTSO6 | port.CapTSOECN
)

// run is the frames of one call of Send on their way to the kernel.
type run struct {
	t *sockets

	staged, entries, messages int
	used                      int // of bytes

	stages  [maxStaged]stage
	entry   [maxEntries]entry
	message [maxEntries]message
	sockets [txSockets]chain // of messages
	bytes   [maxStaged * (headRoom + inlineLen)]byte
	cutter  vnet.Segmenter

	headers  [maxEntries]mmsg.Header
	order    [maxEntries]int16 // the message of each header
	vectors  [2 * maxEntries]unix.Iovec
	controls [maxEntries]segmentSize
	single   [2]unix.Iovec
}

// stage is a frame behind its tunnel's header.
type stage struct {
	out      *port.Out
	from, to int    // its head in run.bytes
	rest     []byte // the frame's own; nil: it is in the head
}

func (s *stage) len() int { return s.to - s.from + len(s.rest) }

// entry is a frame for one VTEP.
type entry struct {
	stage int16
	next  int16 // in its message
}

// message is datagrams of one length for one VTEP; the last may be shorter.
type message struct {
	to          *vtep
	first, last int16 // entries
	count       int
	size, total int // bytes of a datagram, and of all
	next        int16
}

// chain is a list of messages.
type chain struct{ first, last int16 }

var runs = sync.Pool{New: func() any {
	r := new(run)
	for i := range r.headers {
		r.controls[i].init()
		r.headers[i].Control = (*byte)(unsafe.Pointer(&r.controls[i]))
	}
	r.reset()
	return r
}}

// Send implements port.Queue.
func (q *queue) Send(out []port.Out) {
	t := q.t
	t.gate.RLock()
	defer t.gate.RUnlock()
	if t.tx == nil {
		for i := range out {
			out[i].Drop = port.DropPortClosed
		}
		return
	}
	r := runs.Get().(*run)
	r.t = t
	nets := t.networks.Load()
	for i := range out {
		r.add(nets, &out[i])
	}
	r.flush()
	r.cutter.Reset()
	r.t = nil
	runs.Put(r)
}

// add takes one frame. A frame for several VTEPs is lost if it is lost on the way to one.
func (r *run) add(nets *networks, o *port.Out) {
	inner, n, why := nets.inner(o)
	length, needs := inner.Len(), o.Frame.Needs()
	if why == port.DropNone && needs != port.CapsNone {
		if needs&^sockCaps != 0 || r.cutter.Init(o.Frame.Data, o.Frame.Offload, port.CapsNone) != nil {
			why = port.DropBadOffload
		}
		length = r.cutter.FrameLen() + inner.TagLen()
	}
	if o.Drop = why; why != port.DropNone {
		return
	}
	to, one := *n.flood.Load(), [1]*vtep{r.t.target(n, o.Frame.Dst)}
	if v := one[0]; v != nil {
		if !v.fits(length) {
			o.Drop = port.DropTooBig
			r.t.tooBig(o, inner.TagLen(), int(v.limit.Load()))
			return
		}
		to = one[:]
	}
	if len(to) == 0 {
		o.Drop = port.DropNoVTEP
		return
	}
	socket := int(flowOf(o.Frame) >> 60 % txSockets)
	if needs == port.CapsNone {
		if !r.room(1) {
			r.flush()
		}
		r.stage(n, o, &inner, o.Frame.Data[:12], o.Frame.Data[12:])
		r.put(to, r.staged-1, length, socket)
		return
	}
	r.cut(n, o, &inner, to, length, socket)
}

// cut takes the segments of the super-frame in r.cutter, or its frame with a checksum.
func (r *run) cut(n *network, o, inner *port.Out, to []*vtep, length, socket int) {
	if !r.room(min(r.cutter.Count(), maxStaged)) {
		r.flush()
	}
	var head [vnet.MaxHead]byte
	for first := r.staged; ; first = 0 {
		for r.room(1) {
			headLen, payload, ok := r.cutter.NextHead(head[:])
			if !ok {
				r.put(to, first, length, socket)
				return
			}
			r.stage(n, o, inner, head[:headLen], payload)
		}
		r.put(to, first, length, socket)
		r.flush()
	}
}

// room reports whether so many more frames can be staged.
func (r *run) room(frames int) bool {
	return r.staged+frames <= maxStaged && r.used+stageLen <= len(r.bytes)
}

// stage writes what all VTEPs get of a frame: head, with addresses and tags as inner has them,
// and rest.
func (r *run) stage(n *network, o, inner *port.Out, head, rest []byte) {
	b := r.bytes[r.used:]
	putHeader(b, r.t.header, n.vni)
	length := headerLen + inner.PutHeader(b[headerLen:])
	length += copy(b[length:], head[12:])
	if len(rest) <= inlineLen {
		length += copy(b[length:], rest)
		rest = nil
	}
	r.stages[r.staged] = stage{out: o, from: r.used, to: r.used + length, rest: rest}
	r.used += length
	r.staged++
}

// put makes entries of the staged frames from first on, the longest of which has length bytes,
// for each VTEP.
func (r *run) put(to []*vtep, first, length, socket int) {
	for _, v := range to {
		if !v.fits(length) {
			r.stages[first].out.Drop = port.DropTooBig
			continue
		}
		for i := first; i < r.staged; i++ {
			if r.entries == maxEntries {
				r.transmit()
			}
			r.join(v, i, socket)
		}
	}
}

// join makes an entry of a staged frame.
func (r *run) join(v *vtep, staged, socket int) {
	e, length := int16(r.entries), r.stages[staged].len()
	r.entry[e] = entry{stage: int16(staged), next: none}
	r.entries++
	c := &r.sockets[socket]
	if c.last != none {
		m := &r.message[c.last]
		last := r.stages[r.entry[m.last].stage].len()
		if m.to == v && last == m.size && length <= m.size && m.count < maxDatagrams && m.total+length <= maxMessage &&
			v.limit.Load() != 0 && !v.plain.Load() {
			r.entry[m.last].next = e
			m.last = e
			m.count++
			m.total += length
			return
		}
	}
	i := int16(r.messages)
	r.message[i] = message{to: v, first: e, last: e, count: 1, size: length, total: length, next: none}
	r.messages++
	if c.last == none {
		c.first = i
	} else {
		r.message[c.last].next = i
	}
	c.last = i
}

// flush sends what was taken, and forgets it.
func (r *run) flush() {
	r.transmit()
	// Pointers to frames must not stay: their memory may be unmapped and reused by the Go
	// heap, which refuses pointers that it did not make.
	clear(r.stages[:r.staged])
	r.staged, r.used = 0, 0
}

// transmit sends the entries; what is staged stays.
func (r *run) transmit() {
	headers, vectors := 0, 0
	for s := range r.sockets {
		from := headers
		for i := r.sockets[s].first; i != none; i = r.message[i].next {
			m, h := &r.message[i], &r.headers[headers]
			n := r.gather(r.vectors[vectors:], m.first)
			h.Iov = &r.vectors[vectors]
			h.SetIovlen(n)
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.to.name)), m.to.length
			h.SetControllen(0)
			if m.count > 1 {
				h.SetControllen(r.controls[headers].set(m.size))
			}
			r.order[headers] = i
			vectors += n
			headers++
		}
		if headers > from {
			r.send(r.t.tx[s], from, headers)
		}
	}
	clear(r.vectors[:vectors])
	clear(r.message[:r.messages])
	for i := range r.headers[:headers] {
		r.headers[i].Name = nil
	}
	r.reset()
}

func (r *run) reset() {
	r.entries, r.messages = 0, 0
	for i := range r.sockets {
		r.sockets[i] = chain{none, none}
	}
}

// gather writes the vectors of the entries from e on, and returns how many. Heads that lie
// together are one element.
func (r *run) gather(v []unix.Iovec, e int16) (n int) {
	end := none // of the last element in r.bytes
	for ; e != none; e = r.entry[e].next {
		s := &r.stages[r.entry[e].stage]
		if s.from == end {
			v[n-1].SetLen(int(v[n-1].Len) + s.to - s.from)
		} else {
			put(&v[n], r.bytes[s.from:s.to])
			n++
		}
		end = s.to
		if s.rest != nil {
			put(&v[n], s.rest)
			n++
			end = none
		}
	}
	return n
}

// send gives a socket the messages of the headers from one to another.
func (r *run) send(fd, from, to int) {
	for from < to {
		sent, errno := mmsg.Send(fd, r.headers[from:to])
		if errno == 0 {
			from += sent
			continue
		}
		m := &r.message[r.order[from]]
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN: // the socket is full
			for ; from < to; from++ {
				r.lose(&r.message[r.order[from]], port.DropQueueFull)
			}
			return
		case m.count > 1 && undivided(errno):
			r.singly(fd, m, &r.headers[from])
		default:
			r.lose(m, r.reason(m.to, errno))
		}
		from++
	}
}

// undivided reports whether an error can mean that the kernel does not divide a message for
// this destination: its device computes no checksums, its packets are encrypted (IPsec), or a
// datagram is too long for the route.
func undivided(errno unix.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EOPNOTSUPP
}

// singly sends the datagrams of a message one by one.
func (r *run) singly(fd int, m *message, h *mmsg.Header) {
	h.SetControllen(0)
	h.Iov = &r.single[0]
	ok := false
	for e := m.first; e != none; e = r.entry[e].next {
		s := &r.stages[r.entry[e].stage]
		next := r.entry[e].next
		r.entry[e].next = none
		h.SetIovlen(r.gather(r.single[:], e))
		r.entry[e].next = next
		if errno := sendmsg(fd, &h.Msghdr); errno != 0 {
			s.out.Drop = r.reason(m.to, errno)
		} else {
			ok = true
		}
	}
	clear(r.single[:])
	if ok {
		m.to.plain.Store(true)
	}
}

// lose records why the frames of a message are lost.
func (r *run) lose(m *message, why port.Drop) {
	for e := m.first; e != none; e = r.entry[e].next {
		r.stages[r.entry[e].stage].out.Drop = why
	}
}

// reason returns why the kernel's error makes a frame to a VTEP a drop.
func (r *run) reason(to *vtep, errno unix.Errno) port.Drop {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return port.DropQueueFull
	case unix.EMSGSIZE:
		r.t.remeasure(to)
		return port.DropTooBig
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EADDRNOTAVAIL:
		return port.DropNoRoute
	}
	return port.DropIOError
}

// segmentSize is a control message that gives the length of a message's datagrams.
type segmentSize struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte
}

func (c *segmentSize) init() {
	c.hdr.Level, c.hdr.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	c.hdr.SetLen(unix.CmsgLen(2))
}

// set sets the length and returns that of the control message.
func (c *segmentSize) set(size int) int {
	c.size = uint16(size)
	return unix.CmsgSpace(2)
}

// put makes v describe the bytes of b, which is not empty.
func put(v *unix.Iovec, b []byte) {
	v.Base = &b[0]
	v.SetLen(len(b))
}

// sendmsg sends one message and never waits. The wrapper in x/sys allocates.
func sendmsg(fd int, h *unix.Msghdr) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return errno
}
