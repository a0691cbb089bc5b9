package tuntap

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
)

// held are the open Devices of this process.
var held = struct {
	sync.Mutex
	all map[*Device]bool
}{all: make(map[*Device]bool)}

// Free returns an error if this process holds the fd end of the TAP l, which is in the calling
// thread's namespace. Such a TAP may have come from another namespace, under any name.
func Free(l link.Link) error {
	if l.Kind != "tap" {
		return nil
	}
	here, err := link.ThreadNetns()
	if err != nil {
		return err
	}
	held.Lock()
	defer held.Unlock()
	for d := range held.all {
		if name, ns, err := d.whereabouts(); err == nil && name == l.Name && ns == here {
			return fmt.Errorf("%s is the device of another port of this switch, which is of kind host; a device is one port", l.Name)
		}
	}
	return nil
}

// whereabouts returns the device's present name and namespace.
func (d *Device) whereabouts() (name string, ns link.NetnsID, err error) {
	d.mu.RLock() // Close must not close the descriptor meanwhile
	defer d.mu.RUnlock()
	if d.closed {
		return "", ns, os.ErrClosed
	}
	req, err := unix.NewIfreq("")
	if err != nil {
		return "", ns, err
	}
	if err := unix.IoctlIfreq(d.fd, unix.TUNGETIFF, req); err != nil {
		return "", ns, err
	}
	fd, err := unix.IoctlRetInt(d.fd, unix.TUNGETDEVNETNS)
	if err != nil {
		return "", ns, err
	}
	defer unix.Close(fd)
	ns, err = link.NetnsOf(fd)
	return req.Name(), ns, err
}
