package vxlan

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// The way in: a socket gives messages, each of one or more datagrams from one sender
// (UDP_GRO); each datagram is a frame; TCP segments that follow each other are joined to a
// super-frame, in place.
//
//	queue.Recv     replies of the tunnel itself, then what is left of the messages, then new ones
//	queue.next     message → sender → datagram
//	queue.decode   datagram → network → frame, its sender learned
//	vnet.Merger    frames → super-frame

// batchLen is how many messages are read at once. A message holds up to 64 datagrams.
const batchLen = 16

// batch is the memory of one recvmmsg. Headers and vectors point to their slots permanently.
type batch struct {
	n, at  int // messages, and the one that is being read
	off    int // in that message
	source *vtep
	from   netip.Addr

	headers  [batchLen]mmsg.Header
	vectors  [batchLen]unix.Iovec
	names    [batchLen]unix.RawSockaddrInet6
	controls [batchLen][controlLen]byte
	slab     []byte
}

// controlLen has room for one control message with an int.
const controlLen = unix.SizeofCmsghdr + 8

var batches = rxbuf.Pool[batch]{Batches: true, New: func() *batch {
	b := &batch{slab: make([]byte, batchLen*rxbuf.Stride)}
	for i := range b.headers {
		put(&b.vectors[i], b.slab[i*rxbuf.Stride:][:port.MaxFrame])
		h := &b.headers[i].Msghdr
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.controls[i][0]
	}
	return b
}}

// queue implements port.Queue. All queues of a tunnel send alike.
type queue struct {
	t    *sockets
	file *os.File
	raw  syscall.RawConn
	lost atomic.Uint64 // by the socket when it was closed
	once sync.Once

	// Of the one worker that receives.
	batch   *batch // nil: nothing is left
	borrows bool   // frames of the last Recv are in batch
	errno   unix.Errno
	read    func(fd uintptr) bool // readBatch, bound once
	merger  vnet.Merger
	known   lastKnown
}

// lastKnown is the station learned last: most frames of a batch are from one.
type lastKnown struct {
	n      *network
	src    port.MAC
	number uint16
}

func newQueue(t *sockets, f *os.File) *queue {
	q := &queue{t: t, file: f}
	q.raw, _ = f.SyscallConn() // fails only for a nil file
	q.read = q.readBatch
	return q
}

func (q *queue) close() {
	q.once.Do(func() {
		q.lost.Store(q.overruns())
		q.file.Close()
	})
}

// overruns returns how many datagrams the socket dropped because its buffer was full.
func (q *queue) overruns() uint64 {
	n := q.lost.Load()
	_ = q.raw.Control(func(fd uintptr) { n = max(n, drops(fd)) }) // or it is closed
	return n
}

// Recv implements port.Queue.
func (q *queue) Recv(frames []port.Frame) (int, error) {
	for !q.t.closed.Load() {
		if q == q.t.queues[0] {
			if n := q.t.replies.take(frames); n > 0 {
				return n, nil
			}
		}
		if q.batch != nil {
			if n := q.next(frames); n > 0 {
				q.borrows = true
				return n, nil
			}
			q.giveBack()
		}
		if q.t.paused.Load() {
			return 0, port.ErrPaused
		}
		q.errno = 0
		switch err := q.raw.Read(q.read); {
		case errors.Is(err, os.ErrDeadlineExceeded): // wake
			_ = q.file.SetReadDeadline(time.Time{}) // or it is closed
		case err != nil:
			return 0, port.ErrClosed
		case q.errno != 0:
			return 0, os.NewSyscallError("receive", q.errno)
		}
	}
	return 0, port.ErrClosed
}

// wake makes a waiting Recv look for replies.
func (q *queue) wake() { _ = q.file.SetReadDeadline(time.Unix(1, 0)) }

// readBatch takes what the socket holds; false asks to be called again when there is more.
func (q *queue) readBatch(fd uintptr) bool {
	b := batches.Rent()
	for i := range b.headers {
		h := &b.headers[i].Msghdr
		h.Namelen = uint32(unsafe.Sizeof(b.names[i]))
		h.SetControllen(controlLen)
		h.Flags = 0
	}
	n, errno := mmsg.Recv(int(fd), b.headers[:])
	if errno != 0 {
		batches.Return(b)
		switch errno {
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNREFUSED, unix.EMSGSIZE, unix.EHOSTUNREACH: // what ICMP said about an earlier datagram
			return true
		}
		q.errno = errno
		return true
	}
	b.n, b.at, b.off = n, 0, 0
	q.batch = b
	return true
}

// Release implements port.Queue.
func (q *queue) Release() {
	if q.borrows && q.batch.at == q.batch.n {
		q.giveBack()
	}
	q.borrows = false
}

