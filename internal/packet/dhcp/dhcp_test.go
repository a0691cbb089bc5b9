package dhcp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/vswitch/vswitch/internal/packet/dhcp"
	"github.com/vswitch/vswitch/port"
)

var station = port.MAC(0x5254_0099_000a)

func message(t testing.TB, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(station.HardwareAddr())}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.ToBytes()
}

func TestParse(t *testing.T) {
	b := message(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithReply(&dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, TransactionID: dhcpv4.TransactionID{1, 2, 3, 4}, ClientHWAddr: station.HardwareAddr(), HWType: iana.HWTypeEthernet}),
		dhcpv4.WithYourIP(net.IPv4(10, 99, 0, 10)), dhcpv4.WithLeaseTime(60), dhcpv4.WithServerIP(net.IPv4(10, 99, 0, 1)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 99, 0, 1))))
	m, ok := dhcp.Parse(b)
	if !ok || m.Op != dhcp.BootReply || m.Type != dhcp.Ack || m.XID != 0x0102_0304 || m.MAC != station ||
		m.Your != netip.MustParseAddr("10.99.0.10") || m.Lease != 60 || m.Server != netip.MustParseAddr("10.99.0.1") || m.Requested.IsValid() {
		t.Errorf("%+v, %v", m, ok)
	}
	b = message(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 99, 0, 10))),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, station.HardwareAddr()...))), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRapidCommit, nil)))
	m, ok = dhcp.Parse(b)
	if !ok || m.Type != dhcp.Request || m.Requested != netip.MustParseAddr("10.99.0.10") || m.Identified != 7 || m.Identifiers != 1 || m.ClientID[0] != 1 || port.MACFrom(m.ClientID[1:]) != station || !m.Rapid || m.Agent {
		t.Errorf("%+v, %v", m, ok)
	}
}

// raw is a message with these options, and with others in file and sname.
func raw(options, file, sname string) []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[44:], sname)
	copy(b[108:], file)
	binary.BigEndian.PutUint32(b[236:], 0x6382_5363)
	return append(b, options...)
}

func TestOptions(t *testing.T) {
	const request, lease = "\x35\x01\x03", "\x33\x04\x00\x00\x00\x3c"
	for name, c := range map[string]struct {
		b     []byte
		ok    bool
		kind  dhcp.Type
		lease uint32
	}{
		"plain":                    {raw(request+lease+"\xff", "", ""), true, dhcp.Request, 60},
		"padded":                   {raw("\x00\x00"+request+"\x00"+lease+"\xff", "", ""), true, dhcp.Request, 60},
		"no end":                   {raw(request+lease, "", ""), true, dhcp.Request, 60},
		"behind the end":           {raw(request+"\xff"+lease, "", ""), true, dhcp.Request, 0},
		"in the file field":        {raw("\x34\x01\x01\xff", request+lease+"\xff", lease), true, dhcp.Request, 60},
		"in the sname field":       {raw("\x34\x01\x02\xff", lease, request+"\xff"), true, dhcp.Request, 0},
		"in both":                  {raw("\x34\x01\x03\xff", request+"\xff", lease+"\xff"), true, dhcp.Request, 60},
		"split":                    {raw(request+"\x33\x02\x00\x00\x33\x02\x00\x3c\xff", "", ""), true, dhcp.Request, 60},
		"split over fields":        {raw("\x34\x01\x01"+request+"\x33\x02\x00\x00\xff", "\x33\x02\x00\x3c\xff", ""), true, dhcp.Request, 60},
		"BOOTP":                    {raw("\xff", "", ""), true, 0, 0},
		"two types":                {raw(request+"\x35\x01\x05\xff", "", ""), false, 0, 0},
		"a type of no bytes":       {raw("\x35\x00"+request+"\x35\x01\x05", "", ""), false, 0, 0},
		"two leases":               {raw(request+lease+lease, "", ""), false, 0, 0},
		"a lease of three bytes":   {raw(request+"\x33\x03\x00\x00\x3c", "", ""), false, 0, 0},
		"an option beyond the end": {raw(request+"\x33\x04\x00\x00\x00", "", ""), false, 0, 0},
		"an option without length": {raw(request+"\x33", "", ""), false, 0, 0},
		"overload of both kinds":   {raw("\x34\x01\x07"+request, "", ""), false, 0, 0},
		"overload twice":           {raw("\x34\x01\x01"+request, "\x34\x01\x02\xff", ""), false, 0, 0},
		"another cookie":           {append(raw("", "", "")[:236], "\x63\x82\x53\x64"+request...), false, 0, 0},
		"cut off":                  {raw("", "", "")[:239], false, 0, 0},
	} {
		m, ok := dhcp.Parse(c.b)
		if ok != c.ok || ok && (m.Type != c.kind || m.Lease != c.lease) {
			t.Errorf("%s: %+v, %v", name, m, ok)
		}
	}
}

// decode is gopacket's, which panics over some options.
func decode(l *layers.DHCPv4, b []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return l.DecodeFromBytes(b, gopacket.NilDecodeFeedback)
}

