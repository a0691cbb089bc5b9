package fastpath

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Of what guests leave to be segmented, the program sends on only what the kernel can segment. All
// else is handed up: the kernel would drop it at the output, in silence.
func TestSegments(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	from, to := r.plug(t, "vm0"), r.plug(t, "vm1")
	dropped := func() string {
		return strings.TrimSpace(r.ns.Run("cat", "/sys/class/net/vm1/statistics/tx_dropped"))
	}
	// sends reports whether a frame of vm0 is sent on.
	sends := func(wire []byte, o port.Offload) bool {
		packet := make([]byte, vnet.HeaderLen, vnet.HeaderLen+len(wire))
		vnet.Encode(packet, o)
		if _, err := unix.Write(from, append(packet, wire...)); err != nil {
			return false // the kernel itself refuses it
		}
		return len(read(t, to)) != 0
	}
	for _, c := range checksummed {
		wire := Bare(macB, macA, c.kind, c.body)
		for start := 34; start+8 < len(wire); start += 2 {
			for _, kind := range []uint8{port.GSOTCPv4, port.GSOTCPv6, port.GSOUDP, port.GSOUDPL4} {
				o := port.Offload{GSOType: kind, GSOSize: 8, HdrLen: uint16(min(start+20, len(wire)))}
				for _, partial := range []bool{false, true} {
					if partial {
						o.Flags, o.CsumStart, o.CsumOffset = port.NeedsCsum, uint16(start), 6
						if kind == port.GSOTCPv4 || kind == port.GSOTCPv6 {
							o.CsumOffset = 16
						}
					}
					sends(wire, o)
				}
			}
		}
		if n := dropped(); n != "0" {
			t.Fatalf("%s: the kernel dropped %s frames", c.name, n)
		}
	}
	for _, c := range checksummed[:5] { // and those of its own headers do not reach the switch
		wire, kind, start, offset := Bare(macB, macA, c.kind, c.body), port.GSOUDPL4, 34, 6
		if c.kind == typeIPv6 {
			start = 54
		}
		if strings.HasPrefix(c.name, "TCP") {
			kind, offset = port.GSOTCPv4, 16
			if c.kind == typeIPv6 {
				kind = port.GSOTCPv6
			}
		}
		if c.name == "padded" {
			continue // as no super-frame is
		}
		if !sends(wire, port.Offload{Flags: port.NeedsCsum, GSOType: kind, GSOSize: 8, HdrLen: uint16(start + offset + 4), CsumStart: uint16(start), CsumOffset: uint16(offset)}) {
			t.Errorf("%s: handed up", c.name)
		}
		if c.kind == typeIPv4 { // behind a tag
			tagged := Tag(wire, port.MakeTag(port.TPIDCustomer, 1))
			if !sends(tagged, port.Offload{Flags: port.NeedsCsum, GSOType: kind, GSOSize: 8, HdrLen: uint16(start + offset + 8), CsumStart: uint16(start + 4), CsumOffset: uint16(offset)}) {
				t.Errorf("%s, tagged: handed up", c.name)
			}
		}
	}
}
