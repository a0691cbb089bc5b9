package tuntap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Device is the fd end of a TAP, with virtio-net headers: a port.Port with one queue.
// The kernel end receives the frames that a Device sends.
type Device struct {
	file *os.File        // owns fd, for the netpoller
	conn syscall.RawConn // file's
	fd   int
	caps port.Caps

	// check reports whether the device is still in reach; Recv calls it every checkEvery.
	check func() bool

	// One worker receives.
	slab   *slab
	frames []port.Frame
	n      int
	errno  error
	read   func(fd uintptr) bool // readBatch, made once

	// Many workers send. They hold the lock for reading meanwhile, so that Close
	// does not close the descriptor that they use.
	mu     sync.RWMutex
	closed bool

	paused atomic.Bool
}

// checkEvery is how often a Device calls its check.
const checkEvery = time.Second

// Open attaches to the TAP name, which must be free. If check is not nil, it is called
// about once a second; when it returns false, Recv returns port.ErrGone.
func Open(name string, check func() bool) (*Device, error) {
	fd, err := attach(name, unix.IFF_VNET_HDR)
	if err != nil {
		return nil, fmt.Errorf("open TAP %s: %w", name, err)
	}
	return use(fd, name, check)
}

// parcelFormat is the format of a Device's Parcel: the descriptor, without data.
const parcelFormat = 1

// Give implements port.Giver. What the kernel end sends while a process replaces another waits in
// the device.
func (d *Device) Give(bool) (*port.Parcel, error) {
	d.mu.RLock() // Close must not close the descriptor meanwhile
	defer d.mu.RUnlock()
	if d.closed {
		return nil, port.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &port.Parcel{Format: parcelFormat, Files: []int{fd}}, nil
}

// Take is Open for the TAP of a Device that another process gave.
func Take(from *port.Parcel, name string, check func() bool) (*Device, error) {
	if err := from.Check(parcelFormat, 1); err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(from.Files[0], unix.TUNGETIFF, req)
	}
	if err != nil {
		return nil, fmt.Errorf("what is given is no TAP: %w", err)
	}
	if req.Name() != name {
		return nil, fmt.Errorf("TAP %s is given, not %s", req.Name(), name)
	}
	fd, err := unix.FcntlInt(uintptr(from.Files[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return use(fd, name, check)
}

// use makes a Device of a descriptor that is attached to the TAP name.
func use(fd int, name string, check func() bool) (_ *Device, err error) {
	d := &Device{fd: fd, check: check}
	if d.caps, err = setOffloads(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open TAP %s: set its offloads: %w", name, err)
	}
	// The netpoller must not have it earlier: before TUNSETIFF a TAP polls as in error.
	d.file = os.NewFile(uintptr(fd), device)
	if d.conn, err = d.file.SyscallConn(); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("open TAP %s: %w", name, err)
	}
	d.read = d.readBatch
	if check != nil {
		err = d.file.SetReadDeadline(time.Now().Add(checkEvery))
	}
	if err != nil {
		d.file.Close()
		return nil, fmt.Errorf("open TAP %s: %w", name, err)
	}
	held.Lock()
	defer held.Unlock()
	held.all[d] = true
	return d, nil
}

// setOffloads enables all offloads of the kernel end that this kernel has, and returns
// those that written frames may use. Linux 6.2 added UDP segmentation.
func setOffloads(fd int) (port.Caps, error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnet.HeaderLen); err != nil {
		return 0, err
	}
	const (
		tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		uso = unix.TUN_F_USO4 | unix.TUN_F_USO6
	)
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso|uso) == nil {
		return port.CapsAll, nil
	}
	return port.CapsAll &^ port.CapUSO, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso)
}

// Queues implements port.Port.
func (d *Device) Queues() []port.Queue { return []port.Queue{d} }

// Caps implements port.Port. The kernel end accepts every offload that the driver knows,
// since it receives in software.
func (d *Device) Caps() port.Caps { return d.caps }

// Close implements port.Port.
func (d *Device) Close() error {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	d.mu.Unlock()
	if was {
		return nil
	}
	held.Lock()
	delete(held.all, d)
	held.Unlock()
	return d.file.Close()
}

// setDeadline makes Recv call check when that is due, if there is one.
func (d *Device) setDeadline() {
	var at time.Time
	if d.check != nil {
		at = time.Now().Add(checkEvery)
	}
	_ = d.file.SetReadDeadline(at)
}

// Pause implements port.Pausable. What comes meanwhile waits in the TAP.
func (d *Device) Pause() {
	d.paused.Store(true)
	_ = d.file.SetReadDeadline(time.Unix(1, 0)) // fails only for a closed file
}

// Resume implements port.Pausable.
func (d *Device) Resume() {
	d.paused.Store(false)
	d.setDeadline()
}

// Bound implements port.Bound: a TAP that was deleted has no fd end any more.
func (d *Device) Bound() bool {
	d.mu.RLock() // Close must not close the descriptor meanwhile
	defer d.mu.RUnlock()
	if d.closed {
		return false
	}
	req, err := unix.NewIfreq("")
	return err == nil && unix.IoctlIfreq(d.fd, unix.TUNGETIFF, req) != unix.EBADFD
}