// FuzzParse: what is read is what gopacket reads, where no option occurs twice or in other
// fields; and nobody reads another type of message.
func FuzzParse(f *testing.F) {
	f.Add(raw("\x35\x01\x03\x33\x04\x00\x00\x00\x3c\xff", "", ""))
	f.Add(raw("\x34\x01\x03\xff", "\x35\x01\x03\xff", "\x33\x04\x00\x00\x00\x3c"))
	f.Add(message(f, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := dhcp.Parse(b)
		if !ok {
			return
		}
		var want layers.DHCPv4
		if decode(&want, b) != nil {
			return // it refuses some that have no end, or odd lengths
		}
		seen := make(map[layers.DHCPOpt][]byte)
		for _, o := range want.Options {
			if o.Type == layers.DHCPOptEnd {
				break
			}
			seen[o.Type] = append(seen[o.Type], o.Data...)
		}
		if len(seen[52]) != 0 {
			return
		}
		if kind := seen[53]; len(kind) == 1 && m.Type != dhcp.Type(kind[0]) || len(kind) == 0 && m.Type != 0 {
			t.Fatalf("type %d, want %x", m.Type, kind)
		}
		if lease := seen[51]; len(lease) == 4 && m.Lease != binary.BigEndian.Uint32(lease) {
			t.Fatalf("lease %d, want %x", m.Lease, lease)
		}
		if m.Identified != len(seen[61]) || !bytes.HasPrefix(append(seen[61], make([]byte, 7)...), m.ClientID[:]) {
			t.Fatalf("client %x of %d, want %x", m.ClientID, m.Identified, seen[61])
		}
		if want.Xid != m.XID || byte(want.Operation) != m.Op || want.HardwareLen != m.HLen {
			t.Fatalf("%+v, want %+v", m, want)
		}
	})
}

func TestParse6(t *testing.T) {
	duid := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: station.HardwareAddr()}
	reply, err := dhcpv6.NewMessage(dhcpv6.WithClientID(duid))
	if err != nil {
		t.Fatal(err)
	}
	reply.AddOption(&dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{
		&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd99::10"), PreferredLifetime: time.Minute, ValidLifetime: time.Hour},
		&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd99::11"), ValidLifetime: 0},
	}}})
	reply.MessageType = dhcpv6.MessageTypeReply
	reply.AddOption(&dhcpv6.OptIAPD{Options: dhcpv6.PDOptions{Options: dhcpv6.Options{&dhcpv6.OptIAPrefix{ValidLifetime: time.Minute,
		Prefix: &net.IPNet{IP: net.ParseIP("fd97::"), Mask: net.CIDRMask(56, 128)}}}}})
	m, ok := dhcp.Parse6(reply.ToBytes())
	want := []dhcp.Lease6{
		{Prefix: netip.MustParsePrefix("fd99::10/128"), Valid: 3600}, {Prefix: netip.MustParsePrefix("fd99::11/128")},
		{Prefix: netip.MustParsePrefix("fd97::/56"), PD: true, Valid: 60},
	}
	if got := m.Leases(); !ok || m.Type != dhcp.Reply6 || !bytes.Equal(m.Client, duid.ToBytes()) || m.XID != binary.BigEndian.Uint32(append([]byte{0}, reply.TransactionID[:]...)) ||
		m.More || len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%+v, %v", m, ok)
	}
	// What the server refuses is no lease.
	refused, err := dhcpv6.NewMessage(dhcpv6.WithClientID(duid), dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd99::10"), ValidLifetime: time.Hour}))
	if err != nil {
		t.Fatal(err)
	}
	refused.Options.OneIANA().Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNotOnLink})
	if m, ok := dhcp.Parse6(refused.ToBytes()); !ok || len(m.Leases()) != 0 || !m.More {
		t.Errorf("refused: %+v, %v", m, ok)
	}
	b := reply.ToBytes()
	for n := range b {
		if m, ok := dhcp.Parse6(b[:n]); ok && len(m.Leases()) == 3 {
			t.Errorf("%d of %d bytes: %+v", n, len(b), m)
		}
	}
}

// FuzzParse6: a message that is read is one for the library too, with the same addresses.
func FuzzParse6(f *testing.F) {
	duid := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: station.HardwareAddr()}
	m, err := dhcpv6.NewMessage(dhcpv6.WithClientID(duid), dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd99::10"), ValidLifetime: time.Hour}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := dhcp.Parse6(b)
		if !ok {
			return
		}
		want, err := dhcpv6.MessageFromBytes(b)
		if err != nil {
			return // it reads more options than this parser
		}
		if got.Type != dhcp.Type6(want.MessageType) {
			t.Fatalf("type %d, want %v", got.Type, want.MessageType)
		}
		var all []netip.Addr
		for _, ia := range want.Options.IANA() {
			for _, a := range ia.Options.Addresses() {
				addr, _ := netip.AddrFromSlice(a.IPv6Addr)
				all = append(all, addr)
			}
		}
		for _, l := range got.Leases() {
			found := l.PD
			for _, a := range all {
				found = found || a == l.Addr()
			}
			if !found && len(want.Options.Get(dhcpv6.OptionIATA)) == 0 {
				t.Fatalf("%v is not among %v", l, all)
			}
		}
	})
}
