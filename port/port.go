// Package port is the contract between the forwarding core and the port kinds:
// what a frame is on its way through the switch, how a kind hands frames in and
// takes them out, and which named reasons there are for losing one.
//
// A kind implements Port and Queue and passes port/porttest. The core calls it
// as the methods say; a kind never calls the core. Nothing here does I/O.
package port

import (
	"encoding/binary"
	"errors"
)

// BatchSize is how many frames a worker asks a Queue for at once. 64 spreads the
// cost of a system call over enough frames that it disappears beside the copy,
// while a batch of small frames and its descriptors still fits the L1 cache.
const BatchSize = 64

// MaxFrame is the longest frame a kind must be able to receive whole, in bytes
// from the destination address on, with two VLAN tags: a 64 KiB IP packet left
// uncut by TCP segmentation offload, and its link header.
const MaxFrame = 65535 + 14 + 2*4

var (
	// ErrClosed is what Recv returns once Close was called.
	ErrClosed = errors.New("port is closed")

	// ErrGone is what Recv returns when the device or the peer went away for
	// good: this Port will not carry another frame and must be opened anew.
	ErrGone = errors.New("device or peer is gone")
)

// Port is one attachment of the switch: a device or a connection that is open.
type Port interface {
	// Queues returns the port's queues, at least one, the same for the life of
	// the Port. Each is served by a worker of its own.
	Queues() []Queue

	// Caps says which offloads a frame may carry when it is given to Send. It
	// is called once per batch and destination from any worker, so it must be
	// no more than an atomic load; it may change while the port runs.
	Caps() Caps

	// Close ends the port: a Recv that waits returns ErrClosed, a Send that
	// comes later drops everything as DropPortClosed. Any goroutine may call
	// it, more than once; it returns when the kind holds no resource any more,
	// but for frames that a worker has not released yet.
	Close() error
}

// Queue is one independent lane of a port, in both directions.
type Queue interface {
	// Recv waits until at least one frame is there, fills frames from the
	// front and returns how many. The frames borrow the queue's memory, which
	// stays as it is until Release. Recv and Release are called by the queue's
	// one worker only. A frame that came in but must not be switched is handed
	// over with Drop set, so that it is counted.
	Recv(frames []Frame) (int, error)

	// Release gives the frames of the last Recv back. A worker calls it after
	// each Recv that returned frames, also when the port was closed meanwhile.
	Release()

	// Send takes out's frames in order and never waits. It sets Drop of each
	// entry: DropNone when the frame is on its way, else why it is lost. Any
	// number of workers may call Send at once. It reads the frames only until
	// it returns, and must not write to them: others are sent the same bytes.
	Send(out []Out)
}

// Out is one frame on its way out by one port.
type Out struct {
	Frame *Frame
	Tag   Tag  // the outer tag it leaves with, in place of Frame.Tag
	Push  bool // Tag goes in front of Frame.Tag, which stays (802.1ad tunnel)

	// Control is set on frames that the switch itself sends. Where the queue can,
	// they leave before data that waits there: neighbours take a late BPDU for a
	// bridge that is gone.
	Control bool

	Drop Drop // set by Send
}

// TagLen is the number of bytes that tags take in front of the frame's EtherType
// on the output: 0, 4 or 8.
func (o *Out) TagLen() int {
	n := o.Tag.Len()
	if o.Push {
		n += o.Frame.Tag.Len()
	}
	return n
}

// Len is the frame's length on the output in bytes, with the tags it leaves with.
func (o *Out) Len() int { return o.Frame.DataLen() + o.TagLen() }

// MaxHeader is the most that PutHeader writes: addresses and two tags.
const MaxHeader = 12 + 2*4

// PutHeader writes the addresses and the tags as they go on the wire to b, which
// has room for MaxHeader, and returns how many bytes that is: 12 + TagLen. The
// rest of the frame on the wire is Frame.Data[12:] and Frame.Tail.
func (o *Out) PutHeader(b []byte) int {
	_ = b[MaxHeader-1]
	f := o.Frame
	binary.BigEndian.PutUint64(b, uint64(f.Dst)<<16|uint64(f.Src)>>32)
	binary.BigEndian.PutUint32(b[8:], uint32(f.Src))
	n := 12
	if o.Tag.Present() {
		binary.BigEndian.PutUint32(b[n:], uint32(o.Tag))
		n += 4
	}
	if o.Push && f.Tag.Present() {
		binary.BigEndian.PutUint32(b[n:], uint32(f.Tag))
		n += 4
	}
	return n
}

// Overrun is implemented by kinds whose device loses frames before Recv can see
// them, for instance because the socket's buffer was full.
type Overrun interface {
	// Overruns returns the number of frames lost so since the port was opened.
	// Any goroutine may call it.
	Overruns() uint64
}

// Lossy is implemented by kinds whose device loses frames that it was given, for
// instance because it had no room and did not say so.
type Lossy interface {
	// Lost returns how many it lost since the port was opened, as far as it can
	// be known: of those that Send took, and of others, so many, that reached
	// the device beside Send. It may ask the system.
	Lost(others uint64) uint64
}

// Linked is implemented by ports that stay open while their peer comes and goes.
type Linked interface {
	// Link tells whether a peer is there. Any goroutine may call it.
	Link() bool

	// LinkError says in one line why Link is false, nil while it is true. Any
	// goroutine may call it.
	LinkError() error

	// LinkChanged returns a channel that has a value after Link has changed.
	// Changes that nobody received in between are one value. It is never closed.
	LinkChanged() <-chan struct{}
}

// Noticer is implemented by ports that work, but not as their user may think.
type Noticer interface {
	Linked

	// Notice says what to know in one line; it is empty when there is nothing.
	// LinkChanged has a value when it is worth a line of the log. Any goroutine may
	// call it.
	Notice() string
}
