package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Virtio features that concern vhost-user or the rings (virtio 1.2, 6).
const (
	FeatureNotifyOnEmpty    = 1 << 24 // legacy drivers
	FeatureLogAll           = 1 << 26 // writes to guest memory are logged
	FeatureAnyLayout        = 1 << 27
	FeatureIndirect         = 1 << 28
	FeatureEventIdx         = 1 << 29
	FeatureProtocolFeatures = 1 << 30
	FeatureVersion1         = 1 << 32
	FeatureRingPacked       = 1 << 34
	FeatureInOrder          = 1 << 35

	// RingFeatures are those that a Ring handles. A Ring always uses buffers in order
	// and accepts any layout, so the device need not do anything for these.
	RingFeatures = FeatureNotifyOnEmpty | FeatureLogAll | FeatureAnyLayout | FeatureIndirect | FeatureEventIdx |
		FeatureProtocolFeatures | FeatureVersion1 | FeatureRingPacked | FeatureInOrder
)

// Protocol features.
const (
	protoMQ          = 1 << 0
	protoLogShmFD    = 1 << 1
	protoRARP        = 1 << 2
	protoReplyAck    = 1 << 3
	protoMTU         = 1 << 4
	protoBackendReq  = 1 << 5
	protoInflight    = 1 << 12
	protoResetDevice = 1 << 13
	protoMemSlots    = 1 << 15
	protoStatus      = 1 << 16

	protocolFeatures = protoMQ | protoLogShmFD | protoRARP | protoReplyAck | protoMTU | protoBackendReq |
		protoInflight | protoResetDevice | protoMemSlots | protoStatus
)

// MaxMemSlots is the most regions that a guest's memory can have: the limit of the
// kernel's vhost, and of KVM on small machines.
const MaxMemSlots = 509

// maxRing is the most descriptors in a ring (virtio 1.2, 2.7 and 2.8.10.1).
const maxRing = 32768

// FDs are the file descriptors that came with a message. The taker of one owns it.
type FDs struct {
	List  []int
	Reply []int // sent with the reply
}

// Take returns the next descriptor, or -1 when none is left.
func (f *FDs) Take() int {
	if len(f.List) == 0 {
		return -1
	}
	fd := f.List[0]
	f.List = f.List[1:]
	return fd
}

// Actions carries out what a Conversation decides. An error ends the conversation,
// ErrRefused does not. Ring numbers are below NumRings.
type Actions interface {
	Features() uint64                // what is offered
	SetFeatures(uint64) error        // a subset of it
	NumRings() int                   // two per queue pair
	SetMemory([]Region, []int) error // owns the fds, one per region
	AddMemory(Region, int) error     // owns the fd
	RemoveMemory(Region) error
	SetLog(fd int, offset, size uint64) error // owns the fd
	SetRingNum(ring int, num uint32) error
	SetRingAddr(ring int, a RingAddr) error
	SetRingBase(ring int, base uint32) error
	StopRing(ring int) (base uint32)
	SetKick(ring, fd int) error // owns the fd; -1: the ring must be polled
	SetCall(ring, fd int) error // owns the fd; -1: no calls wanted
	EnableRing(ring int, on bool)
	Announce(mac [6]byte)
	SetMTU(mtu int)

	// MakeInflight creates a file for state that outlives the back end, for rings of
	// the given size. The front end keeps the file and gives it to this back end and
	// its successors.
	MakeInflight(size int) (fd int, length uint64, err error)  // gives fd away
	SetInflight(fd int, offset, length uint64, size int) error // owns the fd

	// KeepOpen receives the channel for the back end's own requests. The back end makes
	// none, but a front end may take a closed channel for the back end's end.
	KeepOpen(fd int) error // owns the fd

	// Reset stops and disables all rings.
	Reset()
}

// Conversation is the state negotiated with one front end. It does no I/O: messages go
// in, replies and calls of Actions come out.
type Conversation struct {
	do       Actions
	protocol uint64 // protocol features
	status   uint64
}

// NewConversation starts a Conversation.
func NewConversation(do Actions) *Conversation { return &Conversation{do: do} }

