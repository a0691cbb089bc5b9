package vswitch_test

import (
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A checksum that is still to be completed lies where the frame has one. Elsewhere it would
// change bytes after the switch looked at them: here the sender that an ARP reply names.
func TestChecksumPlace(t *testing.T) {
	arp := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02"), make([]byte, 38)...)
	segment, o := tuntest.TCP4(200)
	o.GSOType, o.GSOSize = port.GSONone, 0
	source := o
	source.CsumStart, source.CsumOffset = 20, 6
	for name, c := range map[string]struct {
		wire    []byte
		offload port.Offload
		ok      bool
	}{
		"TCP":             {segment, o, true},
		"the IPv4 source": {segment, source, false},
		"the ARP sender":  {arp, port.Offload{Flags: port.NeedsCsum, CsumStart: 20, CsumOffset: 10}, false},
		"behind a tag":    {append(append(append([]byte{}, segment[:12]...), 0x81, 0, 0, 0), segment[12:]...), port.Offload{Flags: port.NeedsCsum, CsumStart: o.CsumStart + 4, CsumOffset: 16}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, vswitch.Config{}, 2, memory.Options{})
			defer r.Close()
			r.lines[0].Put(0, memory.Packet{Wire: c.wire, Offload: c.offload})
			synctest.Wait()
			if n := len(r.taken(1)); (n == 1) != c.ok {
				t.Errorf("%s: %d frames arrived", name, n)
			}
			if n := r.ports[0].Stats().RX.Dropped[port.DropBadOffload]; (n == 1) == c.ok {
				t.Errorf("%s: %d dropped as bad_offload", name, n)
			}
		})
	}
}
