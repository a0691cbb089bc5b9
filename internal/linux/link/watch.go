package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Event is one change of one interface. The first events are the interfaces that
// already exist.
type Event struct {
	Link

	// Gone: the interface was deleted or moved to another namespace; Link is its
	// last known state. Moved: it was moved To a place, and may come back.
	Gone, Moved bool
	To          Place

	// Missed: messages were lost, so nobody knows whether an interface that is Gone was moved.
	Missed bool

	// Err is why the watch ends. Only the last event has it, and no Link.
	Err error
}

// watchBuffer is how many bytes of messages the kernel queues for a Watch, about a
// thousand messages: that many ports can change at once without a new listing.
const watchBuffer = 2 << 20

// Watch reports the interfaces of the calling thread's namespace and their changes
// until ctx ends or the kernel ends it, then closes the channel. An interface raises an
// event when its Link, its IPv4 addresses or what stands on it change. If the receiver is slow or the kernel
// lost messages, Watch lists everything again and reports the difference, so the receiver
// always ends up with the current state.
func Watch(ctx context.Context) (<-chan Event, error) { return watch(ctx, watchBuffer) }

func watch(ctx context.Context, buffer int) (<-chan Event, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces: %w", err)
	}
	// More than the system's limit needs CAP_NET_ADMIN. Less does no harm, since an
	// overflow leads to a new listing.
	if s.SetReceiveBufferSize(buffer, true) != nil {
		_ = s.SetReceiveBufferSize(buffer, false)
	}
	w := &watcher{s: s, events: make(chan Event), done: ctx.Done(), known: map[int]Link{}}
	if err := w.list(); err != nil {
		s.Close()
		return nil, fmt.Errorf("watch interfaces: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	go func() {
		defer close(w.events)
		defer s.Close()
		defer stop()
		if err := w.run(); err != nil {
			_ = w.send(Event{Err: fmt.Errorf("watch interfaces: %w", err)})
		}
	}()
	return w.events, nil
}

type watcher struct {
	s      *nl.NetlinkSocket
	events chan Event
	done   <-chan struct{}

	known map[int]Link

	// While a listing runs, seen holds the interfaces that it has named so far. torn:
	// the listing was inconsistent, so another must follow.
	listing bool
	seen    map[int]bool
	torn    bool
	lost    bool // messages were lost before it, so addresses may have changed, too
}

// errEnded is returned by take and the functions it calls when the receiver is gone.
var errEnded = errors.New("ended")

// list asks the kernel for all interfaces; the answer comes among the other messages.
func (w *watcher) list() error {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	w.listing, w.torn, w.seen = true, false, map[int]bool{}
	// s.Send would also send to the group, which only root may do.
	return unix.Sendto(w.s.GetFd(), req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// relist is list after messages were lost. The kernel reports a loss once, and not again
// until all waiting messages have been read; only the messages after that are complete.
func (w *watcher) relist() error {
	// Nothing comes until all have been read, so that takes no longer, whatever comes then.
	const most = time.Second
	const empty = 1000 // µs without a message
	began := time.Now()
	if err := w.s.SetReceiveTimeout(&unix.Timeval{Usec: empty}); err != nil {
		return err
	}
	for time.Since(began) < most {
		_, _, err := w.s.Receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	if err := w.s.SetReceiveTimeout(&unix.Timeval{}); err != nil {
		return err
	}
	w.lost = true
	return w.list()
}

// run returns why it ended, nil if the context ended.
func (w *watcher) run() error {
	for {
		msgs, from, err := w.s.Receive()
		select {
		case <-w.done:
			return nil
		default:
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			if err := w.relist(); err != nil {
				return err
			}
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return err
		case from.Pid != nl.PidKernel:
			continue
		}
		for i := range msgs {
			switch err := w.take(&msgs[i]); {
			case errors.Is(err, errEnded):
				return nil
			case err != nil:
				return err
			}
		}
	}
}

// take processes one message.
func (w *watcher) take(m *syscall.NetlinkMessage) error {
	if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
		w.torn = true
	}
	switch m.Header.Type {
	case unix.NLMSG_DONE:
		if w.torn {
			return w.list()
		}
		return w.finish()
	case unix.NLMSG_ERROR: // no listing, for lack of room
		return w.relist()
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// A bridge reports its members in messages of its own family: leaving a
		// bridge must not look like a deletion.
		if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
			return nil
		}
		header := unix.NlMsghdr(m.Header)
		l, err := netlink.LinkDeserialize(&header, m.Data)
		if err != nil {
			return nil
		}
		gone := m.Header.Type == unix.RTM_DELLINK
		e := Event{Link: linkFrom(l), Gone: gone}
		if gone {
			e.To, e.Moved = moved(m.Data)
		}
		return w.update(e, stacked(m))
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return nil
		}
		if l, known := w.known[int(nl.DeserializeIfAddrmsg(m.Data).Index)]; known {
			return w.send(Event{Link: l})
		}
	}
	return nil
}

// moved reports whether the message about a gone interface says that it was moved, and where to as
// far as it says that.
func moved(data []byte) (to Place, is bool) {
	number := func(b []byte) int {
		if len(b) < 4 {
			return 0
		}
		return int(int32(binary.NativeEndian.Uint32(b)))
	}
	for typ, value := range attributes(data[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_NEW_NETNSID:
			to.Netns, is = number(value), true
		case unix.IFLA_NEW_IFINDEX:
			to.Index, is = number(value), true
		}
	}
	return to, is
}

// stacked reports whether the message may be about an interface that got or lost one above it,
// which the kernel does not say when that one is in another namespace.
func stacked(m *syscall.NetlinkMessage) bool {
	if m.Header.Flags&unix.NLM_F_MULTI != 0 {
		return false // of a listing
	}
	for typ := range attributes(m.Data[unix.SizeofIfInfomsg:]) {
		if typ == unix.IFLA_EVENT {
			return false // of features, which a guest can change at any rate
		}
	}
	return true
}

// update sends the receiver what is new about an interface; anyway: also if nothing is.
func (w *watcher) update(e Event, anyway bool) error {
	old, had := w.known[e.Index]
	if e.Gone {
		delete(w.known, e.Index)
		delete(w.seen, e.Index)
		if !had {
			return nil
		}
		return w.send(e)
	}
	if w.listing {
		w.seen[e.Index] = true
	}
	if had && old == e.Link && !anyway && !(w.listing && w.lost) {
		return nil
	}
	w.known[e.Index] = e.Link
	return w.send(e)
}

// finish ends a listing: the interfaces that it did not name are gone.
func (w *watcher) finish() error {
	w.listing, w.lost = false, false
	for _, index := range slices.Sorted(maps.Keys(w.known)) {
		if !w.seen[index] {
			if err := w.update(Event{Link: w.known[index], Gone: true, Missed: true}, false); err != nil {
				return err
			}
		}
	}
	w.seen = nil
	return nil
}

func (w *watcher) send(e Event) error {
	select {
	case w.events <- e:
		return nil
	case <-w.done:
		return errEnded
	}
}