// Handle carries out a message and appends the reply, if there is one, to reply. The
// caller may close the descriptors it leaves in fds. After an error the front end can
// no longer be understood.
func (c *Conversation) Handle(reply []byte, h Header, payload []byte, fds *FDs) ([]byte, error) {
	value, err := c.handle(h, payload, fds)
	wantsAck := h.Flags&flagNeedReply != 0 && c.protocol&protoReplyAck != 0
	switch {
	case err == nil && value != nil:
		return appendReply(reply, h.Request, value...), nil
	case err == nil && wantsAck:
		return appendReply(reply, h.Request, 0), nil
	case errors.Is(err, ErrRefused) && wantsAck:
		return appendReply(reply, h.Request, 1), nil
	case err != nil && !errors.Is(err, ErrRefused):
		return reply, fmt.Errorf("%v: %w", h.Request, err)
	}
	return reply, nil
}

// ErrRefused is the error of a request that can be skipped without harm: the front end
// is told, if it asks, and the conversation goes on.
var ErrRefused = errors.New("refused")

var errNoFD = errors.New("no file descriptor came with it")

// inflightSize is the payload of the inflight requests, without padding: size and
// offset, 64 bits each, then the number of rings and their size, 16 bits each.
const inflightSize = 20

// payloadSizes is the minimum payload of each request, in bytes.
var payloadSizes = map[Request]int{
	GetFeatures: 0, SetFeatures: 8, SetOwner: 0, ResetOwner: 0,
	SetMemTable: 8, SetLogBase: 8, SetLogFD: 0,
	SetVringNum: 8, SetVringAddr: 40, SetVringBase: 8, GetVringBase: 8,
	SetVringKick: 8, SetVringCall: 8, SetVringErr: 8,
	GetProtocolFeatures: 0, SetProtocolFeatures: 8, GetQueueNum: 0, SetVringEnable: 8,
	SendRARP: 8, NetSetMTU: 8, SetBackendReqFD: 0, ResetDevice: 0,
	GetInflightFD: inflightSize, SetInflightFD: inflightSize,
	GetMaxMemSlots: 0, AddMemReg: 8 + regionSize, RemMemReg: 8 + regionSize,
	SetStatus: 8, GetStatus: 0,
}

// handle carries out a request. value is nil unless the request has a reply of its own.
func (c *Conversation) handle(h Header, p []byte, fds *FDs) (value []uint64, err error) {
	size, known := payloadSizes[h.Request]
	if !known { // so not offered either
		return nil, ErrRefused
	}
	if len(p) < size {
		return nil, fmt.Errorf("a payload of %d bytes, where %d are needed", len(p), size)
	}
	u64 := uint64(0)
	if len(p) >= 8 {
		u64 = binary.NativeEndian.Uint64(p)
	}
	switch h.Request {
	case GetFeatures:
		return []uint64{c.do.Features()}, nil
	case SetFeatures:
		if extra := u64 &^ c.do.Features(); extra != 0 {
			return nil, fmt.Errorf("features %#x were not offered", extra)
		}
		if err := c.do.SetFeatures(u64); err != nil {
			return nil, err
		}
		if u64&FeatureProtocolFeatures == 0 { // nothing will enable them later
			for i := range c.do.NumRings() {
				c.do.EnableRing(i, true)
			}
		}
	case GetProtocolFeatures:
		return []uint64{protocolFeatures}, nil
	case SetProtocolFeatures:
		if extra := u64 &^ protocolFeatures; extra != 0 {
			return nil, fmt.Errorf("protocol features %#x were not offered", extra)
		}
		c.protocol = u64
	case GetQueueNum:
		return []uint64{uint64(c.do.NumRings() / 2)}, nil
	case SetOwner, ResetOwner, SetVringErr, SetLogFD:
		// Nothing to do: each connection has one owner, and errors end it.
	case ResetDevice:
		c.status = 0
		c.do.Reset()
	case SetStatus:
		// The rings' indices outlive a reset: GET_VRING_BASE comes after it.
		c.status = u64 & 0xff
	case GetStatus:
		return []uint64{c.status}, nil
	case GetMaxMemSlots:
		return []uint64{MaxMemSlots}, nil
	case SetMemTable, AddMemReg, RemMemReg:
		return nil, c.memory(h.Request, p, fds)
	case SetLogBase:
		if len(p) < 16 || c.protocol&protoLogShmFD == 0 {
			return nil, errors.New("the log must be shared memory")
		}
		fd := fds.Take()
		if fd < 0 {
			return nil, errNoFD
		}
		return []uint64{0}, c.do.SetLog(fd, binary.NativeEndian.Uint64(p[8:]), u64)
	case SendRARP:
		c.do.Announce([6]byte(p))
	case NetSetMTU:
		if u64 < minMTU || u64 > maxMTU {
			return nil, ErrRefused
		}
		c.do.SetMTU(int(u64))
	case GetInflightFD:
		fd, length, err := c.do.MakeInflight(int(binary.NativeEndian.Uint16(p[18:])))
		if err != nil {
			return nil, err
		}
		fds.Reply = append(fds.Reply, fd)
		return []uint64{length, 0, uint64(binary.NativeEndian.Uint32(p[16:]))}, nil
	case SetInflightFD:
		fd := fds.Take()
		if fd < 0 {
			return nil, errNoFD
		}
		return nil, c.do.SetInflight(fd, binary.NativeEndian.Uint64(p[8:]), u64, int(binary.NativeEndian.Uint16(p[18:])))
	case SetBackendReqFD:
		if fd := fds.Take(); fd >= 0 {
			return nil, c.do.KeepOpen(fd)
		}
	default:
		return c.ring(h.Request, p, fds)
	}
	return nil, nil
}

