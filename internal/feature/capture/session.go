package capture

import (
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

const (
	// bufferSize is how many bytes of captured frames wait for a client, while as many are
	// being written to it.
	bufferSize = 2 << 20

	// flushAt is how many bytes are written without waiting for the ticker.
	flushAt = 64 << 10

	// blockRoom is more than a packet needs beside its data: its head and options.
	blockRoom = 512
)

// session is one client's capture. Workers call see; the client's goroutine calls take.
type session struct {
	query
	filter   *pfilter.Filter // nil: all
	describe func(name string) (string, bool)

	full chan struct{} // has a token when there is much to write

	mu      sync.Mutex
	buffer  []byte // whole blocks; bufferSize is its capacity
	ports   map[*vswitch.Port]*captured
	named   []string // the ports whose interfaces were described first, by number
	ifaces  int
	frames  uint32 // captured
	scratch []byte
}

// captured is a port as an interface of the capture.
type captured struct {
	number int
	lost   uint64 // frames since the last that was captured
}

// see captures a frame. It is called by several workers at a time.
func (s *session) see(v vswitch.Sight) {
	if v.Out.Drop == port.DropConsumed && s.Drops || s.Direction == "in" && v.Sent || s.Direction == "out" && !v.Sent {
		return
	}
	wanted := s.filter == nil || s.filter.Match(v.Out.Frame, v.Out.Tag)
	if !wanted && v.Missed == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done() {
		return
	}
	p := s.ports[v.Port]
	if p == nil {
		p = &captured{number: s.interfaceOf(v.Port.Name())}
		s.ports[v.Port] = p
	}
	p.lost += uint64(v.Missed)
	if !wanted {
		return
	}
	length := v.Len()
	size := min(length, pcapng.MaxSnapLen)
	if s.SnapLen != 0 {
		size = min(size, s.SnapLen)
	}
	if len(s.buffer)+size+blockRoom > cap(s.buffer) {
		p.lost++
		s.wake()
		return
	}
	if cap(s.scratch) < size {
		s.scratch = make([]byte, max(size, 2048))
	}
	data := s.scratch[:size]
	data = data[:v.CopyTo(data)]
	direction := pcapng.In
	if v.Sent {
		direction = pcapng.Out
	}
	at := v.Time
	if at.IsZero() {
		at = time.Now()
	}
	s.buffer = pcapng.AppendPacket(s.buffer, &pcapng.Packet{
		Interface: p.number, Time: at, Direction: direction,
		Data: data, Len: length, Comment: comments[v.Out.Drop], Fault: pcapng.FaultOf(v.Out.Drop.String()), Lost: p.lost,
	})
	p.lost = 0
	s.frames++
	if len(s.buffer) >= flushAt || s.done() {
		s.wake()
	}
}

// done reports whether all frames are captured that the client wants.
func (s *session) done() bool { return s.Count != 0 && s.frames >= s.Count }

// seen returns how many frames were captured.
func (s *session) seen() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frames
}

func (s *session) wake() {
	select {
	case s.full <- struct{}{}:
	default:
	}
}

// interfaceOf returns the number of a port's interface. The caller holds mu.
func (s *session) interfaceOf(name string) int {
	for number, named := range s.named {
		if named == name {
			return number
		}
	}
	return s.addInterface(name)
}

// addInterface describes a port as the next interface. That always has room: the buffer may
// grow by it. The caller holds mu.
func (s *session) addInterface(name string) int {
	words, _ := s.describe(name)
	s.buffer = pcapng.AppendInterface(s.buffer, &pcapng.Interface{Name: name, Description: words, Filter: s.Filter, SnapLen: pcapng.MaxSnapLen})
	s.ifaces++
	return s.ifaces - 1
}

// take returns the captured blocks, and reports whether no more will come. The session goes on
// with the memory of next.
func (s *session) take(next []byte) (b []byte, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cap(next) < bufferSize {
		next = make([]byte, 0, bufferSize)
	}
	b, s.buffer = s.buffer, next[:0]
	return b, s.done()
}
