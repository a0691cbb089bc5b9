package eth

import (
	"strings"
	"testing"
)

const (
	macs   = "\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01"
	ipv4   = "\x45\x00\x00\x1c\x12\x34\x40\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"
	udp    = "\x00\x35\x00\x35\x00\x08\x00\x00"
	ipv6   = "\x60\x00\x00\x00\x00\x08" // then the next header
	addrs6 = "\x40\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
)

func TestFindIP(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame string
		want  IPPacket
		ok    bool
	}{
		{"IPv4", macs + "\x08\x00" + ipv4 + udp,
			IPPacket{Version: 4, Proto: 17, Header: 14, ProtoAt: 23, Transport: 34}, true},
		{"IPv4 with options", macs + "\x08\x00\x46" + ipv4[1:] + "\x94\x04\x00\x00" + udp,
			IPPacket{Version: 4, Proto: 17, Header: 14, ProtoAt: 23, Transport: 38}, true},
		{"two tags", macs + "\x88\xa8\x00\x64\x81\x00\x00\x05\x08\x00" + ipv4 + udp,
			IPPacket{Version: 4, Proto: 17, Header: 22, ProtoAt: 31, Transport: 42}, true},
		{"last IPv4 fragment", macs + "\x08\x00" + ipv4[:6] + "\x00\xb9" + ipv4[8:] + udp,
			IPPacket{Version: 4, Proto: 17, Fragment: true, Header: 14, ProtoAt: 23, Transport: 34}, true},
		{"IPv6", macs + "\x86\xdd" + ipv6 + "\x11" + addrs6 + udp,
			IPPacket{Version: 6, Proto: 17, Header: 14, ProtoAt: 20, Transport: 54}, true},
		{"IPv6 hop-by-hop, routing", macs + "\x86\xdd" + ipv6 + "\x00" + addrs6 + "\x2b\x00\x05\x02\x00\x00\x00\x00" +
			"\x11\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + udp,
			IPPacket{Version: 6, Proto: 17, Routed: true, Header: 14, ProtoAt: 62, Transport: 78}, true},
		{"IPv6 fragment", macs + "\x86\xdd" + ipv6 + "\x2c" + addrs6 + "\x3c\x00\x05\xa8\x00\x00\x00\x01" + udp,
			IPPacket{Version: 6, Proto: 60, Fragment: true, Header: 14, ProtoAt: 54, Transport: 62}, true},

		{"empty", "", IPPacket{}, false},
		{"ARP", macs + "\x08\x06" + ipv4, IPPacket{}, false},
		{"cut off in the tag", macs + "\x81\x00\x00", IPPacket{}, false},
		{"more tags than the kernel passes", macs + strings.Repeat("\x81\x00\x00\x01", 9) + "\x08\x00" + ipv4, IPPacket{}, false},
		{"IPv4 header too short", macs + "\x08\x00\x44" + ipv4[1:] + udp, IPPacket{}, false},
		{"IPv4 options cut off", macs + "\x08\x00\x4f" + ipv4[1:] + udp, IPPacket{}, false},
		{"IPv6 in IPv4's type", macs + "\x08\x00" + ipv6 + "\x11" + addrs6 + udp, IPPacket{}, false},
		{"IPv4 in IPv6's type", macs + "\x86\xdd" + ipv4 + ipv4 + udp, IPPacket{}, false},
		{"IPv6 extension cut off", macs + "\x86\xdd" + ipv6 + "\x00" + addrs6 + "\x11\x01" + udp, IPPacket{}, false},
		{"IPv6 extensions without end", macs + "\x86\xdd" + ipv6 + "\x00" + addrs6 + strings.Repeat("\x00\x00\x05\x02\x00\x00\x00\x00", 20), IPPacket{}, false},
	} {
		got, ok := FindIP([]byte(c.frame))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

// FuzzFindIP: whatever the frame, what is found lies within it, in order.
func FuzzFindIP(f *testing.F) {
	f.Add([]byte(macs + "\x88\xa8\x00\x64\x08\x00" + ipv4 + udp))
	f.Add([]byte(macs + "\x86\xdd" + ipv6 + "\x00" + addrs6 + "\x2c\x00\x05\x02\x00\x00\x00\x00" + "\x11\x00\x00\x01\x00\x00\x00\x00" + udp))
	f.Add([]byte(macs + "\x86\xdd" + ipv6 + "\x3c" + addrs6 + "\x06\x01\x05\x02\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := FindIP(frame)
		if !ok {
			return
		}
		if p.Header < headerLen || p.ProtoAt < p.Header || p.Transport <= p.ProtoAt || p.Transport > len(frame) {
			t.Fatalf("%+v in %d bytes", p, len(frame))
		}
		if frame[p.ProtoAt] != p.Proto || frame[p.Header]>>4 != p.Version {
			t.Fatalf("%+v is not what %x says", p, frame)
		}
	})
}
