package tuntest

import (
	"encoding/binary"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// Station is whoever sits behind an interface and sees its frames as they come: a
// packet socket that asks for each frame by itself.
type Station struct {
	f   *os.File
	buf [1 << 17]byte
	oob [256]byte
}

// Listen attaches to the interface name in the calling thread's network namespace.
// It hears what the interface receives, not what the host or others send by it.
func Listen(t testing.TB, name string) *Station {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Station{f: os.NewFile(uintptr(fd), "station")}
	t.Cleanup(func() { s.f.Close() })
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) },
		func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: int(req.Uint32())})
		},
	} {
		if err := do(); err != nil {
			t.Fatalf("listen on %s: %v", name, err)
		}
	}
	return s
}

// Send transmits one frame by the interface, tags inline.
func (s *Station) Send(wire []byte, o port.Offload) error {
	_, err := s.f.Write(packet(wire, o))
	return err
}

// Recv takes the next frame, waiting for it up to timeout.
func (s *Station) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	var n, oobn int
	err := await(s.f, timeout, func(fd int) (err error) {
		n, oobn, _, _, err = unix.Recvmsg(fd, s.buf[:], s.oob[:], 0)
		return err
	})
	if err != nil {
		return nil, port.Offload{}, err
	}
	wire, o := split(s.buf[:n])
	messages, err := unix.ParseSocketControlMessage(s.oob[:oobn])
	if err != nil {
		return nil, o, err
	}
	for _, m := range messages {
		if m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := binary.BigEndian.AppendUint16(nil, aux.Vlan_tpid)
		tag = binary.BigEndian.AppendUint16(tag, aux.Vlan_tci)
		wire = append(wire[:12:12], append(tag, wire[12:]...)...)
		if o.Flags&port.NeedsCsum != 0 {
			o.CsumStart += 4
		}
	}
	return wire, o, nil
}

// packet puts the virtio-net header in front of a frame.
func packet(wire []byte, o port.Offload) []byte {
	b := append(make([]byte, 0, 10+len(wire)), o.Flags, o.GSOType)
	for _, v := range []uint16{o.HdrLen, o.GSOSize, o.CsumStart, o.CsumOffset} {
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	return append(b, wire...)
}

// split takes the virtio-net header off a frame and returns a copy of the frame.
func split(b []byte) ([]byte, port.Offload) {
	half := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	o := port.Offload{Flags: b[0], GSOType: b[1], HdrLen: half(2), GSOSize: half(4), CsumStart: half(6), CsumOffset: half(8)}
	return append([]byte(nil), b[10:]...), o
}
