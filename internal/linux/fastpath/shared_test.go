package fastpath

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// sharedDevice is a device in which the host takes part.
type sharedDevice struct{ device }

func (sharedDevice) Exclusive() bool { return false }

// TestShared has frames from A come by port 0, which the host shares. A is known there, and B
// behind port 1. The switch's copies are read where it reads them.
func TestShared(t *testing.T) {
	t.Parallel()
	const host = port.MAC(0x02_00_00_00_00_99)
	wire := func(dst port.MAC) []byte { return frame(dst, macA, frameLen) }
	for name, c := range map[string]struct {
		change func(r *rig)
		wire   []byte
		want   uint32
		punted bool   // the switch gets it
		fast   uint64 // frames that count as the fast path's

		explained vswitch.FastVerdict // 0: any
	}{
		"known behind another port":                      {wire: wire(macB), want: tcxRedirect, fast: 1, explained: vswitch.FastSent},
		"known behind its own port":                      {wire: wire(macA), want: tcxNext, fast: 1},
		"for the host":                                   {wire: wire(host), want: tcxNext, explained: vswitch.FastHost},
		"for the host, whose address is known elsewhere": {wire: wire(host), want: tcxNext, explained: vswitch.FastHost, change: func(r *rig) { r.learn(1, host, 1) }},
		"unknown":                       {wire: wire(macC), want: tcxNext, punted: true, explained: vswitch.FastPunted},
		"to all":                        {wire: wire(port.Broadcast), want: tcxNext, punted: true},
		"to all, whom the kernel knows": {wire: wire(port.Broadcast), want: tcxNext, fast: 1, change: func(r *rig) { r.flood.VLANs = *vlans(1); r.publish(r.ports) }},
		"beyond the rate": {wire: wire(macB), want: tcxNext, fast: 1, change: func(r *rig) {
			r.police(0, kilobyte, time.Second, time.Hour)
		}},
		"the port is gone": {wire: wire(macC), want: tcxNext, change: func(r *rig) {
			r.publish(r.ports[1:])
			r.path.Release(0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			r.ns.Run("ip", "link", "set", "vm0", "address", net.HardwareAddr(host.HardwareAddr()).String(), "up")
			r.ports[0].Device = sharedDevice{r.ports[0].Device.(device)}
			r.publish(r.ports)
			r.learn(1, macA, 0)
			r.learn(1, macB, 1)
			if c.change != nil {
				c.change(r)
			}
			var fd int
			var err error
			ifindex := r.ports[0].Device.Ifindex()
			r.ns.Do(func() {
				proto := binary.NativeEndian.Uint16([]byte{0x88, 0xa8})
				if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto)); err == nil {
					err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: ifindex})
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)

			o := ebpf.RunOptions{Data: c.wire, DataOut: make([]byte, 200), Context: skb{Ifindex: uint32(ifindex)}}
			var got uint32
			var explained vswitch.FastVerdict
			r.ns.Do(func() {
				explained = r.path.Explain(0, c.wire)
				got, err = program(r.t, r.path, "vswitch_shared").Run(&o)
			})
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want || !bytes.Equal(o.DataOut, c.wire) {
				t.Errorf("it gets %d, want %d, and is\n% x, was\n% x", got, c.want, o.DataOut, c.wire)
			}
			if c.explained != vswitch.FastUnknown && explained != c.explained {
				t.Errorf("Explain says %d, want %d", explained, c.explained)
			}
			if in := r.path.Counters(0); c.fast != in.Fast || in.RX.Drops() != 0 && c.punted {
				t.Errorf("%+v", in)
			}

			timeout := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
			if c.punted {
				timeout = unix.NsecToTimeval((10 * time.Second).Nanoseconds())
			}
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 200)
			n, _, err := unix.Recvfrom(fd, b, 0)
			switch {
			case !c.punted:
				if err == nil {
					t.Errorf("the switch gets % x", b[:n])
				}
			case err != nil:
				t.Errorf("the switch gets nothing: %v", err)
			case !bytes.Equal(b[:n], marked(c.wire)):
				t.Errorf("the switch gets\n% x, want\n% x", b[:n], marked(c.wire))
			}
		})
	}
}

