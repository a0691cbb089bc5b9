package main

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// tapEnd is the fd end of a TAP, as QEMU holds it.
type tapEnd struct {
	descriptor
	buf []byte
}

// offloads are the guests' offloads, the same as of Linux guests on QEMU.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

// taps opens TAPs in the namespace, sets them up and returns their fd ends. It makes missing
// ones, which vanish when their ends are closed.
func (l *lab) taps(ctx context.Context, names []string) (ends []end, err error) {
	defer func() {
		if err != nil {
			closeAll(ends)
			ends = nil
		}
	}()
	var up strings.Builder
	for _, name := range names {
		var e *tapEnd
		l.do(func() { e, err = openTAP(name) })
		if err != nil {
			return ends, fmt.Errorf("open TAP %s: %w", name, err)
		}
		ends = append(ends, e)
		fmt.Fprintf(&up, "link set %s up\n", name)
	}
	_, err = l.runInput(ctx, up.String(), "ip", "-batch", "-")
	return ends, err
}

func openTAP(name string) (*tapEnd, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerLen)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &tapEnd{newDescriptor(fd), make([]byte, 1<<17)}, nil
}

func (e *tapEnd) write(packet []byte) bool {
	_, errno := write(e.fd, packet)
	return errno == 0
}

func (e *tapEnd) flush() {}

func (e *tapEnd) read() []byte {
	n, errno := read(e.fd, e.buf)
	if errno != 0 {
		return nil
	}
	return e.buf[:n]
}
