package brief

import (
	"encoding/hex"
	"strings"
	"testing"
)

const (
	macs = "525400000002 525400000001 "
	ip4  = "4500 0028 0000 0000 40" // then the protocol
	from = "0000 0a000001 0a000002 "
	ip6  = "60000000 0018" // then the next header
	to6  = "40 fd000000000000000000000000000001 fd000000000000000000000000000002 "
)

var frames = []struct{ hex, want string }{
	{macs + "0800 " + ip4 + "06" + from + "0fa0 0050 00000000 00000000 50 02 0000 0000 0000", "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv4 10.0.0.1:4000 > 10.0.0.2:80 tcp S len 54"},
	{macs + "8100 001e 0800 " + ip4 + "11" + from + "0fa0 0035 0008 0000", "52:54:00:00:00:01 > 52:54:00:00:00:02 vlan 30 IPv4 10.0.0.1:4000 > 10.0.0.2:53 udp len 46"},
	{macs + "88a8 0005 8100 2006 86dd " + ip6 + "06" + to6 + "0fa0 0050 00000000 00000000 50 12 0000 0000 0000", "52:54:00:00:00:01 > 52:54:00:00:00:02 vlan 5 vlan 6 IPv6 [fd00::1]:4000 > [fd00::2]:80 tcp S. len 82"},
	{macs + "0800 " + ip4 + "01" + from + "0800 0000", "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 icmp echo request len 38"},
	{macs + "86dd " + ip6 + "3a" + to6 + "8700 0000", "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv6 fd00::1 > fd00::2 icmp6 neighbor solicitation len 58"},
	{macs + "0800 4500 0028 0000 00b9 4011" + from + "0fa0 0035", "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 udp fragment len 38"},
	{macs + "0800 " + ip4 + "63" + from, "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 proto 99 len 34"},
	{macs + "0806 0001 0800 0604 0001 525400000001 0a000001 000000000000 0a000002", "52:54:00:00:00:01 > 52:54:00:00:00:02 ARP who has 10.0.0.2, tell 10.0.0.1 len 42"},
	{macs + "0806 0001 0800 0604 0002 525400000001 0a000001 525400000002 0a000002", "52:54:00:00:00:01 > 52:54:00:00:00:02 ARP 10.0.0.1 is at 52:54:00:00:00:01 len 42"},
	{macs + "0026 424203 00", "52:54:00:00:00:01 > 52:54:00:00:00:02 STP len 18"},
	{macs + "0026 aa ab", "52:54:00:00:00:01 > 52:54:00:00:00:02 LLC 0xaa > 0xaa len 16"},
	{macs + "88cc", "52:54:00:00:00:01 > 52:54:00:00:00:02 LLDP len 14"},
	{macs + "1234", "52:54:00:00:00:01 > 52:54:00:00:00:02 type 0x1234 len 14"},
	{macs + "8100 00", "52:54:00:00:00:01 > 52:54:00:00:00:02 802.1Q len 15"},
	{macs + "0800 4f", "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv4 without a whole header len 15"},
	{"525400", "3 bytes, shorter than an Ethernet header"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppend(t *testing.T) {
	for _, f := range frames {
		b := unhex(t, f.hex)
		if got := string(Append(nil, b, len(b))); got != f.want {
			t.Errorf("%s\nis %q,\nwant %q", f.hex, got, f.want)
		}
	}
}

// FuzzAppend: every frame has a description of one printable line.
func FuzzAppend(f *testing.F) {
	for _, frame := range frames {
		f.Add(unhex(f, frame.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := string(Append(nil, b, len(b)))
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%x is %q", b, s)
		}
		if len(s) > 200+10*len(b)/4 {
			t.Fatalf("%x has %d characters", b, len(s))
		}
	})
}
