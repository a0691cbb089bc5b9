package vxlan

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// TestUndivided: where the kernel does not divide messages, here because its sockets make no
// checksums, each datagram is sent by itself, and the next ones at once.
func TestUndivided(t *testing.T) {
	pid := os.Getpid()
	local := netip.AddrFrom4([4]byte{127, byte(pid>>8) | 0x80, byte(pid), 251})
	tun, err := openSockets(local, port.VXLAN, inVXLAN.udpPort(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	other, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Next(), inVXLAN.udpPort())))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := tun.configure([]port.VNI{{VNI: 100}}, []netip.Addr{local.Next()}, true); err != nil {
		t.Fatal(err)
	}
	tun.measure(true) // what is unknown is not divided anyway
	for _, fd := range tun.tx {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
	}
	v := (*tun.byAddr.Load())[local.Next()]
	for round := range 2 {
		var out []port.Out
		for i := range 40 {
			b := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 50+i%2*400)...)
			b[14] = byte(i)
			f := new(port.Frame)
			f.SetStripped(b, 0)
			out = append(out, port.Out{Frame: f})
		}
		v.plain.Store(round == 1)
		tun.queues[0].Send(out)
		for i := range out {
			if out[i].Drop != port.DropNone {
				t.Fatalf("frame %d: %v", i, out[i].Drop)
			}
		}
		if !v.plain.Load() {
			t.Error("that the kernel divides nothing is not remembered")
		}
		for i := range out {
			var b [2048]byte
			_ = other.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := other.Read(b[:])
			if err != nil {
				t.Fatal(err)
			}
			if n != headerLen+len(out[i].Frame.Data) || b[headerLen+14] != byte(i) {
				t.Fatalf("datagram %d has %d bytes and number %d", i, n, b[headerLen+14])
			}
		}
	}
	tun.measure(true)
	if v.plain.Load() {
		t.Error("it is not tried again")
	}
}
