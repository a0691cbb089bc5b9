package vxlan

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// quiet is a tunnel without sockets, in one network or by VLAN, with one peer.
func quiet(f testing.TB, e port.Encapsulation, vni string) *sockets {
	t := new(sockets)
	t.init(netip.MustParseAddr("192.0.2.1"), e, inVXLAN.udpPort())
	var v VNIs
	if err := v.UnmarshalText([]byte(vni)); err != nil {
		f.Fatal(err)
	}
	if err := t.configure(v.list(), []netip.Addr{netip.MustParseAddr("192.0.2.2")}, true); err != nil {
		f.Fatal(err)
	}
	t.queues = []*queue{{t: t}}
	return t
}

// FuzzReceive: whatever two messages hold and however the kernel says they are divided, each byte
// is in at most one frame, and a frame that is not dropped is one that the switch can rely on.
func FuzzReceive(f *testing.F) {
	head := []byte{8, 0, 0, 0, 0, 0, 100, 0}
	eth := []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5payload")
	f.Add(append(head, eth...), uint16(0), 5, true)
	f.Add(append(append(append(head, eth...), head...), eth...), uint16(len(head)+len(eth)), len(head)+len(eth), true)
	f.Add([]byte("?"), uint16(1), 0, false)
	geneve := append([]byte{1, 0, 0x65, 0x58, 0, 0, 100, 0, 0, 0, 1, 0}, eth...)
	f.Add(append(append(geneve, geneve...), geneve...), uint16(len(geneve)), 2*len(geneve), true)
	one, many, other := quiet(f, port.VXLAN, "100"), quiet(f, port.VXLAN, "100=100"), quiet(f, port.Geneve, "100")
	f.Fuzz(func(t *testing.T, message []byte, size uint16, second int, peer bool) {
		if len(message) > port.MaxFrame {
			return
		}
		for _, tun := range []*sockets{one, many, other} {
			q := tun.queues[0]
			b := batches.Rent()
			defer batches.Return(b)
			b.n, b.at, b.off = 2, 0, 0
			second = max(0, min(second, len(message)))
			from := netip.MustParseAddr("192.0.2.3")
			if peer {
				from = from.Prev()
			}
			for i, part := range [][]byte{message[:second], message[second:]} {
				copy(b.slab[i*rxbuf.Stride:], part)
				(&vtep{addr: from}).nameAt(&b.names[i])
				control(&b.headers[i], size)
				b.headers[i].N, b.headers[i].Flags = uint32(len(part)), 0
			}
			q.batch = b
			var frames [port.BatchSize]port.Frame
			total := 0
			for b.at < b.n {
				n := q.next(frames[:])
				if n == 0 {
					t.Fatal("no frame, and the message has not ended")
				}
				for i := range frames[:n] {
					fr := &frames[i]
					total += len(fr.Data)
					if fr.Drop != port.DropNone {
						continue
					}
					switch {
					case !peer:
						t.Fatal("a stranger's frame is taken")
					case len(fr.Data) < port.HeaderLen:
						t.Fatal("a runt is taken")
					case tun == many && fr.Tag.VID() != 100:
						t.Fatalf("a frame in network 100 has tag %#x", fr.Tag)
					case fr.Offload.Flags != 0 && !fr.Offload.IsGSO() && !vnet.Valid(fr.Offload, len(fr.Data)):
						t.Fatalf("offload %+v", fr.Offload)
					}
					if o := fr.Offload; o.IsGSO() {
						if _, ok := vnet.Inspect(fr.Data, len(fr.Data), o); !ok {
							t.Fatalf("offload %+v does not fit", o)
						}
					}
				}
			}
			if total > len(message) {
				t.Fatalf("%d bytes of a message of %d", total, len(message))
			}
		}
	})
}

// nameAt writes the VTEP's address as the kernel does.
func (v *vtep) nameAt(n *unix.RawSockaddrInet6) {
	v.setName(inVXLAN.udpPort())
	*n = v.name
}

