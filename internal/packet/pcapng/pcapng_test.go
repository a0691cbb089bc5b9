package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

var (
	began = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

	interfaces = []Interface{
		{Name: "vm0", Description: "tap, VLAN 10", Filter: "arp or port 53", SnapLen: MaxSnapLen},
		{Name: "a port with a long name", SnapLen: MaxSnapLen},
	}

	arp = append([]byte{255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0, 0, 1, 8, 6,
		0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 1}, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2)

	packets = []Packet{
		{Interface: 0, Time: began, Direction: In, Data: arp, Len: 42},
		{Interface: 1, Time: began.Add(time.Microsecond), Direction: Out, Data: arp[:33], Len: 42, Comment: "dropped: too_big", Fault: TooLong},
		{Interface: 0, Time: began.Add(time.Second), Data: arp[:14], Len: 9000, Lost: 1 << 40},
		{Interface: 1, Time: began.Add(time.Hour), Direction: In, Data: []byte{}, Len: 0, Comment: "é", Fault: TooShort},
	}
)

// capture returns a whole capture.
func capture() []byte {
	b := AppendSection(nil, "vswitch test")
	for i := range interfaces {
		b = AppendInterface(b, &interfaces[i])
	}
	for i := range packets {
		b = AppendPacket(b, &packets[i])
	}
	return AppendStats(b, 1, began.Add(time.Hour), 2, 7)
}

// What is written is read.
func TestRoundTrip(t *testing.T) {
	r := NewReader(bytes.NewReader(capture()))
	var got []Packet
	var blocks []byte
	for {
		p, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, r.Block()...)
		if p != nil {
			p.Data = bytes.Clone(p.Data)
			got = append(got, *p)
		}
	}
	if diff := cmp.Diff(packets, got); diff != "" {
		t.Error(diff)
	}
	for i := range r.Interfaces() {
		if diff := cmp.Diff(interfaces[i], *r.Interface(i)); diff != "" {
			t.Error(diff)
		}
	}
	if !bytes.Equal(blocks, capture()) {
		t.Error("the blocks are not the capture's")
	}
}

// A capture that ends anywhere but between blocks is reported as cut off.
func TestCutOff(t *testing.T) {
	whole := capture()
	ends := map[int]bool{0: true}
	for r, at := NewReader(bytes.NewReader(whole)), 0; ; {
		if _, err := r.Next(); err != nil {
			break
		}
		at += len(r.Block())
		ends[at] = true
	}
	for n := range whole {
		r := NewReader(bytes.NewReader(whole[:n]))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[ends[n]]; !errors.Is(err, want) {
			t.Fatalf("the first %d bytes: %v, want %v", n, err, want)
		}
	}
}

