package afpacket

import (
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// When a frame is read whose offload the virtio-net header cannot express, the kernel
// drops it (EINVAL): UDP fragmentation of old guests (UFO), SCTP segmentation, LRO. It
// truncates a frame that is longer than the buffer (BIG TCP). A careful reader peeks at
// each frame before it reads it. It reads a frame of the first sort without the header and
// guesses what the header would say; it splits one of the second sort. That costs a system
// call per frame, so a port is careful only while such frames come: for the first frames
// after it was opened, and for as many after each such frame. A single such frame that
// comes later than that, amid others, is lost; the next ones are not.
const careful = 4096

// carefulBatch is how many frames a careful reader reads before they are switched.
const carefulBatch = 16

// bigSlots is how many slots of a batch the kernel's longest super-frame takes
// (GSO_MAX_SIZE in include/linux/netdevice.h is 8 times 64 KiB).
const bigSlots = 8

// readCarefully is readBatch for a careful reader.
func (r *receiver) readCarefully(frames []port.Frame, ifindex int) (n int, errno unix.Errno) {
	if errno, r.pending = r.pending, 0; errno != 0 {
		return 0, errno
	}
	b := batches.Rent()
	defer func() {
		if n == 0 {
			batches.Return(b)
			return
		}
		r.batch = b
		if errno != unix.EAGAIN {
			r.pending = errno // the socket reports only once that the device is down
		}
		errno = 0
	}()
	slot := 0
	for n < min(len(frames), carefulBatch) && slot < port.BatchSize {
		length, odd, errno := b.peek(r.fd)
		if errno != 0 {
			return n, errno
		}
		r.careful--
		f := &frames[n]
		switch {
		case odd:
			r.careful = careful
			errno = b.readOdd(r.fd, slot, f, ifindex, r.marked)
		case length > vnet.HeaderLen+port.MaxFrame+Mark.Len():
			r.careful = careful
			if n > 0 {
				return n, 0 // it needs most of a batch
			}
			n, errno = b.readBig(r.fd, frames, r.marked)
			for i := range n {
				r.marks[i] = b.control[0].mark.value
			}
			return n, errno
		default:
			errno = b.read(r.fd, slot, 1, r.marked)
			if errno == 0 {
				b.decode(slot, f)
			}
		}
		if errno != 0 {
			return n, errno
		}
		r.marks[n] = b.control[slot].mark.value
		n++
		slot++
	}
	return n, 0
}

// peek looks at the next frame without taking it. It returns the length with the header;
// odd reports whether the header cannot express the frame's offload.
func (b *batch) peek(fd int) (length int, odd bool, errno unix.Errno) {
	for range 2 {
		n, errno := b.look.peek(fd)
		if errno != unix.EINVAL {
			return n, false, errno
		}
		// The error may be an earlier one, which the socket reports only once.
	}
	return 0, true, 0
}

// read receives the next message into the given number of slots, from slot on.
func (b *batch) read(fd, slot, slots int, marked bool) unix.Errno {
	b.rearm(slot, marked)
	if slots > 1 {
		b.vectors[slot].SetLen(slots * rxbuf.Stride)
		defer b.vectors[slot].SetLen(slotLen)
	}
	_, errno := mmsg.Recv(fd, b.headers[slot:][:1])
	return errno
}

// readOdd reads a frame whose offload the header cannot express, without the header.
func (b *batch) readOdd(fd, slot int, f *port.Frame, ifindex int, marked bool) unix.Errno {
	_ = set(fd, unix.PACKET_VNET_HDR, 0) // never fails: the socket is raw and has no rings (packet_setsockopt)
	errno := b.read(fd, slot, 1, marked)
	_ = set(fd, unix.PACKET_VNET_HDR, 1)
	if errno != 0 {
		return errno
	}
	h := &b.headers[slot]
	f.SetStripped(b.slab[slot*rxbuf.Stride:][:h.N], b.control[slot].tag(&h.Msghdr))
	ok := true
	if isMarked(f) {
		_, ok = unmark(f, port.Offload{})
	}
	if f.Drop != port.DropNone {
		return 0
	}
	if ok && h.Flags&unix.MSG_TRUNC == 0 {
		partial := b.control[slot].aux.Status&unix.TP_STATUS_CSUMNOTREADY != 0
		f.Offload, ok = vnet.Guess(f.Data, f.Tag, partial, mtu(fd, ifindex))
	}
	if !ok || f.Len() > port.MaxFrame {
		f.Drop = port.DropUnsupported
	}
	return 0
}

// readBig reads a frame that is longer than port.MaxFrame, and splits it. It uses the batch
// from the start.
func (b *batch) readBig(fd int, frames []port.Frame, marked bool) (int, unix.Errno) {
	if errno := b.read(fd, 0, bigSlots, marked); errno != 0 {
		return 0, errno
	}
	var whole port.Frame
	h := &b.headers[0]
	o, ok := b.parse(b.slab[:h.N], 0, &whole)
	if ok && h.Flags&unix.MSG_TRUNC == 0 && whole.Drop == port.DropNone && b.split.Split(whole.Data, o) == nil && b.split.Count() <= min(len(frames), port.BatchSize-bigSlots) {
		for i := range b.split.Count() {
			f := &frames[i]
			dst := b.slab[(bigSlots+i)*rxbuf.Stride:][:rxbuf.Stride]
			n, _ := b.split.Next(dst)
			*f = whole
			f.Data, f.Offload = dst[:n], b.split.Offload()
			if n-int(f.Offload.HdrLen) <= int(f.Offload.GSOSize) {
				f.Offload.GSOType, f.Offload.GSOSize = port.GSONone, 0
			}
		}
		return b.split.Count(), 0
	}
	frames[0] = whole
	frames[0].Drop = port.DropUnsupported
	return 1, 0
}
