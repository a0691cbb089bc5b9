// Package port is the contract between the forwarding core and the port kinds: what a
// frame is inside the switch, how a kind delivers frames to the switch and sends them,
// and the named reasons for dropping one.
//
// A kind implements Port and Queue and passes port/porttest. The core calls it as the
// methods say; a kind never calls the core. Nothing here does I/O.
package port

import (
	"encoding/binary"
	"errors"
	"time"
)

// BatchSize is how many frames a worker asks a Queue for at once. 64 spreads the cost of a
// system call over enough frames to make it negligible beside the copy, while a batch of
// small frames and its descriptors still fits the L1 cache.
const BatchSize = 64

// MaxFrame is the longest frame that a kind must be able to receive whole, in bytes from
// the destination address on, with two VLAN tags: a 64 KiB IP packet that TCP segmentation
// offload left unsegmented, and its link header.
const MaxFrame = 65535 + 14 + 2*4

var (
	// ErrClosed is returned by Recv once Close was called.
	ErrClosed = errors.New("port is closed")

	// ErrPaused is returned by Recv while the port is paused; see Pausable.
	ErrPaused = errors.New("port is paused")

	// ErrGone is returned by Recv when the device or the peer is gone for good: this Port
	// will not carry another frame and must be opened anew.
	ErrGone = errors.New("device or peer is gone")

	// ErrEnded is wrapped by an error of Kind.Open if what the port was for is gone for good. The
	// daemon removes such a port, unless it was never open.
	ErrEnded = errors.New("what the port was for is gone")
)

// Port is one attachment of the switch: an open device or connection.
type Port interface {
	// Queues returns the port's queues: at least one, the same for the life of the Port.
	// Each has its own worker.
	Queues() []Queue

	// Caps returns which offloads a frame passed to Send may carry. Any worker calls it,
	// once per batch and destination, so it must be no more than an atomic load. It may
	// change while the port runs.
	Caps() Caps

	// Close ends the port: a waiting Recv returns ErrClosed, and a later Send drops
	// everything as DropPortClosed. Any goroutine may call it, more than once. It
	// returns when the kind holds no resources except frames that a worker has not
	// released yet.
	Close() error
}

// Queue is one independent lane of a port, in both directions.
type Queue interface {
	// Recv waits for at least one frame, fills frames from the front and returns how
	// many. The frames borrow the queue's memory, which stays unchanged until Release.
	// Only the queue's one worker calls Recv and Release. A received frame that must not
	// be switched is returned with Drop set, so that it is counted.
	Recv(frames []Frame) (int, error)

	// Release returns the frames of the last Recv to the queue. A worker calls it after
	// each Recv that returned frames, even if the port was closed meanwhile.
	Release()

	// Send sends out's frames in order and never waits. It sets each entry's Drop:
	// DropNone if the frame was sent, else why it was lost. Any number of workers may
	// call Send at once. It reads the frames only until it returns, and must not write
	// to them: other ports are sent the same bytes.
	Send(out []Out)
}

// Polled is implemented by queues in which frames are found by looking, at least while they come
// at short intervals. The worker then calls Poll and, when Eager says so, Wait in place of Recv; of
// several such queues, one goroutine may poll all.
type Polled interface {
	Queue

	// Poll is Recv that does not wait: it may return no frames.
	Poll(frames []Frame) (int, error)

	// Eager reports whether to poll the queue, in which Poll has found nothing for so long.
	Eager(idle time.Duration) bool

	// Wait returns when Poll may return frames or an error, or when Eager may have changed.
	Wait()
}

// Out is one frame to be sent through one port. It has no more than four fields, with which
// the compiler keeps it in registers.
type Out struct {
	Frame *Frame
	Tag   Tag // the outer tag on egress, in place of Frame.Tag
	Flags OutFlags
	Drop  Drop // set by Send
}

// OutFlags say how a frame is sent.
type OutFlags uint8

const (
	// Push puts Out.Tag in front of Frame.Tag, which stays (802.1ad tunnel).
	Push OutFlags = 1 << iota

	// Control is set on frames that the switch originates. If the queue can, it sends
	// them before waiting data: to neighbours, a late BPDU means that the bridge is
	// gone.
	Control

	// ThisLink sends the frame, which is alone, by the link of the queue, whichever link of
	// the port carries others. It is for ports that are Bundled.
	ThisLink
)

// TagLen returns the number of bytes of tags in front of the frame's EtherType on output:
// 0, 4 or 8.
func (o *Out) TagLen() int {
	n := o.Tag.Len()
	if o.Flags&Push != 0 {
		n += o.Frame.Tag.Len()
	}
	return n
}

// Len returns the frame's length on output in bytes, with its egress tags.
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
	if o.Flags&Push != 0 && f.Tag.Present() {
		binary.BigEndian.PutUint32(b[n:], uint32(f.Tag))
		n += 4
	}
	return n
}

// Pausable is implemented by ports that can stop receiving and lose nothing: what they have
// not taken yet waits in the kernel or in the guest's memory.
type Pausable interface {
	// Pause makes each queue's Recv return ErrPaused once it has returned every frame that it
	// took, also a Recv that waits. Send goes on. Any goroutine may call it.
	Pause()

	// Resume undoes Pause. No Recv is under way meanwhile.
	Resume()
}

// Leaver is implemented by ports that take long to close.
type Leaver interface {
	// Leave is Close in a process that ends: it leaves to the kernel what the kernel does
	// after the process as well.
	Leave() error
}

// Overrun is implemented by kinds whose device can lose frames before Recv sees them, for
// instance because the socket's buffer is full.
type Overrun interface {
	// Overruns returns how many frames were lost that way since the port was opened. Any
	// goroutine may call it.
	Overruns() uint64
}

// Lossy is implemented by kinds whose device can lose frames it was given, for instance
// because it silently drops when full.
type Lossy interface {
	// Lost returns how many frames were lost since the port was opened, as far as can be
	// known: frames that Send took, and the given number of others that reached the
	// device without Send. It may ask the system.
	Lost(others uint64) uint64
}

// Unrouted is implemented by Lossy kinds that know why.
type Unrouted interface {
	// Unrouted returns how many of the frames of Lost's last result were lost because the
	// host has no route to where they go.
	Unrouted() uint64
}

// Linked is implemented by ports that stay open while their peer comes and goes.
type Linked interface {
	// Link reports whether a peer is connected. Any goroutine may call it.
	Link() bool

	// LinkError says in one line why Link is false; nil while it is true. Any
	// goroutine may call it.
	LinkError() error

	// LinkChanged returns a channel that has a value after Link has changed. Changes
	// that nobody received yet merge into one value. It is never closed.
	LinkChanged() <-chan struct{}
}

// Noticer is implemented by ports that may work differently from what their user expects.
type Noticer interface {
	Linked

	// Notice says in one line what the user should know; empty if there is nothing.
	// LinkChanged has a value when the notice is worth a line in the log. Any goroutine
	// may call it.
	Notice() string
}
