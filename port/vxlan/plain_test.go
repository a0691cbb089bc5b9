package vxlan

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// pair returns a tunnel on the loopback device, and the socket and the VTEP of its peer.
func pair(t *testing.T) (*sockets, *net.UDPConn, *vtep) {
	t.Helper()
	pid := os.Getpid()
	local := netip.AddrFrom4([4]byte{127, byte(pid>>8) | 0x80, byte(pid), 251})
	tun, err := openSockets(local, port.VXLAN, inVXLAN.udpPort(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	other, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Next(), inVXLAN.udpPort())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if err := tun.configure([]port.VNI{{VNI: 100}}, []netip.Addr{local.Next()}, true); err != nil {
		t.Fatal(err)
	}
	tun.measure(true) // what is unknown is not divided anyway
	return tun, other, (*tun.byAddr.Load())[local.Next()]
}

// exchange sends a batch of frames, of which length says how long they are, and expects a datagram of
// each.
func exchange(t *testing.T, tun *sockets, other *net.UDPConn, length func(i int) int) {
	t.Helper()
	var out []port.Out
	for i := range 40 {
		b := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), bytes.Repeat([]byte{byte(i)}, length(i)-port.HeaderLen)...)
		f := new(port.Frame)
		f.SetStripped(b, 0)
		out = append(out, port.Out{Frame: f})
	}
	tun.queues[0].Send(out)
	for i := range out {
		if out[i].Drop != port.DropNone {
			t.Fatalf("frame %d: %v", i, out[i].Drop)
		}
	}
	for i := range out {
		var b [2048]byte
		_ = other.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := other.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b[headerLen:n], out[i].Frame.Data) {
			t.Fatalf("datagram %d is % x, want % x", i, b[headerLen:n], out[i].Frame.Data)
		}
	}
}

// TestDivided: frames of a batch arrive whole and in order, be they of one length, of several, or so
// long that they are not copied.
func TestDivided(t *testing.T) {
	tun, other, v := pair(t)
	for _, length := range []func(i int) int{
		func(int) int { return 64 },
		func(int) int { return 1400 },
		func(i int) int { return 64 + i%2*1336 },
		func(i int) int { return 1400 - i/3*30 },
	} {
		exchange(t, tun, other, length)
	}
	if v.plain.Load() {
		t.Error("the kernel divides nothing")
	}
}

// TestUndivided: where the kernel does not divide messages, here because its sockets make no
// checksums, each datagram is sent by itself, and the next ones at once.
func TestUndivided(t *testing.T) {
	tun, other, v := pair(t)
	for _, fd := range tun.tx {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		v.plain.Store(round == 1)
		exchange(t, tun, other, func(i int) int { return 64 + i%2*400 })
		if !v.plain.Load() {
			t.Error("that the kernel divides nothing is not remembered")
		}
	}
	tun.measure(true)
	if v.plain.Load() {
		t.Error("it is not tried again")
	}
}
