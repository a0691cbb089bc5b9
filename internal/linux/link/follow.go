package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// FollowIPv6 calls f whenever IPv6 was, or may have been, enabled or disabled on an
// interface. f runs in the calling thread's namespace, on a goroutine that serves all
// interfaces there, so it must be quick and must not call stop. Once stop has returned, f
// neither runs nor is called again.
func FollowIPv6(index int, f func()) (stop func(), err error) {
	return follow(unix.RTNLGRP_IPV6_IFINFO, index, func(*syscall.NetlinkMessage) { f() })
}

// report is a callback of follow. It gets a kernel message, or nil when messages may have
// been lost.
type report func(*syscall.NetlinkMessage)

// follow calls f with the messages about an interface that the kernel sends to a group of
// rtnetlink(7).
func follow(group uint, index int, f report) (stop func(), err error) {
	id := follows{group: group}
	if id.dev, id.ino, err = identity(threadNetns); err != nil {
		return nil, err
	}
	followers.Lock()
	defer followers.Unlock()
	w := followers.of[id]
	if w == nil {
		if w, err = newFollower(group); err != nil {
			return nil, fmt.Errorf("follow the interfaces' changes: %w", err)
		}
		followers.of[id] = w
	}
	entry := &followed{f}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by[index] = append(w.by[index], entry)
	w.users++
	return sync.OnceFunc(func() {
		followers.Lock()
		defer followers.Unlock()
		w.mu.Lock()
		w.remove(index, entry)
		last := w.users == 0
		w.mu.Unlock()
		if last {
			delete(followers.of, id)
			close(w.closing)
			w.s.Close()
			<-w.ended
		}
	}), nil
}

// failGap is how long a follower that cannot read waits before it tries again.
const failGap = 100 * time.Millisecond

const threadNetns = "/proc/thread-self/ns/net"

// follows identifies a follower: a group in a namespace.
type follows struct {
	group    uint
	dev, ino uint64
}

// followers has one follower for all interfaces of a namespace and group, since every
// socket receives all reports.
var followers = struct {
	sync.Mutex
	of map[follows]*follower
}{of: make(map[follows]*follower)}

type follower struct {
	s       *nl.NetlinkSocket
	closing chan struct{} // closed before s
	ended   chan struct{}

	mu    sync.Mutex // held while functions run
	by    map[int][]*followed
	users int
}

type followed struct{ f report }

// newFollower starts a follower in the calling thread's namespace.
func newFollower(group uint) (*follower, error) {
	there, err := os.Open(threadNetns)
	if err != nil {
		return nil, err
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, group)
	if err != nil {
		there.Close()
		return nil, err
	}
	if s.SetReceiveBufferSize(watchBuffer, true) != nil {
		_ = s.SetReceiveBufferSize(watchBuffer, false)
	}
	w := &follower{s: s, closing: make(chan struct{}), ended: make(chan struct{}), by: make(map[int][]*followed)}
	entered := make(chan error)
	go func() {
		defer close(w.ended)
		runtime.LockOSThread() // for good: the runtime ends the thread with the goroutine
		err := enter(there)
		entered <- err
		if err == nil {
			w.run()
		}
	}()
	if err := <-entered; err != nil {
		s.Close()
		return nil, err
	}
	return w, nil
}

// enter moves the thread into a namespace, unless it is already there.
func enter(ns *os.File) error {
	defer ns.Close()
	dev, ino, err := identity(threadNetns)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil || uint64(st.Dev) == dev && st.Ino == ino {
		return err
	}
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

func (w *follower) run() {
	for {
		msgs, from, err := w.s.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.lost()
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case err != nil: // closed, short of memory, or what came is no message
			select {
			case <-w.closing:
				return
			case <-time.After(failGap):
				w.lost()
			}
		case from.Pid != nl.PidKernel:
		default:
			for i := range msgs {
				// ifinfomsg and tcmsg have the interface's number at the same offset.
				if d := msgs[i].Data; len(d) >= 8 {
					w.mu.Lock()
					call(w.by[int(int32(nl.NativeEndian().Uint32(d[4:])))], &msgs[i])
					w.mu.Unlock()
				}
			}
		}
	}
}

// lost tells all functions that messages may have been lost.
func (w *follower) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, all := range w.by {
		call(all, nil)
	}
}

func call(all []*followed, m *syscall.NetlinkMessage) {
	for _, one := range all {
		one.f(m)
	}
}

// remove takes an entry out. The caller holds mu.
func (w *follower) remove(index int, entry *followed) {
	left := w.by[index][:0:0]
	for _, one := range w.by[index] {
		if one != entry {
			left = append(left, one)
		}
	}
	w.users--
	if w.by[index] = left; len(left) == 0 {
		delete(w.by, index)
	}
}

// NameOf returns the current name of an interface in the calling thread's namespace.
func NameOf(index int) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var r unix.Ifreq
	r.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, &r); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return "", notFound(fmt.Sprint("there is no interface number ", index))
		}
		return "", err
	}
	return r.Name(), nil
}