// control is what the kernel says about a divided message.
func control(h *mmsg.Header, size uint16) {
	if size == 0 {
		h.SetControllen(0)
		return
	}
	b := unsafe.Slice(h.Control, controlLen)
	binary.NativeEndian.PutUint64(b[:], uint64(unix.CmsgLen(4)))
	binary.NativeEndian.PutUint32(b[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_GRO)
	binary.NativeEndian.PutUint32(b[16:], uint32(size))
	h.SetControllen(unix.CmsgSpace(4))
}

// FuzzTooBig: a reply to any frame is a valid ICMP message to its sender.
func FuzzTooBig(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x01\x00\x02\x00\x08\x00\x00"), 1450)
	f.Add(append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x86\xdd\x60\x00\x00\x00\x00\x00\x3b\x40\xfd\x00"), make([]byte, 60)...), 1430)
	f.Fuzz(func(t *testing.T, data []byte, mtu int) {
		var fr port.Frame
		fr.SetStripped(data, 0)
		var b [replyLen]byte
		n := writeTooBig(b[:], &fr, mtu)
		if n == 0 {
			return
		}
		out := b[:n]
		if port.MACFrom(out) != fr.Src || port.MACFrom(out[6:]) != fr.Dst {
			t.Fatal("it goes elsewhere")
		}
		ip := out[port.HeaderLen:]
		if ip[0]>>4 == 4 {
			if int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
				t.Fatal("its length is wrong")
			}
			if vnet.Sum(ip[:20]) != 0xffff || vnet.Sum(ip[20:]) != 0xffff {
				t.Fatal("its checksums are wrong")
			}
			return
		}
		if int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			t.Fatal("its length is wrong")
		}
		sum := uint32(vnet.Sum(ip[8:40])) + uint32(n-54) + protoICMPv6 + uint32(vnet.Sum(ip[40:]))
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		if sum != 0xffff {
			t.Fatal("its checksum is wrong")
		}
	})
}

// TestNoReply: no message answers an ICMP error, a part of a packet, a group or nobody.
func TestNoReply(t *testing.T) {
	v4 := func(change func(b []byte)) []byte {
		b := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00\x00\x28\x00\x00\x40\x00\x40\x01\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x08"), make([]byte, 19)...)
		change(b)
		return b
	}
	v6 := func(change func(b []byte)) []byte {
		b := make([]byte, 14+40+8)
		copy(b, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x86\xdd\x60\x00\x00\x00\x00\x08\x3a\x40")
		b[22], b[38], b[54] = 0xfd, 0xfd, 128
		change(b)
		return b
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"an echo", v4(func([]byte) {}), true},
		{"an error", v4(func(b []byte) { b[34] = 3 }), false},
		{"a later fragment", v4(func(b []byte) { b[21] = 1 }), false},
		{"to a group", v4(func(b []byte) { b[30] = 224 }), false},
		{"to a group's MAC", v4(func(b []byte) { b[0] = 1 }), false},
		{"from nobody", v4(func(b []byte) { b[26] = 0 }), false},
		{"from a group", v4(func(b []byte) { b[26] = 239 }), false},
		{"an echo of IPv6", v6(func([]byte) {}), true},
		{"an error of IPv6", v6(func(b []byte) { b[54] = 2 }), false},
		{"from nobody of IPv6", v6(func(b []byte) { b[22] = 0 }), false},
		{"to a group of IPv6", v6(func(b []byte) { b[38] = 0xff }), false},
		{"ARP", v4(func(b []byte) { b[13] = 6 }), false},
	} {
		var f port.Frame
		f.SetStripped(c.frame, 0)
		var b [replyLen]byte
		if got := writeTooBig(b[:], &f, 1400) > 0; got != c.want {
			t.Errorf("%s: answered %t", c.name, got)
		}
	}
}

