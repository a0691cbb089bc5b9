package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Event is one change of one interface. The first events are the interfaces that
// are there already.
type Event struct {
	Link

	// Gone: the interface was deleted or moved to another namespace; the Link
	// is what was last known of it.
	Gone bool
}

// watchBuffer is how many bytes of news the kernel keeps for a Watch, about a
// thousand messages: as many ports can change at once without a new listing.
const watchBuffer = 2 << 20

// Watch reports the interfaces of the calling thread's namespace and their changes
// until ctx ends, then closes the channel. An interface whose Link did not change
// raises no event. When the receiver is slow or the kernel lost news, Watch lists
// everything anew and reports the difference, so the receiver always ends up with
// the state as it is.
func Watch(ctx context.Context) (<-chan Event, error) { return watch(ctx, watchBuffer) }

func watch(ctx context.Context, buffer int) (<-chan Event, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces: %w", err)
	}
	// More than the system's limit needs CAP_NET_ADMIN; less is no harm, for
	// what overflows is listed again.
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
		w.run()
	}()
	return w.events, nil
}

type watcher struct {
	s      *nl.NetlinkSocket
	events chan Event
	done   <-chan struct{}

	known map[int]Link

	// While a listing runs, seen holds what it named so far. torn: it was not of
	// one moment, so that another one must follow.
	listing bool
	seen    map[int]bool
	torn    bool
}

// list asks the kernel for all interfaces; the answer comes among the news.
func (w *watcher) list() error {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	w.listing, w.torn, w.seen = true, false, map[int]bool{}
	// Not by s.Send, which would send to the group as well: only root may.
	return unix.Sendto(w.s.GetFd(), req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// relist is list after news was lost. The kernel tells of a loss once, and then not
// again until all that is waiting was taken; only news after that is whole.
func (w *watcher) relist() error {
	const empty = 1000 // µs without a message
	if err := w.s.SetReceiveTimeout(&unix.Timeval{Usec: empty}); err != nil {
		return err
	}
	for {
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
	return w.list()
}

func (w *watcher) run() {
	for {
		msgs, from, err := w.s.Receive()
		select {
		case <-w.done:
			return
		default:
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			if w.relist() != nil {
				return
			}
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		for i := range msgs {
			if !w.take(&msgs[i]) {
				return
			}
		}
	}
}

// take is what one message means; false when the watch has ended.
func (w *watcher) take(m *syscall.NetlinkMessage) bool {
	if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
		w.torn = true
	}
	switch m.Header.Type {
	case unix.NLMSG_DONE:
		if w.torn {
			return w.list() == nil
		}
		return w.finish()
	case unix.NLMSG_ERROR: // no listing, for want of room
		return w.relist() == nil
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// A bridge tells of its members in messages of its own family: leaving a
		// bridge must not look like a deletion.
		if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
			return true
		}
		header := unix.NlMsghdr(m.Header)
		l, err := netlink.LinkDeserialize(&header, m.Data)
		if err != nil {
			return true
		}
		return w.update(linkFrom(l), m.Header.Type == unix.RTM_DELLINK)
	}
	return true
}

// update tells the receiver what is new about l; false when the watch has ended.
func (w *watcher) update(l Link, gone bool) bool {
	old, had := w.known[l.Index]
	if gone {
		delete(w.known, l.Index)
		delete(w.seen, l.Index)
		return !had || w.send(Event{Link: l, Gone: true})
	}
	if w.listing {
		w.seen[l.Index] = true
	}
	if had && old == l {
		return true
	}
	w.known[l.Index] = l
	return w.send(Event{Link: l})
}

// finish ends a listing: what it did not name is gone.
func (w *watcher) finish() bool {
	w.listing = false
	for _, index := range slices.Sorted(maps.Keys(w.known)) {
		if !w.seen[index] && !w.update(w.known[index], true) {
			return false
		}
	}
	w.seen = nil
	return true
}

func (w *watcher) send(e Event) bool {
	select {
	case w.events <- e:
		return true
	case <-w.done:
		return false
	}
}