// share makes the port at vm0 one that the host shares.
func (r *rig) share() {
	r.ns.Run("ip", "link", "set", "vm0", "address", "02:00:00:00:00:99", "up")
	r.ports[0].Device = sharedDevice{r.ports[0].Device.(device)}
	r.publish(r.ports)
	r.learn(1, macA, 0)
}

// comeShared has a frame come by vm0, and returns what becomes of it.
func (r *rig) comeShared(wire []byte) (decision uint32) {
	r.t.Helper()
	o := ebpf.RunOptions{Data: wire, DataOut: make([]byte, 200), Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex())}}
	var err error
	r.ns.Do(func() { decision, err = program(r.t, r.path, "vswitch_shared").Run(&o) })
	if err != nil || !bytes.Equal(o.DataOut, wire) {
		r.t.Fatalf("it is\n% x, was\n% x, %v", o.DataOut, wire, err)
	}
	return decision
}

// A mirror of a port that the host shares has the frames for the host.
func TestSharedMirrored(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	observer := r.plug(t, "vm1")
	r.share()
	r.ports[0].MirrorIn, r.ports[1].From, r.ports[1].To, r.ports[1].MirrorTo = 1, false, false, 1
	r.publish(r.ports)
	var shown []vswitch.FastCopy
	wire := frame(0x02_00_00_00_00_99, macA, frameLen)
	if d := r.comeShared(wire); d != tcxNext {
		t.Errorf("it gets %d", d)
	}
	if got := read(t, observer); len(got) != 1 || !bytes.Equal(got[0], wire) {
		t.Errorf("the observer gets % x", got)
	}
	in, out := r.path.Counters(0).RX, r.path.Counters(1).TX
	if in.Frames != 0 || in.Copies != 1 || out.Frames != 1 {
		t.Errorf("counted are %+v, %+v", in, out)
	}

	seen := make(chan vswitch.FastCopy, 10)
	r.path.Show(func(c *vswitch.FastCopy) { seen <- *c })
	r.ports[0].MirrorIn, r.ports[0].CopyIn, r.ports[0].SeeIn = 0, true, true
	r.publish(r.ports)
	r.comeShared(wire)
	for range 2 {
		shown = append(shown, <-seen)
	}
	if shown[0].Kind != vswitch.CopyIn || shown[1].Kind != vswitch.CopyMirrorIn {
		shown[0], shown[1] = shown[1], shown[0] // by another ring
	}
	if shown[0].Kind != vswitch.CopyIn || shown[1].Kind != vswitch.CopyMirrorIn || shown[0].Drop != port.DropNone || shown[0].Length != len(wire) {
		t.Errorf("shown are %+v", shown)
	}
}

// What a bridge takes from the switch goes to the bridge as it came, and no marked copy does.
func TestSharedTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	guest := r.boot(t, "vm0")
	r.share()
	r.ns.Run("ip", "link", "add", "br0", "type", "bridge")
	r.ns.Run("ip", "link", "set", "br0", "up")
	r.ns.Run("ip", "link", "set", "vm0", "master", "br0")
	var fd int
	var err error
	r.ns.Do(func() {
		proto := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto)); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: r.ifindex("br0")})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, wire := range [][]byte{frame(macC, macA, frameLen), frame(port.Broadcast, macA, frameLen)} {
		if d := r.comeShared(wire); d != tcxNext {
			t.Errorf("it gets %d", d)
		}
	}
	if n := r.path.Counters(0).RX; n.Drops() != 2 {
		t.Errorf("counted are %+v, want two that are lost for the switch", n)
	}
	// What comes by the device afterwards comes to the bridge after copies.
	last := frame(port.Broadcast, macB, frameLen)
	b, n, marked := make([]byte, 200), 0, 0
	testenv.Eventually(t, "the bridge gets a frame", func() bool {
		if _, err := unix.Write(guest, append(make([]byte, vnet.HeaderLen), last...)); err != nil {
			t.Fatal(err)
		}
		for n, _, err = unix.Recvfrom(fd, b, 0); err == nil; n, _, err = unix.Recvfrom(fd, b, 0) {
			if bytes.Equal(b[:n], last) {
				return true
			}
			if binary.BigEndian.Uint16(b[12:]) == port.TPIDService {
				marked++
			}
		}
		return false
	})
	if marked != 0 {
		t.Errorf("%d marked copies come to the bridge", marked)
	}
}
