package afpacket

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Listener receives the untagged frames of one EtherType that come by an interface, beside
// the Port there: so they wait for no others and are lost with no others.
type Listener struct {
	fd   int
	file *os.File
}

// listenBuffer is how much a Listener holds, in bytes as the kernel accounts them: some 100
// small frames.
const listenBuffer = 64 << 10

// Listen makes a Listener. It gets the frames before a program at the interface's ingress does.
func Listen(ifindex int, etherType uint16) (*Listener, error) {
	fd, err := socket(unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, explain(err)
	}
	l := &Listener{fd: fd}
	if err = set(fd, unix.PACKET_IGNORE_OUTGOING, 1); err == nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, listenBuffer)
		err = only(fd, etherType)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{
			Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)),
			Ifindex:  ifindex,
		})
	}
	if err != nil {
		_ = closeSocket(fd)
		return nil, explain(err)
	}
	l.file = os.NewFile(uintptr(fd), "packet")
	return l, nil
}

// only has the kernel give a socket the untagged frames of one EtherType alone.
func only(fd int, etherType uint16) error {
	const vlanTagPresent = 0xffff_f000 + 48 // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT of linux/filter.h
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: vlanTagPresent},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(etherType), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// Recv waits for a frame. A link that goes down is no end; one that is gone sends nothing
// more.
func (l *Listener) Recv(b []byte) (int, error) {
	for {
		if n, err := l.file.Read(b); !errors.Is(err, unix.ENETDOWN) {
			return n, err
		}
	}
}

// Interrupt makes each Recv return os.ErrDeadlineExceeded, or lets them receive again. What comes
// meanwhile waits.
func (l *Listener) Interrupt(on bool) {
	var deadline time.Time
	if on {
		deadline = time.Unix(1, 0)
	}
	_ = l.file.SetReadDeadline(deadline) // fails once it is closed
}

// Dup returns a descriptor of the socket for another process, or os.ErrClosed.
func (l *Listener) Dup() (fd int, err error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return -1, err
	}
	if raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }) != nil {
		return -1, os.ErrClosed
	}
	return fd, err
}

// TakeListener makes a Listener of the socket that another process gave.
func TakeListener(ifindex, fd int) (*Listener, error) {
	sa, err := unix.Getsockname(fd)
	if ll, ok := sa.(*unix.SockaddrLinklayer); err == nil && (!ok || ll.Ifindex != ifindex) {
		err = errors.New("the socket that is given is not at the interface")
	}
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	place(fd, int32(fd))
	return &Listener{fd: fd, file: os.NewFile(uintptr(fd), "packet")}, nil
}

// Close ends a waiting Recv.
func (l *Listener) Close() error {
	place(l.fd, -1)
	return l.file.Close()
}
