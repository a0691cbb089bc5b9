// Package tuntest plays whoever is at the other end of a port in tests: a Guest holds
// the fd end of a TAP as QEMU does, a Station sits behind an interface. They share no
// code with the port kinds they test. One goroutine may send while another receives.
package tuntest

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// Guest is the fd end of a TAP, with virtio-net headers.
type Guest struct {
	f   *os.File
	buf [1 << 17]byte
}

// Offloads that a guest may negotiate, as in the kernel's TUN_F_ flags.
const (
	None = 0
	Csum = unix.TUN_F_CSUM
	TSO  = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	USO  = TSO | unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// Boot attaches to the TAP name in the calling thread's network namespace, and waits
// until the kernel has seen its carrier where the link is up. The guest ends with
// the test at the latest.
func Boot(t testing.TB, name string, offloads int) *Guest {
	t.Helper()
	g := boot(t, name, offloads, 0)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		flags, err := interfaceFlags(name)
		if err != nil {
			t.Fatal(err)
		}
		if flags&unix.IFF_UP == 0 || flags&unix.IFF_RUNNING != 0 {
			return g
		}
		if time.Now().After(deadline) {
			t.Fatalf("the kernel does not see the carrier of %s", name)
		}
	}
}

// patience is how long the kernel has for what follows soon.
const patience = 30 * time.Second

// boot opens a queue of a TAP that nobody uses. Still it may be busy for a moment: what
// another test starts has every descriptor of this process until its exec is done,
// that of a TAP just made or left too.
func boot(t testing.TB, name string, offloads int, flags uint16) *Guest {
	t.Helper()
	deadline := time.Now().Add(patience)
	g, err := open(name, offloads, flags)
	for ; errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); g, err = open(name, offloads, flags) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatalf("boot a guest on %s: %v", name, err)
	}
	t.Cleanup(g.Kill)
	return g
}

func interfaceFlags(name string) (uint16, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req)
	}
	if err != nil {
		return 0, err
	}
	return req.Uint16(), nil
}

// TryBoot is Boot for a test that expects an error.
func TryBoot(name string, offloads int) (*Guest, error) { return open(name, offloads, 0) }

// BootQueues opens the TAP name as a guest with several queues does, one Guest for
// each queue.
func BootQueues(t testing.TB, name string, offloads, queues int) []*Guest {
	t.Helper()
	var all []*Guest
	for range queues {
		all = append(all, boot(t, name, offloads, unix.IFF_MULTI_QUEUE))
	}
	return all
}

func open(name string, offloads int, flags uint16) (*Guest, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, 10)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Guest{f: os.NewFile(uintptr(fd), "guest")}, nil
}

// Kill ends the guest as kill -9 would.
func (g *Guest) Kill() { g.f.Close() }

// Send transmits one frame, tags inline.
func (g *Guest) Send(wire []byte, o port.Offload) error {
	_, err := g.f.Write(packet(wire, o))
	return err
}

// Recv takes the next frame, waiting for it up to timeout.
func (g *Guest) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	var n int
	err := await(g.f, timeout, func(fd int) (err error) {
		n, err = unix.Read(fd, g.buf[:])
		return err
	})
	if err != nil {
		return nil, port.Offload{}, err
	}
	wire, o := split(g.buf[:n])
	return wire, o, nil
}

// await calls read, which does not wait, until it finds something. If nothing is there until the timeout, it
// looks once more: on a busy machine all the time may have passed without a look.
func await(f *os.File, timeout time.Duration, read func(fd int) error) error {
	if err := f.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		failed = read(int(fd))
		return failed != unix.EAGAIN
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err := conn.Control(func(fd uintptr) { failed = read(int(fd)) }); err != nil {
			return err
		}
		if failed == unix.EAGAIN {
			return err
		}
		return failed
	}
	if err != nil {
		return err
	}
	return failed
}
