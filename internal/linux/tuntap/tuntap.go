// Package tuntap makes persistent TAP devices and finds those of ports, and carries frames
// over the fd end of one (Device), the end that a virtual machine would hold. A call acts
// on the calling thread's network namespace. Errors are one line that says what is wrong
// and how to mend it. Kernel side: drivers/net/tun.c.
package tuntap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
)

const device = "/dev/net/tun"

// The limits of a TAP's MTU, in bytes (ETH_MIN_MTU; 65535 less the Ethernet header).
const (
	MinMTU = 68
	MaxMTU = 65535 - 14
)

// Anyone, as an owner or group, sets no restriction.
const Anyone = -1

// Access restricts who, besides root, may open a TAP: a user and a group, by number. If
// both are given, both must match. With Anyone for both, every user may open it.
type Access struct{ Owner, Group int }

// Differs reports whether the access to the TAP l differs from a. The kernel shows root
// and anyone alike, so these two do not differ.
func (a Access) Differs(l link.Link) bool {
	return l.Owner != uint32(max(a.Owner, 0)) || l.Group != uint32(max(a.Group, 0))
}

// Create makes the persistent TAP name, down, with an alias. By the alias a later process
// of the switch recognizes the device even if it has no other record of it. With multiQueue
// the TAP can be opened once per queue, and only by a program that asks for several queues.
func Create(name, alias string, access Access, multiQueue bool) error {
	// water leaks its descriptor when set-up fails, at each attempt anew. So look
	// first for what would make it fail.
	if _, err := link.ByName(name); err == nil {
		return fmt.Errorf("%s exists already", name)
	}
	if err := mayCreate(); err != nil {
		return fmt.Errorf("make TAP %s: %w", name, err)
	}

	// No program may start until the descriptor is closed: a child has a copy until it
	// executes its program, and keeps the TAP busy for so long. water does not set
	// O_CLOEXEC either.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	tap, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, MultiQueue: multiQueue},
	})
	if err != nil {
		return fmt.Errorf("make TAP %s: %w", name, advice(name, err))
	}
	f := tap.ReadWriteCloser.(*os.File)
	defer f.Close()
	conn, err := f.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { unix.CloseOnExec(int(fd)) })
	}

	// A process that dies before the last step leaves no device.
	if err == nil {
		err = control(conn, func(fd int) error { return setAccess(fd, access) })
	}
	if err == nil {
		err = setAlias(name, alias)
	}
	if err == nil {
		err = control(conn, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) })
	}
	if err != nil {
		return fmt.Errorf("make TAP %s: %w", name, advice(name, err))
	}
	return nil
}

func setAlias(name, alias string) error {
	l, err := link.ByName(name)
	if err != nil {
		return err
	}
	return l.SetAlias(alias)
}

// NotATAP returns the error for a device of another kind.
func NotATAP(l link.Link) error {
	if l.TakesFrames() {
		return fmt.Errorf("%s is a %s, which has no end that a switch could take frames from; give the port another name, and the virtual machine the TAP of that port", l.Name, l.Kind)
	}
	if !l.Ethernet {
		return fmt.Errorf("%s is a %s, whose frames have no Ethernet header, and no TAP; give the port another name", l.Name, l.Kind)
	}
	return fmt.Errorf("%s is a %s, not a TAP; give the port another name, or attach it with --kind netdev", l.Name, l.Kind)
}

// mayCreate returns what would keep Create from making a device, or nil.
func mayCreate() error {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return advice("", err)
	}
	unix.Close(fd)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if caps[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return advice("", unix.EPERM)
	}
	return nil
}

func setAccess(fd int, a Access) error {
	// No number means anyone to the kernel, so an unwanted restriction is not set at
	// all.
	if a.Owner != Anyone {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, a.Owner); err != nil {
			return fmt.Errorf("user %d: %w", a.Owner, err)
		}
	}
	if a.Group != Anyone {
		if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, a.Group); err != nil {
			return fmt.Errorf("group %d: %w", a.Group, err)
		}
	}
	return nil
}

// attach opens the fd end of the TAP name, non-blocking.
func attach(name string, flags uint16) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("%q cannot be an interface's name", name)
	}
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, advice(name, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return -1, advice(name, err)
	}
	return fd, nil
}

// advice turns an errno of the tun driver into what to do about it.
func advice(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%s is missing; load the driver with `modprobe tun`, or hand the device to the container", device)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("no access to %s; run vswitch as root or as a user who may open it", device)
	case errors.Is(err, unix.EPERM):
		return errors.New("needs CAP_NET_ADMIN; run vswitch as root or give it that capability")
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("another process holds %s; stop that virtual machine first", name)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s is not a TAP of one queue; delete it (`ip link del %s`) and let vswitch make it", name, name)
	}
	return err
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