func TestWritingAllocs(t *testing.T) {
	b := make([]byte, 0, 1<<16)
	if n := testing.AllocsPerRun(100, func() {
		for i := range packets {
			b = AppendPacket(b[:0], &packets[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Other programs read the same from a capture.
func TestOthersRead(t *testing.T) {
	for _, program := range []string{"tshark", "capinfos", "tcpdump"} {
		testenv.Tool(t, program)
	}
	file := filepath.Join(t.TempDir(), "c.pcapng")
	if err := os.WriteFile(file, capture(), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return string(out)
	}
	var fields []string
	for _, f := range []string{"frame.interface_name", "frame.time_epoch", "frame.packet_flags_direction", "frame.packet_flags_reception_type",
		"frame.packet_flags_packet_too_error", "frame.packet_flags_packet_too_short_error", "frame.cap_len", "frame.len", "frame.comment", "frame.drop_count"} {
		fields = append(fields, "-e", f)
	}
	want := `vm0|1772600767.123456789|0x00000001|3|0|0|42|42||
a port with a long name|1772600767.123457789|0x00000002|3|1|0|33|42|dropped: too_big|
vm0|1772600768.123456789|0x00000000|3|0|0|14|9000||1099511627776
a port with a long name|1772604367.123456789|0x00000001|0|0|1|0|0|é|
`
	if diff := cmp.Diff(want, run("tshark", append([]string{"-r", file, "-T", "fields", "-E", "separator=|"}, fields...)...)); diff != "" {
		t.Error(diff)
	}
	info := run("capinfos", "-M", file)
	for _, want := range []string{"Number of packets:   4", "Name = vm0", "Description = tap, VLAN 10", "Filter string = arp or port 53", "Capture application: vswitch test",
		"Number of stat entries = 1", "Time precision = nanoseconds (9)"} {
		if !strings.Contains(info, want) {
			t.Errorf("capinfos does not say %q:\n%s", want, info)
		}
	}
	if out := run("tcpdump", "-n", "-r", file, "arp"); strings.Count(out, "ARP") < 1 {
		t.Errorf("tcpdump reads\n%s", out)
	}
	// What tshark writes in its turn, we read.
	again := filepath.Join(t.TempDir(), "again.pcapng")
	run("tshark", "-r", file, "-w", again)
	b, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(bytes.NewReader(b))
	n := 0
	for {
		p, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if p != nil {
			if p.Comment != packets[n].Comment || !p.Time.Equal(packets[n].Time) || !bytes.Equal(p.Data, packets[n].Data) || r.Interface(p.Interface).Name != interfaces[p.Interface].Name {
				t.Errorf("packet %d is %+v", n, p)
			}
			n++
		}
	}
	if n != len(packets) {
		t.Errorf("%d packets", n)
	}
}

// The reasons of drops that have a flag are the switch's.
func TestFaults(t *testing.T) {
	flags := make(map[string]uint32)
	for d := range port.NumDrops {
		p := Packet{Fault: FaultOf(port.Drop(d).String())}
		if f := p.flags(); f != 0 {
			flags[port.Drop(d).String()] = f
		}
	}
	if diff := cmp.Diff(map[string]uint32{"runt": flagTooShort, "oversize": flagTooLong, "too_big": flagTooLong}, flags); diff != "" {
		t.Error(diff)
	}
}

// plainCapture returns a file as tcpdump writes it: a frame, and one that is cut off.
func plainCapture(order binary.AppendByteOrder, magic, link uint32) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, 4)
	for _, n := range []uint32{0, 0, MaxSnapLen, link} {
		b = order.AppendUint32(b, n)
	}
	for i, data := range [][]byte{arp, arp[:20]} {
		for _, n := range []int{1772600767 + i, 123456, len(data), len(arp)} {
			b = order.AppendUint32(b, uint32(n))
		}
		b = append(b, data...)
	}
	return b
}

// Files of libpcap's format are read in both orders of bytes and with both units of time; and
// as far as they are whole.
func TestPlain(t *testing.T) {
	const checked = 0x2000_0000 // says how long the frame's check sequence is: a flag of the link type
	for _, c := range []struct {
		order binary.AppendByteOrder
		magic uint32
		nanos int
	}{{binary.LittleEndian, plainMicros, 123456000}, {binary.BigEndian, plainMicros, 123456000}, {binary.LittleEndian, plainNanos, 123456}, {binary.BigEndian, plainNanos, 123456}} {
		file := plainCapture(c.order, c.magic, linkEthernet|checked)
		ends := map[int]int{plainHead: 0, plainHead + plainPacketHead + len(arp): 1, len(file): 2} // whole packets before
		for n := plainHead; n <= len(file); n++ {
			r := NewReader(bytes.NewReader(file[:n]))
			var got []Packet
			var err error
			for err == nil {
				var p *Packet
				if p, err = r.Next(); p != nil {
					p.Data = bytes.Clone(p.Data)
					got = append(got, *p)
				}
			}
			whole, isEnd := ends[n]
			if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[isEnd]; !errors.Is(err, want) {
				t.Fatalf("the first %d bytes: %v, want %v", n, err, want)
			}
			if isEnd && whole != len(got) {
				t.Errorf("the first %d bytes: %d packets, want %d", n, len(got), whole)
			}
			if n != len(file) {
				continue
			}
			at := func(i int) time.Time { return time.Unix(1772600767+int64(i), int64(c.nanos)) }
			if diff := cmp.Diff([]Packet{{Time: at(0), Data: arp, Len: len(arp)}, {Time: at(1), Data: arp[:20], Len: len(arp)}}, got); diff != "" {
				t.Error(diff)
			}
			if r.Interfaces() != 1 || r.Interface(0).SnapLen != MaxSnapLen {
				t.Errorf("interfaces: %+v", r.ifaces)
			}
		}
	}
	const wifi = 105
	r := NewReader(bytes.NewReader(plainCapture(binary.LittleEndian, plainMicros, wifi)))
	for {
		p, err := r.Next()
		if err == io.EOF {
			break
		}
		if p != nil || err != nil {
			t.Fatalf("of frames that are not Ethernet: %+v, %v", p, err)
		}
	}
}

// FuzzReader: whatever is in a file, a Reader ends, and its packets lie within it; what it
// read and AppendPacket wrote is read again.
func FuzzReader(f *testing.F) {
	f.Add(capture())
	swapped := []byte{0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 28,
		0, 0, 0, 1, 0, 0, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 6, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 60, 1, 2, 3, 4, 0, 0, 0, 36}
	f.Add(swapped)
	f.Add(plainCapture(binary.LittleEndian, plainMicros, linkEthernet))
	f.Add(plainCapture(binary.BigEndian, plainNanos, linkEthernet))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			p, err := r.Next()
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Fatalf("%q", err)
				}
				return
			}
			if p == nil {
				continue
			}
			of := *r.Interface(p.Interface)
			written := AppendSection(nil, "")
			for range p.Interface + 1 {
				written = AppendInterface(written, &of)
			}
			again := NewReader(bytes.NewReader(AppendPacket(written, p)))
			for {
				q, err := again.Next()
				if err != nil {
					t.Fatalf("%v of %+v", err, p)
				}
				if q == nil {
					continue
				}
				if !bytes.Equal(p.Data, q.Data) || p.Comment != q.Comment || p.Lost != q.Lost || p.Direction != q.Direction || p.Fault != q.Fault || !p.Time.IsZero() && !p.Time.Equal(q.Time) {
					t.Fatalf("%+v is read again as %+v", p, q)
				}
				break
			}
		}
	})
}
