package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Netns is the network namespace that a name or path led to when it was looked up.
type Netns struct {
	path     string
	dev, ino uint64
}

// NetnsID identifies a network namespace as long as somebody is in it or holds it.
type NetnsID struct{ dev, ino uint64 }

// ThreadNetns identifies the namespace of the calling thread.
func ThreadNetns() (id NetnsID, err error) {
	id.dev, id.ino, err = identity(threadNetns)
	return id, err
}

// NetnsCookie identifies the namespace of the calling thread until the host reboots: the kernel
// never uses such a number again.
func NetnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// NetnsOf identifies the namespace that a descriptor refers to.
func NetnsOf(fd int) (id NetnsID, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return id, err
	}
	return NetnsID{uint64(st.Dev), st.Ino}, nil
}

// HoldNetns returns the namespace of the calling thread. It lives on until release is called,
// after which nobody must use it.
func HoldNetns() (n *Netns, release func(), err error) {
	f, err := os.Open(threadNetns)
	if err != nil {
		return nil, nil, err
	}
	n = &Netns{path: fmt.Sprint("/proc/self/fd/", f.Fd())}
	if n.dev, n.ino, err = identity(n.path); err != nil {
		f.Close()
		return nil, nil, err
	}
	return n, func() { f.Close() }, nil
}

// FindNetns finds a namespace by its name in `ip netns`, or by a path.
func FindNetns(name string) (*Netns, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join("/run/netns", name)
	}
	n := &Netns{path: path}
	var err error
	if n.dev, n.ino, err = identity(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notFound("there is no network namespace " + name + "; make it with `ip netns add`")
		}
		return nil, fmt.Errorf("network namespace %s: %w", name, err)
	}
	return n, nil
}

func identity(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Dev), st.Ino, nil
}

// Current reports whether the name still leads to this namespace. A deleted namespace
// lives on, out of reach, as long as somebody holds a reference to it.
func (n *Netns) Current() bool {
	dev, ino, err := identity(n.path)
	return err == nil && dev == n.dev && ino == n.ino
}

// Do calls f on a thread inside the namespace. What f opens stays there.
func (n *Netns) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// A thread that cannot return to its namespace stays locked, so the
		// runtime ends it with the goroutine.
		runtime.LockOSThread()
		done <- n.inside(f)
	}()
	return <-done
}

// inside is Do on a locked thread. It unlocks the thread once that is back home.
func (n *Netns) inside(f func() error) error {
	if here, err := ThreadNetns(); err == nil && here == (NetnsID{n.dev, n.ino}) {
		runtime.UnlockOSThread()
		return f()
	}
	home, err := os.Open(threadNetns)
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(n.path)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%s is not a network namespace", n.path)
		}
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("enter network namespace %s: needs CAP_SYS_ADMIN; run vswitch as root", n.path)
		}
		return fmt.Errorf("enter network namespace %s: %w", n.path, err)
	}
	err = f()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