// TestTooBig: a reply says how long a packet may be, as far as its field goes.
func TestTooBig(t *testing.T) {
	v4 := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"), make([]byte, 20)...)
	v6 := make([]byte, 14+40+20)
	copy(v6, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x86\xdd\x60\x00\x00\x00\x00\x14\x06\x40")
	v6[22], v6[38] = 0xfd, 0xfd
	for _, c := range []struct{ mtu, in4, in6 int }{{1400, 1400, 1400}, {65535, 65535, 65535}, {70000, 65535, 70000}} {
		var f port.Frame
		var b [replyLen]byte
		f.SetStripped(v4, 0)
		writeTooBig(b[:], &f, c.mtu)
		if got := int(binary.BigEndian.Uint16(b[14+20+6:])); got != c.in4 {
			t.Errorf("IPv4: %d for an MTU of %d", got, c.mtu)
		}
		f.SetStripped(v6, 0)
		writeTooBig(b[:], &f, c.mtu)
		if got := int(binary.BigEndian.Uint32(b[14+40+4:])); got != c.in6 {
			t.Errorf("IPv6: %d for an MTU of %d", got, c.mtu)
		}
	}
}

// TestJoinedAcrossMessages: a super-frame that takes two messages is one again, behind another
// frame, and what follows it is whole.
func TestJoinedAcrossMessages(t *testing.T) {
	const payload, count = 1000, 40
	segment := func(i int) []byte {
		b := make([]byte, headerLen+54+payload)
		putHeader(b, port.VXLAN, 100)
		f := b[headerLen:]
		copy(f, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45")
		binary.BigEndian.PutUint16(f[16:], 40+payload)
		f[20], f[22], f[23], f[46], f[47] = 0x40, 64, 6, 0x50, 0x10
		binary.BigEndian.PutUint32(f[38:], uint32(i*payload))
		for j := range payload {
			f[54+j] = byte(i)
		}
		binary.BigEndian.PutUint16(f[24:], ^vnet.Sum(f[14:34]))
		pseudo := []byte{0, 6, byte((20 + payload) >> 8), byte((20 + payload) & 0xff)}
		binary.BigEndian.PutUint16(f[50:], ^vnet.Sum(append(pseudo, f[34:]...)))
		return b
	}
	tun := quiet(t, port.VXLAN, "100")
	b := batches.Rent()
	defer batches.Return(b)
	other := append(segment(0)[:headerLen+12:headerLen+12], make([]byte, 2+40+payload)...)
	b.n, b.at, b.off = 3, 0, 0
	at := 0
	for i, n := range []int{15, 25, 1} {
		var message []byte
		if i == 0 {
			message = append(message, other...)
		}
		for range n {
			if at < count {
				message = append(message, segment(at)...)
			} else {
				message = append(message, other...)
			}
			at++
		}
		copy(b.slab[i*rxbuf.Stride:], message)
		(&vtep{addr: netip.MustParseAddr("192.0.2.2")}).nameAt(&b.names[i])
		control(&b.headers[i], uint16(len(other)))
		b.headers[i].N, b.headers[i].Flags = uint32(len(message)), 0
	}
	q := tun.queues[0]
	q.batch = b
	var frames [port.BatchSize]port.Frame
	if n := q.next(frames[:]); n != 3 {
		t.Fatalf("%d frames, want 3", n)
	}
	for _, i := range []int{0, 2} {
		if f := &frames[i]; f.Drop != port.DropNone || string(f.Data) != string(other[headerLen:]) {
			t.Errorf("frame %d is another: %v, %d bytes", i, f.Drop, len(f.Data))
		}
	}
	f := &frames[1]
	if len(f.Data) != 54+count*payload || f.Offload.GSOType != port.GSOTCPv4 || f.Offload.GSOSize != payload {
		t.Fatalf("%d bytes, %+v", len(f.Data), f.Offload)
	}
	for i, got := range f.Data[54:] {
		if got != byte(i/payload) {
			t.Fatalf("byte %d is of segment %d", i, got)
		}
	}
}

// The buffers of messages hold what the kernel can deliver.
func TestSlots(t *testing.T) {
	if rxbuf.Stride < port.MaxFrame || port.MaxFrame < 65507 {
		t.Error("a slot is too short")
	}
}
