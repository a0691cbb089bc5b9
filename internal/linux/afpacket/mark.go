package afpacket

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// MarkedQueue is a queue of a Port with Config.Marked. A mark is a number beside a frame, by
// which programs at the device and this process tell each other more about it.
type MarkedQueue interface {
	port.Queue

	// Marks returns the marks of the frames of the last Recv, in their order. They stay until
	// the next one.
	Marks() []uint32

	// SendMarked is Send with a mark for each frame.
	SendMarked(out []port.Out, marks []uint32)
}

var _ MarkedQueue = (*queue)(nil)

// Marks implements MarkedQueue.
func (q *queue) Marks() []uint32 { return q.rx.marks[:] }

// SendMarked implements MarkedQueue.
func (q *queue) SendMarked(out []port.Out, marks []uint32) { q.send(out, marks) }

// markMessage is a control message with a mark.
type markMessage struct {
	unix.Cmsghdr
	value uint32
	_     [unsafe.Sizeof(uintptr(0)) - 4]byte // as CMSG_SPACE aligns
}

// mark gives the frame added last a mark.
func (r *run) mark(value uint32) {
	m, h := &r.marks[r.n-1], &r.headers[r.n-1].Msghdr
	m.Level, m.Type = unix.SOL_SOCKET, unix.SO_MARK
	m.SetLen(unix.CmsgLen(4))
	m.value = value
	h.Control = (*byte)(unsafe.Pointer(m))
	h.SetControllen(int(unsafe.Sizeof(*m)))
}