// The limits of an MTU (virtio 1.2, 5.1.4).
const minMTU, maxMTU = 68, 65535

// memory carries out the requests that concern the guest's memory.
func (c *Conversation) memory(r Request, p []byte, fds *FDs) error {
	if r != SetMemTable {
		region := parseRegion(p[8:])
		if r == RemMemReg {
			return c.do.RemoveMemory(region)
		}
		fd := fds.Take()
		if fd < 0 {
			return errNoFD
		}
		return c.do.AddMemory(region, fd)
	}
	n := int(binary.NativeEndian.Uint32(p))
	if n > maxTable || len(p) < 8+n*regionSize || len(fds.List) != n {
		return fmt.Errorf("%d regions in %d bytes with %d file descriptors", n, len(p), len(fds.List))
	}
	var regions []Region
	var files []int
	for i := range n {
		regions = append(regions, parseRegion(p[8+i*regionSize:]))
		files = append(files, fds.Take())
	}
	return c.do.SetMemory(regions, files)
}

// ring carries out the requests that concern one ring.
func (c *Conversation) ring(r Request, p []byte, fds *FDs) (value []uint64, err error) {
	const noFD = 1 << 8
	index, num := binary.NativeEndian.Uint32(p), binary.NativeEndian.Uint32(p[4:])
	if r == SetVringKick || r == SetVringCall {
		index &= 0xff
	}
	if index >= uint32(c.do.NumRings()) {
		return nil, fmt.Errorf("ring %d of %d", index, c.do.NumRings())
	}
	i := int(index)
	switch r {
	case SetVringNum:
		if num == 0 || num > maxRing {
			return nil, fmt.Errorf("a ring of %d descriptors", num)
		}
		return nil, c.do.SetRingNum(i, num)
	case SetVringAddr:
		_, a := parseRingAddr(p)
		return nil, c.do.SetRingAddr(i, a)
	case SetVringBase:
		return nil, c.do.SetRingBase(i, num)
	case GetVringBase:
		// The reply is a vring state: the index and the base, 32 bits each.
		state := binary.NativeEndian.AppendUint32(nil, index)
		state = binary.NativeEndian.AppendUint32(state, c.do.StopRing(i))
		return []uint64{binary.NativeEndian.Uint64(state)}, nil
	case SetVringEnable:
		if num > 1 {
			return nil, fmt.Errorf("a ring is enabled with %d", num)
		}
		c.do.EnableRing(i, num == 1)
		return nil, nil
	}
	fd := -1
	if binary.NativeEndian.Uint64(p)&noFD == 0 {
		if fd = fds.Take(); fd < 0 {
			return nil, errNoFD
		}
	}
	if r == SetVringKick {
		return nil, c.do.SetKick(i, fd)
	}
	return nil, c.do.SetCall(i, fd)
}