// slab is the memory of one received batch.
type slab struct{ b []byte }

var slabs = rxbuf.Pool[slab]{Batches: true, New: func() *slab { return &slab{rxbuf.Slab()} }}

// Recv implements port.Queue.
func (d *Device) Recv(frames []port.Frame) (int, error) {
	d.frames = frames[:min(len(frames), port.BatchSize)]
	for {
		if d.paused.Load() {
			return 0, port.ErrPaused
		}
		d.n, d.errno = 0, nil
		err := d.conn.Read(d.read)
		switch {
		case d.n > 0:
			// An error after some frames comes again at the next read.
			return d.n, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if d.check != nil && !d.check() {
				return 0, port.ErrGone
			}
			// Only a closed file refuses a deadline, and the next Read reports that.
			d.setDeadline()
		case err != nil:
			return 0, port.ErrClosed
		case d.errno == unix.EBADFD:
			return 0, port.ErrGone // its device was deleted (tun_get)
		default:
			return 0, fmt.Errorf("read TAP: %w", d.errno)
		}
	}
}

// readBatch reads until the TAP is empty or the batch is full. It returns false to be
// called again when there is something to read. A TAP has no call that reads many frames.
func (d *Device) readBatch(fd uintptr) bool {
	s := slabs.Rent()
	for d.n < len(d.frames) {
		b := s.b[d.n*rxbuf.Stride:][:rxbuf.Stride]
		n, err := unix.Read(int(fd), b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			d.errno = err
			break
		}
		decode(&d.frames[d.n], b[:n])
		d.n++
	}
	if d.n == 0 {
		slabs.Return(s)
		return d.errno != unix.EAGAIN
	}
	d.slab = s
	return true
}

// decode sets f to the frame in b, which begins with the virtio-net header.
func decode(f *port.Frame, b []byte) {
	if len(b) < vnet.HeaderLen {
		f.SetWire(nil)
		return
	}
	o, ok := vnet.Decode(b), true
	f.SetWire(b[vnet.HeaderLen:])
	if f.Drop != port.DropNone {
		return
	}
	if f.Tag.Present() {
		o, ok = vnet.Untag(o)
	}
	switch {
	case f.Len() > port.MaxFrame:
		f.Drop = port.DropOversize // perhaps truncated: the driver does not report that
	case !ok || !vnet.Valid(o, len(f.Data)):
		f.Drop = port.DropBadOffload
	default:
		f.Offload = o
	}
}

// Release implements port.Queue.
func (d *Device) Release() {
	if d.slab != nil {
		slabs.Return(d.slab)
		d.slab = nil
	}
}

// headLen is the length of what precedes Data[12:] on output: the virtio-net header, the
// addresses and the tags.
const headLen = vnet.HeaderLen + port.MaxHeader

// scratch is the memory for one write.
type scratch struct {
	iov  [2]unix.Iovec
	head [headLen]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Send implements port.Queue.
func (d *Device) Send(out []port.Out) {
	d.mu.RLock()
	if d.closed {
		d.mu.RUnlock()
		for i := range out {
			out[i].Drop = port.DropPortClosed
		}
		return
	}
	s := scratches.Get().(*scratch)
	for i := range out {
		out[i].Drop = d.send(s, &out[i])
	}
	s.iov = [2]unix.Iovec{} // keep no pointer to the frames
	scratches.Put(s)
	d.mu.RUnlock()
}

func (d *Device) send(s *scratch, out *port.Out) port.Drop {
	f := out.Frame
	if len(f.Data) < port.HeaderLen {
		return port.DropRunt
	}
	o := f.Offload
	if o != (port.Offload{}) {
		if !vnet.Valid(o, len(f.Data)) {
			return port.DropBadOffload
		}
		// The kernel refuses a hint that is longer than the frame.
		o.HdrLen = uint16(min(int(o.HdrLen), len(f.Data)))
		o = vnet.Tag(o, out.TagLen())
	}
	vnet.Encode(s.head[:], o)
	n := vnet.HeaderLen + out.PutHeader(s.head[vnet.HeaderLen:])
	s.iov[0].Base = &s.head[0]
	s.iov[0].SetLen(n)
	s.iov[1].Base = &f.Data[12]
	s.iov[1].SetLen(len(f.Data) - 12)
	for {
		switch errno := writev(d.fd, &s.iov); errno {
		case 0:
			return port.DropNone
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return port.DropQueueFull
		case unix.EIO: // the kernel end is down
			return port.DropNoCarrier
		case unix.EBADFD: // the device was deleted
			return port.DropPortClosed
		case unix.EMSGSIZE:
			return port.DropTooBig
		case unix.EINVAL:
			if o != (port.Offload{}) {
				return port.DropBadOffload
			}
			return port.DropIOError
		default:
			return port.DropIOError
		}
	}
}