// giveBack returns the batch's memory.
func (q *queue) giveBack() {
	batches.Return(q.batch)
	q.batch = nil
}

// next fills frames from the batch and returns how many. Segments are joined from message to
// message, too: a super-frame of a guest can be longer than a message. Between them lies only
// what was joined already, so no frame that is in use is overwritten.
func (q *queue) next(frames []port.Frame) (n int) {
	b, nets, learning := q.batch, q.t.networks.Load(), q.t.learning.Load()
	q.known = lastKnown{}
	refused := 0
	for ; b.at < b.n && n < len(frames); b.at, b.off = b.at+1, 0 {
		h := &b.headers[b.at]
		message := b.slab[b.at*rxbuf.Stride:][:h.N]
		size := segmentOf(h, len(message))
		if b.off == 0 {
			from := sender(&b.names[b.at])
			if from != b.from {
				q.merger.Finish()
			}
			b.from, b.source = from, (*q.t.byAddr.Load())[from]
		}
		for n < len(frames) {
			datagram := message[b.off:min(b.off+size, len(message))]
			b.off += len(datagram)
			f := &frames[n]
			length := q.decode(f, datagram, nets, learning)
			if h.Flags&unix.MSG_TRUNC != 0 && b.off == len(message) && f.Drop == port.DropNone {
				f.Drop = port.DropOversize
			}
			if f.Drop == port.DropUnknownVTEP {
				refused++
			}
			if !q.merger.Add(f) {
				if f.Drop == port.DropNone {
					f.Offload = vnet.Undone(f.Data, superMTU(b.source, length))
				}
				q.merger.Start(f)
				n++
			}
			if b.off == len(message) {
				break
			}
		}
		if refused > 0 {
			q.t.refused(b.from, refused)
			refused = 0
		}
		if b.off < len(message) {
			break // no more room for frames
		}
	}
	q.merger.Finish()
	return n
}

// segmentOf returns the length of the datagrams in a message of n bytes.
func segmentOf(h *mmsg.Header, n int) int {
	if h.Controllen >= unix.SizeofCmsghdr+4 {
		c := (*unix.Cmsghdr)(unsafe.Pointer(h.Control))
		if c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO {
			data := unsafe.Slice(h.Control, controlLen)[unix.CmsgLen(0):]
			if size := int(int32(binary.NativeEndian.Uint32(data))); size > 0 {
				return size
			}
		}
	}
	return max(n, 1)
}

// superMTU returns how long the segments' packets are in a frame of n bytes from v, if that
// is a super-frame; else 0. A vxlan device of a kernel on the same machine hands one over as
// one datagram, longer than the path takes. It does not say how long the segments are: no
// longer than the path takes, nor, most likely, than an Ethernet takes.
func superMTU(v *vtep, n int) int {
	const etherMTU = 1500
	limit := int(v.limit.Load())
	if limit <= port.HeaderLen || n <= limit {
		return 0
	}
	return min(limit-port.HeaderLen, etherMTU)
}

// decode makes f the frame in a datagram of the batch's source, but for its offload. It returns the frame's length
// in bytes.
func (q *queue) decode(f *port.Frame, datagram []byte, nets *networks, learning bool) (length int) {
	vni, inner, ok := parseHeader(datagram, q.t.header)
	length = len(inner)
	if !ok {
		f.SetStripped(inner, 0)
		f.Drop = port.DropBadTunnel
		return length
	}
	n, v := nets.byVNI[vni], q.batch.source
	switch {
	case v == nil, n != nil && !n.has(v):
		f.SetStripped(inner, 0)
		f.Drop = port.DropUnknownVTEP
		return length
	case n == nil:
		f.SetStripped(inner, 0)
		f.Drop = port.DropUnknownVNI
		return length
	}
	f.SetWire(inner)
	if f.Drop != port.DropNone {
		return length
	}
	if n.vlan != 0 {
		// The network is the VLAN, so its frames have no tag but one with a priority alone
		// (RFC 7348 section 6.1).
		if f.Tag.VID() != 0 || f.Tag.Present() && f.Tag.TPID() != port.TPIDCustomer || tagged(f.Data) {
			f.Drop = port.DropVLANTagged
			return length
		}
		f.Tag = port.MakeTag(port.TPIDCustomer, f.Tag.TCI()&^0xfff|n.vlan)
	}
	if learning && (q.known != lastKnown{n, f.Src, v.number}) && f.Src != 0 && !f.Src.IsGroup() {
		q.t.stations.Learn(n.key(f.Src), v.number)
		q.known = lastKnown{n, f.Src, v.number}
	}
	return length
}

// tagged reports whether a frame begins with a VLAN tag.
func tagged(data []byte) bool {
	t := binary.BigEndian.Uint16(data[12:])
	return t == eth.TypeVLAN || t == eth.TypeQinQ
}
