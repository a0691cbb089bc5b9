package stp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The octets of 9.3, with those before them, as bridges send them.
const (
	header = "0180c2000000 525400000010 "
	fields = "8000525400000001 00004e20 8000525400000010 8002 0100 1400 0200 0f00"

	rstFrame    = header + "0027 424203 0000 02 02 7d " + fields + " 00"
	configFrame = header + "0026 424203 0000 00 00 81 " + fields
	tcnFrame    = header + "0007 424203 0000 00 80"
)

func TestBPDU9_3(t *testing.T) {
	m := BPDU{Root: 0x8000_5254_0000_0001, RootCost: 20000, Bridge: 0x8000_5254_0000_0010, Port: 0x8002,
		MessageAge: 256, MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
	rst, config := m, m
	rst.Type, rst.Flags = TypeRST, roleDesignated|FlagTC|FlagLearning|FlagForwarding|FlagAgreement
	config.Type, config.Flags = TypeConfig, FlagTC|FlagTCAck
	for _, c := range []struct {
		frame string
		want  BPDU
	}{{rstFrame, rst}, {configFrame, config}, {tcnFrame, BPDU{Type: TypeTCN}}} {
		wire := unhex(t, c.frame)
		got, err := Parse(wire)
		if err != nil || got != c.want {
			t.Errorf("%s reads %+v, %v", c.frame, got, err)
		}
		var buf [FrameLen]byte
		sent := c.want.Put(&buf, [6]byte{0x52, 0x54, 0, 0, 0, 0x10})
		if !bytes.Equal(bytes.TrimRight(sent, "\x00"), bytes.TrimRight(wire, "\x00")) || len(sent) != 60 {
			t.Errorf("%+v is written %x, want %x", c.want, sent, wire)
		}
		if again, err := Parse(sent); err != nil || again != c.want {
			t.Errorf("padded, %s reads %+v, %v", c.frame, again, err)
		}
	}
}

func TestValidation9_3_4(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame string
		err   error
		typ   Type
	}{
		{"empty", "", ErrNotBPDU, 0},
		{"another destination", "0180c200000e 525400000010 0026 424203 0000", ErrNotBPDU, 0},
		{"an Ethernet type for a length", header + "88cc 424203 0000 00 80", ErrNotBPDU, 0},
		{"longer than the frame", header + "0008 424203 0000 00 80", ErrNotBPDU, 0},
		{"no room for LLC", header + "0002 424203 0000 00 80", ErrNotBPDU, 0},
		{"another LLC address", header + "0007 aaaa03 0000 00 80", ErrNotBPDU, 0},
		{"no BPDU in it", header + "0003 424203", ErrInvalid, 0},
		{"ends before the type", header + "0006 424203 0000 00", ErrInvalid, 0},
		{"another protocol", header + "0007 424203 0001 00 80", ErrInvalid, 0},
		{"another type", header + "0007 424203 0000 00 01", ErrInvalid, 0},
		{"Config, short", header + "0025 424203 0000 00 00 00 " + fields[:len(fields)-2], ErrInvalid, 0},
		{"Config of a later version", header + "0026 424203 0000 03 00 00 " + fields, nil, TypeConfig},
		{"RST, short", header + "0026 424203 0000 02 02 3c " + fields, ErrInvalid, 0},
		{"RST of version 0", header + "0027 424203 0000 00 02 3c " + fields + "00", ErrInvalid, 0},
		{"MST", header + "002a 424203 0000 03 02 3c " + fields + "00 0000 00", nil, TypeRST},
		{"RST of unknown role", header + "0027 424203 0000 02 02 7f " + fields + "00", nil, TypeRST},
		{"RST of role 0", header + "0027 424203 0000 02 02 73 " + fields + "00", nil, TypeConfig},
	} {
		m, err := Parse(unhex(t, c.frame))
		if !errors.Is(err, c.err) || err == nil && m.Type != c.typ {
			t.Errorf("%s: reads %+v, %v", c.name, m, err)
		}
	}
	m, err := Parse(unhex(t, header+"0027 424203 0000 02 02 73 "+fields+"00"))
	if err != nil || m.Flags != FlagTC || !m.designated() {
		t.Errorf("an RST BPDU of unknown role is not taken for a Config BPDU: %+v, %v", m, err)
	}
}

// FuzzParse: whatever comes, reading ends, and what was read is written and read as
// the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{rstFrame, configFrame, tcnFrame, header + "0007 aaaa03 0000 00 80"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, err := Parse(frame)
		if err != nil {
			if m != (BPDU{}) {
				t.Fatalf("%+v with %v", m, err)
			}
			return
		}
		var buf [FrameLen]byte
		again, err := Parse(m.Put(&buf, [6]byte(frame[6:])))
		if err != nil || again != m {
			t.Fatalf("read %+v, then %+v, %v", m, again, err)
		}
	})
}

func TestIdentifiers(t *testing.T) {
	id := makeBridgeID(0x9000, [6]byte{0x52, 0x54, 0x12, 0xab, 0xcd, 0xef})
	if id.Priority() != 0x9000 || id.Address() != [6]byte{0x52, 0x54, 0x12, 0xab, 0xcd, 0xef} || id.String() != "9000.525412abcdef" {
		t.Errorf("%v", id)
	}
	p := makePortID(0x70, 0xfbc)
	if p.Priority() != 0x70 || p.Number() != 0xfbc || p.String() != "7fbc" {
		t.Errorf("%v", p)
	}
}
