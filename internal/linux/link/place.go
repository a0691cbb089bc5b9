package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Place is where an interface went: a network namespace by its number in the one that it left, and
// its index there. The zero Place is unknown.
type Place struct{ Netns, Index int }

// namesOfNetns are where ip(8) keeps the namespaces that have a name.
const namesOfNetns = "/run/netns"

// Do calls f with the interface, on a thread in its namespace, which must have a name there. It
// takes the rights to enter it. f must not wait.
func (p Place) Do(f func(Link) error) error {
	if p.Index == 0 {
		return errors.New("where it is was not heard")
	}
	ns, err := p.open()
	if err != nil {
		return err
	}
	defer ns.Close()
	return p.in(ns, f)
}

// Name returns what ip-netns(8) calls the namespace; it is empty if that is not known.
func (p Place) Name() string {
	if p.Index == 0 {
		return ""
	}
	ns, err := p.open()
	if err != nil {
		return ""
	}
	defer ns.Close()
	return filepath.Base(ns.Name())
}

// open opens the namespace, by its name.
func (p Place) open() (*os.File, error) {
	names, err := filepath.Glob(namesOfNetns + "/*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		ns, err := os.Open(name)
		if err != nil {
			continue
		}
		if n, err := netlink.GetNetNsIdByFd(int(ns.Fd())); err == nil && n == p.Netns {
			return ns, nil
		}
		ns.Close()
	}
	return nil, fmt.Errorf("no network namespace in %s is the one where it is", namesOfNetns)
}

// in is Do in a namespace. Its thread ends with it: nothing else must run there.
func (p Place) in(ns *os.File, f func(Link) error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering %s: %w", ns.Name(), err)
			return
		}
		l, err := ByIndex(p.Index)
		if err == nil {
			err = f(l)
		}
		done <- err
	}()
	return <-done
}
