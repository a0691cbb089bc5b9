package lldp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

const source port.MAC = 0x0200_0000_0001

func sample() *PDU {
	return &PDU{
		Chassis: ID{KindMAC, string(source.HardwareAddr())}, Port: ID{KindIfName, "eth0"}, TTL: TTL,
		PortDescription: "uplink", SystemName: "host7", SystemDescription: "a switch",
		Capabilities: Bridge, Enabled: Bridge,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
		PVID:      1034, VLANs: []VLAN{{10, "vlan10"}, {20, "vlan20"}}, MaxFrame: 1522, Aggregated: 4096, MED: NetworkConnectivity,
	}
}

var equalPDUs = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})}

func TestRoundTrip(t *testing.T) {
	frame := Append(nil, source, sample())
	p, err := Parse(frame)
	if diff := cmp.Diff(sample(), p, equalPDUs); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if dst, src := port.MACFrom(frame), port.MACFrom(frame[6:]); dst != Group || src != source {
		t.Errorf("from %v to %v", src, dst)
	}
}

// Another reader of the format understands all TLVs that the switch sends.
func TestTshark(t *testing.T) {
	tshark := testenv.Tool(t, "tshark")
	file := filepath.Join(t.TempDir(), "lldp.pcap")
	frame := Append(nil, source, sample())
	le := binary.LittleEndian
	pcap := le.AppendUint32(nil, 0xa1b2c3d4) // pcap-savefile(5)
	pcap = le.AppendUint32(pcap, 2|4<<16)
	pcap = append(pcap, make([]byte, 8)...)
	for _, n := range []int{65535, 1, 0, 0, len(frame), len(frame)} {
		pcap = le.AppendUint32(pcap, uint32(n))
	}
	if err := os.WriteFile(file, append(pcap, frame...), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := []struct{ name, want string }{
		{"lldp.chassis.id.mac", "02:00:00:00:00:01"}, {"lldp.port.id", "eth0"}, {"lldp.time_to_live", "121"},
		{"lldp.port.desc", "uplink"}, {"lldp.tlv.system.name", "host7"}, {"lldp.tlv.system.desc", "a switch"},
		{"lldp.tlv.enable_system_cap.bridge", "1"}, {"lldp.mgn.addr.ip4", "192.0.2.7"}, {"lldp.mgn.addr.ip6", "2001:db8::7"},
		{"lldp.ieee.802_1.port_vlan.id", "1034"}, {"lldp.ieee.802_1.vlan.id", "10,20"}, {"lldp.ieee.802_1.vlan.name", "vlan10,vlan20"},
		{"lldp.ieee.802_3.max_frame_size", "1522"},
		{"lldp.media.subtype", "0x01"}, {"lldp.media.subtype.caps", "0x0001"}, {"lldp.media.subtype.class", "4"}, {"_ws.malformed", ""}, {"_ws.expert.message", ""},
	}
	args := []string{"-r", file, "-T", "fields", "-E", "separator=;"}
	for _, f := range fields {
		args = append(args, "-e", f.name)
	}
	out, err := exec.Command(tshark, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimRight(string(out), "\n"), ";")
	if len(got) != len(fields) {
		t.Fatalf("tshark prints %q", out)
	}
	for i, f := range fields {
		if got[i] != f.want {
			t.Errorf("%s is %q, want %q", f.name, got[i], f.want)
		}
	}
}

// The example of the mandatory TLVs alone, and what is wrong about others like it.
func TestParse(t *testing.T) {
	head := "0180c200000e" + "020000000001" + "88cc"
	const chassis, portID, ttl, end = "0207" + "04020000000001", "0405" + "0565746830", "06020078", "0000"
	for name, c := range map[string]struct {
		pdu string
		ok  bool
	}{
		"mandatory":         {chassis + portID + ttl + end, true},
		"padded":            {chassis + portID + ttl + end + "ffffffff", true},
		"no end":            {chassis + portID + ttl, true},
		"long TTL":          {chassis + portID + "060400780000" + end, true},
		"unknown TLV":       {chassis + portID + ttl + "1e01ff" + end, true},
		"empty name":        {chassis + portID + ttl + "0a00" + end, true},
		"short PVID":        {chassis + portID + ttl + "fe050080c20100" + end, true},
		"short address":     {chassis + portID + ttl + "100205" + "01" + end, true},
		"empty":             {"", false},
		"end":               {end, false},
		"no TTL":            {chassis + portID + end, false},
		"cut after port":    {chassis + portID, false},
		"order":             {portID + chassis + ttl + end, false},
		"two TTLs":          {chassis + portID + ttl + ttl + end, false},
		"chassis again":     {chassis + portID + ttl + chassis + end, false},
		"empty chassis":     {"020104" + portID + ttl + end, false},
		"empty port":        {chassis + "040105" + ttl + end, false},
		"long chassis":      {"030104" + strings.Repeat("00", 256) + portID + ttl + end, false},
		"short TTL":         {chassis + portID + "060100" + end, false},
		"longer than frame": {chassis + portID + ttl + "0aff" + "00", false},
		"half a head":       {chassis + portID + ttl + "0a", false},
	} {
		frame, err := hex.DecodeString(head + c.pdu)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(frame)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (p.TTL != 120 || p.Chassis.String() != "02:00:00:00:00:01" || p.Port.String() != "eth0") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if _, err := Parse(bytes.Repeat([]byte{0}, 60)); err == nil {
		t.Error("a frame of another EtherType is taken")
	}
}

// A PDU is bounded, whatever it should contain.
func TestBounds(t *testing.T) {
	p := sample()
	p.SystemName = strings.Repeat("n", 1000)
	p.PortDescription = p.SystemName
	p.SystemDescription = p.SystemName
	p.Port.Value = p.SystemName
	p.VLANs = nil
	for vid := range uint16(port.MaxVID) {
		p.VLANs = append(p.VLANs, VLAN{vid + 1, strings.Repeat("v", 100)})
		p.Addresses = append(p.Addresses, netip.MustParseAddr("2001:db8::1"))
	}
	frame := Append(nil, source, p)
	got, err := Parse(frame)
	if err != nil || len(frame) > maxPDU+port.HeaderLen || len(got.SystemName) != 255 || len(got.Addresses) != maxAddresses || len(got.VLANs) == 0 {
		t.Errorf("%d bytes, %v, %+v", len(frame), err, got)
	}
	if n := len(Append(nil, source, &PDU{Chassis: p.Chassis, Port: ID{KindLocal, "x"}})); n != 60 {
		t.Errorf("the shortest has %d bytes", n)
	}
}

// VLANs are named until there are 64 or the PDU is full, also behind what a buffer has already.
func TestMostVLANs(t *testing.T) {
	for name, want := range map[string]int{"": 64, strings.Repeat("v", 32): 33} {
		p := sample()
		p.VLANs = nil
		for vid := range uint16(100) {
			p.VLANs = append(p.VLANs, VLAN{vid + 1, name})
		}
		frame := Append(nil, source, p)
		got, err := Parse(frame)
		if err != nil || len(got.VLANs) != want {
			t.Errorf("%d VLANs, want %d, %v", len(got.VLANs), want, err)
		}
		before := make([]byte, 1000)
		if b := Append(before, source, p); !bytes.Equal(b[1000:], frame) {
			t.Error("behind other bytes it is another")
		}
	}
	// A neighbour may name more.
	frame := Append(nil, source, &PDU{Chassis: sample().Chassis, Port: sample().Port, TTL: TTL, VLANs: make([]VLAN, 0)})
	frame = bytes.TrimRight(frame, "\x00")
	for vid := range byte(100) {
		frame = appendOrg(frame, orgVLANName, 0, vid+1, 1, 'v')
	}
	if p, err := Parse(append(frame, 0, 0)); err != nil || len(p.VLANs) != 64 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Each kind of ID has its number in a chassis TLV, and another one in a port's.
func TestSubtypes(t *testing.T) {
	for kind, want := range map[Kind][2]byte{KindLocal: {7, 7}, KindMAC: {4, 3}, KindAddress: {5, 4}, KindIfName: {6, 5}} {
		id := ID{kind, "\x01\x02"}
		frame := Append(nil, source, &PDU{Chassis: id, Port: id, TTL: 0x1234})
		if got := [2]byte{frame[port.HeaderLen+2], frame[port.HeaderLen+7]}; got != want {
			t.Errorf("kind %d is written as %v, want %v", kind, got, want)
		}
		if p, err := Parse(frame); err != nil || p.Chassis != id || p.Port != id || p.TTL != 0x1234 {
			t.Errorf("kind %d: %+v, %v", kind, p, err)
		}
	}
}

// A TLV is taken up to its bounds, and left out beyond them.
func TestOptional(t *testing.T) {
	for name, c := range map[string]struct {
		typ   int
		value string
		ok    func(*PDU) bool
	}{
		"text of 255 bytes":         {tlvSystemName, strings.Repeat("6e", 255), func(p *PDU) bool { return len(p.SystemName) == 255 }},
		"text of 256 bytes":         {tlvSystemName, strings.Repeat("6e", 256), func(p *PDU) bool { return p.SystemName == "" }},
		"capabilities":              {tlvCapabilities, "00140004", func(p *PDU) bool { return p.Capabilities == 0x14 && p.Enabled == 4 }},
		"short capabilities":        {tlvCapabilities, "001400", func(p *PDU) bool { return p.Capabilities == 0 }},
		"address":                   {tlvAddress, "0501c0000201", func(p *PDU) bool { return len(p.Addresses) == 1 }},
		"no address":                {tlvAddress, "", func(p *PDU) bool { return len(p.Addresses) == 0 }},
		"address of length 0":       {tlvAddress, "00", func(p *PDU) bool { return len(p.Addresses) == 0 }},
		"address beyond the TLV":    {tlvAddress, "0501c00002", func(p *PDU) bool { return len(p.Addresses) == 0 }},
		"address of another family": {tlvAddress, "0506c0000201", func(p *PDU) bool { return len(p.Addresses) == 0 }},
		"PVID 4094":                 {tlvOrganisation, "0080c2010ffe", func(p *PDU) bool { return p.PVID == 4094 }},
		"PVID 4095":                 {tlvOrganisation, "0080c2010fff", func(p *PDU) bool { return p.PVID == 0 }},
		"frame size":                {tlvOrganisation, "00120f0405ee", func(p *PDU) bool { return p.MaxFrame == 1518 }},
		"aggregation":               {tlvOrganisation, "0080c2070300000007", func(p *PDU) bool { return p.Aggregated == 7 }},
		"aggregation, formerly":     {tlvOrganisation, "00120f030300000007", func(p *PDU) bool { return p.Aggregated == 7 }},
		"able to aggregate only":    {tlvOrganisation, "00120f030100000007", func(p *PDU) bool { return p.Aggregated == 0 }},
		"short aggregation":         {tlvOrganisation, "00120f0303000007", func(p *PDU) bool { return p.Aggregated == 0 }},
		"MED":                       {tlvOrganisation, "0012bb01003301", func(p *PDU) bool { return p.MED == 1 }},
		"short MED":                 {tlvOrganisation, "0012bb010033", func(p *PDU) bool { return p.MED == 0 }},
		"short frame size":          {tlvOrganisation, "00120f0405", func(p *PDU) bool { return p.MaxFrame == 0 }},
		"no organisation":           {tlvOrganisation, "0080c2", func(p *PDU) bool { return p.PVID == 0 }},
		"VLAN 4094":                 {tlvOrganisation, "0080c2030ffe0161", func(p *PDU) bool { return cmp.Equal(p.VLANs, []VLAN{{4094, "a"}}) }},
		"VLAN 1 without a name":     {tlvOrganisation, "0080c203000100", func(p *PDU) bool { return cmp.Equal(p.VLANs, []VLAN{{1, ""}}) }},
		"VLAN 4095":                 {tlvOrganisation, "0080c2030fff0161", func(p *PDU) bool { return len(p.VLANs) == 0 }},
		"VLAN 0":                    {tlvOrganisation, "0080c20300000161", func(p *PDU) bool { return len(p.VLANs) == 0 }},
		"name of 32 bytes":          {tlvOrganisation, "0080c203000120" + strings.Repeat("61", 32), func(p *PDU) bool { return len(p.VLANs) == 1 }},
		"name of 33 bytes":          {tlvOrganisation, "0080c203000121" + strings.Repeat("61", 33), func(p *PDU) bool { return len(p.VLANs) == 0 }},
		"name beyond the TLV":       {tlvOrganisation, "0080c20300010261", func(p *PDU) bool { return len(p.VLANs) == 0 }},
	} {
		value, err := hex.DecodeString(c.value)
		if err != nil {
			t.Fatal(err)
		}
		frame := Append(nil, source, &PDU{Chassis: ID{KindLocal, "c"}, Port: ID{KindLocal, "p"}, TTL: 1})
		frame = appendTLV(frame[:port.HeaderLen+4+4+4], c.typ, value...)
		if p, err := Parse(frame); err != nil || !c.ok(p) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestText(t *testing.T) {
	for id, want := range map[ID]string{
		{KindMAC, "\x02\x00\x00\x00\x00\x09"}: "02:00:00:00:00:09",
		{KindMAC, "abc"}:                      "abc",
		{KindAddress, "\x01\xc0\x00\x02\x01"}: "192.0.2.1",
		{KindAddress, "\x06\x01"}:             "0601",
		{KindIfName, "Gi 1/0/1"}:              "Gi 1/0/1",
		{KindLocal, "\x1b[2J"}:                "1b5b324a",
		{KindLocal, "\xff"}:                   "ff",
	} {
		if got := id.String(); got != want {
			t.Errorf("%+v is %q, want %q", id, got, want)
		}
	}
	if got := Text("a\x1b[2J\nb\xffü\x00"); got != "a?[2J?b?ü" {
		t.Errorf("%q", got)
	}
	if got := (Bridge | 1<<4 | 1<<15).Names(); !cmp.Equal(got, []string{"bridge", "router"}) {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Append(nil, source, sample()))
	f.Add(Shutdown(source, *sample()))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := Parse(frame)
		if err != nil {
			return
		}
		for _, s := range []string{p.Chassis.String(), p.Port.String(), Text(p.SystemName), Text(p.SystemDescription), Text(p.PortDescription)} {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is not printable", s)
			}
		}
		if len(p.VLANs) > MaxVLANs || len(p.Addresses) > maxAddresses {
			t.Errorf("%d VLANs, %d addresses", len(p.VLANs), len(p.Addresses))
		}
		again, err := Parse(Append(nil, source, p))
		if err != nil {
			t.Fatal(err)
		}
		p.VLANs = p.VLANs[:len(again.VLANs)] // those for which a frame has room
		if p.Capabilities == 0 {
			p.Enabled = 0
		}
		if diff := cmp.Diff(p, again, equalPDUs); diff != "" {
			t.Error(diff)
		}
	})
}
