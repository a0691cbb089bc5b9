package vhost

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// setup is what a front end has set up, as the messages that say so: those that another process
// must hear to go on with the same connection. A message that replaces an earlier one takes its
// place; so there are few, however long the connection lasts.
type setup struct {
	changed chan struct{} // has a value after a message was noted or forgotten

	mu       sync.Mutex // for those who read what Serve writes
	messages map[setupKey]*heard
	n        int // messages heard so far
}

// setupKey says which message replaces which.
type setupKey struct {
	request Request
	ring    uint32 // of requests that concern one ring
	region  Region // of AddMemReg
}

// heard is a message of the front end.
type heard struct {
	setupKey
	payload []byte
	fds     []int
	number  int // order of those with one rank
}

// setupOrder is the order in which a fresh Backend is set up. A kick starts its ring, so that
// comes after what the ring needs.
var setupOrder = []Request{
	SetOwner, SetProtocolFeatures, SetFeatures, SetMemTable, AddMemReg, SetLogBase, SetInflightFD,
	SetVringNum, SetVringAddr, SetVringBase, SetVringCall, SetVringEnable, SetVringKick,
	SetStatus, NetSetMTU, SetBackendReqFD,
}

// keep duplicates the descriptors of a message that will be noted once it is carried out.
func (s *setup) keep(r Request, fds []int) (kept []int, err error) {
	if !slices.Contains(setupOrder, r) {
		return nil, nil
	}
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(kept)
			return nil, err
		}
		kept = append(kept, dup)
	}
	return kept, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// note records a message that was carried out. It owns the descriptors.
func (s *setup) note(r Request, payload []byte, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	switch r {
	case SetMemTable:
		s.forget(func(k setupKey) bool { return k.request == AddMemReg })
	case RemMemReg:
		region := parseRegion(payload[8:])
		region.Offset = 0
		s.forget(func(k setupKey) bool { return k.request == AddMemReg && k.region == region })
	case GetVringBase:
		ring := binary.NativeEndian.Uint32(payload)
		s.forget(func(k setupKey) bool {
			return k.ring == ring && (k.request == SetVringKick || k.request == SetVringCall)
		})
	case ResetDevice:
		s.forget(func(k setupKey) bool {
			return k.request == SetVringKick || k.request == SetVringCall || k.request == SetVringEnable || k.request == SetStatus
		})
	}
	if !slices.Contains(setupOrder, r) {
		closeAll(fds)
		return
	}
	k := setupKey{request: r}
	switch r {
	case SetVringNum, SetVringAddr, SetVringBase, SetVringEnable:
		k.ring = binary.NativeEndian.Uint32(payload)
	case SetVringCall, SetVringKick:
		k.ring = binary.NativeEndian.Uint32(payload) & 0xff
	case AddMemReg:
		k.region = parseRegion(payload[8:])
		k.region.Offset = 0 // as memory.find compares them
	}
	if was := s.messages[k]; was != nil {
		closeAll(was.fds)
	}
	if s.messages == nil {
		s.messages = make(map[setupKey]*heard)
	}
	s.n++
	s.messages[k] = &heard{k, slices.Clone(payload), fds, s.n}
}

// tell tells that the messages have changed.
func (s *setup) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// forgetAll removes all messages.
func (s *setup) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(func(setupKey) bool { return true })
	s.tell()
}

// forget removes messages. The caller holds mu.
func (s *setup) forget(which func(setupKey) bool) {
	maps.DeleteFunc(s.messages, func(k setupKey, h *heard) bool {
		if which(k) {
			closeAll(h.fds)
			return true
		}
		return false
	})
}

// sorted returns the messages in the order in which they set up a fresh Backend. The caller holds
// mu.
func (s *setup) sorted() []*heard {
	return slices.SortedFunc(maps.Values(s.messages), func(a, b *heard) int {
		return cmp.Or(cmp.Compare(slices.Index(setupOrder, a.request), slices.Index(setupOrder, b.request)), cmp.Compare(a.number, b.number))
	})
}

// Said is a message of a front end for another Backend.
type Said struct {
	Request Request
	Payload []byte
	FDs     []int // the receiver of the message owns them
}

// SetupChanged returns a channel that has a value after Setup has changed, but for the places of
// rings.
func (b *Backend) SetupChanged() <-chan struct{} { return b.setup.changed }

// Setup returns what the front end has set up, for another Backend to go on with its connection.
// That one knows where a packed ring is if nobody uses the ring meanwhile, or by the file of
// KeepInflight; a split ring says so itself. The caller owns the descriptors.
func (b *Backend) Setup() (all []Said, err error) {
	b.setup.mu.Lock()
	defer b.setup.mu.Unlock()
	for _, h := range b.setup.sorted() {
		m := Said{Request: h.request, Payload: slices.Clone(h.payload)}
		if h.request == SetVringBase {
			b.putBase(m.Payload)
		}
		if m.FDs, err = b.setup.keep(h.request, h.fds); err != nil {
			for _, m := range all {
				closeAll(m.FDs)
			}
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// putBase puts the present place of a ring into a message.
func (b *Backend) putBase(payload []byte) {
	r := b.rings[binary.NativeEndian.Uint32(payload)]
	r.mu.Lock()
	defer r.mu.Unlock()
	base := r.base
	if r.q != nil {
		base = r.q.base()
	}
	binary.NativeEndian.PutUint32(payload[4:], base)
}

// Restore sets up a fresh Backend as a front end has set up another. It owns the descriptors. Serve
// then goes on with that front end's connection.
func (b *Backend) Restore(all []Said) error {
	for i, m := range all {
		kept, err := b.setup.keep(m.Request, m.FDs)
		fds := FDs{List: m.FDs}
		if err == nil {
			_, err = b.conversation().Handle(nil, Header{Request: m.Request, Flags: protocolVersion}, m.Payload, &fds)
		}
		for fd := fds.Take(); fd >= 0; fd = fds.Take() {
			unix.Close(fd)
		}
		if err != nil {
			closeAll(kept)
			for _, m := range all[i+1:] {
				closeAll(m.FDs)
			}
			return fmt.Errorf("what its front end has set up: %w", err)
		}
		b.setup.note(m.Request, m.Payload, kept)
	}
	return nil
}

// conversation returns the conversation with the front end that is there.
func (b *Backend) conversation() *Conversation {
	if b.talk == nil {
		b.talk = NewConversation(b)
	}
	return b.talk
}

// ErrPaused is returned by Serve after PauseServe: the front end is still there, and Serve may be
// called again.
var ErrPaused = errors.New("the conversation is paused")

// PauseServe makes Serve, at its connection, return ErrPaused once no message is half read.
func (b *Backend) PauseServe(conn *net.UnixConn) {
	b.pause.Store(true)
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // fails only for a closed connection
}

// ResumeServe undoes PauseServe, before Serve is called again.
func (b *Backend) ResumeServe(conn *net.UnixConn) {
	b.pause.Store(false)
	readOn(conn)
}

// readOn makes reads wait again.
func readOn(conn *net.UnixConn) { _ = conn.SetReadDeadline(time.Time{}) }

// paused reports whether a read ended by PauseServe.
func paused(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
